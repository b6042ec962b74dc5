"""Which clips make an epoch, and how a batch of waveforms is cut from them."""

from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from service.inference.audio import SAMPLE_RATE_HZ
from training.clips import Clips
from training.config import AugmentConfig
from training.corpora import Utterance

_SHORTEST_CROP_S = 1.5


class BalancedSampler:
    """Draw corpus, then emotion, then speaker, then clip: no voice or class fills the epoch.

    Corpora are drawn by the square root of their size, everything below them evenly.

    Args:
        utterances: the training side.
    """

    def __init__(self, utterances: Sequence[Utterance]) -> None:
        tree: dict[str, dict[str, dict[str, list[int]]]] = defaultdict(
            lambda: defaultdict(lambda: defaultdict(list))
        )
        for index, utterance in enumerate(utterances):
            tree[utterance.corpus][utterance.emotion][utterance.speaker].append(index)
        self._corpora = [
            [list(speakers.values()) for speakers in emotions.values()]
            for emotions in tree.values()
        ]
        sizes = [sum(len(clips) for e in corpus for clips in e) for corpus in self._corpora]
        self._shares = np.sqrt(sizes) / np.sqrt(sizes).sum()

    def draw(self, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """``count`` indices of utterances, with repetition."""
        drawn = np.empty(count, np.int64)
        for place, corpus in enumerate(rng.choice(len(self._corpora), count, p=self._shares)):
            emotions = self._corpora[corpus]
            speakers = emotions[rng.integers(len(emotions))]
            clips = speakers[rng.integers(len(speakers))]
            drawn[place] = clips[rng.integers(len(clips))]
        return drawn


def crop(
    samples: NDArray[np.float32], config: AugmentConfig, rng: np.random.Generator
) -> NDArray[np.float32]:
    """A random stretch of a clip, at most ``crop_s`` long and sometimes shorter."""
    longest_s = config.crop_s
    if rng.random() < config.short_crop_p:
        longest_s = rng.uniform(min(_SHORTEST_CROP_S, longest_s), longest_s)
    longest = int(longest_s * SAMPLE_RATE_HZ)
    start = rng.integers(max(1, len(samples) - longest + 1))
    return samples[start : start + longest]


def pad(clips: Sequence[NDArray[np.float32]], num_samples: int = 0) -> tuple[Tensor, Tensor]:
    """Stack clips of different length.

    Returns:
        Waveforms with zeros at their ends, shape ``(clips, longest or num_samples)``, and the
        samples of each, int64 ``(clips,)``.
    """
    lengths = torch.tensor([len(clip) for clip in clips])
    waveform = torch.zeros(len(clips), max(num_samples, int(lengths.max())))
    for row, clip in zip(waveform, clips, strict=True):
        row[: len(clip)] = torch.from_numpy(clip)
    return waveform, lengths


def training_batches(
    clips: Sequence[Clips],
    indices: NDArray[np.int64],
    config: AugmentConfig,
    batch_size: int,
    rng: np.random.Generator,
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield waveforms, lengths and utterance indices.

    Args:
        clips: the clips as recorded, then their variants (each as long a list).
        indices: utterances of the epoch, in order.
        config: crops and the share of clean draws.
        batch_size: clips per batch; the last, incomplete one is left out.
        rng: draws crops and variants.
    """
    for start in range(0, len(indices) - batch_size + 1, batch_size):
        chosen = indices[start : start + batch_size]
        waveforms = []
        for index in chosen:
            variant = 0
            if len(clips) > 1 and rng.random() >= config.clean_share:
                variant = int(rng.integers(1, len(clips)))
            waveforms.append(crop(clips[variant][int(index)], config, rng))
        waveform, lengths = pad(waveforms, int(config.crop_s * SAMPLE_RATE_HZ))
        yield waveform, lengths, torch.from_numpy(chosen)
