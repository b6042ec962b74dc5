"""Run folders and the trainer's book-keeping; whole runs are in test_end_to_end.py."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from nnpm.training.config import Config, EncoderConfig
from nnpm.training.corpora import Utterance
from nnpm.training.data.clips import cached
from nnpm.training.data.splits import split_speakers
from nnpm.training.errors import TrainingError
from nnpm.training.network.network import Network
from nnpm.training.source import run as runs
from nnpm.training.source import trainer as checkpoint
from nnpm.training.source.run import Request, TrainingData, check_same_data, trained_network
from nnpm.training.source.trainer import Trainer, _decaying_average, embed, warm_cosine

LABELS = ("angry", "sad")
SMALL = Config(
    encoder=EncoderConfig(channels=(8,), depths=(0,), pooled_channels=8, mixstyle_stages=())
)


@pytest.fixture
def utterances() -> list[Utterance]:
    return [
        Utterance(Path(f"/data/{s}/{emotion}.wav"), "one", f"s{s}", "en", emotion)
        for s in range(4)
        for emotion in LABELS
    ]


def training_data(utterances: list[Utterance], tmp_path: Path) -> TrainingData:
    split = split_speakers(utterances, Config().split, 0)
    clips = cached(tmp_path / "clips", lambda: [np.zeros(9, np.float32) for _ in utterances])
    return TrainingData(LABELS, split, {u.path: i for i, u in enumerate(utterances)}, clips, [])


def test_a_run_notices_that_its_corpora_changed(
    utterances: list[Utterance], tmp_path: Path
) -> None:
    # a run of an older nnpm has nothing to compare
    check_same_data(tmp_path, training_data(utterances, tmp_path))
    described = runs._describe(training_data(utterances, tmp_path))
    (tmp_path / "split.json").write_text(json.dumps(described))
    assert described["clips"] == {"train": 4, "validation": 2, "test": 2}
    moved = [replace(u, path=Path("/elsewhere") / u.path.relative_to("/data")) for u in utterances]
    check_same_data(tmp_path, training_data(moved, tmp_path))

    fewer = utterances[2:]
    renamed = [replace(utterances[0], speaker="s9"), *utterances[1:]]
    relabelled = [replace(utterances[0], emotion="sad"), *utterances[1:]]
    for changed in (fewer, renamed, relabelled):
        with pytest.raises(TrainingError, match=r"not those that .* was started with"):
            check_same_data(tmp_path, training_data(changed, tmp_path))


def test_a_damaged_checkpoint_is_one_sentence(tmp_path: Path) -> None:
    assert checkpoint.load_checkpoint(tmp_path) is None
    checkpoint.save_checkpoint(tmp_path, {"epoch": 3, "weights": torch.ones(50)})
    state = checkpoint.load_checkpoint(tmp_path)
    assert state is not None
    assert state["epoch"] == 3
    path = tmp_path / "checkpoint.pt"
    whole = path.read_bytes()
    for cut in (0, 10, len(whole) // 2):
        path.write_bytes(whole[:cut])
        with pytest.raises(TrainingError, match=r"checkpoint.pt is damaged"):
            checkpoint.load_checkpoint(tmp_path)


def test_a_network_that_does_not_fit_its_run_is_one_sentence(tmp_path: Path) -> None:
    request = Request(corpora=("one",), data=tmp_path, seed=0, config=SMALL)
    with pytest.raises(TrainingError, match="has not finished; continue it"):
        trained_network(tmp_path, request, LABELS)
    network = Network(SMALL, LABELS)
    path = tmp_path / "network.safetensors"
    runs.save_file(network.state_dict(), path)
    assert not trained_network(tmp_path, request, LABELS).training
    with pytest.raises(TrainingError, match="does not fit the recipe"):
        trained_network(tmp_path, request, ("angry", "happy", "sad"))
    path.write_bytes(b"damaged")
    with pytest.raises(TrainingError, match="is damaged"):
        trained_network(tmp_path, request, LABELS)


@pytest.mark.parametrize("rows", [0, 1, 2])
def test_resuming_drops_rows_after_the_checkpoint(
    utterances: list[Utterance], tmp_path: Path, rows: int
) -> None:
    log = tmp_path / "log.jsonl"
    log.write_text("".join(f'{{"epoch": {epoch}}}\n' for epoch in range(rows)) + '{"epo')
    trainer = Trainer(SMALL, LABELS, utterances, [], tmp_path, 0, torch.device("cpu"))
    if rows == 2:
        state = {name: part.state_dict() for name, part in trainer._parts().items()}
        checkpoint.save_checkpoint(tmp_path, {"epoch": 1} | state)
    trainer.resume()
    assert trainer.epoch == (1 if rows == 2 else 0)
    kept = [json.loads(line)["epoch"] for line in log.read_text().splitlines()]
    assert kept == list(range(trainer.epoch))


def test_the_rate_rises_and_falls() -> None:
    rates = [warm_cosine(step, total=100, warmup=10) for step in range(101)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == rates[9]
    assert rates[50] == pytest.approx(0.5)
    assert rates[100] == pytest.approx(0.0)
    assert warm_cosine(0, total=1, warmup=0.0) == 1.0
    assert all(math.isfinite(rate) for rate in rates)


def test_the_average_forgets_its_start() -> None:
    average, decay = torch.tensor(100.0), 0.9
    for count in range(300):
        average = _decaying_average(average, torch.tensor(1.0), torch.tensor(count), decay=decay)
    assert average.item() == pytest.approx(1.0, abs=1e-4)
    whole = torch.tensor(7)
    assert _decaying_average(torch.tensor(3), whole, torch.tensor(1), decay=decay) is whole


def test_clips_are_embedded_in_the_order_given() -> None:
    torch.manual_seed(0)
    network, rng = Network(SMALL, LABELS), np.random.default_rng(0)
    clips = [rng.standard_normal(n).astype(np.float32) for n in (9_000, 2_000, 170_000, 3_000)]
    logits, pooled = embed(network, clips, torch.device("cpu"))
    for row, clip in enumerate(clips):
        alone, _ = embed(network, [clip[:160_000]], torch.device("cpu"))  # the first ten seconds
        torch.testing.assert_close(logits[row], alone[0], atol=1e-4, rtol=1e-4)
    assert pooled.shape == (4, 16 + 405)


def test_a_device_that_is_not_there_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert runs.choose_device("auto").type == "cpu"
    with pytest.raises(TrainingError, match="finds no cuda device"):
        runs.choose_device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert runs.choose_device("auto").type == "cuda"
