"""A registry in an object store, or wherever else fsspec leads: mirrored into a folder."""

import contextlib
import itertools
import json
import shutil
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

from .. import files
from ..inference import bundle as bundles
from ..inference.card import DEFAULT_LANGUAGE, DEFAULT_NAME
from . import state as states
from .registry import Aliases, ModelVersion, Registry
from .state import STATE, RegistryError

_FRESH_S = 1.0
"""How old a look at the store may be."""

_LIST_S = 30.0
"""How old a listing of the store may be; whatever nnpm changes also changes a name's state, which
is one small file, and so is seen at once."""

_UNREST_S = 10.0
"""After a change of a state, how long every look is a listing: versions are removed after it."""

_LOCK = ".lock"
_LOCK_S = 60.0
"""How long a writer waits for another."""

_COMING = ".publishing-"
_AT_A_TIME = 16
"""Files that are fetched: a store answers each within some 50 ms."""


class RemoteRegistry(Registry):
    """The same registry, whose truth lies at a URL.

    Versions never change, so each is fetched once: its card when it is seen, the rest when it is
    needed. One that is being written is not seen: its card is uploaded last. Writers keep each
    other out by an object that only one can create.

    Args:
        url: as fsspec takes it: ``s3://bucket/models``.
        cache: folder of the mirror; processes of one machine may share it.

    Raises:
        RegistryError: if fsspec, or what it needs for this kind of URL, is not installed.
    """

    def __init__(self, url: str, cache: Path) -> None:
        super().__init__(cache)
        try:
            from fsspec.core import url_to_fs

            self._store, top = url_to_fs(url, use_listings_cache=False)
        except (ImportError, ValueError) as error:
            raise RegistryError(
                f"{url.partition('://')[0]}:// needs fsspec and its driver: install the extra "
                "'remote' (pip install '.[remote]' in the checkout), and s3fs, gcsfs or adlfs."
            ) from error
        self._top = PurePosixPath(top)
        self._looked = self._listed = self._changed = -_LIST_S
        self._whole: set[Path] = set()

    def names(self) -> list[str]:
        """List the names that have a version, sorted."""
        self._refresh(listing=True)
        return super().names()

    def versions(self, name: str) -> list[str]:
        """List the versions of a model, oldest first."""
        self._refresh(listing=name not in super().names())
        return super().versions(name)

    def revision(self, name: str) -> tuple[int, tuple[str, ...]]:
        """What changes whenever anything of a name has changed."""
        self._refresh()
        return super().revision(name)

    def resolve(self, name: str = DEFAULT_NAME, version: str | None = None) -> ModelVersion:
        """Find a version, or the one that answers where no language is named, with its files."""
        return self.fetch(super().resolve(name, version))

    def base(
        self, name: str, language: str = DEFAULT_LANGUAGE, version: str | None = None
    ) -> ModelVersion:
        """Find what to adapt from, with its files."""
        return self.fetch(super().base(name, language, version))

    def fetch(self, model: ModelVersion) -> ModelVersion:
        """See that all files of a version are in the mirror."""
        if model.path not in self._whole:
            if not _is_whole(model.path):
                with _one_error():
                    self._get(model.name, model.version, self._files(model))
            if _is_whole(model.path):
                self._whole.add(model.path)
        return model

    def publish(self, source: Path, name: str, *, key: str, number: int = 1) -> ModelVersion:
        """Add a bundle as the next version; nothing answers with it before it is promoted."""
        with self._writing(name):
            return super().publish(source, name, key=key, number=number)

    def promote(self, name: str, version: str, language: str | None = None) -> dict[str, Aliases]:
        """Let a version answer for a language; by default the bundle's own."""
        with self._writing(name):
            return super().promote(name, version, language)

    def rollback(self, name: str, language: str | None = None) -> dict[str, Aliases]:
        """Take the latest promotion back: of a language, or of any."""
        with self._writing(name):
            return super().rollback(name, language)

    def shadow(
        self, name: str, version: str | None, language: str | None = None
    ) -> dict[str, Aliases]:
        """Let a version score a language's requests without answering; None ends that."""
        with self._writing(name):
            return super().shadow(name, version, language)

    def delete(self, name: str, version: str) -> None:
        """Delete a version for good."""
        with self._writing(name):
            super().delete(name, version)

    def _refresh(self, *, listing: bool = False) -> None:
        now = time.monotonic()
        seen = self._listed if listing else self._looked
        if self._looked > now or now - seen < _FRESH_S:  # in the future while it is written
            return
        with states.locked(self.root), _one_error():
            if self._has_changed():
                self._changed = now
            listing = listing or now - self._changed <= _UNREST_S
            if listing or now - self._listed >= _LIST_S:
                self._pull()
            self._looked = time.monotonic()

    def _has_changed(self) -> bool:
        """Whether the state of a name that the mirror has is another in the store."""
        for name in super().names():
            own = self.root / name / STATE
            try:
                found = self._store.cat_file(str(self._top / name / STATE))
            except FileNotFoundError:
                found = None
            if found != (own.read_bytes() if own.exists() else None):
                return True
        return False

    @contextlib.contextmanager
    def _writing(self, name: str) -> Iterator[None]:
        """Change the mirror, then the store; what fails in between is as if it had not been."""
        with _one_error(), states.locked(self.root), self._alone(name):
            self._pull()
            self._looked = time.monotonic() + _LOCK_S  # the mirror is the newest until it is pushed
            try:
                yield
                self._push(name)
            except BaseException:
                self._pull()
                raise
            finally:
                self._looked = time.monotonic()

    @contextlib.contextmanager
    def _alone(self, name: str) -> Iterator[None]:
        lock = str(self._top / name / _LOCK)
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(files.object_lock(self._store, lock, wait_s=_LOCK_S))
            except BlockingIOError:
                raise RegistryError(
                    f"{lock} is held by another writer; remove it if none runs."
                ) from None
            yield

    def _pull(self) -> None:
        """Make the mirror what the store is."""
        there = self._listing()
        for name, paths in there.items():
            home = self.root / name
            home.mkdir(parents=True, exist_ok=True)
            versions = {p.parts[0] for p in paths if len(p.parts) == 2 and p.name == bundles.CARD}
            new = sorted(v for v in versions if not (home / v).exists())
            with ThreadPoolExecutor(_AT_A_TIME) as pool:
                list(pool.map(self._see, itertools.repeat(name), new))
            _keep(home, versions)
            if PurePosixPath(STATE) in paths:
                _replace(home / STATE, self._store.cat_file(str(self._top / name / STATE)))
        _keep(self.root, set(there))
        self._looked = self._listed = time.monotonic()

    def _listing(self) -> dict[str, list[PurePosixPath]]:
        """Files by name, relative to the name."""
        found: dict[str, list[PurePosixPath]] = {}
        for text in self._store.find(str(self._top)):
            path = PurePosixPath(text)
            parts = path.parts[len(self._top.parts) :]
            if len(parts) > 1 and not parts[0].startswith(".") and parts[1] != _LOCK:
                found.setdefault(parts[0], []).append(PurePosixPath(*parts[1:]))
        return found

    def _see(self, name: str, version: str) -> None:
        """Make the folder of a version that is new, with what lists and routes need."""
        home = self.root / name
        coming = home / f"{_COMING}{version}-{uuid.uuid4().hex}"
        coming.mkdir(parents=True)
        try:
            for file in (bundles.CARD, bundles.SEAL):
                with contextlib.suppress(FileNotFoundError):  # which loading it reports
                    self._store.get_file(str(self._top / name / version / file), str(coming / file))
            coming.rename(home / version)
        finally:
            shutil.rmtree(coming, ignore_errors=True)

    def _files(self, model: ModelVersion) -> list[str]:
        """Names of a version's files in the store that the mirror lacks."""
        found = self._store.find(str(self._top / model.name / model.version))
        names = (PurePosixPath(text).name for text in found)
        return [name for name in names if not (model.path / name).exists()]

    def _get(self, name: str, version: str, names: list[str]) -> None:
        """Fetch files of a version; whoever loads it checks its digests."""

        def get(file: str) -> None:
            coming = self.root / name / version / f".{file}-{uuid.uuid4().hex}"
            try:
                self._store.get_file(str(self._top / name / version / file), str(coming))
                coming.rename(coming.with_name(file))
            finally:
                coming.unlink(missing_ok=True)

        with ThreadPoolExecutor(_AT_A_TIME) as pool:
            list(pool.map(get, names))

    def _push(self, name: str) -> None:
        """Make the store what the mirror is: aliases point to nothing that is not there."""
        paths = self._listing().get(name, [])
        remote = {p.parts[0] for p in paths if len(p.parts) == 2 and p.name == bundles.CARD}
        home = self.root / name
        own = {f.name for f in home.iterdir() if (f / bundles.CARD).is_file() and f.name[0] != "."}
        for version in sorted(own - remote):
            self._store.makedirs(str(self._top / name / version), exist_ok=True)
            cards_last = sorted((home / version).iterdir(), key=lambda p: p.name == bundles.CARD)
            for path in cards_last:
                self._store.put_file(str(path), str(self._top / name / version / path.name))
        if (home / STATE).exists():
            self._store.pipe_file(str(self._top / name / STATE), (home / STATE).read_bytes())
        for version in remote - own:
            folder = self._top / name / version
            self._store.rm_file(str(folder / bundles.CARD))
            self._store.rm(str(folder), recursive=True)


def _is_whole(folder: Path) -> bool:
    """Whether all files are there that the card names."""
    try:
        names = json.loads((folder / bundles.CARD).read_bytes())["files"]
        return bool(names) and all((folder / name).is_file() for name in names)
    except (OSError, ValueError, LookupError, TypeError):
        return False


def _replace(path: Path, data: bytes) -> None:
    if not path.exists() or path.read_bytes() != data:
        files.replace(path, data)


def _keep(home: Path, names: set[str]) -> None:
    """Remove the folders that have other names; hidden ones stay."""
    for folder in home.iterdir():
        if folder.is_dir() and not folder.name.startswith(".") and folder.name not in names:
            shutil.rmtree(folder)


@contextlib.contextmanager
def _one_error() -> Iterator[None]:
    """Turn any error of the store's driver into one of ours: its text may hold credentials."""
    try:
        yield
    except OSError as error:
        raise RegistryError(
            f"The registry's store cannot be used now ({type(error).__name__})."
        ) from error
