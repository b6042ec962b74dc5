"""Names, versions and aliases of bundles in a folder that several processes share."""

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ..files import sync
from ..inference import bundle as bundles
from ..inference.card import DEFAULT_LANGUAGE, DEFAULT_NAME, canonical_language
from ..inference.errors import NnpmError, OldBaseError, ParameterError
from . import lineage
from . import state as states
from .folder import ModelFolder, ModelVersion, UnknownModelError
from .state import RegistryError, State

_COMING = ".publishing-"
_GOING = ".deleted-"


class ModelInUseError(NnpmError):
    """A version that an alias holds."""

    status, code, detail = 409, "model_in_use", None
    title = "The version is in use"


class NothingToRollBackError(NnpmError):
    """No promotion has been made that could be taken back."""

    status, code, detail = 409, "nothing_to_roll_back", None
    title = "Nothing to roll back"


@dataclass(frozen=True, slots=True)
class Aliases:
    """The versions of one language: what answers, what answered before, what is being tried."""

    live: str | None
    previous: str | None
    shadow: str | None


class Registry:
    """Bundles by name and version, and which of them answers for a language.

    A version is a folder that never changes once it is there; what changes is one small file per
    name, replaced whole under a lock of the operating system. Readers need no lock.

    Args:
        root: holds <name>/<version>/bundle.json.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._folder = ModelFolder(root)

    def names(self) -> list[str]:
        """List the names that have a version, sorted."""
        return self._folder.names()

    def versions(self, name: str) -> list[str]:
        """List the versions of a model, oldest first: named ones, then integers by value.

        Raises:
            UnknownModelError: if there is no such model.
        """
        return self._folder.versions(name)

    def resolve(self, name: str = DEFAULT_NAME, version: str | None = None) -> ModelVersion:
        """Find a version, or the one that answers where no language is named.

        Raises:
            UnknownModelError: if there is no such model, or no such version of it.
        """
        return self.live(name) if version is None else self._folder.resolve(name, version)

    def fetch(self, model: ModelVersion) -> ModelVersion:
        """See that a version's files are in its folder; routes and lists need its card alone."""
        return model

    def parse(self, text: str | None) -> ModelVersion:
        """Find a bundle by ``name`` or ``name/version``; None is the default model.

        Raises:
            UnknownModelError: as ``resolve``.
        """
        name, slash, version = (text or DEFAULT_NAME).partition("/")
        return self.resolve(name, version if slash else None)

    def revision(self, name: str) -> tuple[int, tuple[str, ...]]:
        """What changes whenever anything of a name has changed.

        Raises:
            UnknownModelError: if there is no such model.
        """
        versions = tuple(self.versions(name))  # before a path is made of what a stranger sent
        return self._state(name).revision, versions

    def routes(self, name: str) -> dict[str, ModelVersion]:
        """The version that answers, by language; und is always among them.

        Raises:
            UnknownModelError: if there is no such model.
        """
        versions = self.versions(name)
        live = {k: v for k, v in self._state(name).live().items() if v in versions}
        # the newest that no adaptation made, so that publishing changes no answer
        unadapted = next((model.version for model in self._bases(name)), versions[-1])
        live.setdefault(DEFAULT_LANGUAGE, unadapted)
        return {k: ModelVersion(name, v, self.root / name / v) for k, v in live.items()}

    def live(self, name: str = DEFAULT_NAME, language: str = DEFAULT_LANGUAGE) -> ModelVersion:
        """Find the version that answers for a language.

        Raises:
            UnknownModelError: if there is no such model.
        """
        return pick(self.routes(name), language)[1]

    def stand_ins(self, name: str) -> list[ModelVersion]:
        """Versions that may answer where the one that should cannot be loaded, the best first.

        Raises:
            UnknownModelError: if there is no such model.
        """
        return [*self._bases(name), *filter(lineage.is_adapted, self._all(name)[::-1])]

    def outdated(self, name: str) -> dict[str, str]:
        """Tell of languages whose version a newer base has overtaken; it keeps answering.

        Returns:
            A sentence by language, with the command that adapts again.

        Raises:
            UnknownModelError: if there is no such model.
        """
        routes = self.routes(name)
        base = routes[DEFAULT_LANGUAGE]
        return {
            language: lineage.advice(model, language, base)
            for language, model in lineage.outdated(routes, self._all(name)).items()
        }

    def base(
        self, name: str, language: str = DEFAULT_LANGUAGE, version: str | None = None
    ) -> ModelVersion:
        """Find what to adapt from.

        Args:
            name: of the model.
            language: that is adapted to.
            version: None for the one that answers for the language, unless it is outdated: then
                for the default model.

        Raises:
            UnknownModelError: if there is no such model, or no such version of it.
            OldBaseError: if it is of the first generation.
        """
        if version is not None:
            found = self._folder.resolve(name, version)
        else:
            routes = self.routes(name)
            found = pick(routes, language)[1]
            if found in lineage.outdated(routes, self._all(name)).values():
                found = routes[DEFAULT_LANGUAGE]
        if lineage.can_be_adapted(found):
            return found
        newer = next(filter(lineage.can_be_adapted, self._bases(name)), None)
        if version is None and newer is not None:
            return newer
        raise OldBaseError(found.title, newer.title if newer else None)

    def aliases(self, name: str) -> dict[str, Aliases]:
        """Show the aliases of a name, by language.

        Raises:
            UnknownModelError: if there is no such model.
        """
        self.versions(name)
        state = self._state(name)
        live = state.live()
        return {
            language: Aliases(
                live.get(language), state.previous(language), state.shadows.get(language)
            )
            for language in sorted({*live, *state.shadows})
        }

    def publish(self, source: Path, name: str, *, key: str, number: int = 1) -> ModelVersion:
        """Add a bundle as the next version; nothing answers with it before it is promoted.

        Args:
            source: a bundle's folder; it is copied.
            name: of the model.
            key: of this publication: the same key gives the same version, however often a crash
                makes it be tried again.
            number: the least that the version may get.

        Raises:
            BundleError: if it is damaged.
            RegistryError: if it cannot be written; then there is no such version.
        """
        check_name(name)
        bundles.load(source)
        home = self.root / name
        with states.locked(home):
            self._sweep(home)
            state = states.read(home)
            version = state.published.get(key)
            if version is None:
                version = str(max(state.next_version, 1 + self._highest(name), number))
                # Written first: after a crash from here on, this key gets the same number again.
                published = {**state.published, key: version}
                changes = {"next_version": int(version) + 1, "published": published}
                states.write(home, state.model_copy(update=changes))
            if not (home / version).exists():
                self._copy(source, home, version)
        return ModelVersion(name, version, home / version)

    def promote(self, name: str, version: str, language: str | None = None) -> dict[str, Aliases]:
        """Let a version answer for a language; by default the bundle's own.

        Raises:
            UnknownModelError: if there is no such version.
            BundleError: if its card cannot be read.
        """
        tag = self._language(name, version, language)
        return self._change(name, lambda state: state.promoted(version, tag), version)

    def rollback(self, name: str, language: str | None = None) -> dict[str, Aliases]:
        """Take the latest promotion back: of a language, or of any.

        Raises:
            UnknownModelError: if there is no such model.
            NothingToRollBackError: if there was none.
        """
        tag = None if language is None else canonical_language(language)

        def back(state: State) -> State:
            step = state.last(tag)
            if step is None:
                of = "" if tag is None else f" for {tag}"
                raise NothingToRollBackError(f"No version of {name!r} has been promoted{of}.")
            return state.rolled_back(step)

        return self._change(name, back)

    def shadow(
        self, name: str, version: str | None, language: str | None = None
    ) -> dict[str, Aliases]:
        """Let a version score a language's requests without answering; None ends that.

        Raises:
            UnknownModelError: if there is no such version.
            BundleError: if its card cannot be read.
        """
        if version is None:
            tag = canonical_language(language or DEFAULT_LANGUAGE)
        else:
            tag = self._language(name, version, language)

        def changed(state: State) -> State:
            others = {k: v for k, v in state.shadows.items() if k != tag}
            added = {} if version is None else {tag: version}
            return state.model_copy(update={"shadows": {**others, **added}})

        return self._change(name, changed, version)

    def delete(self, name: str, version: str) -> None:
        """Delete a version for good.

        Raises:
            UnknownModelError: if there is no such version.
            ModelInUseError: if it answers, is what a roll-back would bring back, or is a shadow.
        """
        found = self._folder.resolve(name, version)
        with states.locked(self.root / name):
            state = states.read(self.root / name)
            holders = [
                f"{alias} ({language})"
                for language, held in self.aliases(name).items()
                for alias in ("live", "previous", "shadow")
                if getattr(held, alias) == version
            ]
            if self.live(name).version == version:
                holders.append("the default of requests without a language")
            if holders:
                raise ModelInUseError(
                    f"{name}/{version} is {', '.join(dict.fromkeys(holders))}; promote another "
                    "version, or end the shadow, first."
                )
            gone = found.path.with_name(f"{_GOING}{version}-{os.getpid()}")
            try:
                found.path.rename(gone)
            except OSError as error:
                raise RegistryError(f"{found.path} cannot be deleted: {error.strerror}.") from error
            states.write(self.root / name, state.without(version))
        shutil.rmtree(gone, ignore_errors=True)

    def _change(
        self, name: str, change: Callable[[State], State], version: str | None = None
    ) -> dict[str, Aliases]:
        self.versions(name)  # before a lock makes a folder of an unknown name
        with states.locked(self.root / name):
            if version is not None:
                self._folder.resolve(name, version)
            state = states.read(self.root / name)
            if (new := change(state)) != state:
                states.write(self.root / name, new)
        return self.aliases(name)

    def _language(self, name: str, version: str, language: str | None) -> str:
        if language is not None:
            return canonical_language(language)
        return canonical_language(bundles.load(self.resolve(name, version).path).card.language)

    def _state(self, name: str) -> State:
        return states.read(self.root / name)

    def _all(self, name: str) -> list[ModelVersion]:
        return [ModelVersion(name, v, self.root / name / v) for v in self.versions(name)]

    def _highest(self, name: str) -> int:
        numbers = [int(f.name) for f in (self.root / name).iterdir() if f.name.isdecimal()]
        return max(numbers, default=0)

    def _bases(self, name: str) -> Iterator[ModelVersion]:
        """The versions that no adaptation made, the newest first."""
        return (model for model in self._all(name)[::-1] if not lineage.is_adapted(model))

    def _copy(self, source: Path, home: Path, version: str) -> None:
        coming = home / f"{_COMING}{version}-{os.getpid()}"
        try:
            shutil.copytree(source, coming)
            for path in [*coming.iterdir(), coming]:
                sync(path)
            bundles.load(coming)  # what arrived, not what was sent
            coming.rename(home / version)
            sync(home)
        except (OSError, shutil.Error) as error:
            reason = getattr(error, "strerror", None) or "copying failed"
            raise RegistryError(f"{home / version} cannot be written: {reason}.") from error
        finally:
            shutil.rmtree(coming, ignore_errors=True)

    def _sweep(self, home: Path) -> None:
        """Remove what crashes left; whoever calls holds the lock, so nobody is at work on it."""
        for pattern in (f"{_COMING}*", f"{_GOING}*"):
            for path in home.glob(pattern):
                shutil.rmtree(path, ignore_errors=True)


