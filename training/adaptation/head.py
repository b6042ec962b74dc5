"""What adaptation works on: source and target as features, and a head with the target's statistics.

Source features are standardised in the memory, each corpus by its own statistics. Target features
are standardised by a head; adaptation puts the target's own statistics into it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray

from ...service.inference.bundle import Memory
from ...service.inference.head import Head

if TYPE_CHECKING:
    from onnx import ModelProto

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Full:
    """The additional inputs of ``--full``.

    Attributes:
        run: folder of the training run that made the base; it holds the weights in float32.
        source: holds one folder per source corpus.
        cache: for decoded clips.
    """

    run: Path
    source: Path
    cache: Path


@dataclass(frozen=True, slots=True, eq=False)
class Start:
    """What the adaptation of a head starts from: the base, or what ``--full`` made of it.

    Attributes:
        head: before adaptation.
        memory: of the source, projected by this head.
        encoder: the fine-tuned encoder part, which ends in ``embedding``; None for the base's.
        heard: h of the target's clips by the base's encoder, shape ``(clips, D)``, where this one
            is another.
    """

    head: Head
    memory: Memory
    encoder: "ModelProto | None" = None
    heard: Floats | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """The bundle's memory: the labelled source without its audio.

    Attributes:
        features: standardised, float32, shape ``(num_slots, D)``.
        emotion: index of the logit, int64, shape ``(num_slots,)``.
        speaker: number of the speaker, int64, shape ``(num_slots,)``.
    """

    features: Floats
    emotion: Ints
    speaker: Ints

    @classmethod
    def from_memory(cls, memory: Memory, most: int | None = None) -> Self:
        """The memory of a bundle.

        Args:
            memory: of the bundle.
            most: slots at most: all of rare emotions, evenly spaced ones of frequent emotions.
        """
        chosen = evenly(memory.emotion, len(memory.emotion) if most is None else most)
        names = [f"{memory.corpus[i]}/{memory.speaker[i]}" for i in chosen]
        speaker = np.unique(names, return_inverse=True)[1].astype(np.int64)
        return cls(memory.features[chosen], memory.emotion[chosen].astype(np.int64), speaker)


def evenly(emotion: Ints, most: int) -> Ints:
    """Indices of at most ``most`` slots: all of rare emotions, evenly spaced of frequent ones.

    Examples:
        >>> evenly(np.array([0, 0, 0, 0, 0, 1]), 4).tolist()
        [0, 2, 4, 5]
    """
    if len(emotion) <= most:
        return np.arange(len(emotion))
    groups = sorted((np.flatnonzero(emotion == e) for e in np.unique(emotion)), key=len)
    chosen: list[Ints] = []
    for index, group in enumerate(groups):
        room = (most - sum(map(len, chosen))) // (len(groups) - index)
        comb = np.linspace(0, len(group) - 1, min(room, len(group)))
        chosen.append(group[comb.round().astype(np.int64)])
    return np.sort(np.concatenate(chosen))


@dataclass(frozen=True, slots=True, eq=False)
class Target:
    """Clips as features of the frozen encoder, and what the user knows of them.

    Attributes:
        pooled: h of the clips as recorded, float32, shape ``(num_clips, D)``.
        views: h of augmented versions of the same clips, shape ``(num_views, num_clips, D)``;
            ``num_views`` may be 0.
        occurs: indices of the emotions that occur; empty if that is not known.
        labelled: indices of clips whose emotion the user gave, int64, shape ``(num_labels,)``.
        emotion: of these, int64, shape ``(num_labels,)``.
    """

    pooled: Floats
    views: Floats
    occurs: tuple[int, ...] = ()
    labelled: Ints = field(default_factory=lambda: np.zeros(0, np.int64))
    emotion: Ints = field(default_factory=lambda: np.zeros(0, np.int64))

    def open(self, num_emotions: int) -> NDArray[np.bool_]:
        """Which emotions may occur, shape ``(num_emotions,)``."""
        mask = np.zeros(num_emotions, np.bool_)
        mask[list(self.occurs) or slice(None)] = True
        return mask

    def without_labels(self, hidden: Sequence[int] | Ints | slice = slice(None)) -> "Target":
        """The same clips; the labels at the places ``hidden`` (all of them) are not known."""
        kept = np.ones(len(self.labelled), np.bool_)
        kept[hidden] = False
        return replace(self, labelled=self.labelled[kept], emotion=self.emotion[kept])
