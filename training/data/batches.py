"""Balanced draws of clips, crops of equal length, and batches."""

from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..config import AugmentConfig
from ..corpora import Utterance
from .clips import Ragged


class BalancedSampler:
    """Draw corpus, then emotion, then speaker, then clip: no voice or class dominates.

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
    features: NDArray[np.float32], length: int, rng: np.random.Generator
) -> NDArray[np.float32]:
    """``length`` frames from a random place; a shorter clip is repeated from a random place.

    Every crop is full, so that training needs no mask and the clip's length cannot be learnt.

    Args:
        features: shape ``(num_frames, n_mels)``.
        length: frames of the crop.
        rng: draws the place.

    Returns:
        Shape ``(length, n_mels)``.
    """
    num_frames = len(features)
    if num_frames >= length:
        start = rng.integers(num_frames - length + 1)
        return features[start : start + length]
    place = (np.arange(length) + rng.integers(num_frames)) % num_frames
    repeated: NDArray[np.float32] = features[place]
    return repeated


def pad(clips: Sequence[NDArray[np.float32]]) -> tuple[Tensor, Tensor]:
    """Stack clips of different length.

    Args:
        clips: samples, shape ``(num_samples,)`` each; at least one.

    Returns:
        Waveforms with zeros at their ends, shape ``(clips, longest)``, and the samples of each,
        int64 ``(clips,)``.
    """
    lengths = torch.tensor([len(clip) for clip in clips])
    waveform = torch.zeros(len(clips), int(lengths.max()))
    for row, clip in zip(waveform, clips, strict=True):
        row[: len(clip)] = torch.from_numpy(clip)
    return waveform, lengths


def training_batches(
    versions: Sequence[Ragged],
    indices: NDArray[np.int64],
    config: AugmentConfig,
    batch_size: int,
    rng: np.random.Generator,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield batches of features and of the utterances' indices.

    Args:
        versions: features of the clips as recorded, then of their variants (each as long a list).
        indices: utterances of the epoch, in order.
        config: crops and the share of clean draws.
        batch_size: clips per batch; the last, incomplete one is left out.
        rng: draws crops and variants.

    Yields:
        Log-mel power, shape ``(batch, 1, n_mels, frames)``, and int64 indices ``(batch,)``.
    """
    for start in range(0, len(indices) - batch_size + 1, batch_size):
        chosen = indices[start : start + batch_size]
        # one length per batch: the network learns from short and from long clips
        length = int(rng.integers(config.shortest_crop, config.longest_crop + 1))
        rows = []
        for index in chosen:
            version = 0
            if len(versions) > 1 and rng.random() >= config.clean_share:
                version = int(rng.integers(1, len(versions)))
            rows.append(crop(versions[version][int(index)], length, rng).T)
        yield torch.from_numpy(np.stack(rows))[:, None], torch.from_numpy(chosen)
