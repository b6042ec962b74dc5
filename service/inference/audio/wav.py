"""Reading WAV without a library: a strict parser of chunks, and numpy for the samples.

WAV is most of what is sent. The parser looks at each chunk once and calls nothing that could run
without end, and it reads whole what is whole although its header is not: sizes that a streaming
writer never filled in, two data chunks, chunks at odd positions, files joined end to end. Other
codecs than those in :data:`_SAMPLES` are left to the other readers.
"""

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from ..errors import NotAudioError
from .formats import end_of_tags

_BLOCK_BYTES = 1 << 17
_MAX_CHUNKS = 10_000
_MAX_FMT_BYTES = 64
_MAX_TRAILER_BYTES = 4096
"""Bytes behind the samples that are in no chunk are taken for a trailer up to this size, and for
samples that the header forgot beyond it."""

_PLACEHOLDERS_FROM = 0x7FFF0000
"""Streaming writers put 0, 0xFFFFFFFF, or something near 0x7FFFFFFF in place of a size."""
_UNKNOWN_SIZE = 0xFFFFFFFF
_LARGEST_BYTES = 1 << 42
_EXTENSIBLE = 0xFFFE
_W64_TAIL = bytes.fromhex("f3acd3118cd100c04f8edb8a")
_W64_RIFF = bytes.fromhex("726966662e91cf11a5d628db04c10000")
_W64_WAVE = b"wave" + _W64_TAIL

_Raw = npt.NDArray[np.uint8]


class OtherCodecError(NotAudioError):
    """A WAV whose samples are in a codec that needs a library."""


@dataclass(slots=True)
class Layout:
    """What the chunks of a file say.

    Attributes:
        name: RIFF, RIFX, RF64, BW64 or W64.
        fmt: the contents of the fmt chunk.
        parts: first byte and number of bytes of each piece of samples.
        promised_bytes: of samples, if that is more than there is and no placeholder.
        forgotten_bytes: of samples that lie behind those that the header states.
        num_files: WAV files joined end to end.
        other_fmt: whether reading stopped where the sample format changes.
    """

    name: str
    fmt: bytes = b""
    parts: list[tuple[int, int]] = field(default_factory=list)
    promised_bytes: int | None = None
    forgotten_bytes: int = 0
    num_files: int = 1
    other_fmt: bool = False

    @property
    def order(self) -> str:
        """Byte order, as struct names it."""
        return ">" if self.name == "RIFX" else "<"

    @property
    def codec(self) -> int:
        """The tag of the codec of the samples."""
        (tag,) = struct.unpack_from(self.order + "H", self.fmt)
        if tag == _EXTENSIBLE and len(self.fmt) >= 40:
            (tag,) = struct.unpack_from(self.order + "H", self.fmt, 24)
        return int(tag)


