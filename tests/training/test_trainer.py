"""Targets, contrast, rates, and a few steps of the trainer itself."""

import json
import math
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from nnpm.training.config import Config, TrainConfig
from nnpm.training.corpora import Utterance
from nnpm.training.errors import TrainingError
from nnpm.training.network.encoders import Encoder, load_pretrained
from nnpm.training.network.network import Network
from nnpm.training.source import trainer as trainers
from nnpm.training.source.trainer import Trainer, choose_precision, contrast, rate, targets
from tests.support.tiny_network import FRAMES, tiny_whisper, write_graph

LABELS = ("angry", "happy", "sad")
UTTERANCES = [
    Utterance(Path(f"/{c}/{s}/{e}.wav"), c, s, "en", e)
    for c in ("one", "two")
    for s in ("a", "b")
    for e in LABELS
]


def clip(index: int) -> np.ndarray:
    """A tone per emotion, a timbre per corpus."""
    time = np.arange(9_600) / 16_000
    pitch = (110.0, 220.0, 330.0)[LABELS.index(UTTERANCES[index].emotion)]
    harmonic = 3 if UTTERANCES[index].corpus == "one" else 5
    sound = np.sin(2 * np.pi * pitch * time) + 0.5 * np.sin(2 * np.pi * pitch * harmonic * time)
    return (0.2 * sound).astype(np.float32)


def config(**train: object) -> Config:
    """Four steps: two of the head alone, the memory's loss in the last two."""
    numbers = {
        "steps": 4, "batch_size": 12, "fewest_per_corpus": 6, "head_steps": 2, "warmup_steps": 1,
        "average_from": 0.5, "precision": "float32",
    }  # fmt: skip
    return Config.model_validate(
        {
            "head": {"projection": 8},
            "augment": {"shortest_s": 0.5, "longest_s": 0.6},
            "loss": {"memory_start": 0.5},
            "train": numbers | train,
        }
    )


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Trainer]:
    def new(name: str = "run", encoder: Encoder | None = None, **train: object) -> Trainer:
        run = tmp_path / name
        run.mkdir(exist_ok=True)
        encoder = tiny_whisper() if encoder is None else encoder
        device = torch.device("cpu")
        return Trainer(config(**train), LABELS, encoder, UTTERANCES, clip, run, 3, device)

    return new


def weights(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


def differs(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> set[str]:
    return {name for name, value in one.items() if not torch.equal(value, other[name])}


def test_the_head_is_first_and_the_front_end_never_moves(make) -> None:
    trainer = make()
    before = weights(trainer.network)
    for step in (0, 1):
        trainer._train_step(trainer.sampler.draw(step), step)
    moved = differs(before, weights(trainer.network))
    assert {name.split(".")[0] for name in moved} == {"head"}
    assert {"head.projection.weight", "head.classes", "head.scale", "head.mean"} <= moved
    for step in (2, 3):  # the first of them warms up from a rate of 0
        trainer._train_step(trainer.sampler.draw(step), step)
    moved = differs(before, weights(trainer.network))
    assert {"encoder.conv2.weight", "encoder.layers.1.fc2.weight"} <= moved
    assert not moved & {"encoder.conv1.weight", "encoder.embed_positions.weight"}


def test_rates_halve_from_stage_to_stage(make) -> None:
    trainer = make(encoder_rate=0.01, layer_decay=0.5, head_rate=0.03)
    peaks = [group["peak"] for group in trainer.optimizer.param_groups]
    assert peaks == pytest.approx([0.01, 0.005, 0.0025, 0.03])  # two layers, conv2, head
    assert [group["first"] for group in trainer.optimizer.param_groups] == [2, 2, 2, 0]
    top = {id(p) for p in trainer.optimizer.param_groups[0]["params"]}
    assert top == {id(p) for p in trainer.network.encoder.layers[1].parameters()}


def test_a_stopped_run_resumes_to_the_same_network(make, monkeypatch) -> None:
    monkeypatch.setattr(trainers, "_CHECKPOINT_STEPS", 1)
    whole = weights(make("whole").fit())
    stopped = make("stopped")
    draw = stopped.sampler.draw

    def interrupted(step: int):
        if step == 3:
            raise KeyboardInterrupt
        return draw(step)

    stopped.sampler.draw = interrupted
    with pytest.raises(KeyboardInterrupt):
        stopped.fit()
    # two rows were written after the checkpoint that is left, one of them in part
    log = stopped.run / "log.jsonl"
    log.write_text(log.read_text() + '{"step": 3}\n{"st')
    resumed = make("stopped")
    resumed.resume()
    assert 0 < resumed.step <= 3
    assert not differs(whole, weights(resumed.fit()))
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    assert [row["step"] for row in rows] == [0, 1, 2, 3]
    assert "multilabel" not in rows[1]
    assert rows[2]["multilabel"] > 0
    assert all(math.isfinite(value) for row in rows for value in row.values())


def test_the_average_of_the_last_weights_counts(make) -> None:
    trainer = make()
    network = trainer.fit()
    assert isinstance(network, Network)
    assert not network.training
    assert network is trainer.average.module
    assert int(trainer.average.n_averaged) == 2
    assert "encoder.layers.0.fc1.weight" in differs(weights(trainer.network), weights(network))


def test_the_estimate_is_told_and_changes_nothing(make, capsys) -> None:
    trainer = make()
    before = weights(trainer.network)
    trainer._estimate()
    assert not differs(before, weights(trainer.network))
    assert all(p.grad is None for p in trainer.network.parameters())
    assert re.match(r"about \d+ min on cpu: 4 steps of ", capsys.readouterr().err)


def test_a_frozen_encoder_trains_the_head(make, tmp_path: Path) -> None:
    frozen = load_pretrained("onnx", str(write_graph(tmp_path / "frozen.onnx", FRAMES)), 0)
    trainer = make(encoder=frozen)
    before = weights(trainer.network)
    after = weights(trainer.fit())
    assert {name.split(".")[0] for name in differs(before, after)} == {"head"}


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"not a checkpoint"])
def test_a_damaged_checkpoint_is_one_line(make, content: bytes) -> None:
    trainer = make()
    (trainer.run / "checkpoint.pt").write_bytes(content)
    with pytest.raises(TrainingError, match=r"checkpoint.pt is damaged, or of another nnpm"):
        trainer.resume()


