"""Archives that people send, and archives that mean harm: bounded in time, memory and files."""

import bz2
import contextlib
import io
import itertools
import stat
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from nnpm.service.files import FreePaths, safe_path
from nnpm.service.jobs.archive import IntakeLimits, unpack
from nnpm.service.jobs.errors import ArchiveError, IntakeError
from tests.support.hostile import archives as hostile
from tests.support.hostile.seeds import seeds
from tests.support.hostile.watch import watched

pytestmark = pytest.mark.filterwarnings("ignore:Duplicate name")
LIMITS = IntakeLimits(max_members=20, max_unpacked_bytes=64 << 20, max_ratio=100)
GENEROUS = IntakeLimits(max_members=20_000, max_unpacked_bytes=1 << 33, max_ratio=200)
WAV = seeds()["WAV PCM_16"]
Member = tuple[str, bytes]


def zipped(*members: Member, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", method) as archive:
        for name, content in members:
            archive.writestr(zipfile.ZipInfo(name), content, method)
    return data.getvalue()


def tarred(*members: Member, mode: str = "w", **more: object) -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode=mode, **more) as archive:  # type: ignore[call-overload]
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return data.getvalue()


KINDS: dict[str, Callable[..., bytes]] = {
    "zip": zipped,
    "zip, bzip2": lambda *members: zipped(*members, method=zipfile.ZIP_BZIP2),
    "tar": tarred,
    "tar, GNU": lambda *members: tarred(*members, format=tarfile.GNU_FORMAT),
    "tar.gz": lambda *members: tarred(*members, mode="w:gz"),
    "tar.zst": lambda *members: zstandard.compress(tarred(*members)),
    "tar.zst, in frames": lambda *members: b"".join(
        zstandard.compress(piece)
        for piece in (lambda tar: (tar[:700], tar[700:]))(tarred(*members))
    ),
}


@pytest.fixture
def unpacked(tmp_path: Path) -> Callable[..., dict[str, bytes]]:
    numbers = itertools.count()

    def call(data: bytes, limits: IntakeLimits = LIMITS, **more: object) -> dict[str, bytes]:
        (tmp_path / "archive").write_bytes(data)
        into = tmp_path / f"out{next(numbers)}"
        count = unpack(tmp_path / "archive", into, limits, **more).num_files  # type: ignore[arg-type]
        found = {
            path.relative_to(into).as_posix(): path.read_bytes()
            for path in into.rglob("*")
            if path.is_file()
        }
        assert count == len(found)
        return found

    return call


Unpacked = Callable[..., dict[str, bytes]]


@pytest.mark.smoke
@pytest.mark.parametrize("kind", KINDS)
def test_audio_comes_out_and_nothing_else(unpacked: Unpacked, kind: str) -> None:
    long = "x" * 180
    found = unpacked(
        KINDS[kind](
            ("a/b/1.wav", b"one"), ("2.FLAC", b"two"), ("./3.ogg", b"three"), ("empty.wav", b""),
            ("notes.txt", b"text"), ("inner.zip", zipped(("4.wav", b"four"))),
            ("__MACOSX/._1.wav", b"hidden"), (".hidden/5.wav", b"hidden"),
            ("/".join("d" * 30) + "/6.wav", b"deep"), (f"{long}.wav", b"long"),
        )
    )  # fmt: skip
    assert found == {
        "a/b/1.wav": b"one", "2.FLAC": b"two", "3.ogg": b"three", "empty.wav": b"",
        f"{'x' * 96}.wav": b"long",
    }  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_names_of_all_kinds_and_twice(unpacked: Unpacked, kind: str) -> None:
    names = ["ü.wav", "उर्दू.wav", "اردو.wav", "a\tb.wav", "back\\slash.wav", "a.wav", "a.wav"]
    found = unpacked(KINDS[kind](*((name, str(n).encode()) for n, name in enumerate(names))))
    assert sorted(found) == sorted(
        ["ü.wav", "उर्दू.wav", "اردو.wav", "a_b.wav", "back/slash.wav", "a.wav", "a~2.wav"]
    )
    assert found["a~2.wav"] == b"6"


@pytest.mark.parametrize("encoding", ["latin-1", "shift-jis", "cp866", "gb18030"])
def test_names_in_another_encoding(unpacked: Unpacked, encoding: str) -> None:
    name = {"latin-1": "é.wav", "shift-jis": "音.wav", "cp866": "ж.wav", "gb18030": "声.wav"}[
        encoding
    ]
    raw = name.encode(encoding)
    stand_in = b"x" * (len(raw) - 4) + b".wav"
    for kind in ("zip", "tar"):  # its sums are over bytes that stay as many
        data = KINDS[kind]((stand_in.decode(), b"audio"))
        if kind == "tar":
            data = tarred(
                (raw.decode("latin-1"), b"audio"), encoding="latin-1", format=tarfile.GNU_FORMAT
            )
        (found,) = unpacked(data.replace(stand_in, raw)).items()
        assert found[1] == b"audio"
        assert found[0].endswith(".wav")