class WavReader:
    """A :class:`~.reader.Reader` of plain WAV: linear PCM, floats, A-law or mu-law.

    Args:
        file: seekable; its position is moved.

    Raises:
        NotAudioError: if it has no fmt chunk, no data chunk, no channel or no rate.
        OtherCodecError: if its samples are in another codec.
    """

    num_tracks = 1

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._layout = layout = parse(file)
        order, tag = layout.order, layout.codec
        _, channels, self.rate_hz, _, block_align, bits = struct.unpack_from(
            order + "HHIIHH", layout.fmt
        )
        if channels == 0 or self.rate_hz == 0:
            raise NotAudioError(
                f"The header of the WAV states {channels} channels and {self.rate_hz} Hz; export "
                "it again."
            )
        width = max(1, (bits + 7) // 8)
        if (tag, block_align) == (1, 4 * channels) and width == 3:
            width = 4  # 24 bits at the upper end of 32
        to_samples = _SAMPLES.get((tag, width))
        if to_samples is None:
            raise OtherCodecError(f"0x{tag:04x} with {bits} bits")
        self._to_samples = to_samples
        self._order = order
        self._is_float = tag == 3
        self.num_channels: int = channels
        self._frame_bytes = width * channels
        self.format = layout.name if layout.name in ("RF64", "W64") else "WAV"
        num_bytes = sum(size // self._frame_bytes for _, size in layout.parts)
        self.stated_frames: int | None = num_bytes

    def blocks(self) -> Iterator[npt.NDArray[np.float32]]:
        """Yield the audio in blocks; see :meth:`.reader.Reader.blocks`."""
        block_bytes = max(1, _BLOCK_BYTES // self._frame_bytes) * self._frame_bytes
        for start, size in self._layout.parts:
            left = size // self._frame_bytes * self._frame_bytes
            self._file.seek(start)
            while left > 0:
                data = self._file.read(min(left, block_bytes))
                whole = len(data) // self._frame_bytes * self._frame_bytes
                if not whole:
                    break
                left -= len(data)
                raw = np.frombuffer(data, np.uint8, whole)
                yield self._to_samples(raw, self._order).reshape(-1, self.num_channels)

    def warnings(self, num_frames: int, peak: float) -> Iterator[str]:
        """Yield sentences for the user; see :meth:`.reader.Reader.warnings`."""
        layout, read_s = self._layout, num_frames / self.rate_hz
        if peak > 1.0 and self._is_float:
            yield f"Samples up to {peak:.4g} were clipped to 1."
        if layout.promised_bytes is not None:
            promised_s = layout.promised_bytes / self._frame_bytes / self.rate_hz
            yield (
                f"The {self.format} breaks off: its header states {promised_s:.2f} s, and "
                f"{read_s:.2f} s are there."
            )
        if layout.forgotten_bytes:
            forgotten_s = layout.forgotten_bytes / self._frame_bytes / self.rate_hz
            yield (
                f"The header of the {self.format} states {read_s - forgotten_s:.2f} s; "
                f"{forgotten_s:.2f} s more follow and were read."
            )
        if layout.num_files > 1:
            yield f"The file holds {layout.num_files} WAV files in a row; all of them were read."
        elif len(layout.parts) > 1:
            yield f"The {self.format} has {len(layout.parts)} data chunks; all of them were read."
        if layout.other_fmt:
            yield (
                f"The sample format changes within the {self.format}; what follows the change was "
                "not read."
            )

    def close(self) -> None:
        """Do nothing: the file is the caller's."""


def parse(file: BinaryIO) -> Layout:
    """Find the fmt chunk and the samples.

    Args:
        file: seekable; its position is moved.

    Raises:
        NotAudioError: if one of them is missing.
    """
    size = file.seek(0, 2)
    start = end_of_tags(file)
    file.seek(start)
    head = file.read(40)
    if head[:16] == _W64_RIFF and head[24:40] == _W64_WAVE:
        layout = _Walk(file, size, "W64").run(start + 40)
    elif head[:4] in (b"RIFF", b"RIFX", b"RF64", b"BW64") and head[8:12] == b"WAVE":
        layout = _Walk(file, size, head[:4].decode()).run(start + 12)
    else:
        raise NotAudioError("The file begins as a WAV does, but is none; export it again.")
    for name, there in (("fmt", len(layout.fmt) >= 16), ("data", bool(layout.parts))):
        if not there:
            raise NotAudioError(f"The {layout.name} has no {name} chunk; export it again.")
    return layout


class _Walk:
    """Goes from chunk to chunk, once."""

    def __init__(self, file: BinaryIO, size: int, name: str) -> None:
        self._file = file
        self._size = size
        self._is_w64 = name == "W64"
        self._order = ">" if name == "RIFX" else "<"
        self._data_size_64 = 0
        self._layout = Layout("RF64" if name == "BW64" else name)

    def run(self, position: int) -> Layout:
        layout = self._layout
        # The size of the whole says whether a data chunk of size 0 is empty or unfilled.
        self._riff_is_right = self._riff_end(position) == self._size
        for _ in range(_MAX_CHUNKS):
            chunk = self._chunk(position)
            if chunk is None:
                break
            name, start, size = chunk
            if name == b"RIFF" and layout.parts and self._is_wave(start):
                layout.num_files += 1
                position = start + 4
                self._riff_is_right = start + size == self._size
                continue
            end = start + size
            if name == b"fmt " and size >= 14:
                fmt = self._read(start, min(size, _MAX_FMT_BYTES))
                fmt += bytes(max(0, 16 - len(fmt)))
                if layout.fmt and layout.fmt[:16] != fmt[:16]:
                    layout.other_fmt = True
                    break
                layout.fmt = fmt
            elif name == b"ds64":
                self._data_size_64 = int.from_bytes(self._read(start + 8, 8), "little")
            elif name == b"data":
                end = self._data(start, size)
            position = self._next(end, size)
        return layout

    def _data(self, start: int, size: int) -> int:
        """Note a piece of samples; return where it ends."""
        layout, there = self._layout, self._size - start
        if size == _UNKNOWN_SIZE and self._data_size_64:
            size = self._data_size_64
        is_last = size >= there
        if size == 0 and there and not self._riff_is_right and not self._is_chunk(start):
            size, is_last = there, True
        elif size > there and self._is_placeholder(size):
            size = there
        elif size > there:
            layout.promised_bytes = sum(part for _, part in layout.parts) + size
            size = there
        if not is_last:
            rest = there - size
            if rest > _MAX_TRAILER_BYTES and not any(
                self._is_chunk(start + size + skip) for skip in (0, size % 2)
            ):
                layout.forgotten_bytes = rest
                size = there
        layout.parts.append((start, size))
        return start + size

    def _is_placeholder(self, size: int) -> bool:
        """Whether a size that is larger than the file was written before it was known."""
        if size > _LARGEST_BYTES:
            return True
        return not self._is_w64 and _PLACEHOLDERS_FROM <= size <= _UNKNOWN_SIZE

    def _chunk(self, position: int) -> tuple[bytes, int, int] | None:
        """Name, start and size of the chunk at a position; None if there is none."""
        header = self._read(position, 24 if self._is_w64 else 8)
        if self._is_w64:
            if len(header) < 24:
                return None
            (size,) = struct.unpack("<Q", header[16:])
            name = header[:4] if header[4:16] == _W64_TAIL else b""
            if name == b"data":
                return name, position + 24, max(0, size - 24)
            return (name, position + 24, size - 24) if size >= 24 else None
        if len(header) < 8:
            return None
        name, size = struct.unpack(self._order + "4sI", header)
        return name, position + 8, size

    def _next(self, end: int, size: int) -> int:
        """Where the next chunk starts: behind padding, which some writers forget."""
        if self._is_w64:
            return end + -end % 8
        padded = end + size % 2
        if padded != end and not self._is_chunk(padded) and self._is_chunk(end):
            return end
        return padded

    def _is_chunk(self, position: int) -> bool:
        """Whether a chunk that fits into the file seems to start here."""
        chunk = self._chunk(position)
        if chunk is None:
            return False
        name, start, size = chunk
        if self._is_w64:
            return start + size <= self._size + 8
        plain = all(0x20 <= byte < 0x7F for byte in name) and name.strip() != b""
        known = name in (b"data", b"fmt ", b"RIFF")
        return known or (plain and start + size <= self._size + 1)

    def _is_wave(self, position: int) -> bool:
        return self._read(position, 4) == b"WAVE"

    def _riff_end(self, position: int) -> int:
        """Where the whole ends, as its header says."""
        if self._is_w64:
            start = position - 40
            return start + int.from_bytes(self._read(start + 16, 8), "little")
        (size,) = struct.unpack(self._order + "I", self._read(position - 8, 4))
        return position - 4 + int(size)

    def _read(self, position: int, size: int) -> bytes:
        if position > self._size:
            return b""
        self._file.seek(position)
        return self._file.read(size) or b""


def _unsigned_8(raw: _Raw, _: str) -> npt.NDArray[np.float32]:
    return (raw.astype(np.float32) - np.float32(128)) * np.float32(1 / 128)


def _signed(width: int) -> Callable[[_Raw, str], npt.NDArray[np.float32]]:
    scale = np.float32(1 / (1 << (8 * width - 1)))

    def to_samples(raw: _Raw, order: str) -> npt.NDArray[np.float32]:
        return raw.view(f"{order}i{width}").astype(np.float32) * scale

    return to_samples


def _signed_24(raw: _Raw, order: str) -> npt.NDArray[np.float32]:
    wide = np.zeros((len(raw) // 3, 4), np.uint8)
    if order == "<":
        wide[:, 1:] = raw.reshape(-1, 3)
    else:
        wide[:, :3] = raw.reshape(-1, 3)
    return _signed(4)(wide.reshape(-1), order)


def _float(width: int) -> Callable[[_Raw, str], npt.NDArray[np.float32]]:
    def to_samples(raw: _Raw, order: str) -> npt.NDArray[np.float32]:
        with np.errstate(over="ignore"):  # decode() refuses what is not finite
            return raw.view(f"{order}f{width}").astype(np.float32)

    return to_samples


def _companded(table: npt.NDArray[np.float32]) -> Callable[[_Raw, str], npt.NDArray[np.float32]]:
    return lambda raw, _: table[raw]


def _a_law() -> npt.NDArray[np.float32]:
    """The sample of each byte, as ITU-T G.711 has it."""
    code = np.arange(256) ^ 0x55
    exponent, mantissa = code >> 4 & 7, code & 15
    magnitude = np.where(
        exponent == 0, (mantissa << 4) + 8, (mantissa << 4) + 264 << np.maximum(exponent - 1, 0)
    )
    return (np.where(code & 0x80, magnitude, -magnitude) / 32768).astype(np.float32)


def _mu_law() -> npt.NDArray[np.float32]:
    """The sample of each byte, as ITU-T G.711 has it."""
    code = ~np.arange(256) & 0xFF
    magnitude = ((code & 15) << 3) + 132 << (code >> 4 & 7)
    return (np.where(code & 0x80, 132 - magnitude, magnitude - 132) / 32768).astype(np.float32)


# By the tag of the codec and the number of bytes of a sample.
_SAMPLES: dict[tuple[int, int], Callable[[_Raw, str], npt.NDArray[np.float32]]] = {
    (1, 1): _unsigned_8,
    (1, 2): _signed(2),
    (1, 3): _signed_24,
    (1, 4): _signed(4),
    (3, 4): _float(4),
    (3, 8): _float(8),
    (6, 1): _companded(_a_law()),
    (7, 1): _companded(_mu_law()),
}
