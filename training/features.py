"""Log-mel features on disk, by the network's own front end: an epoch is the encoder's work."""

import hashlib
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from training.config import FrontEndConfig
from training.frontend import FrontEnd
from training.ragged import Ragged, cached

_VERSION = 1  # raised when what the front end computes of a clip changes


def load_features(clips: Ragged, config: FrontEndConfig) -> Ragged:
    """Log-mel power of whole clips, before normalisation; cached beside the clips.

    Args:
        clips: all clips of a cache file (not a selection).
        config: of the front end.

    Returns:
        One row per clip, shape ``(num_frames, n_mels)``.
    """
    sizes = config.model_dump(exclude={"band_mean", "scale", "deviation"})
    digest = hashlib.sha256(repr([_VERSION, sorted(sizes.items())]).encode()).hexdigest()[:8]
    stem = clips.stem.with_name(f"{clips.stem.name}-features-{digest}")
    return cached(stem, lambda: _compute(clips, FrontEnd(config)))


@torch.no_grad()
def _compute(clips: Ragged, front_end: FrontEnd) -> Iterator[NDArray[np.float32]]:
    shortest = front_end.config.win_length
    for samples in tqdm(clips, desc="features", unit="clip", dynamic_ncols=True, disable=None):
        padded = np.pad(samples, (0, max(0, shortest - len(samples))))
        power, _ = front_end.log_mel(torch.from_numpy(padded)[None], torch.tensor([len(samples)]))
        yield power[0, 0].T.numpy()
