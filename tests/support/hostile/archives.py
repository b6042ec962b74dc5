"""Archives that must not be unpacked, and some that may be."""

import gzip
import io
import stat
import struct
import tarfile
import zipfile
from collections.abc import Callable

import zstandard

from tests.support.hostile.seeds import seeds

Member = tuple[str, bytes]


def archives() -> dict[str, Callable[[], bytes]]:
    """Makers of archives, by name."""
    wav = seeds()["WAV PCM_16"]
    one: list[Member] = [("a.wav", wav)]
    kinds = {"zip": zipped, "tar": tarred, "tar.gz": gzipped, "tar.zst": zstandarded}
    made: dict[str, Callable[[], bytes]] = {
        f"{kind}: {name}": lambda make=make, members=members: make(members)
        for kind, make in kinds.items()
        for name, members in _members(wav).items()
    }
    return made | {
        "zip: a link": lambda: _zip_of_mode("a.wav", b"/etc/passwd", stat.S_IFLNK | 0o777),
        "zip: a device": lambda: _zip_of_mode("a.wav", b"", stat.S_IFCHR | 0o666),
        "zip: encrypted": lambda: _with_flag(zipped(one), 1),
        "zip: an unknown method": lambda: _with_method(zipped(one), 99),
        "zip: a name that is no UTF-8": lambda: _with_flag(zipped([("ä.wav", wav)]), 0),
        "zip: sizes of 2^32": lambda: _with_sizes(zipped(one), 0xFFFFFFFF),
        "zip: sizes of 0": lambda: _with_sizes(zipped(one), 0),
        "zip: a directory of 2^32": lambda: _with_directory(zipped(one), 0xFFFFFFF0, None),
        "zip: a directory elsewhere": lambda: _with_directory(zipped(one), None, 0xFFFFFFF0),
        "zip: zip64 that lies": lambda: _zip64(zipped(one)),
        "zip: a huge directory": lambda: _huge_directory(hidden=False),
        "zip: a huge directory behind a small one": lambda: _huge_directory(hidden=True),
        "zip: LZMA with a dictionary of 4 GB": lambda: _with_method(zipped(one), zipfile.ZIP_LZMA),
        "tar.gz: much that is no audio": lambda: gzipped([("a.txt", bytes(50_000_000)), *one]),
        "tar.zst: much that is no audio": lambda: zstandarded([("a.txt", bytes(50_000_000)), *one]),
        "zip: all members on the same bytes": lambda: _overlapping(wav),
        "zip: behind a megabyte of junk": lambda: b"\x00" * 1_000_000 + zipped(one),
        "zip: in a zip": lambda: zipped([("inner.zip", zipped(one))]),
        "zip: a bomb": lambda: zipped([("a.wav", wav[:44] + bytes(100_000_000))]),
        "tar.gz: a bomb": lambda: gzipped([("a.wav", bytes(100_000_000))]),
        "tar.zst: a bomb": lambda: zstandarded([("a.wav", bytes(100_000_000))]),
        "tar.zst: a window of 2 GB": lambda: b"\x28\xb5\x2f\xfd\x00\xa8" + bytes(100),
        "tar: a symbolic link": lambda: _tar_of_type(tarfile.SYMTYPE, "../../etc"),
        "tar: a hard link": lambda: _tar_of_type(tarfile.LNKTYPE, "a.wav"),
        "tar: a device": lambda: _tar_of_type(tarfile.CHRTYPE),
        "tar: a pipe": lambda: _tar_of_type(tarfile.FIFOTYPE),
        "tar: sparse": lambda: _sparse(1 << 40),
        "tar: a size of 2^60": lambda: _tar_with_size(1 << 60),
        "tar: a negative size": lambda: _tar_with_size(-1),
        "tar: a pax size that lies": lambda: _pax({"size": "99999999999"}),
        "tar: a pax path that leads out": lambda: _pax({"path": "../../out.wav"}),
        "tar: a pax header of 50 MB": lambda: _pax({"comment": "x" * 50_000_000}),
        "tar: a long name of 50 MB": lambda: _long_name(50_000_000),
        "tar: a thousand long names": lambda: _long_name(1) * 1_000,
        "gzip of a gzip": lambda: gzip.compress(gzipped(one)),
        "gzip without end": lambda: gzipped(one)[:-9],
        "nothing": lambda: b"",
        "the end of a zip alone": lambda: b"PK\x05\x06" + bytes(18),
    }


def _members(wav: bytes) -> dict[str, list[Member]]:
    return {
        "fine": [("a.wav", wav), ("deep/down/b.wav", wav)],
        "leads out": [("../a.wav", wav)],
        "leads out behind": [("a/../../b.wav", wav)],
        "absolute": [("/tmp/a.wav", wav)],
        "a drive": [("C:\\a.wav", wav)],
        "backslashes": [("..\\..\\a.wav", wav)],
        "a share": [("\\\\host\\share\\a.wav", wav)],
        "the same name twice": [("a.wav", wav), ("a.wav", wav), ("A.wav", wav)],
        "a file as a folder": [("a.wav", wav), ("a.wav/b.wav", wav)],
        "a folder as a file": [("a.wav/b.wav", wav), ("a.wav", wav)],
        "a name of 5000": [("x" * 5000 + ".wav", wav)],
        "a thousand folders": [("d/" * 1000 + "a.wav", wav)],
        "control characters": [("a\n\x1b[31m\x7f.wav", wav)],
        "right to left": [("\u202evaw.exe.wav", wav)],
        "no name": [(".wav", wav), ("/", b""), (".", b"")],
        "bytes of an emoji": [("😀.wav".encode().decode("latin-1"), wav)],
        "reserved names": [("CON.wav", wav), ("NUL.wav", wav), ("aux .wav.", wav)],
        "nothing in it": [],
    }  # fmt: skip


