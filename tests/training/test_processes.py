"""Training by two processes of torchrun gives the network of one, and ends as one."""

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from nnpm.training.cli import main
from nnpm.training.data.batches import Batch
from nnpm.training.errors import TrainingError
from nnpm.training.source import processes
from nnpm.training.source.processes import ALONE, Processes, joined
from tests.training.conftest import write_tiny_corpus

EXACT = ("head.dropout=0", "augment.mask_p=0")
"""Without these, rows of one process are varied as those of two."""

TRAIN = """
import contextlib, shutil, sys
from pathlib import Path
from torch import distributed
from safetensors.torch import save_file
from nnpm.training.cli import main
from nnpm.training.source import trainer

common, top = sys.argv[2:], Path(sys.argv[1])
fit, step = trainer.Trainer.fit, trainer.Trainer._train_step
trainer._CHECKPOINT_STEPS = 1

def kept(self):  # what each of them trained
    network = fit(self)
    save_file(dict(network.state_dict()), top / f"{self.run.name}-{self.processes.rank}")
    return network

def stopped(self, batch, number):
    if number == 3:
        raise KeyboardInterrupt
    return step(self, batch, number)

@contextlib.contextmanager
def staying():  # one start of torch serves all that follows
    yield found

real = trainer.Trainer.fit = kept
from nnpm.training import cli
from nnpm.training.source import processes, run
with processes.joined(lambda: run.choose_device("cpu")) as found:
    processes.joined = lambda choose: staying()
    exact = "--set", "head.dropout=0", "--set", "augment.mask_p=0"
    assert main([*common, "--out", str(top / "two"), *exact]) == 0
    assert main([*common, "--out", str(top / "varied")]) == 0
    trainer.Trainer._train_step = stopped
    assert main([*common, "--out", str(top / "resumed")]) == 130
    trainer.Trainer._train_step = step
    assert main([*common, "--out", str(top / "resumed"), "--resume"]) == 0
"""


