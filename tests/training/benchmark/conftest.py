"""A tiny bundle and a target corpus that are small enough to try every method on."""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import soundfile

from nnpm.service.inference import bundle as bundles
from nnpm.service.inference.bundle import Bundle, Memory
from nnpm.service.inference.head import Head
from nnpm.training.adaptation.config import AdaptConfig
from nnpm.training.benchmark import cases
from nnpm.training.benchmark.cases import Protocol, all_methods
from nnpm.training.benchmark.command import Request
from nnpm.training.bundle.answer import attach_answer
from nnpm.training.bundle.parts import as_stored, memory_file, probe_file, voice
from tests.support.tiny_bundle import WIDTH, embed, encoder_graph, tiny_card

LABELS = ("angry", "fear", "happy", "neutral", "sad")
SPEAKERS = {"gita": "f", "hans": "m", "ines": "f", "jack": "m", "kate": "f", "liam": "m"}
PITCH_HZ = {"angry": 300.0, "fear": 270.0, "happy": 220.0, "neutral": 150.0, "sad": 120.0}
TINY = Protocol("tiny", ("home",), ("home",), ("abroad",), uncurated=("abroad",), whole=())
"""Six speakers, five emotions and three clips each, in both corpora."""


def write_corpus(folder: Path, pitch: float) -> None:
    """The clips of all speakers, this much higher than :data:`PITCH_HZ`."""
    folder.mkdir(parents=True)
    rows = []
    for number, (speaker, gender) in enumerate(SPEAKERS.items()):
        for emotion, pitch_hz in PITCH_HZ.items():
            for take in range(3):
                name = f"{speaker}_{emotion}_{take}.wav"
                hertz = pitch * pitch_hz * (1 + 0.03 * number)
                sound = voice(hertz, 0.4 + 0.05 * take, seed=10 + take)
                soundfile.write(folder / name, sound * 0.2, 16_000)
                rows.append([name, folder.name, "sw", speaker, gender, emotion])
    with (folder / "metadata.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "corpus", "language", "speaker", "gender", "emotion"])
        writer.writerows(rows)


def write_bundle(path: Path, source: str = "home", seed: int = 0) -> Bundle:
    """A bundle whose memory holds voices of two corpora, and whose card names one as its source."""
    rng = np.random.default_rng(seed)
    slots = [(emotion, one) for one in range(10) for emotion in LABELS]
    found = np.stack(
        [embed(voice(PITCH_HZ[e] * (1 + 0.02 * one), 0.4, seed=one) * 0.2) for e, one in slots]
    )
    mean, deviation = found.mean(0), found.std(0) + 1e-4
    standard = ((found - mean) / deviation).astype(np.float32)
    truth = np.array([LABELS.index(emotion) for emotion, _ in slots])
    weight = rng.standard_normal((6, WIDTH)).astype(np.float32)
    bias = np.zeros(6, np.float32)
    head = Head(mean, deviation, weight, bias, np.eye(5, 6, dtype=np.float32), np.float32(6.0))
    z = head.project(standard)
    classes = np.stack([z[truth == index].mean(0) for index in range(5)])
    head = replace(head, classes=classes / np.linalg.norm(classes, axis=1, keepdims=True))
    memory = as_stored(
        Memory(
            standard,
            truth,
            tuple(("home", "other")[one % 2] for _, one in slots),
            ("pl",) * len(slots),
            tuple(f"speaker {one}" for _, one in slots),
        )
    )
    held_out = {"name": source, "speakers": {"train": ["hans"], "held_out": ["gita", "jack"]}}
    training = {"seed": seed, "corpora": [held_out]}
    card = tiny_card(labels=LABELS, training=training)
    encoder = onnx.load_from_string(encoder_graph())
    graph = attach_answer(encoder, head, memory, card.decision, LABELS, {})
    return bundles.save(
        path,
        card,
        {
            "model.onnx": graph.SerializeToString(),
            "head.safetensors": head.to_bytes(),
            "memory.safetensors": memory_file(memory),
            "probe.npz": probe_file(graph),
            "README.md": b"# A tiny bundle\n",
            "NOTICE": b"Made by code.\n",
        },
    )


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Of seed 0, that has learnt from home."""
    return write_bundle(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The corpora home and abroad."""
    folder = tmp_path_factory.mktemp("corpora")
    write_corpus(folder / "home", 1.0)
    write_corpus(folder / "abroad", 1.1)
    return folder


@pytest.fixture(scope="session")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Features are the same for all tests."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def request_of(
    data: Path,
    bundle: Bundle,
    shared_cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Request:
    """Every method, the main table, one seed, four steps."""
    monkeypatch.setitem(cases.PROTOCOLS, "tiny", TINY)
    return Request(
        data=data,
        bundles=(bundle.path,),
        runs=(),
        protocol="tiny",
        development=False,
        targets=(),
        methods=all_methods(),
        tables=("main",),
        config=AdaptConfig(steps=4, views=1, refresh_steps=2),
        out=tmp_path / "out",
        cache=shared_cache,
        jobs=1,
    )


@pytest.fixture
def few(request_of: Request) -> Request:
    """Two methods that take no step."""
    return replace(request_of, methods=("source_only", "adabn"))