def test_a_checkpoint_of_another_recipe_is_one_line(make) -> None:
    trainer = make()
    trainer._save()
    other = make(encoder=tiny_whisper(1))
    with pytest.raises(TrainingError, match=r"checkpoint.pt is damaged, or of another nnpm"):
        other.resume()
    torch.save({"epoch": 3}, trainer.run / "checkpoint.pt")
    with pytest.raises(TrainingError, match="of another nnpm"):
        make().resume()


def test_without_a_checkpoint_it_begins_anew(make) -> None:
    trainer = make()
    (trainer.run / "log.jsonl").write_text('{"step": 0}\n')
    trainer.resume()
    assert trainer.step == 0
    assert (trainer.run / "log.jsonl").read_text() == ""


def test_rates() -> None:
    train = TrainConfig(steps=100, warmup_steps=10)
    found = [rate(step, train, first=20) for step in range(100)]
    assert found[:21] == [0.0] * 21
    for step in (25, 30, 50, 99):
        cosine = 0.05 + 0.95 * (1 + math.cos(math.pi * step / 100)) / 2
        assert found[step] == pytest.approx(min(1.0, (step - 20) / 10) * cosine)
    assert rate(0, TrainConfig(steps=1, warmup_steps=0), first=0) == 1.0


def test_targets_mix_label_and_listeners() -> None:
    heard = [(), ("happy",), ("happy", "sad"), ("sad",), ("calm",), ("happy", "calm")]
    utterances = [
        Utterance(Path("/a.wav"), "one", "s", "en", "sad", heard=emotions) for emotions in heard
    ]
    found = targets(utterances, LABELS, smoothing=0.06, listeners=0.5)
    expected = [  # before smoothing; an emotion that is not learnt counts for nobody
        [0, 0, 1], [0, 0.5, 0.5], [0, 0.25, 0.75], [0, 0, 1], [0, 0, 1], [0, 0.5, 0.5],
    ]  # fmt: skip
    np.testing.assert_allclose(found.numpy(), np.array(expected) * 0.94 + 0.02, atol=1e-6)
    np.testing.assert_allclose(found.sum(1).numpy(), 1.0, atol=1e-6)
    assert torch.equal(
        targets(utterances, LABELS, 0.0, 0.0), torch.tensor([[0.0, 0.0, 1.0]]).repeat(6, 1)
    )


def contrast_by_loops(z: np.ndarray, emotion: list[int], corpus: list[int], t: float) -> float:
    losses = []
    for i in range(len(z)):
        others = [
            j for j in range(len(z)) if not (emotion[j] == emotion[i] and corpus[j] == corpus[i])
        ]
        positives = [j for j in others if emotion[j] == emotion[i]]
        if positives:
            total = sum(math.exp(z[i] @ z[j] / t) for j in others)
            shares = [math.log(math.exp(z[i] @ z[j] / t) / total) for j in positives]
            losses.append(-sum(shares) / len(shares))
    return sum(losses) / len(losses) if losses else 0.0


@pytest.mark.parametrize("seed", range(3))
def test_contrast_is_the_one_by_loops(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    z = F.normalize(torch.randn(14, 5, generator=generator), dim=1)
    emotion = torch.randint(0, 4, (14,), generator=generator)
    corpus = torch.randint(0, 3, (14,), generator=generator)
    found = float(contrast(z, emotion, corpus, 0.2))
    expected = contrast_by_loops(z.double().numpy(), emotion.tolist(), corpus.tolist(), 0.2)
    assert found == pytest.approx(expected, rel=1e-4)


def test_contrast_without_a_positive_is_nothing() -> None:
    z = F.normalize(torch.randn(4, 5), dim=1).requires_grad_()
    one_corpus = contrast(z, torch.tensor([0, 0, 1, 1]), torch.zeros(4, dtype=torch.long), 0.2)
    assert float(one_corpus.detach()) == 0.0
    one_corpus.backward()
    assert z.grad is not None
    assert (z.grad == 0).all()


def test_precision_follows_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
    assert choose_precision("auto", cpu) is torch.bfloat16
    assert choose_precision("float32", cpu) is torch.float32
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    assert choose_precision("auto", cpu) is torch.float32
    assert choose_precision("bfloat16", cpu) is torch.bfloat16
    assert choose_precision("auto", cuda) is torch.bfloat16
    assert choose_precision("auto", torch.device("mps")) is torch.float32
