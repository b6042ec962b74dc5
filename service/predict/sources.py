"""Where recordings come from: files, folders, standard input, and URLs of fsspec."""

import contextlib
import io
import logging
import shutil
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path, PurePath, PurePosixPath
from tempfile import SpooledTemporaryFile
from typing import Any, BinaryIO, TypeVar, cast

from tqdm import tqdm

from ..inference.audio.formats import AUDIO_SUFFIXES, audio_files, describe_passed_over
from ..inference.errors import ExtraMissingError, NotAudioError, ParameterError, printable

T = TypeVar("T")

log = logging.getLogger("nnpm")

_IN_MEMORY_BYTES = 1 << 20

_ONE_REQUEST_BYTES = 32 << 20
"""A recording at a URL is read with one request up to this size, and in blocks above it."""

STANDARD_INPUT = "-"


@dataclass(frozen=True, slots=True)
class Source:
    """A recording that can be opened.

    Attributes:
        name: as it is shown and written: printable.
        below: its path below the folder that was named, or its file name.
        opened: opens it, as a path or as a file.
        place: its path or URL, by which :func:`source_at` finds it in another process.
        num_bytes: its size, if that was learnt without another question to a store.
    """

    name: str
    below: PurePath
    opened: Callable[[], AbstractContextManager[Path | BinaryIO]]
    place: str = STANDARD_INPUT
    num_bytes: int = 0


def sources(paths: list[str]) -> tuple[list[Source], bool]:
    """List the recordings that paths name, each once.

    Args:
        paths: files, folders (searched recursively), ``-`` for standard input, and URLs.

    Returns:
        The recordings in order, and whether the paths may name more than one.

    Raises:
        ParameterError: if a path does not exist, or a folder holds no audio.
        ExtraMissingError: if a URL needs a package that is not installed.
    """
    found: dict[str, Source] = {}
    many = len(paths) > 1
    for path in paths:
        if path == STANDARD_INPUT:
            below, more = [Source(path, PurePath("stdin"), _standard_input)], False
        elif "://" in path:
            below, more = _at_url(path)
        else:
            below, more = _at_path(Path(path))
        many |= more
        found |= {source.name: source for source in below}
    return list(found.values()), many


def source_at(place: str, num_bytes: int = 0) -> Source:
    """Make a source again from its place, in whatever process; it is not looked for.

    Args:
        place: path or URL of one recording.
        num_bytes: its size; 0 if unknown.

    Raises:
        ExtraMissingError: if a URL needs a package that is not installed.
    """
    if "://" not in place:
        return _file(Path(place), PurePath())
    store, path = open_store(place)
    return _remote(store, path, "", num_bytes)


def open_store(url: str) -> tuple[Any, str]:
    """Find the store of a URL, and the path in it, with fsspec; no connection is made.

    Raises:
        ExtraMissingError: if a package is missing that the URL needs.
    """
    try:
        from fsspec.core import url_to_fs

        store, path = url_to_fs(url)
    except (ImportError, ValueError):
        raise ExtraMissingError(
            f"{url.partition('://')[0]}:// needs fsspec and its driver: install the extra "
            "'remote' (pip install 'nnpm[remote]'), and s3fs, gcsfs or adlfs."
        ) from None
    return store, path


def places_below(output: Path, found: list[Source], suffix: str) -> dict[str, Path]:
    """Choose where the annotation of each recording goes.

    Args:
        output: a folder; of a single recording also a file.
        found: the recordings.
        suffix: of the files.

    Returns:
        Paths by the names of the recordings. A recording keeps its own suffix before the new one
        if another has the same name without it.

    Raises:
        ParameterError: if the output is a file, or two recordings would have the same path.
    """
    if len(found) == 1 and output.suffix and not output.is_dir():
        return {found[0].name: output}
    if output.is_file():
        raise ParameterError(f"{output} is a file; {len(found)} annotations need a folder.")
    places: dict[str, Path] = {}
    stems = [one.below.with_suffix(suffix) for one in found]
    for one, short in zip(found, stems, strict=True):
        unique = stems.count(short) == 1
        places[one.name] = output / (
            short if unique else one.below.with_name(one.below.name + suffix)
        )
    if len(set(places.values())) < len(places):
        raise ParameterError(
            f"two recordings have the same name below {output}; write them into two folders."
        )
    return places


