from pathlib import Path

import numpy as np
import pytest

from nnpm.service.files import replacing, require_place
from nnpm.training.data.clips import cached


def rows() -> list[np.ndarray]:
    return [np.full((n, 2), n, np.float32) for n in (3, 1, 2)]


@pytest.mark.parametrize("name", ["cache.npy", "cache.bounds.npy"])
@pytest.mark.parametrize("keep", [0, 60, -8])
def test_a_file_that_a_crash_cut_short_is_made_again(tmp_path: Path, name: str, keep: int) -> None:
    cached(tmp_path / "cache", rows)
    path = tmp_path / name
    path.write_bytes(path.read_bytes()[:keep])
    again = cached(tmp_path / "cache", rows)
    assert [row.tolist() for row in again] == [row.tolist() for row in rows()]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cache.bounds.npy", "cache.npy"]


def test_rows_are_made_once_and_selected_without_a_copy(tmp_path: Path) -> None:
    first = cached(tmp_path / "cache", rows)
    again = cached(tmp_path / "cache", lambda: pytest.fail("made again"))
    assert len(again) == len(first) == 3
    chosen = again.select([2, 0])
    assert [row.tolist() for row in chosen] == [rows()[2].tolist(), rows()[0].tolist()]
    assert chosen[0].dtype == np.float32


def test_an_interrupted_cache_is_not_half_there(tmp_path: Path) -> None:
    def broken():
        yield np.zeros((3, 4), np.float32)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cached(tmp_path / "cache", broken)
    assert not list(tmp_path.iterdir())


def test_files_of_two_makings_are_not_mixed(tmp_path: Path) -> None:
    cached(tmp_path / "other", lambda: rows()[:2])
    cached(tmp_path / "cache", rows)
    (tmp_path / "other.bounds.npy").replace(tmp_path / "cache.bounds.npy")
    assert len(cached(tmp_path / "cache", rows)) == 3


def test_replacing_is_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def interrupted() -> None:
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_text() == "old"
    with replacing(path) as one, replacing(path) as two:
        assert one != two
        one.write_text("first")
        two.write_text("second")
    assert path.read_text() == "first"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_place_under_folders_that_are_not_there_yet_is_fine(tmp_path: Path) -> None:
    require_place(tmp_path / "a" / "b" / "c")
    assert not (tmp_path / "a").exists()
