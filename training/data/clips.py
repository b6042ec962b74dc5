"""Decoded clips, cached on disk as rows of different length.

Every file is decoded, resampled and trimmed once, instead of once per run.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from ...service.files import replacing
from ...service.inference.audio.decode import decode
from ...service.inference.audio.speech import trim_edges
from ...service.inference.audio.waveform import Waveform
from ...service.inference.errors import AudioError
from ..corpora import Utterance
from ..errors import TrainingError


class Ragged:
    """Rows of different length, stored as float16 one after the other, read as float32.

    Args:
        values: all rows, joined along the first axis.
        starts: where each row starts.
        ends: where each row ends.
        stem: path of the files that hold the rows, without suffix.
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
    """Read the rows at ``stem``; if they are missing, make and store them first.

    Args:
        stem: path without suffix; its name must identify everything that the rows depend on.
        make: returns the rows.

    Raises:
        OSError: if they cannot be stored; the files are opened before any row is made.
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
            np.save(bounds_file, _write(data_file, make()))
        found = _read(stem)
        assert found is not None, stem
    return found


def _write(file: BinaryIO, rows: Iterable[NDArray[np.float32]]) -> NDArray[np.int64]:
    """Write rows one after the other, so that none stays in memory; return their bounds."""
    bounds = [0]
    rest: tuple[int, ...] = ()

    def header() -> None:  # numpy leaves room for the first axis to grow
        shape = {"descr": "<f2", "fortran_order": False, "shape": (bounds[-1], *rest)}
        np.lib.format.write_array_header_1_0(file, shape)

    for row in rows:
        if len(bounds) == 1:
            rest = row.shape[1:]
            header()
        file.write(row.astype("<f2").tobytes())
        bounds.append(bounds[-1] + len(row))
    file.seek(0)
    header()
    return np.array(bounds, np.int64)


def _files(stem: Path) -> tuple[Path, Path]:
    return stem.with_suffix(".npy"), stem.with_suffix(".bounds.npy")


def _read(stem: Path) -> Ragged | None:
    """The rows at ``stem``; None if there are none, or if a crash left an incomplete file."""
    data, bounds = _files(stem)
    try:
        values, edges = np.load(data, mmap_mode="r"), np.load(bounds)
    except (FileNotFoundError, EOFError, ValueError):
        return None
    if edges[-1] != len(values):
        return None
    return Ragged(values, edges[:-1], edges[1:], stem)


_VERSION = 2  # raised when what a cached clip holds changes


def load_waveform(path: Path) -> Waveform:
    """Decode one file to 16 kHz mono and trim its edges, as the service does.

    Raises:
        AudioError: if it cannot be decoded.
    """
    return trim_edges(decode(path).waveforms[0])


def load_clips(utterances: Sequence[Utterance], cache: Path) -> Ragged:
    """Decode utterances, or read them from ``cache`` if the same files were decoded before.

    Returns:
        One row of samples in [-1, 1] per utterance, in the same order.

    Raises:
        TrainingError: if clips cannot be decoded; the message has their number and the first.
    """
    stats = [(str(u.path), u.path.stat().st_size, u.path.stat().st_mtime_ns) for u in utterances]
    digest = hashlib.sha256(json.dumps([_VERSION, stats]).encode()).hexdigest()[:16]
    return cached(cache / f"clips-{digest}", lambda: _decode_all(utterances))


def _decode_all(utterances: Sequence[Utterance]) -> Iterator[NDArray[np.float32]]:
    broken = []
    # disable=None: no bar if standard error is a file or a pipe
    bar = tqdm(utterances, desc="decode", unit="clip", dynamic_ncols=True, disable=None)
    for utterance in bar:
        try:
            yield load_waveform(utterance.path).samples
        except AudioError as error:
            broken.append(f"{utterance.path}: {error}")
    if broken:
        raise TrainingError(
            f"{len(broken)} of {len(utterances)} clips cannot be decoded; "
            f"repair or remove them; the first: {broken[0]}"
        )
