"""Waveform variants of the training clips: room, codec, noise, speed, pitch; made once, cached."""

import random
import signal
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context

import audiomentations as am
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from ...service.inference.audio.waveform import SAMPLE_RATE_HZ
from ...service.system import available_cores
from .clips import Ragged, cached

_VERSION = 1  # raised when the chain below changes


def chain() -> am.Compose:
    """The changes to a recording, in the order in which they happen in reality.

    First the voice (speed, pitch or tempo), then room, noise, microphone and codec. About one
    variant in twelve stays nearly clean.
    """
    return am.Compose(
        [
            am.OneOf(
                [
                    am.PitchShift(-2.5, 2.5, p=1.0),
                    am.TimeStretch(0.8, 1.25, leave_length_unchanged=False, p=1.0),
                    am.Resample(14_000, 18_500, p=1.0),
                ],
                p=0.6,
            ),
            am.RoomSimulator(
                min_absorption_value=0.15,
                max_absorption_value=0.5,
                use_ray_tracing=False,
                max_order=3,
                leave_length_unchanged=True,
                p=0.3,
            ),
            am.AddColorNoise(min_snr_db=5.0, max_snr_db=35.0, p=0.4),
            am.SevenBandParametricEQ(min_gain_db=-8.0, max_gain_db=8.0, p=0.3),
            am.OneOf(
                [
                    am.BandPassFilter(800, 1600, 1.2, 1.8, p=1.0),
                    am.LowPassFilter(2500, 6000, p=1.0),
                    am.BitCrush(6, 10, p=1.0),
                    am.ClippingDistortion(0, 15, p=1.0),
                    am.Mp3Compression(16, 48, backend="fast-mp3-augment", p=1.0),
                ],
                p=0.5,
            ),
        ]
    )


def make_variant(samples: NDArray[np.float32], seed: int) -> NDArray[np.float32]:
    """Make one variant of a clip; the same seed gives the same variant.

    audiomentations draws from the global generators of ``random`` and numpy, so these are seeded.
    """
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - the library's own source of chance
    peak = max(float(np.abs(samples).max(initial=0.0)), 1e-6)
    varied = chain()(samples / np.float32(peak) * np.float32(0.5), SAMPLE_RATE_HZ)
    return np.asarray(varied, np.float32)


def load_variants(clips: Ragged, count: int) -> list[Ragged]:
    """Make ``count`` variants of every clip, or read them from the cache beside the clips.

    Args:
        clips: all clips of a cache file (not a selection).
        count: variants per clip.
    """
    found = []
    for variant in range(count):
        stem = clips.stem.with_name(f"{clips.stem.name}-variant-{_VERSION}-{variant}")
        found.append(cached(stem, partial(_make, clips, variant)))
    return found


def _make(clips: Ragged, variant: int) -> Iterator[NDArray[np.float32]]:
    seeds = [variant * 1_000_003 + index for index in range(len(clips))]
    pool = ProcessPoolExecutor(
        available_cores(),
        mp_context=get_context("spawn"),  # a fork of a process with torch's threads may hang
        initializer=signal.signal,  # the parent reports an interrupt, in one line
        initargs=(signal.SIGINT, signal.SIG_IGN),
    )
    try:
        yield from tqdm(
            pool.map(make_variant, clips, seeds, chunksize=32),
            desc=f"variant {variant + 1}",
            total=len(clips),
            unit="clip",
            dynamic_ncols=True,
            disable=None,
        )
    finally:
        pool.shutdown(cancel_futures=True)