@pytest.mark.parametrize("name", ["../x.wav", "/x.wav", "a/../../x.wav", "C:\\x.wav", "..\\x.wav",
                                  "\\\\host\\x.wav", "C:x.wav"])  # fmt: skip
@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
def test_names_that_lead_out_are_refused(
    unpacked: Unpacked, tmp_path: Path, kind: str, name: str
) -> None:
    with pytest.raises(ArchiveError, match="the archive is refused"):
        unpacked(KINDS[kind]((name, b"x")))
    assert not list(tmp_path.rglob("x.wav"))


def special(kind: bytes, name: str = "x.wav") -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        info = tarfile.TarInfo(name)
        info.type, info.linkname = kind, "/etc/passwd"
        archive.addfile(info)
    return data.getvalue()


def zip_special(mode: int) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        info = zipfile.ZipInfo("x.wav")
        info.external_attr = (mode | 0o644) << 16
        archive.writestr(info, b"/etc/passwd")
    return data.getvalue()


SPECIAL = {
    "link": special(tarfile.SYMTYPE), "hard link": special(tarfile.LNKTYPE),
    "device": special(tarfile.CHRTYPE), "disk": special(tarfile.BLKTYPE),
    "pipe": special(tarfile.FIFOTYPE), "link in a zip": zip_special(stat.S_IFLNK),
    "device in a zip": zip_special(stat.S_IFCHR), "pipe in a zip": zip_special(stat.S_IFIFO),
}  # fmt: skip


@pytest.mark.parametrize("kind", SPECIAL)
def test_links_and_devices_are_refused(unpacked: Unpacked, kind: str) -> None:
    with pytest.raises(ArchiveError, match=r"'x.wav' is a (link|device)"):
        unpacked(SPECIAL[kind])


@pytest.mark.parametrize("kind", KINDS)
def test_members_are_counted(unpacked: Unpacked, kind: str) -> None:
    members = [(f"{number}.txt", b"") for number in range(20)]
    with pytest.raises(ArchiveError, match="more than 20 members"):
        unpacked(KINDS[kind](*members, ("a.wav", b"x")))


@pytest.mark.parametrize("kind", KINDS)
def test_unpacked_bytes_are_counted(unpacked: Unpacked, kind: str) -> None:
    limits = IntakeLimits(20, 1 << 20, 10_000)
    with pytest.raises(ArchiveError, match="unpacks to more than 1048576 bytes"):
        unpacked(KINDS[kind](*((f"{n}.wav", bytes(300_000)) for n in range(4))), limits)


@pytest.mark.parametrize("kind", ["zip", "zip, bzip2", "tar.gz", "tar.zst"])
def test_a_bomb_is_not_unpacked(unpacked: Unpacked, tmp_path: Path, kind: str) -> None:
    with pytest.raises(ArchiveError, match="more than 100 times as many"):
        unpacked(KINDS[kind](("a.wav", bytes(40 << 20))))
    assert sum(path.stat().st_size for path in tmp_path.rglob("*.wav")) <= 17 << 20


@pytest.mark.parametrize("kind", ["tar.gz", "tar.zst"])
def test_a_bomb_that_nobody_wanted_counts_too(unpacked: Unpacked, kind: str) -> None:
    with pytest.raises(ArchiveError, match="more than 100 times as many"):
        unpacked(KINDS[kind](("a.txt", bytes(40 << 20)), ("b.wav", b"x")))


@pytest.mark.parametrize("kind", ["tar", "tar.gz"])
@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_a_description_that_fills_the_memory_is_refused(
    unpacked: Unpacked, kind: str, form: int
) -> None:
    mode = "w:gz" if kind == "tar.gz" else "w"
    with pytest.raises(ArchiveError, match="at most 1048576 bytes"):
        unpacked(tarred(("a/" * 1_000_000 + "b.wav", b"x"), mode=mode, format=form))


def test_a_sparse_file_is_refused(unpacked: Unpacked) -> None:
    data = bytearray(special(tarfile.GNUTYPE_SPARSE))
    data[386:482] = bytes(96)  # no stretches of data
    data[483:495] = b"77777777777\0"  # and eight gigabytes of holes
    data[148:156] = b" " * 8
    data[148:156] = f"{sum(data[:512]):06o}\0 ".encode()
    with pytest.raises(ArchiveError, match="is a sparse file"):
        unpacked(bytes(data))


