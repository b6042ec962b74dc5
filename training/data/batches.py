"""Balanced draws of clips, crops, joins and batches: each a function of the seed and the step."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...service.inference.audio.waveform import SAMPLE_RATE_HZ
from ..config import AugmentConfig, TrainConfig
from ..corpora import Utterance
from .augment import Augmentation

Samples = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """The clips of one step.

    Attributes:
        waveform: zeros behind the clips' ends, shape ``(batch, num_samples)``; or kept states,
            shape ``(batch, num_frames, width)``.
        lengths: samples (or frames) of each clip, int64, shape ``(batch,)``.
        index: of each clip's utterance, int64, shape ``(batch,)``.
    """

    waveform: Tensor
    lengths: Tensor
    index: Tensor


class BatchSampler:
    """Batches in which no corpus, emotion or voice dominates.

    Every corpus has a fixed share of a batch, by the square root of its size (statistics are taken
    per corpus, so each needs some clips). Within it emotions take turns, and the speaker is drawn
    before the clip.

    Args:
        utterances: the training side.
        clips: gives the samples of an utterance by its index.
        config: sizes of a batch.
        augment: crops and joins.
        seed: of all draws.
    """

    def __init__(
        self,
        utterances: Sequence[Utterance],
        clips: Callable[[int], Samples],
        config: TrainConfig,
        augment: AugmentConfig,
        seed: int,
    ) -> None:
        self.clips, self.augment, self.seed = clips, augment, seed
        self.change: Callable[[Samples, np.random.Generator], Samples] = (
            Augmentation() if augment.change else lambda samples, _: samples
        )
        tree: dict[str, dict[str, dict[str, list[int]]]] = defaultdict(
            lambda: defaultdict(lambda: defaultdict(list))
        )
        for index, utterance in enumerate(utterances):
            tree[utterance.corpus][utterance.emotion][utterance.speaker].append(index)
        self.group = {
            i: own for c in tree.values() for e in c.values() for own in e.values() for i in own
        }
        self.corpora = [
            [list(speakers.values()) for speakers in emotions.values()]
            for emotions in (tree[name] for name in sorted(tree))
        ]
        sizes = np.sqrt([sum(len(own) for e in corpus for own in e) for corpus in self.corpora])
        shares = np.rint(config.batch_size * sizes / sizes.sum()).astype(int)
        self.counts = np.maximum(shares, config.fewest_per_corpus)

    def draw(self, step: int) -> Batch:
        """The batch of a step; the same step gives the same batch."""
        index, rng = self.choose(step)
        waveform, lengths = pad([self._vary(i, self.augment.shortest_s, rng) for i in index])
        return Batch(waveform, lengths, torch.tensor(index))

    def choose(self, step: int) -> tuple[list[int], np.random.Generator]:
        """Index of each clip of a step, and what draws the rest of it."""
        rng = np.random.default_rng([self.seed, step])
        index = [
            clip
            for corpus, count in zip(self.corpora, self.counts, strict=True)
            for clip in _draw(corpus, int(count), rng)
        ]
        return index, rng

    def copy(self, index: int, number: int) -> Samples:
        """A clip varied once, as long as the longest crop; the same number gives the same one."""
        rng = np.random.default_rng([self.seed, index, 1 + number])  # 0 would be a step
        return self._vary(index, self.augment.longest_s, rng)

    def _vary(self, index: int, shortest_s: float, rng: np.random.Generator) -> Samples:
        """A piece of a clip, perhaps joined with another of its voice and emotion, and changed."""
        samples = self.clips(index)
        longest = round(self.augment.longest_s * SAMPLE_RATE_HZ)
        if rng.random() < self.augment.join_p:
            own = self.group[index]
            other = self.clips(own[rng.integers(len(own))])
            samples = np.concatenate([samples[-longest // 2 :], other[: longest // 2]])
        seconds = rng.uniform(shortest_s, self.augment.longest_s)
        return self.change(cut(samples, round(seconds * SAMPLE_RATE_HZ), rng), rng)


def _draw(corpus: list[list[list[int]]], count: int, rng: np.random.Generator) -> list[int]:
    """Clips of one corpus: emotions in turn, then a speaker, then a clip."""
    drawn = []
    order = rng.permutation(len(corpus))
    for place in range(count):
        speakers = corpus[order[place % len(corpus)]]
        clips = speakers[rng.integers(len(speakers))]
        drawn.append(clips[rng.integers(len(clips))])
    return drawn


def cut(rows: Samples, length: int, rng: np.random.Generator) -> Samples:
    """A piece of samples or frames, from anywhere; all of them, if there are no more."""
    if len(rows) <= length:
        return rows
    start = int(rng.integers(len(rows) - length + 1))
    return rows[start : start + length]


def pad(clips: Sequence[Samples]) -> tuple[Tensor, Tensor]:
    """Stack clips of different length.

    Args:
        clips: samples, shape ``(num_samples,)`` each, or frames; at least one.

    Returns:
        Waveforms with zeros at their ends, shape ``(clips, longest)``, and the samples of each,
        int64 ``(clips,)``; or frames, with their width behind.
    """
    lengths = torch.tensor([len(clip) for clip in clips])
    waveform = torch.zeros(len(clips), int(lengths.max()), *clips[0].shape[1:])
    for row, clip in zip(waveform, clips, strict=True):
        row[: len(clip)] = torch.from_numpy(clip)
    return waveform, lengths
