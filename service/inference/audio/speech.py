"""Speech detection without a model: is there speech, where, and how loud.

Training, prediction, streams, adaptation and evaluation all detect and trim through this module.
"""

import functools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..errors import check_abandoned
from .waveform import Samples, Waveform

FRAME_S = 0.02
"""Length of a frame in seconds."""

MARGIN_S = 0.05
"""Seconds kept on either side of speech when the edges are trimmed."""

# Measured on 1500 clips of six corpora: their loud frames have -54 dB or more, their modulation is
# 9.0 dB or more; that of white, pink and brown noise is 2.8 dB or less.
_SILENCE_DB = -70.0
_FLOOR_DB = -75.0
_RANGE_DB = 35.0
_MIN_MODULATION_DB = 3.0
_MODULATION_FROM_S = 0.5  # shorter clips have too few frames to judge
_LOUD_FRAMES = 8
_MAX_LOUD_FRAMES = 25  # half a second: one word in an hour is speech
_FIRST_BIN = 6  # of 50 Hz each: 300 to 4300 Hz
NUM_BANDS = 10
_BAND_BINS = 8
VOICE_FRAMES = 30
"""A sound of fewer frames (0.6 s) is not judged by how it moves: a single word need not."""

# Of speech of five languages, clean, noisy and by telephone, fewer than 1 in 100 turns fail one.
_MAX_HELD_DB = -0.85
_MIN_CHANGE_DB = 2.25
_FLAT = -1.6
_MIN_SHAPE = 0.38
# An offset and seventeen weights against babble and against breath: a voice is on the positive side
# of both. ``make detector`` fits and writes them.
_RULES = """
-9.95 -0.0813 -0.0852 -0.091 -0.0648 -0.0388 -0.0189 -0.732 1.24 0.311 0.378 0.0582 -0.062 1.77
-0.00674 0.273 -1.69 1.3
-6.86 -0.149 -0.0909 -0.0718 -0.0238 0.034 0.024 -0.46 1.85 0.302 0.345 0.271 0.312 -1.46 0.00195
0.843 4.87 -0.0372
"""
_NEPER = float(np.log(10.0) / 10.0)
_BLOCK_FRAMES = 3000  # a minute
_BAND_NUMBERS = np.arange(NUM_BANDS, dtype=np.float32)
_SMALL = 20  # frames


@dataclass(frozen=True, slots=True)
class Quality:
    """Facts about a waveform that need no model.

    Attributes:
        speech_ratio: share of 20 ms frames that are active, in [0, 1].
        speech_start_s: start of the first active frame.
        speech_end_s: end of the last active frame.
        level_db: level of the loud frames, in dB relative to full scale.
        has_speech: False for silence and for steady sounds, as speech is modulated.
    """

    speech_ratio: float
    speech_start_s: float
    speech_end_s: float
    level_db: float
    has_speech: bool


def assess(waveform: Waveform) -> Quality:
    """Detect speech by the levels of 20 ms frames.

    A frame is active if it is at most 35 dB below the loud frames. There is speech if the loud
    frames are above -70 dB and, in a clip of 0.5 s or more, the active ones are modulated.

    Args:
        waveform: of any length; an offset (DC) is ignored.

    Returns:
        Its quality; without speech the ratio, start and end are 0.

    References:
        The loudness gate of ITU-R BS.1770 is relative to the level, too; the modulation, which
        separates speech from steady noise, is ours.

    Examples:
        >>> assess(Waveform(np.zeros(16_000, np.float32))).has_speech
        False
    """
    rate = waveform.sample_rate
    frame = round(FRAME_S * rate)
    frames = analyse(waveform, frame)
    levels = frames.levels
    loud_db = _loud_db(levels)
    active = np.flatnonzero(levels > max(loud_db - _RANGE_DB, _FLOOR_DB))
    if not is_speech(levels, frames.bands, long=waveform.duration_s >= _MODULATION_FROM_S):
        return Quality(0.0, 0.0, 0.0, loud_db, has_speech=False)
    return Quality(
        speech_ratio=len(active) / len(levels),
        speech_start_s=int(active[0]) * frame / rate,
        speech_end_s=min((int(active[-1]) + 1) * frame / rate, waveform.duration_s),
        level_db=loud_db,
        has_speech=True,
    )


