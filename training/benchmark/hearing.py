"""Pooled features of a target corpus, computed once per network and kept."""

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from service.inference.audio import SAMPLE_RATE_HZ
from training.adaptation.views import Listener
from training.benchmark.base import Base
from training.benchmark.degrade import DEGRADATIONS
from training.clips import load_clips
from training.corpora import Utterance
from training.replacing import replacing

_VERSION = 1  # raised when the features of a clip change
_LONGEST_S = 10


def hear_corpus(
    base: Base,
    utterances: Sequence[Utterance],
    degradation: str,
    num_views: int,
    seed: int,
    cache: Path,
) -> Tensor:
    """Pool all clips, trimmed as for training, their first ten seconds.

    Args:
        base: gives the network.
        utterances: of the corpus.
        degradation: a name in :data:`training.benchmark.degrade.DEGRADATIONS`.
        num_views: spectral augmentations of each clip.
        seed: of the views.
        cache: folder for decoded clips and these features.

    Returns:
        Shape ``(1 + num_views, clips, D)``; the first is each clip as recorded, or degraded.
    """
    clips = load_clips(utterances, cache)
    told = [_VERSION, base.fingerprint, clips.stem.name, degradation, num_views, seed]
    name = hashlib.sha256(repr(told).encode()).hexdigest()[:16]
    path = cache / f"benchmark-heard-{name}.npy"
    if not path.exists():
        change = DEGRADATIONS[degradation]
        bar = tqdm(clips, desc="listen", unit="clip", leave=False, disable=None)
        heard = listen(base, map(change, bar), num_views, seed).numpy()
        with replacing(path) as temporary, temporary.open("xb") as file:
            np.save(file, heard)
    return torch.from_numpy(np.load(path))


def listen(base: Base, clips: Iterable[NDArray[np.float32]], num_views: int, seed: int) -> Tensor:
    """Pool clips in one thread; shapes as in :func:`hear_corpus`."""
    listener = Listener(base.network, num_views, seed)
    longest = _LONGEST_S * SAMPLE_RATE_HZ
    return torch.stack([listener(clip[:longest]) for clip in clips], dim=1)
