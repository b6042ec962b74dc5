"""Where the recordings in one file start: Ogg and MP3 may be joined end to end, as voice notes are.

libsndfile reads the first of them only, and of an MP3 without an index as much as it guesses from
the first frame. Here pages and frames are counted, each once, so that all of them are read.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

_READ_BYTES = 1 << 16
_MAX_CANDIDATES = 20_000
"""Places in a file where a frame might start, looked at after the frames were lost."""
_MAX_LEADING_CANDIDATES = 2_000
_MAX_LEADING_BYTES = 1 << 17
_CONFIRMING_FRAMES = 3

_PAGE_HEAD_BYTES = 27
_FIRST_PAGE, _LAST_PAGE = 2, 4


@dataclass(frozen=True, slots=True)
class Piece:
    """One recording of a file.

    Attributes:
        start: its first byte.
        end: behind its last byte.
        header: of MP3, the four bytes of its first frame.
        num_frames: of MP3; the frame of the index does not count.
        indexed_frames: of MP3, how many its index states; None without an index.
        is_complete: of Ogg, whether its last page is there.
    """

    start: int
    end: int
    header: bytes = b""
    num_frames: int = 0
    indexed_frames: int | None = None
    is_complete: bool = True

    @property
    def is_layer_3(self) -> bool:
        """Of MP3: layers 1 and 2 have no index."""
        return self.header[1] >> 1 & 3 == 1

    @property
    def first_frame_bytes(self) -> int:
        """Of MP3."""
        return _frame_size(self.header)


def ogg_pieces(file: BinaryIO, start: int = 0) -> list[Piece]:
    """Find the recordings of a chained Ogg.

    Args:
        file: seekable; its position is moved.
        start: of the first page.

    Returns:
        At least one; what is no page is left to the piece before it.
    """
    size = file.seek(0, 2)
    starts, position, in_header = [start], start, True
    is_complete, completes = False, []
    while (page := _page_at(file, position)) is not None:
        flags, length = page
        if flags & _FIRST_PAGE:
            if not in_header:  # streams that begin together are of one recording
                starts.append(position)
                completes.append(is_complete)
            in_header = True
        else:
            in_header = False
        is_complete = bool(flags & _LAST_PAGE) and position + length <= size
        position = _next_page(file, position + length, size)
    completes.append(is_complete)
    ends = [*starts[1:], size]
    return [
        Piece(first, end, is_complete=complete)
        for first, end, complete in zip(starts, ends, completes, strict=True)
    ]


def _page_at(file: BinaryIO, position: int) -> tuple[int, int] | None:
    """Flags and length of the page at a position."""
    file.seek(position)
    head = file.read(_PAGE_HEAD_BYTES + 255)
    if len(head) < _PAGE_HEAD_BYTES or head[:4] != b"OggS":
        return None
    body = _PAGE_HEAD_BYTES + head[26]
    return head[5], body + sum(head[_PAGE_HEAD_BYTES:body])


def _next_page(file: BinaryIO, position: int, size: int) -> int:
    """Where the next page starts, at a position or behind it; ``size`` if there is none."""
    while position < size:
        file.seek(position)
        block = file.read(_READ_BYTES)
        at = block.find(b"OggS")
        if at >= 0:
            return position + at
        if len(block) < _READ_BYTES:
            break
        position += _READ_BYTES - 3
    return size


def _kilobits() -> dict[tuple[bool, int], tuple[int, ...]]:
    """Bit rates by MPEG-1 or not, and layer."""
    low = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160, 0)
    return {
        (True, 1): (0, *range(32, 449, 32), 0),
        (True, 2): (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384, 0),
        (True, 3): (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 0),
        (False, 1): (0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256, 0),
        (False, 2): low,
        (False, 3): low,
    }


def _frame_sizes() -> list[int]:
    """Bytes of a frame, by bits 1 to 4 of its second byte and 1 to 7 of its third; 0 if none."""
    sizes = [0] * 2048
    rates = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}
    table = _kilobits()
    for version, of_version in rates.items():
        for layer in (1, 2, 3):
            kilobits = table[version == 3, layer]
            for index, rate in ((i, rate) for i in range(1, 15) for rate in range(3)):
                for padding in (0, 1):
                    bits, hz = 1000 * kilobits[index], of_version[rate]
                    if layer == 1:
                        size = (12 * bits // hz + padding) * 4
                    else:
                        size = (72 if layer == 3 and version != 3 else 144) * bits // hz + padding
                    key = (version << 2 | 4 - layer) << 7 | index << 3 | rate << 1 | padding
                    sizes[key] = size
    return sizes


_FRAME_SIZES = _frame_sizes()


def _frame_size(header: bytes) -> int:
    """Bytes of the frame that four bytes begin; 0 if they begin none."""
    if len(header) < 4 or header[0] != 0xFF or header[1] < 0xE0:
        return 0
    return _FRAME_SIZES[(header[1] >> 1 & 15) << 7 | header[2] >> 1]


def _is_like(header: bytes, first: bytes) -> bool:
    """Whether two frames have the same version, layer, rate, and are both mono or both not."""
    is_mono = [one[3] >> 6 == 3 for one in (header, first)]
    same_kind = header[1] & 0xFE == first[1] & 0xFE and header[2] & 0x0C == first[2] & 0x0C
    return same_kind and is_mono[0] == is_mono[1]


class _Window:
    """A file that is read at rising positions in small pieces."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._start = 0
        self._block = b""

    def read(self, position: int, size: int) -> bytes:
        offset = position - self._start
        if offset < 0 or offset + size > len(self._block):
            self._file.seek(position)
            self._block = self._file.read(max(size, _READ_BYTES)) or b""
            self._start, offset = position, 0
        return self._block[offset : offset + size]


