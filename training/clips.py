"""Decoded clips on disk: every file is decoded, trimmed and resampled once, not once an epoch."""

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from service.inference.audio import SAMPLE_RATE_HZ, Waveform, decode
from service.inference.errors import AudioError
from service.inference.quality import trim_edges
from training.corpora import Utterance
from training.errors import TrainingError

_VERSION = 1  # raised when what a cached clip holds changes
_INT16 = 32767.0


class Clips:
    """Waveforms of many utterances in one memory-mapped file.

    Args:
        samples: int16, all clips one after the other; each is scaled to its own peak, which the
            network's level normalisation undoes.
        offsets: where each clip starts, and the end of the last; shape ``(clips + 1,)``.
    """

    def __init__(self, samples: NDArray[np.int16], offsets: NDArray[np.int64]) -> None:
        self.samples = samples
        self.offsets = offsets

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> NDArray[np.float32]:
        """Samples of one clip, float32 in [-1, 1], shape ``(num_samples,)``."""
        start, end = self.offsets[index], self.offsets[index + 1]
        return self.samples[start:end].astype(np.float32) / np.float32(_INT16)

    @property
    def seconds(self) -> float:
        """Audio held, in seconds."""
        return float(self.offsets[-1]) / SAMPLE_RATE_HZ


def load_waveform(path: Path) -> Waveform:
    """Decode one file to 16 kHz mono and cut its edges, as the service does.

    Raises:
        AudioError: if it cannot be decoded.
    """
    return trim_edges(decode(path).waveforms[0])


def load_clips(utterances: Sequence[Utterance], cache: Path) -> Clips:
    """Decode utterances, or take them from ``cache`` where these very files were decoded before.

    Raises:
        TrainingError: if a clip cannot be decoded; it names how many and the first.
    """
    stats = [(str(u.path), u.path.stat().st_size, u.path.stat().st_mtime_ns) for u in utterances]
    digest = hashlib.sha256(json.dumps([_VERSION, stats]).encode()).hexdigest()[:16]
    return cached_clips(cache / f"clips-{digest}", lambda: _decode_all(utterances))


def cached_clips(stem: Path, make: Callable[[], list[NDArray[np.float32]]]) -> Clips:
    """Read the clips at ``stem``, making and storing them first where they are not there."""
    data, offsets = stem.with_suffix(".npy"), stem.with_suffix(".offsets.npy")
    if not (data.exists() and offsets.exists()):
        stem.parent.mkdir(parents=True, exist_ok=True)
        clips = [_to_int16(samples) for samples in make()]
        ends = np.cumsum([0, *(len(clip) for clip in clips)], dtype=np.int64)
        _save(offsets, ends)
        _save(data, np.concatenate(clips))
    return Clips(np.load(data, mmap_mode="r"), np.load(offsets))


def _decode_all(utterances: Sequence[Utterance]) -> list[NDArray[np.float32]]:
    waveforms, broken = [], []
    for utterance in tqdm(utterances, desc="decode", unit="clip", dynamic_ncols=True):
        try:
            waveforms.append(load_waveform(utterance.path).samples)
        except AudioError as error:
            broken.append(f"{utterance.path}: {error}")
    if broken:
        raise TrainingError(
            f"{len(broken)} of {len(utterances)} clips cannot be decoded; "
            f"mend or remove them; the first: {broken[0]}"
        )
    return waveforms


def _to_int16(samples: NDArray[np.float32]) -> NDArray[np.int16]:
    peak = max(float(np.abs(samples).max(initial=0.0)), 1e-6)
    return np.round(samples / peak * _INT16).astype(np.int16)


def _save(path: Path, array: NDArray[np.generic]) -> None:
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    with temporary.open("wb") as file:
        np.save(file, array)
    temporary.replace(path)