def test_a_file_that_is_a_folder_as_well_is_refused(unpacked: Unpacked) -> None:
    assert len(unpacked(zipped(("a.wav/b.wav", b"x"), ("a.wav", b"y")))) == 2
    with pytest.raises(ArchiveError, match="a folder that is also a file"):
        unpacked(zipped(("a.wav", b"x"), ("a.wav/b.wav", b"y")))


def test_many_of_one_name(unpacked: Unpacked) -> None:
    limits = IntakeLimits(600, 8 << 20, 100)
    found = unpacked(tarred(*[("a.wav", b"x")] * 600), limits)
    assert len(found) == 600
    assert "a~600.wav" in found


def _encrypted() -> bytes:
    data = bytearray(zipped(("a.wav", b"x")))
    for signature, flags in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        data[data.index(signature) + flags] |= 1
    return bytes(data)


def _wrong_sum() -> bytes:
    data = bytearray(zipped(("a.wav", b"audio"), method=zipfile.ZIP_STORED))
    data[data.index(b"audio")] ^= 1
    return bytes(data)


def _endless_directory() -> bytes:
    data = bytearray(zipped(("a.wav", b"x")))
    struct.pack_into("<I", data, data.rindex(b"PK\5\6") + 12, 100 << 20)
    return bytes(data)


