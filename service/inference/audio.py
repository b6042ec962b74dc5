"""Audio bytes in, 16 kHz waveforms out: decoding, channels, band-limited resampling, limits.

Reading goes block by block into a streaming resampler. What comes out is held in memory up to
16 MiB a recording (four minutes of one channel) and beyond that in unnamed temporary files, so
that memory depends neither on the length nor on the rate, width or channels of what was sent.
"""

import contextlib
import io
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
import numpy.typing as npt

from service.inference.allowance import Allowance
from service.inference.errors import (
    AudioError,
    AudioTooLongError,
    AudioTooShortError,
    DamagedAudioError,
    NotAudioError,
)
from service.inference.media import MediaReader
from service.inference.quiet import quiet_c_libraries
from service.inference.reader import Reader, broken_off
from service.inference.resampler import Resampler
from service.inference.signatures import SOUND_FILE, container_of
from service.inference.sound_file import SoundFileReader
from service.inference.source import Source
from service.inference.spool import Spool

SAMPLE_RATE_HZ = 16_000
"""The only rate that a bundle sees."""

CLIPPED_LEVEL = 0.999
"""A sample at least this far from zero counts as clipped."""

ChannelMode = Literal["mix", "split"]
"""Average all channels into one waveform, or keep one waveform per channel."""


class Waveform:
    """Mono audio.

    Args:
        samples: float32 in [-1, 1], shape ``(num_samples,)``; those of a long recording are in a
            file, and are read part by part.
        sample_rate: in Hz.
    """

    __slots__ = ("_samples", "sample_rate")

    def __init__(
        self, samples: npt.NDArray[np.float32] | Spool, sample_rate: int = SAMPLE_RATE_HZ
    ) -> None:
        self._samples = samples
        self.sample_rate = sample_rate

    def __len__(self) -> int:
        return len(self._samples)

    @property
    def samples(self) -> npt.NDArray[np.float32]:
        """All of them; 230 MB for an hour, so take parts of what may be long."""
        if isinstance(self._samples, Spool):
            return self._samples.read(0, len(self))
        return self._samples

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return len(self) / self.sample_rate

    def part(self, start: int, end: int) -> "Waveform":
        """Samples ``start`` to ``end``: a view, or read from the file."""
        if isinstance(self._samples, Spool):
            return Waveform(self._samples.read(start, end), self.sample_rate)
        return Waveform(self._samples[start:end], self.sample_rate)

    def close(self) -> None:
        """End the file, if the samples are in one; they cannot be read any more."""
        if isinstance(self._samples, Spool):
            self._samples.close()


@dataclass(frozen=True, slots=True)
class Limits:
    """What a recording may be at most, and at least.

    Attributes:
        max_duration_s: seconds to score; with split channels each of them counts.
        max_channels: channels.
        min_rate_hz: lowest sample rate.
        max_rate_hz: highest sample rate.
        min_duration_s: shortest recording, in seconds.
    """

    max_duration_s: float = 7200.0
    max_channels: int = 8
    min_rate_hz: int = 2_000
    max_rate_hz: int = 384_000
    min_duration_s: float = 0.1


@dataclass(frozen=True, slots=True)
class AudioInfo:
    """Facts about a recording as it was sent.

    Attributes:
        duration_s: seconds decoded.
        sample_rate_hz: before resampling.
        channels: before mixing.
        format: container: WAV, FLAC, OGG, MP3, MP4, WEBM, ...
        warnings: sentences for the user.
        clipped_ratio: share of samples at full scale before resampling, in [0, 1].
    """

    duration_s: float
    sample_rate_hz: int
    channels: int
    format: str
    warnings: tuple[str, ...] = ()
    clipped_ratio: float = 0.0


@dataclass(frozen=True, slots=True)
class Recording:
    """A decoded recording: one waveform when mixed, one per channel when split."""

    info: AudioInfo
    waveforms: tuple[Waveform, ...]

    def close(self) -> None:
        """End the files of a long recording, which also end with the last reference to it."""
        for waveform in self.waveforms:
            waveform.close()


def decode(
    source: BinaryIO | bytes | Path,
    *,
    channels: ChannelMode = "mix",
    limits: Limits = Limits(),
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
    quiet_c_libraries()
    allowance = Allowance()
    try:
        with contextlib.closing(_open(file, allowance)) as reader:
            return _read(reader, channels, limits, allowance)
    except AudioError:
        allowance.check()  # where it is spent, the file seems to end, and that is said instead
        raise


def _open(file: BinaryIO, allowance: Allowance) -> Reader:
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


def _read(reader: Reader, mode: ChannelMode, limits: Limits, allowance: Allowance) -> Recording:
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
    resampler: Resampler, reader: Reader, num_outputs: int, limits: Limits, allowance: Allowance
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
