"""A source network and a target corpus that are small enough to try every method on."""

import csv
from dataclasses import replace
from pathlib import Path

import pytest
import soundfile

from nnpm.service.inference.bundle import Bundle
from nnpm.training.adaptation.config import AdaptConfig
from nnpm.training.benchmark.cases import Protocol, all_methods
from nnpm.training.benchmark.command import Request
from nnpm.training.bundle.parts import voice
from nnpm.training.config import load

SPEAKERS = {"gita": "f", "hans": "m", "ines": "f", "jack": "m", "kate": "f", "liam": "m"}
PITCH_HZ = {"angry": 300.0, "fear": 270.0, "happy": 220.0, "neutral": 150.0, "sad": 120.0}
TINY = Protocol("tiny", ("tiny",), ("abroad",), uncurated=("abroad",), whole=())


@pytest.fixture(scope="session")
def data(tiny_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both corpora: tiny, and abroad: six speakers, five emotions, three clips each."""
    folder = tmp_path_factory.mktemp("both")
    (folder / "tiny").symlink_to(tiny_corpus / "tiny")
    abroad = folder / "abroad"
    abroad.mkdir()
    rows = []
    for number, (speaker, gender) in enumerate(SPEAKERS.items()):
        for emotion, pitch_hz in PITCH_HZ.items():
            for take in range(3):
                name = f"{speaker}_{emotion}_{take}.wav"
                sound = voice(pitch_hz * (1 + 0.03 * number), 0.4 + 0.05 * take, seed=10 + take)
                soundfile.write(abroad / name, sound * 0.2, 16_000)
                rows.append([name, "abroad", "sw", speaker, gender, emotion])
    with (abroad / "metadata.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "corpus", "language", "speaker", "gender", "emotion"])
        writer.writerows(rows)
    return folder


@pytest.fixture
def request_of(
    data: Path, finished: Path, tiny_config: Path, cache: Path, tmp_path: Path
) -> Request:
    """Every method, the main table, one seed, four steps."""
    return Request(
        data=data,
        protocol=TINY,
        targets=(),
        methods=all_methods(),
        tables=("main",),
        seeds=1,
        runs=(finished,),
        recipe=load(tiny_config),
        config=AdaptConfig(steps=4, views=1, refresh_steps=2),
        out=tmp_path / "out",
        cache=cache,
        jobs=1,
    )


@pytest.fixture
def few(request_of: Request) -> Request:
    """Two methods that take no step."""
    return replace(request_of, methods=("source_only", "adabn"))


@pytest.fixture
def bundle(base: Bundle) -> Bundle:
    """Of a small untrained network."""
    return base
