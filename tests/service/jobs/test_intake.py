"""Hostile archives: unpacked into their folder, or refused, in bounded time and memory."""

import contextlib
from pathlib import Path

import pytest

from nnpm.service.jobs.archive import IntakeLimits, unpack
from nnpm.service.jobs.errors import ArchiveError, IntakeError
from nnpm.service.jobs.names import Places, safe_path
from tests.hostile.archives import archives, gzipped, zipped
from tests.hostile.seeds import seeds
from tests.hostile.watch import watched

LIMITS = IntakeLimits(max_members=20_000, max_unpacked_bytes=1 << 33, max_ratio=200)
WAV = seeds()["WAV PCM_16"]


def unpacked(tmp_path: Path, archive: bytes, limits: IntakeLimits = LIMITS) -> list[str]:
    (tmp_path / "archive").write_bytes(archive)
    unpack(tmp_path / "archive", tmp_path / "into", limits)
    return sorted(
        path.relative_to(tmp_path / "into").as_posix()
        for path in (tmp_path / "into").rglob("*")
        if path.is_file()
    )


@pytest.mark.parametrize("name", archives())
def test_archives_do_no_harm(tmp_path: Path, name: str) -> None:
    archive = archives()[name]()

    def try_it() -> None:
        with contextlib.suppress(IntakeError):
            unpacked(tmp_path, archive)

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
    "an unknown method": "in a way that we lack",
    "LZMA with a dictionary of 4 GB": "in a way that we lack",
    "a bomb": "200 times",
    "much that is no audio": "200 times",
    "a huge directory": "table of contents has 99999",
    "a huge directory behind a small one": "table of contents has 99999",
    "a pax header of 50 MB": "describes a member",
    "a long name of 50 MB": "describes a member",
    "a file as a folder": "is a file as well",
}


@pytest.mark.parametrize("name", [n for n in archives() if n.partition(": ")[2] in REFUSED])
def test_archives_are_refused_by_what_is_wrong(tmp_path: Path, name: str) -> None:
    with pytest.raises(IntakeError, match=REFUSED[name.partition(": ")[2]]):
        unpacked(tmp_path, archives()[name]())


def test_fine_archives_are_unpacked(tmp_path: Path) -> None:
    for number, kind in enumerate(("zip", "tar", "tar.gz", "tar.zst")):
        place = tmp_path / str(number)
        place.mkdir()
        assert unpacked(place, archives()[f"{kind}: fine"]()) == ["a.wav", "deep/down/b.wav"]
        assert (place / "into/deep/down/b.wav").read_bytes() == WAV


def test_members_are_counted_whatever_they_are(tmp_path: Path) -> None:
    limits = IntakeLimits(max_members=3, max_unpacked_bytes=1 << 30, max_ratio=200)
    for number, make in enumerate((zipped, gzipped)):
        place = tmp_path / str(number)
        place.mkdir()
        with pytest.raises(ArchiveError, match="more than 3 members"):
            unpacked(place, make([(f"{n}.txt", b"x") for n in range(4)]), limits)


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
    places = Places(tmp_path)
    path = safe_path("a.wav")
    assert path is not None
    for _ in range(300):
        places.free(path).touch()
    assert looks == 300  # trying all numbers takes 45,000
    assert (tmp_path / "a~300.wav").is_file()


def test_a_number_that_is_taken_is_passed_over(tmp_path: Path) -> None:
    archive = zipped([("a~2.wav", WAV), ("a.wav", WAV), ("a.wav", WAV)])
    assert unpacked(tmp_path, archive) == ["a.wav", "a~2.wav", "a~3.wav"]
