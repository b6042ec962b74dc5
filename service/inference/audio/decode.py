"""Audio bytes in, 16 kHz waveforms out: decoding, channels, band-limited resampling, limits.

Reading goes block by block into a streaming resampler. What comes out is held in memory up to
16 MiB a recording (four minutes of one channel) and beyond that in unnamed temporary files, so
that memory depends neither on the length nor on the rate, width or channels of what was sent.

Blocks of audio at any rate, gathered at another.
"""

import contextlib
import io
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
import soxr

from ...system import silence_native_stdio
from ..errors import (
    AudioError,
    AudioTooLongError,
    AudioTooShortError,
    DamagedAudioError,
    NotAudioError,
)
from .ffmpeg import MediaReader
from .formats import SOUND_FILE, container_of
from .reader import DecodeBudget, Reader, Source, broken_off
from .sndfile import SoundFileReader
from .waveform import (
    CLIPPED_LEVEL,
    SAMPLE_RATE_HZ,
    AudioInfo,
    ChannelMode,
    Limits,
    Recording,
    Spool,
    Store,
    Waveform,
)

HELD_BYTES = 1 << 24
"""Result that is kept in memory, all channels together; a longer one goes into files."""


class Resampler:
    """Resamples a stream, band-limited; the result does not depend on how it was cut into blocks.

    Args:
        in_rate: of the blocks, in Hz.
        out_rate: of the result, in Hz; where it is the same, samples pass unchanged.
        num_channels: of the blocks.
    """

    def __init__(self, in_rate: int, out_rate: int, num_channels: int) -> None:
        self._stream = (
            None
            if in_rate == out_rate
            else soxr.ResampleStream(in_rate, out_rate, num_channels, dtype="float32")
        )
        self._outputs = [Store(HELD_BYTES // num_channels) for _ in range(num_channels)]

    def push(self, block: npt.NDArray[np.float32], *, last: bool = False) -> None:
        """Add a block of shape ``(frames, num_channels)``.

        Raises:
            NoRoomError: if the result is long, and there is no room for it on the disk.
        """
        if self._stream is not None:
            block = self._stream.resample_chunk(block, last=last)
            np.clip(block, -1.0, 1.0, out=block)  # the filter overshoots at full scale
        for channel, output in enumerate(self._outputs):
            output.append(block[:, channel])

    def discard(self) -> None:
        """Drop the result, and its files."""
        for output in self._outputs:
            output.discard()

    def finish(self) -> list[npt.NDArray[np.float32] | Spool]:
        """Flush the filter and return the samples of each channel."""
        self.push(np.zeros((0, len(self._outputs)), np.float32), last=True)
        return [output.finish() for output in self._outputs]


def decode(
    source: BinaryIO | bytes | Path,
    *,
    channels: ChannelMode = "mix",
    limits: Limits = Limits(),  # noqa: B008 - frozen
) -> Recording:
    """Decode one recording to 16 kHz.

    Args:
        source: a seekable binary file, the bytes themselves, or a path.
        channels: "mix" averages the channels, "split" keeps one waveform each.
        limits: what is refused.

    Returns:
        The recording; its waveforms have ``round(frames * 16000 / rate)`` samples, the same ones
        whatever the block size.

    Raises:
        NotAudioError: if nothing here reads it, or its rate or channels are out of range.
        DamagedAudioError: if it breaks off early, or holds samples that are not numbers.
        AudioTooShortError: if it is empty or shorter than ``limits.min_duration_s``.
        AudioTooLongError: if it is longer than ``limits.max_duration_s``.
        CostlyAudioError: if decoding takes more than audio of its length should.
        NoRoomError: if it is long, and the disk is full.

    Examples:
        >>> import soundfile
        >>> clip = io.BytesIO()
        >>> soundfile.write(clip, np.zeros((44_100, 2)), 44_100, format="WAV")
        >>> recording = decode(clip.getvalue())
        >>> recording.info.channels, recording.waveforms[0].samples.shape
        (2, (16000,))
    """
    if isinstance(source, Path):
        try:
            with source.open("rb") as opened:
                return decode(opened, channels=channels, limits=limits)
        except OSError as error:
            raise NotAudioError(f"The file cannot be opened: {error.strerror}.") from error
    file = io.BytesIO(source) if isinstance(source, bytes) else source
    if file.seek(0, io.SEEK_END) == 0 and file.tell() == 0:
        raise AudioTooShortError("Empty: 0 bytes of audio; send a recording of 0.1 s or more.")
    silence_native_stdio()
    allowance = DecodeBudget()
    try:
        with contextlib.closing(_open(file, allowance)) as reader:
            return _read(reader, channels, limits, allowance)
    except AudioError:
        allowance.check()  # where it is spent, the file seems to end, and that is said instead
        raise


def _open(file: BinaryIO, allowance: DecodeBudget) -> Reader:
    refusal = NotAudioError(
        "Not audio that we read; send WAV, FLAC, MP3, Ogg (Opus or Vorbis), AIFF, AU or CAF, or "
        "with the extra 'media' MP4, M4A, WebM, AMR or WMA."
    )
    container = container_of(file)
    if container is None:
        raise refusal
    if container is SOUND_FILE:
        return SoundFileReader(Source(file, allowance), refusal)
    return MediaReader(file, container, allowance)


def _read(reader: Reader, mode: ChannelMode, limits: Limits, allowance: DecodeBudget) -> Recording:
    rate, num_channels, promised = reader.rate_hz, reader.num_channels, reader.promised_frames
    _check_shape(rate, num_channels, limits)
    num_outputs = num_channels if mode == "split" else 1
    if promised == 0:
        raise AudioTooShortError("Empty: the file has a header and no samples.")
    if promised is not None and promised > _max_frames(reader, num_outputs, limits):
        raise _too_long(promised / rate, num_outputs, limits)

    resampler = Resampler(rate, SAMPLE_RATE_HZ, num_outputs)
    try:
        info = _fill(resampler, reader, num_outputs, limits, allowance)
        return Recording(info, tuple(Waveform(samples) for samples in resampler.finish()))
    except BaseException:
        resampler.discard()
        raise


def _fill(
    resampler: Resampler, reader: Reader, num_outputs: int, limits: Limits, allowance: DecodeBudget
) -> AudioInfo:
    """Read all blocks into the resampler."""
    rate, num_channels = reader.rate_hz, reader.num_channels
    max_frames = _max_frames(reader, num_outputs, limits)
    num_frames, num_clipped, peak = 0, 0, 0.0
    for block in reader.blocks():
        allowance.gain(len(block) / rate)
        allowance.check()
        num_frames += len(block)
        if num_frames > max_frames:
            raise _too_long(num_frames / rate, num_outputs, limits)
        magnitude = np.abs(block)
        block_peak = float(magnitude.max())
        if not np.isfinite(block_peak):
            at_s = (num_frames - len(block) + np.argmin(np.isfinite(block).all(axis=1))) / rate
            raise DamagedAudioError(
                f"The sample at {at_s:.3f} s is not a finite number; export the audio again."
            )
        peak = max(peak, block_peak)
        if block_peak >= CLIPPED_LEVEL:
            num_clipped += int(np.count_nonzero(magnitude >= CLIPPED_LEVEL))
            np.clip(block, -1.0, 1.0, out=block)
        resampler.push(block.mean(axis=1, keepdims=True) if num_outputs < num_channels else block)

    if num_frames == 0:
        raise broken_off(0, reader.promised_frames, rate)
    duration_s = num_frames / rate
    if duration_s < limits.min_duration_s:
        raise AudioTooShortError(
            f"{duration_s:.4g} s of audio; at least {limits.min_duration_s:g} s is needed."
        )
    return AudioInfo(
        duration_s=duration_s,
        sample_rate_hz=rate,
        channels=num_channels,
        format=reader.format,
        warnings=tuple(reader.warnings(num_frames, peak)),
        clipped_ratio=num_clipped / (num_frames * num_channels),
    )


def _max_frames(reader: Reader, num_outputs: int, limits: Limits) -> int:
    return int(limits.max_duration_s * reader.rate_hz / num_outputs)


def _check_shape(rate: int, num_channels: int, limits: Limits) -> None:
    if not limits.min_rate_hz <= rate <= limits.max_rate_hz:
        raise NotAudioError(
            f"A sample rate of {rate} Hz; we read {limits.min_rate_hz} to {limits.max_rate_hz} Hz."
        )
    if num_channels > limits.max_channels:
        raise NotAudioError(f"{num_channels} channels; we read up to {limits.max_channels}.")


def _too_long(duration_s: float, num_outputs: int, limits: Limits) -> AudioTooLongError:
    each = f" in each of {num_outputs} channels" if num_outputs > 1 else ""
    return AudioTooLongError(
        f"{duration_s:.1f} s or more of audio{each}; "
        f"at most {limits.max_duration_s:g} s is scored in one request: cut it into parts."
    )
