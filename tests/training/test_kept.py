"""States of frozen stages: computed once, found again, and never those of something else."""

import json
import shutil
from collections import Counter, namedtuple
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from nnpm.training.cli import main
from nnpm.training.config import Config
from nnpm.training.data import clips
from nnpm.training.errors import TrainingError
from nnpm.training.network.encoders import Encoder, load_pretrained
from nnpm.training.source import kept
from nnpm.training.source.trainer import Trainer
from tests.support.tiny_network import FRAMES, VECTOR, tiny_whisper, write_graph
from tests.training.test_trainer import LABELS, UTTERANCES, clip, config, differs, weights

Captured = pytest.CaptureFixture[str]
Make = Callable[..., Trainer]
STILL = {"change": False, "join_p": 0.0, "mask_p": 0.0, "shortest_s": 0.7, "longest_s": 0.7}
"""Nothing is varied or cut: a clip has 0.6 s."""


@pytest.fixture
def make(tmp_path: Path) -> Make:
    def new(
        name: str,
        stages: int,
        copies: int,
        encoder: Encoder | None = None,
        augment: dict[str, object] = STILL,
        largest_gib: float = 8.0,
    ) -> Trainer:
        run = tmp_path / name
        run.mkdir(exist_ok=True)
        frozen = {"stages": stages, "copies": copies, "largest_gib": largest_gib}
        recipe = Config.model_validate(
            config().model_dump() | {"frozen": frozen, "augment": augment}
        )
        encoder = tiny_whisper() if encoder is None else encoder
        return Trainer(recipe, LABELS, encoder, UTTERANCES, clip, run, 3, torch.device("cpu"))

    return new