def pick(routes: dict[str, ModelVersion], language: str) -> tuple[str, ModelVersion]:
    """Find the route of a language, a wider one, or und's.

    Args:
        routes: by canonical tag; und is among them.
        language: a canonical tag.

    Examples:
        >>> brazil = ModelVersion("default", "2", Path("2"))
        >>> other = ModelVersion("default", "1", Path("1"))
        >>> pick({"pt": brazil, "und": other}, "pt-BR")[0]
        'pt'
        >>> pick({"pt": brazil, "und": other}, "ur")[0]
        'und'
    """
    parts = language.split("-")
    for length in range(len(parts), 0, -1):
        tag = "-".join(parts[:length])
        if tag in routes:
            return tag, routes[tag]
    return DEFAULT_LANGUAGE, routes[DEFAULT_LANGUAGE]


def check_name(name: str) -> None:
    """See that a name can be a folder's.

    Raises:
        ParameterError: if it cannot.
    """
    plain = name.replace("-", "").replace("_", "").replace(".", "")
    if not (name.isascii() and plain.isalnum() and len(name) <= 64 and name[0].isalnum()):
        raise ParameterError(
            f"name is {name[:64]!r}; it must have 1 to 64 letters, digits, '-', '_' and '.', the "
            "first a letter or digit."
        )


__all__ = [
    "Aliases", "ModelInUseError", "ModelVersion", "NothingToRollBackError", "Registry",
    "RegistryError", "UnknownModelError", "check_name", "pick",
]  # fmt: skip
