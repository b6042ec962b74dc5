"""The real corpora: their counts, and their file names through the readers of the layouts."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from nnpm.training.corpora import CORPORA, Utterance, load

pytestmark = pytest.mark.corpora

COUNTS = {
    "ravdess": {"neutral": 96, "happy": 191}
    | dict.fromkeys(("angry", "calm", "disgust", "fear", "sad", "surprise"), 192),
    "nemo": {
        "angry": 749,
        "fear": 736,
        "happy": 749,
        "neutral": 809,
        "sad": 769,
        "surprise": 669,
    },
    "ased": {"angry": 485, "fear": 510, "happy": 485, "neutral": 521, "sad": 469},
    "emodb": {"angry": 127, "happy": 71, "neutral": 79, "sad": 62},
    "urdu": dict.fromkeys(("angry", "happy", "neutral", "sad"), 100),
    "emotiontts": dict.fromkeys(("angry", "happy", "neutral", "sad"), 75),
}
SPEAKERS = {  # women, men
    "ravdess": (12, 12),
    "nemo": (4, 5),
    "ased": (25, 40),
    "emodb": (5, 5),
    "urdu": (11, 18),
    "emotiontts": (7, 8),
}

# Where the publication keeps a clip of the test corpora.
PUBLISHED: dict[str, Callable[[Utterance], str]] = {
    "ravdess": lambda clip: f"Actor_{clip.speaker}",
    "nemo": lambda clip: "samples",
    "ased": lambda clip: clip.raw_label,
    "emodb": lambda clip: "wav",
    "urdu": lambda clip: clip.raw_label,
    "emotiontts": lambda clip: f"Dataset/SpeechCorpus/Emotional/{clip.speaker}/wav",
}


@pytest.fixture(params=sorted(COUNTS))
def clips(request: pytest.FixtureRequest, corpora: Path) -> list[Utterance]:
    return load(request.param, corpora)


def test_counts_are_those_of_the_sources(clips: list[Utterance]):
    name = clips[0].corpus
    genders = Counter(gender for _, gender in {(clip.speaker, clip.gender) for clip in clips})
    assert Counter(clip.emotion for clip in clips) == COUNTS[name]
    assert (genders["f"], genders["m"], genders[""]) == (*SPEAKERS[name], 0)
    assert {clip.language for clip in clips} == {CORPORA[name].language}


def test_the_layout_reader_agrees_with_the_manifest(clips: list[Utterance], tmp_path: Path):
    name = clips[0].corpus
    wanted = set()
    for clip in clips:
        path = tmp_path / name / PUBLISHED[name](clip) / f"{clip.path.stem}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        wanted.add(replace(clip, path=path))
    assert set(load(name, tmp_path)) == wanted
