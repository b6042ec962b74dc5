"""Speaker-independent splits: no speaker is on two sides."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from training.config import SplitConfig
from training.corpora import Utterance
from training.errors import TrainingError

Speaker = tuple[str, str]
"""Corpus and speaker: the same name in two corpora is two people."""


@dataclass(frozen=True, slots=True)
class Split:
    """Utterances by side; validation fits what calibrates, test reports it."""

    train: list[Utterance]
    validation: list[Utterance]
    test: list[Utterance]


def split_speakers(utterances: Sequence[Utterance], config: SplitConfig, seed: int) -> Split:
    """Hold out speakers of every corpus, women and men in turn where the gender is known.

    Args:
        utterances: of one or more corpora.
        config: shares of the speakers of each corpus to hold out (at least one each if above 0).
        seed: who is held out.

    Raises:
        TrainingError: if a corpus has too few speakers to leave one to train on.
    """
    side: dict[Speaker, str] = {}
    for corpus in sorted({utterance.corpus for utterance in utterances}):
        speakers = {
            (corpus, utterance.speaker): utterance.gender
            for utterance in utterances
            if utterance.corpus == corpus
        }
        order = _alternate_genders(speakers, np.random.default_rng([seed, len(speakers)]))
        counts = {
            "validation": _held_out(config.validation_share, len(order)),
            "test": _held_out(config.test_share, len(order)),
        }
        if sum(counts.values()) >= len(order):
            raise TrainingError(
                f"{corpus} has {len(order)} speakers, and {sum(counts.values()) + 1} are wanted: "
                "some to train on, others to validate and to test on; "
                "set validation_share and test_share in [split] to 0 to train on all"
            )
        for name, count in counts.items():
            for speaker in order[:count]:
                side[speaker] = name
            order = order[count:]
    sides: dict[str, list[Utterance]] = {"train": [], "validation": [], "test": []}
    for utterance in utterances:
        sides[side.get((utterance.corpus, utterance.speaker), "train")].append(utterance)
    return Split(**sides)


def _held_out(share: float, num_speakers: int) -> int:
    return max(1, round(share * num_speakers)) if share > 0 else 0


def _alternate_genders(speakers: dict[Speaker, str], rng: np.random.Generator) -> list[Speaker]:
    shuffled = [sorted(speakers)[i] for i in rng.permutation(len(speakers))]
    rank: dict[str, int] = {}
    place = {}
    for speaker in shuffled:
        gender = speakers[speaker]
        rank[gender] = place[speaker] = rank.get(gender, -1) + 1
    return sorted(shuffled, key=lambda speaker: place[speaker])