def speech_bounds(waveform: Waveform, quality: Quality) -> tuple[int, int]:
    """Where the speech starts and ends, with a margin of 50 ms, in samples.

    Args:
        waveform: of any length.
        quality: of this waveform, from :func:`assess`.

    Returns:
        Start and end; those of the whole waveform if there is no speech.
    """
    if not quality.has_speech:
        return 0, len(waveform)
    rate = waveform.sample_rate
    start = max(0, round((quality.speech_start_s - MARGIN_S) * rate))
    end = min(len(waveform), round((quality.speech_end_s + MARGIN_S) * rate))
    return start, end


def trim_edges(waveform: Waveform) -> Waveform:
    """Cut off what lies outside :func:`speech_bounds`; a view of the same samples."""
    start, end = speech_bounds(waveform, assess(waveform))
    return waveform.part(start, end)


@dataclass(frozen=True, slots=True, eq=False)
class Frames:
    """What is known of each frame.

    Attributes:
        levels: in dB of full scale, shape ``(num_frames,)``.
        bands: power in ten bands of speech, shape ``(num_frames, 10)``.
    """

    levels: npt.NDArray[np.float32]
    bands: npt.NDArray[np.float32]


def is_speech(
    levels: npt.NDArray[np.float32], bands: npt.NDArray[np.float32], *, long: bool | None = None
) -> bool:
    """Whether frames hold speech: it is audible, and modulated."""
    loud_db = _loud_db(levels)
    if loud_db < _SILENCE_DB:
        return False
    if not (len(levels) * FRAME_S >= _MODULATION_FROM_S if long is None else long):
        return True
    active = levels > max(loud_db - _RANGE_DB, _FLOOR_DB)
    return _modulation_db(levels[active], bands[active]) >= _MIN_MODULATION_DB


def is_voice(frames: Frames, around: npt.NDArray[np.float32]) -> bool:
    """Whether a sound of 0.6 s or more is one voice, by how it moves.

    A voice is not held: its level pauses between syllables, and its low bands change from frame to
    frame, while notes last. Its spectrum takes other shapes, or has strong formants, while gusts of
    noise are flat and keep their shape. Babble and breath are told from it by a linear rule each,
    which ``benchmarks/fit_detector.py`` fits.

    Args:
        frames: of the sound.
        around: levels of the frames around it, and its own: a voice pauses, and a crowd does not.

    References:
        Scheirer & Slaney, *Construction and Evaluation of a Robust Multifeature Speech/Music
        Discriminator*, ICASSP 1997, from whose features these were chosen.
    """
    if len(frames.levels) < VOICE_FRAMES:
        return True
    found = describe(frames, around)
    is_held = found[0] >= _MAX_HELD_DB or min(found[8], found[9]) <= _MIN_CHANGE_DB
    is_shapeless = found[6] >= _FLAT and found[7] <= _MIN_SHAPE
    rules = _rules()
    return not (is_held or is_shapeless) and bool((rules[:, 1:] @ found >= -rules[:, 0]).all())


@functools.cache
def _rules() -> npt.NDArray[np.float32]:
    return np.array(_RULES.split(), np.float32).reshape(-1, 18)


