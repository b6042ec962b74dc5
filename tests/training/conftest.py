"""A small labelled corpus, a run trained on it, and a bundle that can be adapted."""

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from nnpm.service.inference import bundle as bundles
from nnpm.service.inference.bundle import Bundle
from nnpm.training.bundle.parts import voice
from nnpm.training.cli import main
from tests.support.tiny_network import tiny_recipe, write_base, write_whisper

MakeOnce = Callable[[str, Callable[[Path], object]], Path]
SPEAKERS = {"anna": "f", "bert": "m", "cleo": "f", "dirk": "m", "emma": "f", "fred": "m"}
PITCH_HZ = {"angry": 320.0, "happy": 240.0, "neutral": 160.0, "sad": 110.0}


@pytest.fixture(scope="session")
def tiny_corpus(make_once: MakeOnce) -> Path:
    """DIR with one corpus, DIR/tiny: six speakers, four emotions (by pitch), two clips each."""
    return make_once("corpora", write_tiny_corpus)


def write_tiny_corpus(data: Path) -> None:
    folder = data / "tiny"
    folder.mkdir(parents=True)
    rows = []
    for number, (speaker, gender) in enumerate(SPEAKERS.items()):
        for emotion, pitch_hz in PITCH_HZ.items():
            for take in range(2):
                name = f"{speaker}_{emotion}_{take}.wav"
                sound = voice(pitch_hz * (1 + 0.02 * number), 0.6 + 0.1 * take, seed=take)
                soundfile.write(folder / name, sound * 0.3, 16_000)
                rows.append([name, "tiny", "en", speaker, gender, emotion])
    with (folder / "metadata.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "corpus", "language", "speaker", "gender", "emotion"])
        writer.writerows(rows)


@pytest.fixture(scope="session")
def tiny_encoder(make_once: MakeOnce) -> Path:
    """A folder with a Whisper of two layers, in transformers' layout."""
    return make_once("encoder", write_whisper)


@pytest.fixture(scope="session")
def tiny_config(make_once: MakeOnce, tiny_encoder: Path) -> Path:
    return make_once("tiny.toml", lambda path: path.write_text(tiny_recipe(tiny_encoder)))


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def base(make_once: MakeOnce) -> Bundle:
    """A bundle made by code, whose memory holds ten speakers of two corpora."""
    return bundles.load(make_once("models/tiny/7", write_base))


@pytest.fixture(scope="session")
def finished(make_once: MakeOnce, tiny_corpus: Path, tiny_config: Path, cache: Path) -> Path:
    """The folder of a finished run on the tiny corpus, with seed 0; copy it to change it."""

    def train(out: Path) -> None:
        command = ["train", "--corpora", "tiny", "--data", str(tiny_corpus), "--out", str(out)]
        command += ["--config", str(tiny_config), "--cache", str(cache), "--device", "cpu"]
        assert main(command) == 0

    return make_once("runs/tiny-0", train)
