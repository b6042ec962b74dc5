"""A small labelled corpus made by code, for tests that train."""

import csv
from pathlib import Path

import numpy as np
import pytest
import soundfile

from nnpm.training.bundle.files import voice
from tests.support.tiny_network import TINY_CONFIG

SPEAKERS = {"anna": "f", "bert": "m", "cleo": "f", "dirk": "m", "emma": "f", "fred": "m"}
PITCH_HZ = {"angry": 320.0, "happy": 240.0, "neutral": 160.0, "sad": 110.0}


@pytest.fixture(scope="session")
def tiny_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """DIR with one corpus, DIR/tiny: six speakers, four emotions told by pitch, two clips each."""
    data = tmp_path_factory.mktemp("data")
    folder = data / "tiny"
    folder.mkdir()
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
    return data


@pytest.fixture(scope="session")
def tiny_config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("config") / "tiny.toml"
    path.write_text(TINY_CONFIG)
    return path


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)