def describe(frames: Frames, around: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """How a sound moves, by which a voice is told from other sounds.

    Returns:
        Shape ``(17,)``. How far four quantiles of the level are below the loud frames, and two
        of the level around: a voice pauses between syllables, and eight voices do not. Mean and
        deviation of the flatness of the spectrum: 0 where all bands are equally strong. Change from
        frame to frame in the two lowest bands, in the middle and in the high ones. How far bands
        rise and fall together. Tilt of the spectrum, and how its centre moves. How rough the level
        is from frame to frame, and over eight frames.
    """
    levels = frames.levels
    count = len(levels)
    ordered = np.sort(levels)
    loud = ordered[count - 1 - count // 20]
    quantiles = ordered[[3 * count // 4, count // 2, count // 4, count // 10]]
    decibels = 10.0 * np.log10(frames.bands + 1e-9)
    loudest = np.sort(decibels[:, frames.bands.sum(axis=0).argmax()])
    decibels = np.maximum(decibels - loudest[count - 1 - count // 20], -50.0)
    change = np.abs(np.diff(decibels, axis=0)).mean(axis=0)
    powers = np.exp(decibels * _NEPER)
    sums = powers.sum(axis=1)
    # 0 where all bands are equally strong, and the number of the middle band
    shape = np.stack([decibels.mean(axis=1) * _NEPER - np.log(sums / NUM_BANDS),
                      powers @ _BAND_NUMBERS / sums])  # fmt: skip
    weights = np.exp(np.maximum(levels - loud, -30.0) * _NEPER)
    weights /= weights.sum()
    mean = shape @ weights
    deviation = np.sqrt(np.square(shape - mean[:, None]) @ weights)
    tilt = weights @ decibels
    apart = decibels - decibels.mean(axis=0)
    variance = np.einsum("ij,ij->j", apart, apart) / count
    scale = 1.0 / (np.sqrt(variance) + 0.5)
    together = np.square(apart @ scale).mean() - variance @ np.square(scale)
    pace = np.maximum(levels - loud, -_RANGE_DB)
    twice = 2.0 * (pace.var() + 1.0)
    far = min(8, count - 1)
    return np.array(
        [
            *np.maximum(quantiles - loud, -_RANGE_DB),
            *np.maximum(np.sort(around)[[len(around) // 4, len(around) // 10]] - loud, -_RANGE_DB),
            mean[0],
            deviation[0],
            change[0],
            change[1],
            change[3:7].mean(),
            change[7:].mean(),
            together / (NUM_BANDS * (NUM_BANDS - 1)),
            tilt[:3].mean() - tilt[6:].mean(),
            deviation[1],
            np.square(np.diff(pace)).mean() / twice,
            np.square(pace[far:] - pace[:-far]).mean() / twice,
        ],
        np.float32,
    )


def analyse(waveform: Waveform, frame: int) -> Frames:
    """Level of each frame, and its power in ten bands of speech.

    The offset (DC) of the clip is removed from both. Goes in blocks of a minute, so that two hours
    of audio need not be in memory.
    """
    if len(waveform) < frame:
        waveform = Waveform(np.pad(waveform.samples, (0, frame - len(waveform))))
    num_frames = len(waveform) // frame
    offset = _offset(waveform, _BLOCK_FRAMES * frame)
    half = frame // 2
    even_basis, odd_basis, in_band = _bases(frame)
    levels = np.empty(num_frames, np.float32)
    bands = np.zeros((num_frames, NUM_BANDS), np.float32)
    for start in range(0, num_frames, _BLOCK_FRAMES):
        check_abandoned()
        end = min(start + _BLOCK_FRAMES, num_frames)
        samples = waveform.part(start * frame, end * frame).samples
        block = samples.reshape(-1, frame) - offset
        power = np.einsum("ij,ij->i", block, block) / frame
        levels[start:end] = 10.0 * np.log10(power + 1e-20)
        first, mirrored = block[:, :half], block[:, : half - 1 : -1]
        squares = _product(first + mirrored, even_basis) ** 2
        squares += _product(first - mirrored, odd_basis) ** 2
        bands[start:end] = _product(squares, in_band)
    return Frames(levels, bands)


@functools.cache
def _bases(frame: int) -> tuple[npt.NDArray[np.float32], ...]:
    """What turns frames into the power of bands: two products cost a third of an FFT of all bins.

    The phase of a frame does not matter, so it is counted from the middle: cosines see only what is
    even about it, and sines what is odd.

    Args:
        frame: its length in samples, an even number.

    Returns:
        Hann-windowed cosines and sines of the bins for half a frame, scaled so that the sum of
        their squares is the mean square of a bin, each of shape ``(frame / 2, num_bins)``; and
        which bins are in which band, ``(num_bins, NUM_BANDS)``.
    """
    hann = np.hanning(frame + 2)[1:-1]
    bins = np.arange(_FIRST_BIN, _FIRST_BIN + NUM_BANDS * _BAND_BINS)
    from_middle = np.arange(frame // 2) - (frame - 1) / 2
    angles = 2 * np.pi / frame * np.outer(from_middle, bins)
    window = (hann * np.sqrt(2.0 / (frame * np.sum(hann**2))))[: frame // 2, None]
    in_band = np.repeat(np.eye(NUM_BANDS), _BAND_BINS, axis=0)
    found = window * np.cos(angles), window * np.sin(angles), in_band
    return tuple(one.astype(np.float32) for one in found)


def _product(frames: Samples, basis: Samples) -> Samples:
    """``frames @ basis`` in products so small that no BLAS wakes threads for them.

    One thread takes 40 us for a clip of 3 s; OpenBLAS's own threads took a hundred times the CPU.
    """
    whole = len(frames) // _SMALL * _SMALL
    found = np.empty((len(frames), basis.shape[1]), np.float32)
    stacked = frames[:whole].reshape(-1, _SMALL, frames.shape[1])
    np.matmul(stacked, basis, out=found[:whole].reshape(-1, _SMALL, basis.shape[1]))
    np.matmul(frames[whole:], basis, out=found[whole:])
    return found


def _offset(waveform: Waveform, block: int) -> np.float32:
    """The mean of all samples, summed up block by block."""
    sums = [
        waveform.part(start, start + block).samples.sum(dtype=np.float64)
        for start in range(0, len(waveform), block)
    ]
    return np.float32(np.sum(sums) / len(waveform))


def _loud_db(levels: npt.NDArray[np.float32]) -> float:
    """The level that 5 % of the frames exceed; fewer in a long clip, where speech may be rare."""
    rank = max(min(_LOUD_FRAMES, 1 + len(levels) // 20), min(len(levels) // 200, _MAX_LOUD_FRAMES))
    return float(np.partition(levels, -rank)[-rank])


def _modulation_db(levels: npt.NDArray[np.float32], bands: npt.NDArray[np.float32]) -> float:
    """How far the loud frames are above the quietest tenth, all bands with the same weight.

    Each band is divided by its own mean: without this whitening the level of pink noise varies by
    10 dB. A band 50 dB below the whole is ignored, as it is the leakage of a tone.
    The bands are overwritten: those of two hours are 14 MB.
    """
    # sums, as the means of numpy cost more than they do for a short clip
    floor = 1e-5 * np.add.reduce(10.0 ** (levels / 10.0)) / len(levels)
    mean = np.add.reduce(bands, axis=0) / len(bands) + floor
    bands += floor
    bands /= mean
    relative_db = 10.0 * np.log10(np.add.reduce(bands, axis=1) / NUM_BANDS)
    return _loud_db(relative_db) - _tenth(relative_db)


def _tenth(values: npt.NDArray[np.float32]) -> float:
    """The 10th percentile, as ``np.percentile``, which takes 20 times as long for a short clip."""
    ordered = np.sort(values)
    below = (len(values) - 1) // 10
    above = min(below + 1, len(values) - 1)
    share = (len(values) - 1) / 10 - below
    return float(ordered[below] + share * (ordered[above] - ordered[below]))