def first_frame(file: BinaryIO, start: int = 0) -> int | None:
    """Find the first frame of an MP3 behind something else, such as zeros or half a frame.

    Args:
        file: seekable; its position is moved.
        start: where to look from; 128 KiB are looked at.

    Returns:
        Where three frames of one kind begin; None if they do not.
    """
    end = start + _MAX_LEADING_BYTES
    return _resync(_Window(file), start, end, _MAX_LEADING_CANDIDATES, may_end=False)[0]


def _resync(
    window: _Window, start: int, end: int, tries: int, *, may_end: bool = True
) -> tuple[int | None, int]:
    """Find three frames of one kind in a row; return where, and how many tries are left."""
    position = start
    while position < end and tries:
        block = window.read(position, 4096)
        at = block.find(b"\xff")
        if at < 0:
            if len(block) < 4096:
                break
            position += len(block)
            continue
        position += at
        tries -= 1
        if _confirmed(window, position, may_end=may_end):
            return position, tries
        position += 1
    return None, tries


def _confirmed(window: _Window, position: int, *, may_end: bool = True) -> bool:
    """Whether frames of one kind follow each other, or end with the file."""
    first = header = window.read(position, 4)
    for _ in range(_CONFIRMING_FRAMES):
        size = _frame_size(header)
        if not size or not _is_like(header, first):
            return False
        position += size
        header = window.read(position, 4)
        if len(header) < 4:
            return may_end
    return True


def mp3_pieces(file: BinaryIO, start: int, end: int) -> list[Piece]:
    """Find the recordings of an MP3, each of frames of one kind.

    Args:
        file: seekable; its position is moved.
        start: where to look from.
        end: where to look to.

    Returns:
        Empty if there is no frame whose length can be told.
    """
    found = [piece for piece in _runs(_Window(file), start, end) if piece.num_frames]
    # Bytes that look like a frame or two lie before and between recordings.
    return [piece for piece in found if piece.num_frames >= _CONFIRMING_FRAMES] or found


def _runs(window: _Window, position: int, end: int) -> Iterator[Piece]:
    tries = _MAX_CANDIDATES
    while position < end and tries:
        header = window.read(position, 10)
        if header[:3] == b"ID3" and len(header) == 10:
            size = header[6] << 21 | header[7] << 14 | header[8] << 7 | header[9]
            position += 10 + size + (10 if header[5] & 0x10 else 0)
            continue
        if not _frame_size(header[:4]) or not _confirmed(window, position):
            found, tries = _resync(window, position, end, tries)
            if found is None:
                return
            position = found
            continue
        piece = _run(window, position, end)
        yield piece
        position = piece.end


def _run(window: _Window, start: int, end: int) -> Piece:
    """The frames of one kind from a position on, up to the next index."""
    first = window.read(start, 4)
    indexed = _indexed_frames(window.read(start, 64), first)
    second, third, is_mono = first[1] | 1, first[2] & 0x0C, first[3] >= 0xC0
    sizes = _FRAME_SIZES[(first[1] >> 1 & 15) << 7 :][:128]
    index_at = _index_offset(first[1] >> 3 & 3 == 3, is_mono)
    position, num_frames = start, 0
    while position < end:  # once a frame, and ten hours have a million
        head = window.read(position, 64)
        if (
            len(head) < 4
            or head[0] != 0xFF
            or head[1] | 1 != second
            or head[2] & 0x0C != third
            or (head[3] >= 0xC0) is not is_mono
            or not (size := sizes[head[2] >> 1])
        ):
            break
        if (
            (head[index_at] == 0x58 or head[index_at] == 0x49 or head[36] == 0x56)
            if len(head) > 36
            else False
        ) and (position > start and _indexed_frames(head, head[:4]) is not None):
            break
        position += size
        num_frames += 1
    if indexed is not None:
        num_frames -= 1
    return Piece(start, min(position, end), first, num_frames, indexed)


def _indexed_frames(frame: bytes, header: bytes) -> int | None:
    """How many frames an index states, if this frame is one: Xing, Info or VBRI."""
    is_mpeg1, is_mono = header[1] >> 3 & 3 == 3, header[3] >> 6 == 3
    at = _index_offset(is_mpeg1, is_mono)
    if frame[at : at + 4] in (b"Xing", b"Info"):
        has_frames = frame[at + 7] & 1 if len(frame) > at + 11 else 0
        return int.from_bytes(frame[at + 8 : at + 12], "big") if has_frames else 0
    if frame[36:40] == b"VBRI" and len(frame) >= 54:
        return int.from_bytes(frame[50:54], "big")
    return None


def _index_offset(is_mpeg1: bool, is_mono: bool) -> int:
    if is_mpeg1:
        return 21 if is_mono else 36
    return 13 if is_mono else 21


def index_frame(piece: Piece) -> bytes:
    """Make a frame with an index that states the length of a piece, to be put before it."""
    header = bytearray(piece.header)
    header[1] |= 1  # no checksum
    header[2] = header[2] & 0x0D | 0x90  # a bit rate with room for the index, and no padding
    at = _index_offset(header[1] >> 3 & 3 == 3, header[3] >> 6 == 3)
    frame = bytearray(_frame_size(bytes(header)))
    frame[:4] = header
    num_bytes = piece.end - piece.start + len(frame)
    frame[at : at + 16] = (
        b"Xing\0\0\0\x03"
        + piece.num_frames.to_bytes(4, "big")
        + min(num_bytes, 0xFFFFFFFF).to_bytes(4, "big")
    )
    return bytes(frame)