def zipped(members: list[Member]) -> bytes:
    """A zip, compressed."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members:
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.NameToInfo.clear()  # no warning of names that are there twice
            archive.writestr(info, data)
    return file.getvalue()


def tarred(members: list[Member]) -> bytes:
    """A tar of the kind that Python writes."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", errors="surrogateescape") as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return file.getvalue()


def gzipped(members: list[Member]) -> bytes:
    """A tar.gz."""
    return gzip.compress(tarred(members), compresslevel=1)


def zstandarded(members: list[Member]) -> bytes:
    """A tar.zst."""
    return zstandard.compress(tarred(members))


def _zip_of_mode(name: str, data: bytes, mode: int) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        info = zipfile.ZipInfo(name)
        info.create_system = 3
        info.external_attr = mode << 16
        archive.writestr(info, data)
    return file.getvalue()


def _patched(archive: bytes, at: int, kind: str, *values: int) -> bytes:
    coded = struct.pack(kind, *values)
    return archive[:at] + coded + archive[at + len(coded) :]


def _with_flag(archive: bytes, flag: int) -> bytes:
    entry = archive.index(b"PK\x01\x02")
    return _patched(_patched(archive, 6, "<H", flag), entry + 8, "<H", flag)


def _with_method(archive: bytes, method: int) -> bytes:
    entry = archive.index(b"PK\x01\x02")
    return _patched(_patched(archive, 8, "<H", method), entry + 10, "<H", method)


def _with_sizes(archive: bytes, size: int) -> bytes:
    entry = archive.index(b"PK\x01\x02")
    return _patched(_patched(archive, 18, "<II", size, size), entry + 20, "<II", size, size)


def _with_directory(archive: bytes, size: int | None, offset: int | None) -> bytes:
    end = archive.rindex(b"PK\x05\x06")
    if size is not None:
        archive = _patched(archive, end + 12, "<I", size)
    return archive if offset is None else _patched(archive, end + 16, "<I", offset)


def _zip64(archive: bytes) -> bytes:
    """The end says that a zip64 end says it, and that one promises a huge directory."""
    end = archive.rindex(b"PK\x05\x06")
    much = 1 << 62
    large = b"PK\x06\x06" + struct.pack("<QHHIIQQQQ", 44, 45, 45, 0, 0, much, much, much, 0)
    locator = b"PK\x06\x07" + struct.pack("<IQI", 0, end, 1)
    tail = _patched(archive[end:], 8, "<HHII", 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF)
    return archive[:end] + large + locator + tail


def _huge_directory(*, hidden: bool) -> bytes:
    """10 MB of entries; hidden, the end tells of one, and the zip64 end before it of all."""
    archive = zipped([("a", b"")])
    start, end = archive.index(b"PK\x01\x02"), archive.rindex(b"PK\x05\x06")
    entry = archive[start:end]
    count = 10_000_000 // len(entry)
    size = count * len(entry)
    body = archive[:start] + entry * count
    if not hidden:
        return body + _patched(archive[end:], 8, "<HHI", 0xFFFF, 0xFFFF, size)
    large = struct.pack("<QHHIIQQQQ", 44, 45, 45, 0, 0, count, count, size, start)
    locator = struct.pack("<IQI", 0, len(body), 1)
    return body + b"PK\x06\x06" + large + b"PK\x06\x07" + locator + archive[end:]


def _overlapping(wav: bytes) -> bytes:
    """A thousand entries of the directory that all point to one member."""
    archive = zipped([("a.wav", wav + bytes(1_000_000))])
    start, end = archive.index(b"PK\x01\x02"), archive.rindex(b"PK\x05\x06")
    entries = archive[start:end] * 1_000
    tail = _patched(archive[end:], 8, "<HHI", 1_000, 1_000, len(entries))
    return archive[:start] + entries + tail


def _tar_of_type(kind: bytes, target: str = "") -> bytes:
    info = tarfile.TarInfo("a.wav")
    info.type, info.linkname = kind, target
    return info.tobuf() + bytes(1024)


def _tar_with_size(size: int) -> bytes:
    info = tarfile.TarInfo("a.wav")
    info.size = size
    return info.tobuf(tarfile.GNU_FORMAT) + bytes(2048)


def _sparse(size: int) -> bytes:
    """A file of a terabyte with one block in it, as GNU tar writes it."""
    info = tarfile.TarInfo("a.wav")
    info.type = tarfile.GNUTYPE_SPARSE
    info.size = 512
    head = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    head[386:398] = b"%011o\0" % 0
    head[398:410] = b"%011o\0" % 512
    head[483:495] = b"\x80" + size.to_bytes(11, "big")
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % sum(head)
    return bytes(head) + bytes(512 + 1024)


def _pax(headers: dict[str, str]) -> bytes:
    info = tarfile.TarInfo("a.wav")
    info.pax_headers = headers
    return info.tobuf(tarfile.PAX_FORMAT) + bytes(1024)


def _long_name(length: int) -> bytes:
    info = tarfile.TarInfo("a.wav")
    info.name = "x" * length + ".wav"
    return info.tobuf(tarfile.GNU_FORMAT) + bytes(512)
