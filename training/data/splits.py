"""Speaker-independent splits: no speaker is on two sides."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..config import SplitConfig
from ..corpora import Utterance
from ..errors import TrainingError

_FEWEST_SPEAKERS = 3

Speaker = tuple[str, str]
"""Corpus and speaker: the same name in two corpora is two people."""


@dataclass(frozen=True, slots=True)
class Split:
    """Utterances by side: the network never hears the speakers that are held out."""

    train: list[Utterance]
    held_out: list[Utterance]


def split_speakers(utterances: Sequence[Utterance], config: SplitConfig, seed: int) -> Split:
    """Hold out speakers of every corpus, women and men in turn where the gender is known.

    Args:
        utterances: of one or more corpora.
        config: share of the speakers of each corpus to hold out, at least one; a corpus of fewer
            than three speakers is trained on whole.
        seed: of the draw.

    Raises:
        TrainingError: if no corpus has speakers to hold out.
    """
    side: dict[Speaker, str] = {}
    for corpus in sorted({utterance.corpus for utterance in utterances}):
        speakers = {
            (corpus, utterance.speaker): utterance.gender
            for utterance in utterances
            if utterance.corpus == corpus
        }
        order = _alternate_genders(speakers, np.random.default_rng([seed, len(speakers)]))
        if len(order) < _FEWEST_SPEAKERS:
            continue
        count = max(1, round(config.held_out_share * len(speakers)))
        side.update(dict.fromkeys(order[:count], "held_out"))
    if not side:
        raise TrainingError(
            f"no corpus has {_FEWEST_SPEAKERS} or more speakers, which training and "
            "calibration need; name the speakers in metadata.csv"
        )
    sides: dict[str, list[Utterance]] = {"train": [], "held_out": []}
    for utterance in utterances:
        sides[side.get((utterance.corpus, utterance.speaker), "train")].append(utterance)
    return Split(**sides)


def _alternate_genders(speakers: dict[Speaker, str], rng: np.random.Generator) -> list[Speaker]:
    shuffled = [sorted(speakers)[i] for i in rng.permutation(len(speakers))]
    rank: dict[str, int] = {}
    place = {}
    for speaker in shuffled:
        gender = speakers[speaker]
        rank[gender] = place[speaker] = rank.get(gender, -1) + 1
    return sorted(shuffled, key=lambda speaker: place[speaker])
