"""Headers of AIFF, AU and CAF that promise more samples than there are, or fewer.

libsndfile reads what a header states and is there, and says nothing. Here the two are compared: the
user gets a sentence, and libsndfile a header that states what is there.
"""

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

from .wav import parse

_MAX_TRAILER_BYTES = 4096
"""Bytes behind the samples up to this size are a trailer, and beyond it samples."""
_MAX_HEADER_BYTES = 1 << 16
_MAX_CHUNKS = 1_000
_UNKNOWN = 0xFFFFFFFF
_AU_WIDTHS = {1: 1, 2: 1, 3: 2, 4: 3, 5: 4, 6: 4, 7: 8, 27: 1}
_PLAIN_AIFF = (b"NONE", b"sowt", b"twos", b"raw ", b"in24", b"in32", b"fl32", b"FL32", b"fl64")


@dataclass(frozen=True, slots=True)
class Mended:
    """What to read in place of a file's own header.

    Attributes:
        prefix: its first bytes, as they should be.
        remarks: sentences for the user.
    """

    prefix: bytes = b""
    remarks: tuple[str, ...] = ()


def mended(file: BinaryIO, start: int, size: int) -> Mended:
    """Compare the header of a file with what follows it.

    Args:
        file: seekable; its position is moved.
        start: first byte of the header.
        size: of the file, in bytes.
    """
    file.seek(start)
    head = file.read(32)
    if len(head) < 32:
        return Mended()
    check = _CHECKS.get(head[:4])
    return Mended() if check is None else check(file, head, start, size)


def _au(_: BinaryIO, head: bytes, start: int, size: int) -> Mended:
    order = ">" if head[:4] == b".snd" else "<"
    offset, stated, encoding, rate, channels = struct.unpack_from(order + "5I", head, 4)
    there = size - start - offset
    frame_bytes = _AU_WIDTHS.get(encoding, 0) * channels
    if stated == _UNKNOWN or there <= 0 or not frame_bytes or not rate:
        return Mended()
    per_s = frame_bytes * rate
    if stated > there:
        return Mended(remarks=(_breaks_off("AU", stated / per_s, there / per_s),))
    if there - stated > _MAX_TRAILER_BYTES:
        prefix = head[:8] + struct.pack(order + "I", _UNKNOWN) + head[12:24]
        remarks = (_goes_on("AU", stated / per_s, there / per_s),) if stated else ()
        return Mended(prefix, remarks)
    return Mended()


