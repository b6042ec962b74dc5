"""Audio bytes in, 16 kHz waveforms out: format, limits, channels, band-limited resampling.

Audio is read block by block into a streaming resampler. The result is held in memory up to 16 MiB
per recording (four minutes of one channel) and beyond that in unnamed temporary files, so that
memory depends neither on the length nor on the rate, depth or channels of what was sent.
"""

import contextlib
import io
import math
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from ..errors import (
    AudioError,
    AudioTooLongError,
    AudioTooShortError,
    DamagedAudioError,
    NotAudioError,
    check_abandoned,
)
from .formats import FORMATS, format_of, supported_formats, without_header
from .process import RemoteReader
from .reader import Reader, stopped_early
from .resampling import Resampler
from .wav import OtherCodecError, WavReader
from .waveform import (
    CLIPPED_LEVEL,
    AudioInfo,
    ChannelMode,
    Limits,
    Loudness,
    Recording,
    SampleStore,
    Waveform,
)

MEMORY_BYTES = 1 << 24
"""A decoded recording is held in memory up to this size, all channels together."""

SILENT_LEVEL = 3e-4
"""A sound track whose largest sample is below this level (-70 dB) is silent."""


def decode(
    source: BinaryIO | bytes | Path,
    *,
    channels: ChannelMode = "mix",
    limits: Limits = Limits(),  # noqa: B008 - frozen
    num_peaks: int = 0,
) -> Recording:
    """Decode one recording to 16 kHz.

    Args:
        source: a seekable binary file, the bytes themselves, or a path.
        channels: "mix" averages the channels, "split" keeps one waveform each.
        limits: what is refused.
        num_peaks: for a drawing: into how many parts of equal length the recording is cut, whose
            least and greatest samples are kept; 0 for none.

    Returns:
        The recording; its waveforms have ``round(num_frames * 16000 / rate)`` samples, which do not
        depend on the block size.

    Raises:
        NotAudioError: if the format is not supported, or rate or channels are out of range.
        DamagedAudioError: if decoding stops early, or a sample is not a finite number.
        AudioTooShortError: if it is empty or shorter than ``limits.min_duration_s``.
        AudioTooLongError: if it is longer than ``limits.max_duration_s``.
        CostlyAudioError: if decoding costs more than audio of its length should.
        DecoderUnavailableError: if no process can be started for a format that needs one.
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
                return decode(opened, channels=channels, limits=limits, num_peaks=num_peaks)
        except OSError as error:
            raise NotAudioError(f"The file cannot be opened: {error.strerror}.") from error
    check_abandoned()
    file = io.BytesIO(source) if isinstance(source, bytes) else source
    if file.seek(0, io.SEEK_END) == 0 and file.tell() == 0:
        raise AudioTooShortError(
            f"The recording is empty (0 bytes); send at least {limits.min_duration_s:g} s of audio."
        )
    decoding = _Decoding(file, channels, limits, num_peaks)
    recording = decoding.read()
    if (cancelled := decoding.cancelled()) is not None:
        channel, remark = cancelled
        recording.close()
        return _with_remark(decoding.read(channel=channel), remark)
    if decoding.is_silent and decoding.num_tracks > 1:
        return _loudest_track(decoding, recording)
    return recording


def _loudest_track(decoding: "_Decoding", silent: Recording) -> Recording:
    """The first sound track that is not silent; that which was read, if all are."""
    for track in range(decoding.num_tracks):
        try:
            recording = decoding.read(track=track)
        except AudioError:  # a track that is no better than silence
            continue
        if not decoding.is_silent:
            silent.close()
            return _with_remark(
                recording, f"Track {track + 1} was chosen, as the one that comes first is silent."
            )
        recording.close()
    return silent


def _with_remark(recording: Recording, remark: str) -> Recording:
    info = recording.info
    return replace(recording, info=replace(info, warnings=(*info.warnings, remark)))


class _Decoding:
    """One file, which is read once, and seldom again.

    Args:
        file: seekable.
        mode: "mix" or "split".
        limits: what is refused.
        num_peaks: parts of a drawing; 0 for none.
    """

    def __init__(self, file: BinaryIO, mode: ChannelMode, limits: Limits, num_peaks: int) -> None:
        self._file = file
        self._mode = mode
        self._limits = limits
        self._num_peaks = num_peaks
        self._peak = 0.0
        self._loudness: Loudness | None = None
        self.num_tracks = 1

    @property
    def is_silent(self) -> bool:
        """Whether what was read is silence."""
        return self._peak < SILENT_LEVEL

    def cancelled(self) -> tuple[int, str] | None:
        """The loudest channel and a sentence, if the mean of all is much quieter."""
        channel = None if self._loudness is None else self._loudness.cancelled_channel()
        if channel is None or self._loudness is None:
            return None
        return channel, self._loudness.remark(channel)

    def read(self, *, channel: int | None = None, track: int | None = None) -> Recording:
        """Read the file.

        Args:
            channel: taken in place of the mean of all.
            track: number of the sound track; by default the one that the file prefers.
        """
        with contextlib.closing(_open(self._file, track)) as reader:
            self.num_tracks = reader.num_tracks
            return self._read(reader, channel)

    def _read(self, reader: Reader, channel: int | None) -> Recording:
        """Check the header, then decode all blocks."""
        limits = self._limits
        rate, num_channels, stated = reader.rate_hz, reader.num_channels, reader.stated_frames
        check_shape(rate, num_channels, limits)
        num_outputs = num_channels if self._mode == "split" else 1
        if stated == 0:
            raise AudioTooShortError(
                "The recording is empty: the file has a header but no samples."
            )
        if stated is not None and stated > _max_frames(reader, num_outputs, limits):
            raise _too_long(stated / rate, num_outputs, limits)

        output = _Output(rate, num_outputs)
        peaks = Peaks(self._num_peaks, num_channels) if self._num_peaks else None
        try:
            info = self._fill(output, reader, num_outputs, channel, peaks)
            return Recording(info, output.finish(), None if peaks is None else peaks.finish())
        except BaseException:
            output.discard()
            raise

    def _fill(
        self,
        output: "_Output",
        reader: Reader,
        num_outputs: int,
        channel: int | None,
        peaks: "Peaks | None",
    ) -> AudioInfo:
        """Decode all blocks into the output, and gather the facts about them."""
        rate, num_channels, limits = reader.rate_hz, reader.num_channels, self._limits
        max_frames = _max_frames(reader, num_outputs, limits)
        num_frames, num_clipped, peak = 0, 0, 0.0
        is_mixed = num_outputs < num_channels
        loudness = Loudness(num_channels) if is_mixed and channel is None else None
        for block in reader.blocks():
            check_abandoned()
            num_frames += len(block)
            if num_frames > max_frames:
                raise _too_long(num_frames / rate, num_outputs, limits)
            block_peak = max(float(block.max()), -float(block.min()))  # both are NaN if a sample is
            if not math.isfinite(block_peak):
                at_s = (num_frames - len(block) + np.argmin(np.isfinite(block).all(axis=1))) / rate
                raise DamagedAudioError(
                    f"The sample at {at_s:.3f} s is not a finite number; export the audio again."
                )
            peak = max(peak, block_peak)
            if block_peak >= CLIPPED_LEVEL:
                num_clipped += int(np.count_nonzero(np.abs(block) >= CLIPPED_LEVEL))
                np.clip(block, -1.0, 1.0, out=block)
            if peaks is not None:
                peaks.add(block)
            if is_mixed:
                mean = block.mean(axis=1, keepdims=True)
                if loudness is not None:
                    loudness.add(block, mean)
                block = mean if channel is None else block[:, channel : channel + 1]
            output.push(block)

        self._peak, self._loudness = peak, loudness
        if num_frames == 0:
            raise stopped_early(0, reader.stated_frames, rate)
        duration_s = num_frames / rate
        if duration_s < limits.min_duration_s:
            raise AudioTooShortError(
                f"The recording has {duration_s:.4g} s of audio; "
                f"at least {limits.min_duration_s:g} s is needed."
            )
        return AudioInfo(
            duration_s=duration_s,
            sample_rate_hz=rate,
            channels=num_channels,
            format=reader.format,
            warnings=tuple(reader.warnings(num_frames, peak)),
            clipped_ratio=num_clipped / (num_frames * num_channels),
        )


def _open(file: BinaryIO, track: int | None = None) -> Reader:
    """Open plain WAV here, and everything that a library reads in another process."""
    row = format_of(file)
    if row is None:
        raise NotAudioError(
            without_header(file) or f"Unsupported audio format; send {supported_formats()}."
        )
    if row.name in ("WAV", "W64"):
        with contextlib.suppress(OtherCodecError):
            return WavReader(file)
    return RemoteReader(file, FORMATS.index(row), track)


class _Output:
    """The channels at 16 kHz: one resampler for all, one store for each."""

    def __init__(self, rate_hz: int, num_channels: int) -> None:
        self._resampler = Resampler(rate_hz, num_channels)
        self._stores = [SampleStore(MEMORY_BYTES // num_channels) for _ in range(num_channels)]

    def push(self, block: npt.NDArray[np.float32]) -> None:
        """Add a block of shape ``(num_frames, num_channels)``; NoRoomError if the disk is full."""
        self._append(self._resampler.push(block))

    def finish(self) -> tuple[Waveform, ...]:
        self._append(self._resampler.flush())
        return tuple(Waveform(store.finish()) for store in self._stores)

    def discard(self) -> None:
        for store in self._stores:
            store.discard()

    def _append(self, block: npt.NDArray[np.float32]) -> None:
        for channel, store in enumerate(self._stores):
            store.append(block[:, channel])


_CELLS_PER_PART = 8


class Peaks:
    """Least and greatest samples of equal parts of a recording whose length is not known before.

    Samples are gathered in cells, of one frame each at first. Whenever there are twice
    :data:`_CELLS_PER_PART` for each part, neighbours are merged, so that memory does not grow with
    the recording; a part then reaches into its neighbours by less than a cell.

    Args:
        num_parts: of the drawing.
        num_channels: of the recording.

    Examples:
        >>> peaks = Peaks(2, 1)
        >>> peaks.add(np.array([[0.0], [0.5], [-0.25], [0.25]], np.float32))
        >>> peaks.finish().tolist()
        [[[0.0, 0.5], [-0.25, 0.25]]]
    """

    def __init__(self, num_parts: int, num_channels: int) -> None:
        self._num_parts = num_parts
        self._num_frames = 0
        self._frames_per_cell = 1
        self._num_cells = 0
        self._cells = np.empty((2, num_channels, 2 * _CELLS_PER_PART * num_parts), np.float32)
        self._rest = np.empty((num_channels, 0), np.float32)

    def add(self, block: npt.NDArray[np.float32]) -> None:
        """Add a block of shape ``(num_frames, num_channels)``."""
        self._num_frames += len(block)
        samples = np.concatenate([self._rest, block.T], axis=1)  # each channel is contiguous
        max_cells = self._cells.shape[2]
        while num_new := min(
            samples.shape[1] // self._frames_per_cell, max_cells - self._num_cells
        ):
            num_taken = num_new * self._frames_per_cell
            taken = samples[:, :num_taken].reshape(-1, num_new, self._frames_per_cell)
            end = self._num_cells + num_new
            self._cells[:, :, self._num_cells : end] = taken.min(axis=2), taken.max(axis=2)
            samples, self._num_cells = samples[:, num_taken:], end
            if end == max_cells:
                self._num_cells = end // 2
                low, high = self._cells
                self._cells[0, :, : end // 2] = np.minimum(low[:, ::2], low[:, 1::2])
                self._cells[1, :, : end // 2] = np.maximum(high[:, ::2], high[:, 1::2])
                self._frames_per_cell *= 2
        self._rest = samples

    def finish(self) -> npt.NDArray[np.float32]:
        """Return the parts; shape ``(num_channels, num_parts, 2)``."""
        low, high = self._cells[:, :, : self._num_cells]
        if self._rest.size:
            low = np.concatenate([low, self._rest.min(axis=1, keepdims=True)], axis=1)
            high = np.concatenate([high, self._rest.max(axis=1, keepdims=True)], axis=1)
        num_cells = self._num_frames / self._frames_per_cell  # the last one may be a part of one
        edges = np.arange(self._num_parts + 1) * (num_cells / self._num_parts)
        starts = np.minimum(edges[:-1].astype(int), low.shape[1] - 1)
        ends = np.maximum(starts + 1, np.ceil(edges[1:]).astype(int))
        parts = [
            np.stack([low[:, start:end].min(axis=1), high[:, start:end].max(axis=1)], axis=1)
            for start, end in zip(starts, ends, strict=True)
        ]
        return np.stack(parts, axis=1)


def _max_frames(reader: Reader, num_outputs: int, limits: Limits) -> int:
    return int(limits.max_duration_s * reader.rate_hz / num_outputs)


def check_shape(rate: int, num_channels: int, limits: Limits) -> None:
    """Check sample rate and channels.

    Raises:
        NotAudioError: if one is out of range.
    """
    if not limits.min_rate_hz <= rate <= limits.max_rate_hz:
        raise NotAudioError(
            f"The sample rate is {rate} Hz; it must be between {limits.min_rate_hz} and "
            f"{limits.max_rate_hz} Hz."
        )
    if num_channels > limits.max_channels:
        raise NotAudioError(
            f"The file has {num_channels} channels; at most {limits.max_channels} are accepted."
        )


def _too_long(duration_s: float, num_outputs: int, limits: Limits) -> AudioTooLongError:
    if num_outputs == 1:
        return AudioTooLongError(
            f"The recording has {duration_s:.1f} s or more of audio; "
            f"at most {limits.max_duration_s:g} s is scored in one request: cut it into parts."
        )
    return AudioTooLongError(
        f"The recording has {duration_s:.1f} s or more of audio in each of {num_outputs} channels, "
        f"{duration_s * num_outputs:.1f} s together; with split channels at most "
        f"{limits.max_duration_s:g} s together are scored in one request: mix the channels, or cut "
        f"it into parts of {limits.max_duration_s / num_outputs:g} s."
    )
