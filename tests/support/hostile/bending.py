"""Nearly valid files: with one field changed, cut short, or with pieces repeated."""

import random
import struct
import zlib
from collections.abc import Iterator

from tests.support.hostile.fields import Field, fields
from tests.support.hostile.ogg import pages, signed


def bent(clip: bytes) -> Iterator[tuple[str, bytes]]:
    """Each field of the header in turn: 0, 1, all ones, the sign, the largest positive, random."""
    for field in fields(clip):
        bits = 8 * field.size
        chance = random.Random(zlib.crc32(field.name.encode()))
        values = {0, 1, (1 << bits) - 1, 1 << bits - 1, (1 << bits - 1) - 1}
        for value in sorted(values | {chance.getrandbits(bits)}):
            made = _with(clip, field, value)
            if made == clip:
                continue
            yield f"{field.name} = {value:#x}", made
            if clip[:4] == b"OggS":
                yield f"{field.name} = {value:#x}, signed", signed(made)


def _with(clip: bytes, field: Field, value: int) -> bytes:
    coded = value.to_bytes(field.size, "little" if field.order == "little" else "big")
    return clip[: field.offset] + coded + clip[field.offset + field.size :]


def truncated(clip: bytes) -> Iterator[tuple[str, bytes]]:
    """Cut at every power of two, a byte before it, and a byte before the end."""
    lengths = {0, len(clip) - 1}
    power = 1
    while power < len(clip):
        lengths |= {power, power - 1}
        power *= 2
    for length in sorted(lengths):
        yield f"cut at {length}", clip[:length]


def repeated(clip: bytes) -> Iterator[tuple[str, bytes]]:
    """The whole twice, and its pieces many times or with nothing in them."""
    yield "twice", clip + clip
    yield "head twice", clip[:64] + clip
    yield "behind itself", clip[: len(clip) // 2] + clip
    if clip[:4] in (b"RIFF", b"FORM"):
        order = "<" if clip[:4] == b"RIFF" else ">"
        yield from _chunks(clip, order)
    if clip[:4] == b"fLaC":
        block = b"\x01\x00\x00\x00"
        yield "empty blocks", clip[:42] + block * 5_000 + clip[42:]
        yield "the first block again", clip[:42] + clip[4:42] * 3 + clip[42:]
    if clip[:4] == b"OggS":
        yield from _pages(clip)


def _chunks(clip: bytes, order: str) -> Iterator[tuple[str, bytes]]:
    def made(body: bytes) -> bytes:
        size = struct.pack(f"{order}I", 4 + len(body))
        return clip[:4] + size + clip[8:12] + body

    (size,) = struct.unpack_from(f"{order}I", clip, 16)
    first, rest = clip[12 : 20 + size + size % 2], clip[20 + size + size % 2 :]
    for name in (b"junk", b"LIST", b"fact", b"data", b"fmt ", b"COMM", b"SSND", b"bext", b"cart"):
        empty = name + bytes(4)
        shown = name.decode().strip()
        yield f"empty {shown} chunks", made(first + empty * 5_000 + rest)
        yield f"an empty {shown} chunk first", made(empty + first + rest)
        yield f"an endless {shown} chunk", made(first + name + b"\xff" * 4 + rest)
    yield "the first chunk 500 times", made(first * 500 + rest)
    yield "the rest 5 times", made(first + rest * 5)
    yield "no first chunk", made(rest)


def _pages(clip: bytes) -> Iterator[tuple[str, bytes]]:
    found = [clip[start:end] for start, end in pages(clip)]
    yield "each page twice", b"".join(page + page for page in found)
    yield "the first page 500 times", found[0] * 500 + clip[len(found[0]) :]
    yield "pages backwards", b"".join(reversed(found))
    yield "the last page first", found[-1] + clip
    yield "no comments", b"".join(found[:1] + found[2:])
    streams = []
    for serial in range(200):
        mine = [page[:14] + struct.pack("<I", serial) + page[18:] for page in found]
        streams.append([signed(page) for page in mine])
    heads = b"".join(stream[0] for stream in streams)
    yield "200 streams at once", heads + b"".join(b"".join(s[1:]) for s in streams[:20])
    yield "20 streams in a row", b"".join(b"".join(stream) for stream in streams[:20])
