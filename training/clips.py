"""Decoded clips on disk: every file is decoded, trimmed and resampled once, not once an epoch."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from service.inference.audio import Waveform, decode
from service.inference.errors import AudioError
from service.inference.quality import trim_edges
from training.corpora import Utterance
from training.errors import TrainingError
from training.ragged import Ragged, cached

_VERSION = 2  # raised when what a cached clip holds changes


def load_waveform(path: Path) -> Waveform:
    """Decode one file to 16 kHz mono and cut its edges, as the service does.

    Raises:
        AudioError: if it cannot be decoded.
    """
    return trim_edges(decode(path).waveforms[0])


def load_clips(utterances: Sequence[Utterance], cache: Path) -> Ragged:
    """Decode utterances, or take them from ``cache`` where these very files were decoded before.

    Returns:
        One row of samples in [-1, 1] per utterance, in the same order.

    Raises:
        TrainingError: if a clip cannot be decoded; it names how many and the first.
    """
    stats = [(str(u.path), u.path.stat().st_size, u.path.stat().st_mtime_ns) for u in utterances]
    digest = hashlib.sha256(json.dumps([_VERSION, stats]).encode()).hexdigest()[:16]
    return cached(cache / f"clips-{digest}", lambda: _decode_all(utterances))


def _decode_all(utterances: Sequence[Utterance]) -> Iterator[NDArray[np.float32]]:
    broken = []
    # disable=None: no bar where standard error is a file or a pipe
    bar = tqdm(utterances, desc="decode", unit="clip", dynamic_ncols=True, disable=None)
    for utterance in bar:
        try:
            yield load_waveform(utterance.path).samples
        except AudioError as error:
            broken.append(f"{utterance.path}: {error}")
    if broken:
        raise TrainingError(
            f"{len(broken)} of {len(utterances)} clips cannot be decoded; "
            f"mend or remove them; the first: {broken[0]}"
        )
