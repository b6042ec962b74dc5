"""Audio bytes in, 16 kHz waveforms out: decoding, channels, band-limited resampling, limits.

Reading goes block by block into a streaming resampler, so memory is bounded by the result
(3.8 MB a minute and channel), not by the rate, width or channels of what was sent.
"""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
import numpy.typing as npt
import soundfile

from service.inference.allowance import Allowance
from service.inference.errors import (
    AudioTooLongError,
    AudioTooShortError,
    DamagedAudioError,
    NotAudioError,
)
from service.inference.quiet import quiet_c_libraries
from service.inference.resampler import Resampler
from service.inference.source import Source

SAMPLE_RATE_HZ = 16_000
"""The only rate that a bundle sees."""

CLIPPED_LEVEL = 0.999
"""A sample at least this far from zero counts as clipped."""

_BLOCK_SAMPLES = 1 << 14
_UNKNOWN_FRAMES = 1 << 62  # libsndfile says 2^63 - 1 for a stream of unknown length

# WAV, RF64, W64, FLAC, Ogg, MP3 with tags, AIFF, AU, CAF. libsndfile tries two dozen more, some
# of which take almost anything for audio, and some print to standard output.
_SIGNATURES = (
    *(b"RIFF", b"RIFX", b"RF64", b"riff", b"fLaC", b"OggS", b"ID3"),
    *(b"FORM", b".snd", b"dns.", b"caff"),
)

ChannelMode = Literal["mix", "split"]
"""Average all channels into one waveform, or keep one waveform per channel."""


@dataclass(frozen=True, slots=True, eq=False)
class Waveform:
    """Mono audio.

    Attributes:
        samples: float32 in [-1, 1], shape ``(num_samples,)``.
        sample_rate: in Hz.
    """

    samples: npt.NDArray[np.float32]
    sample_rate: int = SAMPLE_RATE_HZ

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return len(self.samples) / self.sample_rate


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
        format: container as libsndfile names it: WAV, FLAC, OGG, MP3, ...
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
        NotAudioError: if libsndfile does not read it, or its rate or channels are out of range.
        DamagedAudioError: if it breaks off early, or holds samples that are not numbers.
        AudioTooShortError: if it is empty or shorter than ``limits.min_duration_s``.
        AudioTooLongError: if it is longer than ``limits.max_duration_s``.
        CostlyAudioError: if decoding takes more than audio of its length should.

    Examples:
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
    with _open(Source(file, allowance), allowance) as stream:
        return _read(stream, file, channels, limits, allowance)


class _Stream(soundfile.SoundFile):  # type: ignore[misc]
    """A sound file that is read once from start to end.

    soundfile seeks after every read of a seekable file. In MP3 that throws the bit reservoir away
    and damages the samples after each block (measured: errors up to 0.1 of full scale).
    """

    def seekable(self) -> bool:
        return False


def _open(source: Source, allowance: Allowance) -> _Stream:
    refusal = NotAudioError(
        "Not audio that we read; send WAV, FLAC, MP3, Ogg (Opus or Vorbis), AIFF, AU or CAF."
    )
    head = source.read(4) or b""
    source.seek(0)
    if not head.startswith(_SIGNATURES) and not _is_mpeg_sync(head):
        raise refusal
    try:
        return _Stream(source)
    except Exception as error:  # of many kinds for hostile headers; no text of theirs for users
        allowance.check()
        raise refusal from error


def _is_mpeg_sync(head: bytes) -> bool:
    return len(head) == 4 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0


def _read(
    stream: _Stream, file: BinaryIO, mode: ChannelMode, limits: Limits, allowance: Allowance
) -> Recording:
    rate, num_channels = stream.samplerate, stream.channels
    _check_shape(rate, num_channels, limits)
    num_outputs = num_channels if mode == "split" else 1
    max_frames = int(limits.max_duration_s * rate / num_outputs)
    promised = None if stream.frames >= _UNKNOWN_FRAMES else stream.frames
    if promised == 0:
        raise AudioTooShortError("Empty: the file has a header and no samples.")
    if promised is not None and promised > max_frames:
        raise _too_long(promised / rate, num_outputs, limits)

    resampler = Resampler(rate, SAMPLE_RATE_HZ, num_outputs)
    num_frames, num_clipped, peak = 0, 0, 0.0
    for block in _blocks(stream, promised, allowance):
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

    duration_s = num_frames / rate
    _check_end(stream, promised, num_frames)
    if duration_s < limits.min_duration_s:
        raise AudioTooShortError(
            f"{duration_s:.4g} s of audio; at least {limits.min_duration_s:g} s is needed."
        )
    info = AudioInfo(
        duration_s=duration_s,
        sample_rate_hz=rate,
        channels=num_channels,
        format=stream.format,
        warnings=tuple(_warnings(stream, file, promised, num_frames, peak)),
        clipped_ratio=num_clipped / (num_frames * num_channels),
    )
    return Recording(info, tuple(Waveform(samples) for samples in resampler.finish()))


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


def _blocks(
    stream: _Stream, promised: int | None, allowance: Allowance
) -> Iterator[npt.NDArray[np.float32]]:
    """Yield float32 blocks of shape ``(frames, channels)`` until the audio ends."""
    block_frames = max(1, _BLOCK_SAMPLES // stream.channels)
    if promised is not None:
        block_frames = min(block_frames, promised)
    num_frames = 0
    while True:
        try:
            block = stream.read(block_frames, dtype="float32", always_2d=True)
        except Exception as error:  # as in _open
            allowance.check()
            raise _broken_off(num_frames, promised, stream.samplerate) from error
        allowance.gain(len(block) / stream.samplerate)
        allowance.check()
        if len(block) == 0:
            return
        num_frames += len(block)
        yield block


def _check_end(stream: _Stream, promised: int | None, num_frames: int) -> None:
    # Without an index the length of an MP3 is a guess from its first frame.
    if num_frames == 0 or (promised and num_frames < promised and stream.format != "MP3"):
        raise _broken_off(num_frames, promised, stream.samplerate)


def _broken_off(num_frames: int, promised: int | None, rate: int) -> DamagedAudioError:
    of = "" if promised is None else f" of the {promised / rate:.1f} s that its header promises"
    return DamagedAudioError(
        f"Damaged: decoding breaks off after about {num_frames / rate:.1f} s{of}; "
        "send the whole file."
    )


def _warnings(
    stream: _Stream, file: BinaryIO, promised: int | None, num_frames: int, peak: float
) -> Iterator[str]:
    if peak > 1.0 and stream.subtype in ("FLOAT", "DOUBLE"):
        yield f"Samples up to {peak:.4g} were clipped to 1."
    if stream.format == "MP3" and promised is not None:
        read_s, rate = num_frames / stream.samplerate, stream.samplerate
        position, size = file.tell(), file.seek(0, io.SEEK_END)
        size = size or file.tell()
        if num_frames < promised:
            yield f"The MP3 promises {promised / rate:.2f} s and holds {read_s:.2f} s."
        elif size - position > 4096 + size // 10:
            yield (
                f"The MP3 promises {read_s:.2f} s and was read that far, but goes on for "
                f"{size - position} of {size} bytes; write it again with a correct index."
            )