def _aiff(file: BinaryIO, _: bytes, start: int, size: int) -> Mended:
    chunks = {}
    for name, first, stated in _chunks(file, start + 12, size):
        chunks[name] = (first, stated)
        if name == b"SSND":
            break
    if b"COMM" not in chunks or b"SSND" not in chunks:
        return Mended()
    comm_at, (data_at, stated) = chunks[b"COMM"][0], chunks[b"SSND"]
    file.seek(comm_at)
    comm = file.read(22).ljust(22, b"\0")
    channels, frames, bits, exponent, mantissa = struct.unpack_from(">hIhHQ", comm)
    rate = mantissa * 2.0 ** ((exponent & 0x7FFF) - 16446) if exponent else 0.0
    frame_bytes = channels * ((bits + 7) // 8)
    is_plain = comm[18:22] in _PLAIN_AIFF or chunks[b"COMM"][1] < 22
    if frame_bytes <= 0 or not 1 <= rate < 1e7 or not is_plain:
        return Mended()
    there = (size - data_at - 8) // frame_bytes
    if frames > there:
        if frames >= 0x7FFF0000 // frame_bytes:  # a placeholder
            return Mended()
        return Mended(remarks=(_breaks_off("AIFF", frames / rate, there / rate),))
    in_chunk = (min(stated, size - data_at) - 8) // frame_bytes
    behind = size - data_at - stated
    more = max(in_chunk, there if _is_more(file, data_at + stated, behind, size) else 0)
    if (more - frames) * frame_bytes <= _MAX_TRAILER_BYTES or data_at > _MAX_HEADER_BYTES:
        return Mended()
    file.seek(start)
    prefix = bytearray(file.read(data_at - start))
    at = comm_at - start + 2
    prefix[at : at + 4] = struct.pack(">I", more)
    prefix[-4:] = struct.pack(">I", more * frame_bytes + 8)
    remarks = (_goes_on("AIFF", frames / rate, more / rate),) if frames else ()
    return Mended(bytes(prefix), remarks)


def _is_more(file: BinaryIO, position: int, num_bytes: int, size: int) -> bool:
    """Whether samples lie behind a chunk of samples, and not another chunk."""
    if num_bytes <= _MAX_TRAILER_BYTES:
        return False
    for at in (position, position + position % 2):
        file.seek(at)
        name = file.read(4)
        (length,) = struct.unpack(">I", file.read(4).ljust(4, b"\xff"))
        if all(0x20 <= byte < 0x7F for byte in name) and at + 8 + length <= size + 1:
            return False
    return True


def _chunks(file: BinaryIO, position: int, size: int) -> Iterator[tuple[bytes, int, int]]:
    """Name, start and stated size of each chunk of an AIFF."""
    for _ in range(_MAX_CHUNKS):
        file.seek(position)
        header = file.read(8)
        if len(header) < 8 or position >= size:
            return
        name, stated = struct.unpack(">4sI", header)
        yield name, position + 8, stated
        position += 8 + stated + stated % 2


def _caf(file: BinaryIO, _: bytes, start: int, size: int) -> Mended:
    position, per_s = start + 8, 0.0
    for _step in range(_MAX_CHUNKS):
        file.seek(position)
        header = file.read(12)
        if len(header) < 12:
            break
        name, stated = struct.unpack(">4sq", header)
        there = size - position - 12
        if name == b"desc":
            desc = struct.unpack(">d4sIII", file.read(24).ljust(24, b"\0"))
            rate, kind, _flags, packet, frames = desc
            per_s = rate * packet / frames if kind == b"lpcm" and frames else 0.0
        elif name == b"data" and stated > there >= 4 and 1 <= per_s < 1e9:
            file.seek(start)
            prefix = file.read(position - start + 4) if position < _MAX_HEADER_BYTES else b""
            remark = _breaks_off("CAF", (stated - 4) / per_s, (there - 4) / per_s)
            return Mended(prefix and prefix + struct.pack(">q", there), (remark,))
        if stated < 0:
            break
        position += 12 + stated
    return Mended()


def _wav(file: BinaryIO, _: bytes, start: int, size: int) -> Mended:
    """A data chunk of size 0 that a streaming writer left, before samples in a codec."""
    layout = parse(file)
    first, num_bytes = layout.parts[0]
    if layout.promised_bytes is not None:
        share = num_bytes / layout.promised_bytes
        return Mended(remarks=(f"The WAV breaks off: {share:.0%} of its samples are there.",))
    if layout.name != "RIFF" or first + num_bytes < size or first > _MAX_HEADER_BYTES:
        return Mended()
    file.seek(start)
    prefix = file.read(first - start)
    return Mended(prefix[:-4] + struct.pack("<I", min(num_bytes, _UNKNOWN)))


def _breaks_off(name: str, stated_s: float, there_s: float) -> str:
    return (
        f"The {name} breaks off: its header states {stated_s:.2f} s, and {there_s:.2f} s are there."
    )


def _goes_on(name: str, stated_s: float, there_s: float) -> str:
    return (
        f"The header of the {name} states {stated_s:.2f} s; {there_s - stated_s:.2f} s more follow "
        "and were read."
    )


_Check = Callable[[BinaryIO, bytes, int, int], Mended]
_CHECKS: dict[bytes, _Check] = {
    b".snd": _au,
    b"dns.": _au,
    b"FORM": _aiff,
    b"caff": _caf,
    b"RIFF": _wav,
}
