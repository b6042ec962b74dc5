"""Ogg pages: finding them, and making them with a valid checksum."""

import struct
from collections.abc import Iterator


def _table() -> list[int]:
    table = []
    for byte in range(256):
        register = byte << 24
        for _ in range(8):
            register = (register << 1) ^ (0x04C11DB7 if register & 0x80000000 else 0)
        table.append(register & 0xFFFFFFFF)
    return table


_TABLE = _table()


def checksum(data: bytes) -> int:
    """The CRC of a page whose own field is zero."""
    register = 0
    for byte in data:
        register = (register << 8 & 0xFFFFFFFF) ^ _TABLE[register >> 24 ^ byte]
    return register


def pages(clip: bytes) -> Iterator[tuple[int, int]]:
    """Start and end of each page."""
    position = 0
    while clip[position : position + 4] == b"OggS" and position + 27 <= len(clip):
        num_segments = clip[position + 26]
        body = position + 27
        end = body + num_segments + sum(clip[body : body + num_segments])
        yield position, end
        position = end


def signed(clip: bytes) -> bytes:
    """Recompute the checksum of every page."""
    signed_clip = bytearray(clip)
    for start, end in pages(clip):
        page = bytearray(clip[start:end])
        page[22:26] = bytes(4)
        signed_clip[start + 22 : start + 26] = struct.pack("<I", checksum(page))
    return bytes(signed_clip)


def page(
    packets: list[bytes], *, granule: int, number: int, serial: int = 1, flags: int = 0
) -> bytes:
    """One page of whole packets, each under 255 bytes; flags: 2 for the first page, 4 the last."""
    head = struct.pack("<4sBBqIIIB", b"OggS", 0, flags, granule, serial, number, 0, len(packets))
    data = head + bytes(map(len, packets)) + b"".join(packets)
    return data[:22] + struct.pack("<I", checksum(data)) + data[26:]


def opus_silence(duration_s: float, *, last_granule: int | None = None) -> bytes:
    """Opus silence in the fewest bytes: packets of two bytes and 120 ms, 8 kB for five minutes.

    Args:
        duration_s: of the packets.
        last_granule: what the last page says of the length, in samples of 48 kHz; the truth
            unless told.
    """
    packet_samples, per_page = 5760, 255
    num_packets = round(duration_s * 48_000 / packet_samples)
    head = b"OpusHead\x01\x01\x00\x00\x80\xbb\x00\x00\x00\x00\x00"
    made = [page([head], granule=0, number=0, flags=2)]
    made.append(page([b"OpusTags" + bytes(8)], granule=0, number=1))
    done = 0
    while done < num_packets:
        count = min(per_page, num_packets - done)
        done += count
        is_last = done == num_packets
        granule = done * packet_samples
        if is_last and last_granule is not None:
            granule = last_granule
        packets = [b"\xfb\x06"] * count  # six frames of 20 ms that hold nothing
        made.append(page(packets, granule=granule, number=len(made), flags=4 if is_last else 0))
    return b"".join(made)
