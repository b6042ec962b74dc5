"""Where the fields of a header are, so that each can be changed."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from tests.support.hostile.ogg import pages


@dataclass(frozen=True, slots=True)
class Field:
    """One number of a header.

    Attributes:
        name: for people.
        offset: in bytes.
        size: in bytes.
        order: little or big.
    """

    name: str
    offset: int
    size: int
    order: str = "little"


def fields(clip: bytes) -> list[Field]:
    """List the fields of the header of a clip, by its first bytes."""
    head = clip[:4]
    if head in (b"RIFF", b"RF64"):
        found = _riff(clip)
    elif head == b"riff":
        found = _plain("W64", 0, 16 * 8, 8)
    elif head == b"FORM":
        found = _aiff(clip)
    elif head == b".snd":
        found = _plain("AU", 0, 24, 4, "big")
    elif head == b"caff":
        found = _caf(clip)
    elif head == b"fLaC":
        found = _flac(clip)
    elif head == b"OggS":
        found = _ogg(clip)
    elif head[:3] == b"ID3":
        found = [*_plain("ID3", 0, 10, 1), *_plain("ID3 frame", 10, 10, 1), *_mpeg(clip, 24)]
    elif clip[4:8] == b"ftyp":
        found = _boxes(clip, 0, len(clip))
    elif head == b"\x1aE\xdf\xa3":
        found = _plain("EBML", 0, min(len(clip), 600), 1)
    else:
        found = _mpeg(clip, 0)
    return list(found)


def _plain(name: str, start: int, end: int, size: int, order: str = "little") -> Iterator[Field]:
    for offset in range(start, end, size):
        yield Field(f"{name} +{offset}", offset, size, order)


def _riff(clip: bytes) -> Iterator[Field]:
    yield from _plain("RIFF", 0, 12, 4)
    position = 12
    while position + 8 <= len(clip):
        name, size = struct.unpack_from("<4sI", clip, position)
        shown = name.decode("latin-1")
        yield Field(f"{shown} name", position, 4)
        yield Field(f"{shown} size", position + 4, 4)
        if name == b"data":
            return
        yield from _plain(shown, position + 8, position + 8 + min(size, 64), 2)
        position += 8 + size + size % 2


def _aiff(clip: bytes) -> Iterator[Field]:
    yield from _plain("FORM", 0, 12, 4, "big")
    position = 12
    while position + 8 <= len(clip):
        name, size = struct.unpack_from(">4sI", clip, position)
        yield from _plain(name.decode("latin-1"), position, position + 8, 4, "big")
        end = position + 8 + (min(size, 32) if name != b"SSND" else 8)
        yield from _plain(name.decode("latin-1"), position + 8, end, 2, "big")
        position += 8 + size + size % 2


def _caf(clip: bytes) -> Iterator[Field]:
    yield from _plain("caff", 0, 8, 4, "big")
    position = 8
    while position >= 0 and position + 12 <= len(clip):
        name, size = struct.unpack_from(">4sq", clip, position)
        shown = name.decode("latin-1")
        yield Field(f"{shown} name", position, 4, "big")
        yield Field(f"{shown} size", position + 4, 8, "big")
        if name == b"data" or size < 0:
            return
        yield from _plain(shown, position + 12, position + 12 + min(size, 48), 4, "big")
        position += 12 + size


def _flac(clip: bytes) -> Iterator[Field]:
    yield Field("magic", 0, 4)
    position, last = 4, False
    while not last:
        last = clip[position] >= 0x80
        size = int.from_bytes(clip[position + 1 : position + 4], "big")
        yield Field("block kind", position, 1)
        yield Field("block size", position + 1, 3, "big")
        yield from _plain("block", position + 4, position + 4 + min(size, 42), 2, "big")
        position += 4 + size
    yield from _plain("frame", position, position + 16, 1)


def _ogg(clip: bytes) -> Iterator[Field]:
    found = list(pages(clip))
    for number, (start, _) in enumerate(found):
        if number > 3 and number < len(found) - 1:
            continue
        name = f"page {number}"
        yield from _plain(name, start, start + 6, 1)
        yield Field(f"{name} granule", start + 6, 8)
        for offset in (14, 18, 22):
            yield Field(f"{name} +{offset}", start + offset, 4)
        num_segments = clip[start + 26]
        yield from _plain(f"{name} segments", start + 26, start + 27 + min(num_segments, 8), 1)
        if number < 2:
            packet = start + 27 + num_segments
            yield from _plain(f"{name} packet", packet, packet + 30, 2)


def _mpeg(clip: bytes, start: int) -> Iterator[Field]:
    yield from _plain("MPEG", start, start + 40, 1)
    for mark in (b"Xing", b"Info"):
        at = clip.find(mark)
        if at >= 0:
            yield from _plain("Xing", at, at + 16, 4, "big")


_PARENTS = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"dinf", b"udta")


def _boxes(clip: bytes, start: int, end: int) -> Iterator[Field]:
    """Boxes of MP4, and boxes in them."""
    position = start
    while position + 8 <= end:
        size, name = struct.unpack_from(">I4s", clip, position)
        shown = name.decode("latin-1")
        yield Field(f"{shown} size", position, 4, "big")
        yield Field(f"{shown} name", position + 4, 4, "big")
        if size < 8:
            return
        if name in _PARENTS:
            yield from _boxes(clip, position + 8, position + size)
        elif name != b"mdat":
            yield from _plain(shown, position + 8, position + min(size, 72) // 4 * 4, 4, "big")
        position += size