WHOLE = {kind: make(("a.wav", bytes(range(256)) * 40)) for kind, make in KINDS.items()}
DAMAGED: dict[str, tuple[bytes, str]] = {
    **{f"half a {kind}": (data[: len(data) // 2], "archive") for kind, data in WHOLE.items()},
    **{
        f"{kind} with a hole": (data[:300] + bytes(40) + data[340:], "archive")
        for kind, data in WHOLE.items()
        if kind not in ("tar", "tar, GNU", "tar.zst, in frames")  # without sums of their contents
    },
    "nothing": (b"", "not an archive"),
    "no archive": (b"RIFF" + bytes(600), "not an archive"),
    "no tar in it": (zstandard.compress(b"hello" * 200), "damaged"),
    "bzip2": (bz2.compress(tarred(("a.wav", b"x"))), "not an archive"),
    "no audio": (zipped(("a.txt", b"x")), "holds no audio"),
    "no member": (zipped(), "holds no audio"),
    "encrypted": (_encrypted(), "encrypted"),
    "LZMA": (zipped(("a.wav", b"x"), method=zipfile.ZIP_LZMA), "deflate"),
    "a wrong sum": (_wrong_sum(), "damaged"),
    "an endless directory": (_endless_directory(), "archive"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_what_cannot_be_unpacked_is_one_sentence(unpacked: Unpacked, case: str) -> None:
    data, wanted = DAMAGED[case]
    with pytest.raises(ArchiveError, match=wanted):
        unpacked(data)


def test_it_stops_when_it_is_told_to(unpacked: Unpacked) -> None:
    class EnoughError(Exception):
        pass

    calls = []

    def check() -> None:
        calls.append(1)
        if len(calls) == 10:
            raise EnoughError

    for kind in KINDS:
        calls.clear()
        with pytest.raises(EnoughError):
            unpacked(KINDS[kind](("a.wav", bytes(12 << 20))), check=check)


def unpack_in(tmp_path: Path, archive: bytes, limits: IntakeLimits = GENEROUS) -> list[str]:
    (tmp_path / "archive").write_bytes(archive)
    unpack(tmp_path / "archive", tmp_path / "into", limits)
    return sorted(
        path.relative_to(tmp_path / "into").as_posix()
        for path in (tmp_path / "into").rglob("*")
        if path.is_file()
    )


@pytest.mark.parametrize("name", hostile.archives())
def test_archives_do_no_harm(tmp_path: Path, name: str) -> None:
    archive = hostile.archives()[name]()

    def try_it() -> None:
        with contextlib.suppress(IntakeError):
            unpack_in(tmp_path, archive)

    cost = watched(try_it)
    assert cost.cpu_s < 3
    assert cost.peak_mib < 32
    assert {path.name for path in tmp_path.iterdir()} == {"archive", "into"}
    for path in (tmp_path / "into").rglob("*"):
        assert not path.is_symlink()
        assert path.is_file() or path.is_dir()


REFUSED = {
    "leads out": "leads out",
    "backslashes": "leads out",
    "a pax path that leads out": "leads out",
    "absolute": "absolute name",
    "a drive": "absolute name",
    "a link": "is a link",
    "a symbolic link": "is a link",
    "a hard link": "is a link",
    "a device": "is a device",
    "a pipe": "is a device",
    "sparse": "is a sparse file",
    "encrypted": "without a password",
    "an unknown method": "compression is not supported",
    "LZMA with a dictionary of 4 GB": "compression is not supported",
    "a bomb": "200 times",
    "much that is no audio": "200 times",
    "a huge directory": "table of contents is 99999",
    "a huge directory behind a small one": "table of contents is 99999",
    "a pax header of 50 MB": "header of a member",
    "a long name of 50 MB": "header of a member",
    "a file as a folder": "is also a file",
}


@pytest.mark.parametrize("name", [n for n in hostile.archives() if n.partition(": ")[2] in REFUSED])
def test_archives_are_refused_by_what_is_wrong(tmp_path: Path, name: str) -> None:
    with pytest.raises(IntakeError, match=REFUSED[name.partition(": ")[2]]):
        unpack_in(tmp_path, hostile.archives()[name]())


def test_fine_archives_are_unpacked(tmp_path: Path) -> None:
    for number, kind in enumerate(("zip", "tar", "tar.gz", "tar.zst")):
        place = tmp_path / str(number)
        place.mkdir()
        assert unpack_in(place, hostile.archives()[f"{kind}: fine"]()) == [
            "a.wav",
            "deep/down/b.wav",
        ]
        assert (place / "into/deep/down/b.wav").read_bytes() == WAV


def test_members_are_counted_whatever_they_are(tmp_path: Path) -> None:
    limits = IntakeLimits(max_members=3, max_unpacked_bytes=1 << 30, max_ratio=200)
    for number, make in enumerate((hostile.zipped, hostile.gzipped)):
        place = tmp_path / str(number)
        place.mkdir()
        with pytest.raises(ArchiveError, match="more than 3 members"):
            unpack_in(place, make([(f"{n}.txt", b"x") for n in range(4)]), limits)


def test_like_names_cost_no_more_than_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = 0
    exists = Path.exists

    def counted(path: Path) -> bool:
        nonlocal looks
        looks += 1
        return exists(path)

    monkeypatch.setattr(Path, "exists", counted)
    places = FreePaths(tmp_path)
    path = safe_path("a.wav")
    assert path is not None
    for _ in range(300):
        places.free(path).touch()
    assert looks == 300  # trying all numbers takes 45,000
    assert (tmp_path / "a~300.wav").is_file()


def test_a_number_that_is_taken_is_passed_over(tmp_path: Path) -> None:
    archive = hostile.zipped([("a~2.wav", WAV), ("a.wav", WAV), ("a.wav", WAV)])
    assert unpack_in(tmp_path, archive) == ["a.wav", "a~2.wav", "a~3.wav"]


def test_what_is_passed_over_is_counted_and_named(tmp_path: Path) -> None:
    (tmp_path / "archive").write_bytes(
        zipped(
            ("a.wav", b"one"), ("a", b"fLaC"), ("call 1.2.2024 Berlin", b"OggS"), ("b.WEBA", b""),
            ("c.3gpp", b""), ("d.spx", b""), ("e.mpga", b""), ("f.aifc", b""), ("g.wave", b""),
            ("notes.txt", b"fLaC"), ("readme", b"text"), ("#recycle/a.wav", b""),
            ("x/@eaDir/a.wav", b""), ("__MACOSX/b.wav", b""), (".Trash-1000/a.wav", b""),
            ("/".join("d" * 30) + "/6.wav", b"deep"), ("line\nbreak.doc", b""),
        )
    )  # fmt: skip
    unpacked = unpack(tmp_path / "archive", tmp_path / "out", LIMITS)
    assert unpacked.num_files == 9
    assert {reason: len(names) for reason, names in unpacked.passed_over.items()} == {
        "not_audio": 3, "system_folder": 3, "hidden": 1, "too_deep": 1,
    }  # fmt: skip
    assert "line\\x0abreak.doc" in unpacked.passed_over["not_audio"]


@pytest.mark.parametrize("name", [b"caf\xe9.wav", b"caf\x82.wav", "\u06af.wav".encode()])
@pytest.mark.parametrize("says_utf8", [True, False])
def test_a_zip_may_lie_about_its_names(unpacked: Unpacked, name: bytes, says_utf8: bool) -> None:
    data = zipped(("x" * len(name), b"one"), ("b.wav", b"two")).replace(b"x" * len(name), name)
    if says_utf8:
        data = bytearray(data)
        data[6:8] = data[data.index(b"PK\x01\x02") + 8 :][:2] = b"\0\x08"
        at = data.index(b"PK\x01\x02") + 8
        data[at : at + 2] = b"\0\x08"
        data = bytes(data)
    found = unpacked(data)
    assert sorted(found.values()) == [b"one", b"two"]
    if name.endswith("\u06af.wav".encode()):
        assert set(found) == {"\u06af.wav", "b.wav"}