def in_order(
    found: list[Source],
    score: Callable[[Source], T],
    jobs: int,
    *,
    total: int,
    progress: bool = True,
) -> Iterator[tuple[Source, T]]:
    """Score recordings on threads, with a progress bar on standard error.

    Args:
        found: the recordings.
        score: scores one of them.
        jobs: threads.
        total: recordings with those that were scored before, for the bar.
        progress: show the bar, if standard error is a terminal.

    Yields:
        Each recording with its outcome, in the order given. What is left when the caller stops is
        not scored.
    """
    with (
        ThreadPoolExecutor(jobs) as pool,
        tqdm(
            total=total,
            initial=total - len(found),
            unit="file",
            disable=None if progress else True,
        ) as bar,
    ):
        try:
            for source, outcome in zip(found, pool.map(score, found), strict=True):
                yield source, outcome
                bar.update()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _at_path(path: Path) -> tuple[list[Source], bool]:
    if path.is_dir():
        found = audio_files(path)
        passed_over = describe_passed_over(found.passed_over)
        if not found.recordings:
            raise _no_audio(str(path), passed_over)
        if passed_over:
            log.warning("nnpm: %s: passed over: %s", printable(path), passed_over)
        return [_file(one, one.relative_to(path)) for one in found.recordings], True
    if not path.exists():
        raise ParameterError(f"{path}: there is no such file or folder.")
    return [_file(path, PurePath(path.name))], False


def _file(path: Path, below: PurePath) -> Source:
    return Source(
        printable(path),
        PurePath(printable(below)),
        lambda: contextlib.nullcontext(path),
        str(path.absolute()),
    )


@contextlib.contextmanager
def _standard_input() -> Iterator[BinaryIO]:
    with _spooled(sys.stdin.buffer) as file:
        yield file


def _at_url(url: str) -> tuple[list[Source], bool]:
    store, top = open_store(url)
    try:
        if not store.isdir(top):
            if not store.exists(top):
                raise ParameterError(f"{url}: there is no such file or folder.")
            return [_remote(store, top, PurePosixPath(top).name)], False
        listed = store.find(top, detail=True)
    except ParameterError:
        raise
    except Exception as error:  # each driver has its own, for want of a name, a key or a network
        raise ParameterError(f"{url} cannot be read: {why(error)}.") from error
    found = [
        _remote(store, name, name.removeprefix(top).lstrip("/"), listed[name].get("size") or 0)
        for name in sorted(listed)
        if PurePosixPath(name).suffix.lower() in AUDIO_SUFFIXES
    ]
    if not found:
        raise _no_audio(url)
    return found, True


def _remote(store: Any, path: str, below: str, num_bytes: int = 0) -> Source:
    url = store.unstrip_protocol(path)

    @contextlib.contextmanager
    def opened() -> Iterator[BinaryIO]:
        with contextlib.ExitStack() as stack:
            try:
                file: BinaryIO
                if 0 < num_bytes <= _ONE_REQUEST_BYTES:
                    file = io.BytesIO(store.cat_file(path, start=0, end=num_bytes))
                else:
                    file = stack.enter_context(_spooled(stack.enter_context(store.open(path))))
            except Exception as error:
                raise NotAudioError(f"The file cannot be read: {why(error)}.") from error
            yield file

    return Source(printable(url), PurePath(printable(below)), opened, url, num_bytes)


@contextlib.contextmanager
def _spooled(stream: BinaryIO) -> Iterator[BinaryIO]:
    """Read a stream to its end, into memory or an unnamed file: decoding goes back and forth."""
    with SpooledTemporaryFile(max_size=_IN_MEMORY_BYTES) as spool:
        shutil.copyfileobj(stream, spool)
        spool.seek(0)
        yield cast(BinaryIO, spool)


def _no_audio(place: str, passed_over: str = "") -> ParameterError:
    there = f" It holds: {passed_over}." if passed_over else ""
    return ParameterError(
        f"{place} holds no audio; looked for {', '.join(sorted(AUDIO_SUFFIXES))}.{there}"
    )


def why(error: Exception) -> str:
    """Say why a store failed, without what its driver's own words may hold: addresses, keys."""
    return getattr(error, "strerror", None) or type(error).__name__