def rows(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def count(trainer: Trainer) -> Counter[str]:
    """Clips that went through the whole encoder, and through its lower part."""
    encoder, calls = trainer.network.encoder, Counter[str]()
    lower, forward = encoder.lower, encoder.forward

    def lowered(waveform: torch.Tensor, lengths: torch.Tensor, frozen: int):
        calls["lower"] += len(waveform)
        return lower(waveform, lengths, frozen)

    def whole(waveform: torch.Tensor, lengths: torch.Tensor):
        calls["whole"] += len(waveform)
        return forward(waveform, lengths)

    encoder.lower, encoder.forward = lowered, whole
    return calls


@pytest.mark.parametrize("stages", [1, 2, 3])
def test_losses_are_those_without_it_where_nothing_is_varied(make: Make, stages: int) -> None:
    plain = make("plain", stages, 0)
    keeping = make("kept", stages, 1)
    plain.fit()
    keeping.keep("a")
    keeping.fit()
    found, expected = rows(keeping.run), rows(plain.run)
    for one, other in zip(found, expected, strict=True):
        assert one == pytest.approx(other, abs=2e-3)  # kept as float16
    assert expected[0]["cross_entropy"] != pytest.approx(expected[3]["cross_entropy"], abs=0.02)


def test_an_onnx_encoder_is_kept_whole(make: Make, tmp_path: Path) -> None:
    for graph in (FRAMES, VECTOR):
        file = str(write_graph(tmp_path / "frozen.onnx", graph))
        plain = make("plain", 0, 0, load_pretrained("onnx", file, 0))
        keeping = make("kept", 0, 1, load_pretrained("onnx", file, 0))
        plain.fit()
        keeping.keep(graph)
        keeping.fit()
        for one, other in zip(rows(keeping.run), rows(plain.run), strict=True):
            assert one == pytest.approx(other, abs=2e-2)
        for run in (plain.run, keeping.run):
            shutil.rmtree(run)


def test_frozen_stages_do_not_move_and_those_above_do(make: Make) -> None:
    trainer = make("run", 2, 1)
    before = weights(trainer.network)
    trainer.keep("a")
    trainer.fit()
    moved = {n for n in differs(before, weights(trainer.network)) if n.startswith("encoder.")}
    assert {name.rpartition(".")[0] for name in moved} >= {
        "encoder.layers.1.fc2", "encoder.layers.1.self_attn.q_proj",
    }  # fmt: skip
    assert all(name.startswith("encoder.layers.1.") for name in moved)


def test_the_lower_part_is_run_once_per_copy_and_a_resumed_run_finds_it(make: Make) -> None:
    trainer = make("run", 2, 1)
    killed = trainer.run / ".states-0.npy.0.tmp"
    killed.touch()
    calls = count(trainer)
    trainer.keep("a")
    assert not killed.exists()
    drawn = {i for step in range(4) for i in trainer.sampler.sampler.choose(step)[0]}
    trial, estimate = 1, 4
    assert calls == {"lower": len(drawn) + trial + estimate}
    trainer.fit()
    assert calls == {"lower": len(drawn) + trial + estimate}
    (file,) = trainer.run.glob("states-*[0-9a-f].npy")
    written = file.stat().st_mtime_ns
    (trainer.run / "checkpoint.pt").unlink()  # as after a crash before the first one

    again = make("run", 2, 1)
    calls = count(again)
    again.resume()
    again.keep("a")
    again.fit()
    assert calls == {"lower": trial}
    assert file.stat().st_mtime_ns == written

    other = make("run", 2, 1)
    calls = count(other)
    other.keep("another corpus")
    assert calls["lower"] == len(drawn) + trial + estimate
    assert not file.exists()
    assert len(list(other.run.glob("states-*"))) == 2  # values and bounds


def test_copies_take_turns_and_differ(make: Make) -> None:
    varied = {"shortest_s": 0.5, "longest_s": 0.6}
    trainer = make("run", 1, 2, augment=varied)
    trainer.keep("a")
    batches = trainer.sampler
    drawn = Counter(i for step in range(4) for i in batches.sampler.choose(step)[0])
    assert Counter(index for index, _ in batches.rows) == {i: min(n, 2) for i, n in drawn.items()}
    index = next(i for i, n in drawn.items() if n > 1)
    one, other = (batches.states[batches.rows[index, number]] for number in (0, 1))
    assert one.shape != other.shape or not np.allclose(one, other, atol=0.01)
    assert torch.equal(batches.draw(2).waveform, batches.draw(2).waveform)
    lengths = torch.cat([batches.draw(step).lengths for step in range(4)])
    assert 20 <= int(lengths.min()) < int(lengths.max()) <= 30  # 50 frames a second
    assert trainer.fit()


def test_numbers_too_large_for_float16_stay_finite(make: Make) -> None:
    trainer = make("run", 1, 1)
    trainer.network.encoder.embed_positions.weight.data.fill_(1e6)
    trainer.keep("a")
    assert np.isfinite(trainer.sampler.states[0]).all()


def test_what_would_not_fit_is_one_sentence_before_the_work(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(TrainingError, match=r"frozen.largest_gib allows 0.00 GiB: lower"):
        make("run", 1, 1, largest_gib=1e-6).keep("a")
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(kept.shutil, "disk_usage", lambda _: usage(9, 9, 1 << 29))
    trainer = make("run", 1, 1)
    with pytest.raises(TrainingError, match=r"the disk has room for 0.00 GiB: .* or make room"):
        trainer.keep("a")
    assert not list(trainer.run.glob("*states*"))


def test_a_full_disk_leaves_nothing_behind(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = make("run", 1, 1)

    def full(_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(clips, "_write", lambda file, rows: full(file.write(next(iter(rows)))))
    with pytest.raises(OSError, match="No space left"):
        trainer.keep("a")
    assert not list(trainer.run.iterdir())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (["frozen.stages=3"], "frozen.stages is 3; this whisper encoder has 2: set at most 2"),
        (["frozen.copies=1"], "none worth it: set frozen.stages to 1 or more (it has 2 stages)"),
        (["frozen.copies=-1"], "frozen.copies is -1; it must be at least 0"),
        (["frozen.largest_gib=0"], "frozen.largest_gib is 0; it must be above 0"),
        (
            ["frozen.copies=2", "frozen.stages=1", "frozen.largest_gib=1e-6"],
            "frozen.largest_gib allows 0.00 GiB: lower frozen.copies",
        ),
    ],
)
def test_settings_that_cannot_be_are_one_line(
    change: list[str],
    said: str,
    tiny_corpus: Path,
    tiny_config: Path,
    cache: Path,
    tmp_path: Path,
    capsys: Captured,
) -> None:
    command = ["train", "--corpora", "tiny", "--data", str(tiny_corpus), "--cache", str(cache)]
    command += ["--config", str(tiny_config), "--out", str(tmp_path / "run"), "--device", "cpu"]
    assert main(command + [part for one in change for part in ("--set", one)]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert said in lines[0]


def test_a_run_that_has_finished_keeps_no_states_and_is_exported(
    tiny_corpus: Path, tiny_config: Path, cache: Path, tmp_path: Path, capsys: Captured
) -> None:
    run = tmp_path / "run"
    command = ["train", "--corpora", "tiny", "--data", str(tiny_corpus), "--cache", str(cache)]
    command += ["--config", str(tiny_config), "--out", str(run), "--device", "cpu"]
    command += ["--set", "frozen.stages=1", "--set", "frozen.copies=2"]
    assert main(command) == 0
    told = capsys.readouterr().err
    assert "min for states that are kept: " in told
    assert "draws, at most 0.00 GiB in" in told
    assert (run / "network.safetensors").exists()
    assert not list(run.glob("*states*"))
    assert main([*command, "--resume"]) == 0  # nothing is left to do
    assert not list(run.glob("*states*"))
    bundle = tmp_path / "bundle"
    assert main(["export", str(run), "--out", str(bundle), "--cache", str(cache)]) == 0