@pytest.fixture(scope="module")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two corpora, of which the second has half the speakers: 17 rows a batch, an odd number."""
    data = tmp_path_factory.mktemp("data")
    write_tiny_corpus(data)
    rows = (data / "tiny/metadata.csv").read_text().splitlines(keepends=True)
    half = [row for row in rows if row[:4] not in ("dirk", "emma", "fred")]
    shutil.copytree(data / "tiny", data / "half")
    (data / "half/metadata.csv").write_text("".join(half).replace(",tiny,", ",half,"))
    return data


@pytest.fixture
def command(corpora: Path, tiny_config: Path, cache: Path) -> list[str]:
    found = ["train", "--corpora", "tiny", "half", "--data", str(corpora), "--device", "cpu"]
    found += ["--config", str(tiny_config), "--cache", str(cache)]
    return [*found, "--set", "train.steps=8", "--set", "train.head_steps=2"]


def torchrun(*command: object) -> "subprocess.CompletedProcess[str]":
    two = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    return subprocess.run(
        [sys.executable, *two, *map(str, command)], capture_output=True, text=True, check=False
    )


@pytest.mark.slow
def test_two_processes_train_the_network_of_one(command: Sequence[str], tmp_path: Path) -> None:
    """Losses of both kinds of step, odd batches, a memory, and a run that is resumed."""
    assert main([*command, "--out", str(tmp_path / "one"), *(f"--set={one}" for one in EXACT)]) == 0
    (tmp_path / "train.py").write_text(TRAIN)
    told = torchrun(tmp_path / "train.py", tmp_path, *command)
    assert told.returncode == 0, told.stderr
    assert told.stderr.count(" min on cpu: ") == 4  # the first process alone reports

    def log(run: str) -> list[dict[str, float]]:
        lines = (tmp_path / run / "log.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]

    expected = log("one")
    assert expected[2]["contrast"] > 0
    assert expected[-1]["multilabel"] > 0
    for row, other in zip(expected, log("two"), strict=True):
        assert other == pytest.approx(row, rel=1e-3)
    for row, other in zip(expected, log("varied"), strict=True):
        assert other["cross_entropy"] == pytest.approx(row["cross_entropy"], rel=0.5)

    def weights(path: str) -> dict[str, np.ndarray]:
        return dict(load_file(tmp_path / path))

    one, two = weights("one/network.safetensors"), weights("two/network.safetensors")
    assert all(np.allclose(one[name], two[name], atol=1e-4) for name in one)
    for run in ("two", "varied", "resumed"):  # both hold the same network, the first writes it
        own, other = weights(f"{run}-0"), weights(f"{run}-1")
        assert all(np.allclose(own[name], other[name], atol=1e-6) for name in own)
        written = weights(f"{run}/network.safetensors")
        assert all(np.array_equal(own[name], written[name]) for name in own)
        assert len(list((tmp_path / run / "tensorboard").iterdir())) == 1 + (run == "resumed")
    varied, resumed = weights("varied-0"), weights("resumed-0")
    assert all(np.array_equal(varied[name], resumed[name]) for name in varied)
    assert not all(np.array_equal(varied[name], two[name]) for name in varied)


@pytest.mark.slow
def test_an_error_in_one_process_ends_all_with_one_line(
    command: Sequence[str], corpora: Path, tmp_path: Path
) -> None:
    other = shutil.copytree(corpora, tmp_path / "other")
    (other / "tiny/anna_sad_0.wav").unlink()
    code = (
        "import os, sys\nfrom nnpm.training.cli import main\ncommand = sys.argv[2:]\n"
        'if os.environ["RANK"] == "1": command[command.index("--data") + 1] = sys.argv[1]\n'
        "sys.exit(main(command))"
    )
    (tmp_path / "train.py").write_text(code)
    told = torchrun(tmp_path / "train.py", other, *command, "--out", tmp_path / "run")
    assert told.returncode == 1
    said = [line for line in told.stderr.splitlines() if line.startswith("nnpm: ")]
    assert len(said) == 1, told.stderr
    assert "the first is anna_sad_0.wav" in said[0]
    assert not (tmp_path / "run").exists()


def test_without_torchrun_a_process_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")  # of some other program
    with joined(lambda: torch.device("cpu")) as (found, device):
        assert found is ALONE
        assert device.type == "cpu"
    assert found.share(b"x") == b"x"
    batch = Batch(torch.rand(3, 4), torch.full((3,), 4), torch.arange(3))
    assert found.deal(batch, 0) is batch
    features = torch.ones(2, 3)
    assert found.gather(features, 2) is features


@pytest.mark.parametrize("rows", [1, 2, 5, 6, 17])
@pytest.mark.parametrize("count", [2, 3, 7])
def test_processes_share_a_batch_evenly(rows: int, count: int) -> None:
    parts = [processes.shared(rows, rank, count) for rank in range(count)]
    assert len({len(part) for part in parts}) == 1
    assert torch.cat(parts)[:rows].tolist() == list(range(rows))


def test_gpus_and_processes_must_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", lambda _: None)
    cuda, own = torch.device("cuda"), processes._own_device
    assert own(cuda, Processes(3, 4, place=1)) == torch.device("cuda", 1)
    with pytest.raises(TrainingError, match=r"has 2 GPUs, and torchrun starts more .*-node 2"):
        own(cuda, Processes(2, 4, place=2))
    with pytest.raises(TrainingError, match="cannot train together on mps; add --device cpu"):
        own(torch.device("mps"), Processes(0, 2))


def test_one_that_does_not_come_is_named() -> None:
    def wait(keys: Sequence[str], _: object) -> None:
        if keys == ["here 1"]:
            raise RuntimeError("wait timeout")

    store = SimpleNamespace(set=lambda *_: None, wait=wait)
    with pytest.raises(TrainingError, match="process 1 of 2 did not come within 10 minutes"):
        processes._meet(store, Processes(0, 2))


def test_the_first_to_fail_speaks() -> None:
    counted = iter([1, 2])
    store = SimpleNamespace(add=lambda *_: next(counted))
    assert processes._speaks(store, Processes(1, 2))
    assert not processes._speaks(store, Processes(0, 2))

    def gone(*_: object) -> int:
        raise RuntimeError("connection closed")

    store.add = gone
    assert processes._speaks(store, Processes(2, 4, place=0))
    assert not processes._speaks(store, Processes(3, 4, place=1))
