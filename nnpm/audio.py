"""Audio as users have it: files, bytes and arrays to score, blocks to stream."""

import io
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from .errors import unusable
from .service.inference.audio.waveform import Limits
from .service.inference.errors import ParameterError

Audio = str | os.PathLike[str] | bytes | BinaryIO | npt.NDArray[Any]
"""A path, the bytes of a file, an open binary file, or samples."""

Samples = npt.NDArray[np.int16] | npt.NDArray[np.floating[Any]] | bytes
"""A block of a stream: samples, or 16-bit little-endian PCM."""

_PART_BYTES = 48_000

_LOUDEST = 8.0
"""Floats that filters made may exceed 1; beyond this they are on another scale."""


def audio_source(
    audio: Audio,
    sample_rate: int | None,
    limits: Limits = Limits(),  # noqa: B008 - frozen
) -> tuple[Path | BinaryIO, str]:
    """Make something to decode of what a user gives.

    Args:
        audio: as for :meth:`Model.predict`.
        sample_rate: in Hz, for samples alone.
        limits: of length and channels; samples beyond are refused.

    Returns:
        A path or a file, and its name (empty if it has none).

    Raises:
        ParameterError: if samples and rate do not belong together, or are no audio.
    """
    if hasattr(audio, "__array__"):
        audio = np.asarray(audio)  # a tensor, for example
    if isinstance(audio, np.ndarray):
        return io.BytesIO(_wav(audio, sample_rate, limits)), ""
    if sample_rate is not None:
        raise ParameterError("sample_rate is for samples in an array; a file says its own.")
    if isinstance(audio, str | os.PathLike):
        path = Path(audio)
        if not path.is_file():
            raise ParameterError(f"{path}: there is no such file.")
        return path, str(path)
    if isinstance(audio, bytes):
        return io.BytesIO(audio), ""
    if hasattr(audio, "read"):
        return audio, ""
    raise ParameterError(
        f"The recording is a {type(audio).__name__}; give a path, bytes, a binary file or an array."
    )


def _wav(samples: npt.NDArray[Any], sample_rate: int | None, limits: Limits) -> bytes:
    """Write samples as a WAV of floats, so that they meet the same limits as a file."""
    import soundfile

    if sample_rate is None:
        raise ParameterError("An array has no sample rate; give it as sample_rate, in Hz.")
    if not isinstance(sample_rate, int | np.integer) or not 0 < sample_rate < 1 << 31:
        raise ParameterError(f"sample_rate is {sample_rate!r}; it must be a whole number of Hz.")
    if samples.ndim not in (1, 2) or (
        samples.ndim == 2 and samples.shape[0] > samples.shape[1] > 0
    ):
        raise ParameterError(
            f"The array has the shape {samples.shape}; it must be (num_samples,) or (num_channels, "
            "num_samples): transpose one whose samples come first."
        )
    if samples.shape[-1] > limits.max_duration_s * sample_rate or (
        samples.ndim == 2 and (len(samples) > limits.max_channels)
    ):
        raise ParameterError(
            f"The array has the shape {samples.shape} at {sample_rate} Hz; at most "
            f"{limits.max_channels} channels of {limits.max_duration_s:g} s are scored."
        )
    kind = samples.dtype
    if kind in (np.int16, np.int32):
        floats = samples.astype(np.float32) / np.float32(-float(np.iinfo(kind).min))
    elif np.issubdtype(kind, np.floating):
        floats = samples.astype(np.float32)
        if not np.isfinite(floats).all():
            raise ParameterError("The array holds values that are not finite numbers.")
        peak = float(np.abs(floats).max(initial=0.0))
        if peak > _LOUDEST:
            raise ParameterError(
                f"The array has values up to {peak:g}; floats must be in [-1, 1]: divide by the "
                "full scale, such as 32768 for 16-bit samples."
            )
    else:
        raise ParameterError(
            f"The array holds {kind}; give floats in [-1, 1], or 16-bit or 32-bit integers."
        )
    file = io.BytesIO()
    soundfile.write(file, floats.T, int(sample_rate), format="WAV", subtype="FLOAT")
    return file.getvalue()


def blocks(audio: Samples | Iterable[Samples]) -> Iterable[Samples]:
    """The blocks of a stream, which may be a single one."""
    return [audio] if isinstance(audio, bytes | np.ndarray) else audio


def pcm(block: Samples, channels: int) -> Iterator[bytes]:
    """Cut a block of a stream into messages of 16-bit samples.

    Args:
        block: PCM as bytes; or samples of shape ``(num_samples,)`` or ``(channels, num_samples)``.
        channels: of the stream.

    Examples:
        >>> [len(part) for part in pcm(np.zeros(30_000, np.float32), 1)]
        [48000, 12000]
    """
    data = block if isinstance(block, bytes | bytearray) else _frames(block, channels).tobytes()
    size = _PART_BYTES - _PART_BYTES % (2 * channels)
    for start in range(0, len(data), size):
        yield bytes(data[start : start + size])


def _frames(block: npt.NDArray[Any], channels: int) -> npt.NDArray[np.int16]:
    shape_fits = block.ndim == 1 if channels == 1 else block.ndim == 2 and len(block) == channels
    if not shape_fits:
        wanted = "(num_samples,)" if channels == 1 else f"({channels}, num_samples)"
        raise unusable(f"A block has the shape {block.shape}; it must be {wanted}.")
    if np.issubdtype(block.dtype, np.floating):
        block = np.clip(np.nan_to_num(block) * 32768, -32768, 32767).round()
    elif block.dtype != np.int16:
        raise unusable(f"A block holds {block.dtype}; give floats in [-1, 1] or 16-bit integers.")
    return np.ascontiguousarray(block.T.astype("<i2"))
