"""Arrays of different length in one memory-mapped file: the caches of clips and features."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.replacing import replacing


class Ragged:
    """Rows of different length, stored as float16 one after the other, read as float32.

    Args:
        values: all rows, joined along the first axis.
        starts: where each row starts.
        ends: where each row ends.
        stem: the files it lies in, without their ending.
    """

    def __init__(
        self,
        values: NDArray[np.float16],
        starts: NDArray[np.int64],
        ends: NDArray[np.int64],
        stem: Path,
    ) -> None:
        self.values, self.starts, self.ends, self.stem = values, starts, ends, stem

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, index: int) -> NDArray[np.float32]:
        return self.values[self.starts[index] : self.ends[index]].astype(np.float32)

    def __iter__(self) -> Iterator[NDArray[np.float32]]:
        return (self[index] for index in range(len(self)))

    def select(self, indices: Sequence[int]) -> "Ragged":
        """Some of the rows, in the order given, over the same file."""
        chosen = np.asarray(indices, np.int64)
        return Ragged(self.values, self.starts[chosen], self.ends[chosen], self.stem)


def cached(stem: Path, make: Callable[[], Iterable[NDArray[np.float32]]]) -> Ragged:
    """Read the rows at ``stem``, making and storing them first where they are not there.

    Args:
        stem: path without ending; its name must tell everything that the rows depend on.
        make: gives the rows.

    Raises:
        OSError: if they cannot be stored; a folder that takes no files is found before any work.
    """
    found = _read(stem)
    if found is None:
        data, bounds = _files(stem)
        stem.parent.mkdir(parents=True, exist_ok=True)
        with (
            replacing(data) as new_data,
            replacing(bounds) as new_bounds,
            new_data.open("xb") as data_file,
            new_bounds.open("xb") as bounds_file,
        ):
            rows = [row.astype(np.float16) for row in make()]
            np.save(bounds_file, np.cumsum([0, *(len(row) for row in rows)], dtype=np.int64))
            np.save(data_file, np.concatenate(rows))
        found = _read(stem)
        assert found is not None, stem
    return found


def _files(stem: Path) -> tuple[Path, Path]:
    return stem.with_suffix(".npy"), stem.with_suffix(".bounds.npy")


def _read(stem: Path) -> Ragged | None:
    """The rows at ``stem``; None where there are none, or a crash left half a file."""
    data, bounds = _files(stem)
    try:
        values, edges = np.load(data, mmap_mode="r"), np.load(bounds)
    except (FileNotFoundError, EOFError, ValueError):
        return None
    if edges[-1] != len(values):
        return None
    return Ragged(values, edges[:-1], edges[1:], stem)
