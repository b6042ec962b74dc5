"""Which version answers: routes by language, and the recognizers that are loaded for them.

A route switches to a version only when the version is loaded and has passed its golden probe.
"""

import contextlib
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path

from ..inference import bundle
from ..inference.card import DEFAULT_LANGUAGE, DEFAULT_NAME, canonical_language
from ..inference.device import Device
from ..inference.errors import NnpmError
from ..inference.recognizer import Recognizer
from .registry import Aliases, ModelVersion, Registry, pick


def load_recognizer(path: Path, device: Device | None = None) -> Recognizer:
    """Load a bundle from its folder and check its golden probe.

    Args:
        path: of the folder.
        device: runs it; None for the processor.

    Raises:
        BundleError: if it is missing, damaged or not ours.
    """
    return Recognizer(bundle.load(path), device=device)


class LoadedModels:
    """A cache of recognizers.

    Args:
        load: makes a recognizer of a bundle's folder.
        capacity: how many are kept besides those that are pinned. One that is dropped lives on
            until its last job is done.
    """

    def __init__(self, load: Callable[[Path], Recognizer], capacity: int) -> None:
        self._load = load
        self._capacity = capacity
        self._lock = threading.Lock()
        self._futures: OrderedDict[Path, Future[Recognizer]] = OrderedDict()
        self._pins: dict[str, frozenset[Path]] = {}

    def get(
        self, model: ModelVersion, fetch: Callable[[ModelVersion], object] = lambda _: None
    ) -> Recognizer:
        """Return a recognizer, loading it first if need be; other threads wait for that.

        Args:
            model: of which.
            fetch: called before it is loaded: its files may be elsewhere.

        Raises:
            BundleError: if the bundle cannot be loaded; the next call tries again.
        """
        with self._lock:
            future = self._futures.get(model.path)
            if loads_it := future is None:
                future = self._futures[model.path] = Future()
                self._drop()
            else:
                self._futures.move_to_end(model.path)
        if loads_it:
            try:
                fetch(model)
                future.set_result(self._load(model.path))
            except BaseException as error:
                with self._lock:
                    self._futures.pop(model.path, None)
                future.set_exception(error)
        return future.result()

    def pin(self, name: str, models: Iterable[ModelVersion]) -> None:
        """Keep these versions of a name, and those of the name pinned before no longer."""
        with self._lock:
            self._pins[name] = frozenset(model.path for model in models)
            self._drop()

    def _drop(self) -> None:
        pinned = frozenset[Path]().union(*self._pins.values())
        loose = [path for path in self._futures if path not in pinned]
        for path in loose[: max(0, len(loose) - self._capacity)]:
            del self._futures[path]


RETRY_S = 30.0
"""How often a version that could not be loaded is tried again."""

EAGER_ROUTES = 16
"""Most languages of a name whose versions are all loaded at once. With more, a version is loaded by
the first request for it, and as many are kept as the setting loaded_models says."""

LOOK_S = 0.5
"""How often other processes' changes are looked for."""

log = logging.getLogger("nnpm")


@dataclass(frozen=True, slots=True)
class Route:
    """What answers one request.

    Attributes:
        model: name, version, folder.
        language: the route that was taken; of a version that was named, its card's.
        recognizer: of the version.
        shadow: a version that scores the same request without answering; None for none.
    """

    model: ModelVersion
    language: str
    recognizer: Recognizer
    shadow: ModelVersion | None = None


@dataclass(frozen=True, slots=True)
class RoutingTable:
    """Routes of one name, as of one revision; replaced whole."""

    revision: object
    routes: dict[str, ModelVersion]
    recognizers: dict[str, Recognizer]
    shadows: dict[str, ModelVersion]
    absent: dict[str, ModelVersion]
    """Versions that should answer and cannot be loaded, by language."""
    made_s: float

    @property
    def current(self) -> bool:
        """Whether it is the best that can be had as of its revision, or was tried lately."""
        return not self.absent or time.monotonic() - self.made_s < RETRY_S


class Serving:
    """Chooses the version that answers; many threads may ask, one at a time switches routes.

    Args:
        registry: names, versions, aliases.
        loaded: recognizers.
    """

    def __init__(self, registry: Registry, loaded: LoadedModels) -> None:
        self.registry = registry
        self._loaded = loaded
        self._tables: dict[str, RoutingTable] = {}
        self._switching = threading.Lock()
        self._stop = threading.Event()
        self._watcher: threading.Thread | None = None

    def choose(self, model: str | None = None, language: str | None = None) -> Route:
        """Find what answers a request; no disk is touched once a name is in use.

        Args:
            model: ``name`` or ``name/version``; None for the default name.
            language: BCP-47; picks the version promoted for it. A version that is named stands.

        Raises:
            UnknownModelError: if there is no such model.
            ParameterError: if the language is none.
            BundleError: if the version cannot be loaded.
        """
        name, slash, version = (model or DEFAULT_NAME).partition("/")
        tag = DEFAULT_LANGUAGE if language is None else canonical_language(language)
        if slash:
            found = self.registry.resolve(name, version)
            recognizer = self.load(found)
            return Route(found, recognizer.bundle.card.language, recognizer)
        table = self._tables.get(name) or self.refresh(name)
        while True:
            route, found = pick(table.routes, tag)
            loaded = table.recognizers.get(route) or self._on_demand(table, route, found)
            if loaded is not None:
                return Route(found, route, loaded, table.shadows.get(route))

    def load(self, model: ModelVersion) -> Recognizer:
        """Load a version, and prove it by its golden probe.

        Raises:
            BundleError: if it cannot be loaded.
        """
        return self._loaded.get(model, self.registry.fetch)

    def promote(self, name: str, version: str, language: str | None = None) -> dict[str, Aliases]:
        """Load a version, prove it, then let it answer for a language.

        Raises:
            UnknownModelError: if there is no such version.
            BundleError: if it cannot be loaded; nothing has changed then.
        """
        self.load(self.registry.resolve(name, version))
        return self._changed(name, self.registry.promote(name, version, language))

    def rollback(self, name: str, language: str | None = None) -> dict[str, Aliases]:
        """Take the latest promotion back; what stood before is loaded still.

        Raises:
            UnknownModelError: if there is no such model.
            NothingToRollBackError: if nothing was promoted.
        """
        return self._changed(name, self.registry.rollback(name, language))

    def shadow(
        self, name: str, version: str | None, language: str | None = None
    ) -> dict[str, Aliases]:
        """Let a version hear a language's requests without answering; None ends that.

        Raises:
            UnknownModelError: if there is no such version.
            BundleError: if it cannot be loaded; nothing has changed then.
        """
        if version is not None:
            self.load(self.registry.resolve(name, version))
        return self._changed(name, self.registry.shadow(name, version, language))

    def start(self) -> None:
        """Begin to watch for changes by other processes."""
        self._watcher = threading.Thread(target=self._watch, name="nnpm-registry", daemon=True)
        self._watcher.start()

    def stop(self) -> None:
        """Watch no longer."""
        self._stop.set()
        if self._watcher is not None:
            self._watcher.join()

    def refresh(self, name: str = DEFAULT_NAME) -> RoutingTable:
        """Switch a name to what the registry says now.

        A route whose new version cannot be loaded stays where it is, with a line in the log.

        Raises:
            UnknownModelError: if there is no such model.
            BundleError: if a route that is new cannot be loaded, and no wider one stands in.
        """
        with self._switching:
            revision = self.registry.revision(name)
            old = self._tables.get(name)
            if old is not None and old.revision == revision and old.current:
                return old
            aliases = self.registry.aliases(name)
            home = self.registry.root / name
            versions = {v: ModelVersion(name, v, home / v) for v in revision[1]}
            shadows = {
                language: versions[held.shadow]
                for language, held in aliases.items()
                if held.shadow in versions
            }
            warm = [versions[h.previous] for h in aliases.values() if h.previous in versions]
            wanted = self.registry.routes(name)
            kept = old.routes.values() if old else ()
            if len(wanted) > EAGER_ROUTES:
                table = self._prove(RoutingTable(revision, {}, {}, shadows, {}, 0.0), wanted, old)
                self._loaded.pin(name, [table.routes[DEFAULT_LANGUAGE]])
                self._tables[name] = table
                return table
            # Pinned first: loading one of them may not push another out.
            self._loaded.pin(name, [*wanted.values(), *shadows.values(), *warm, *kept])
            table = self._prove(RoutingTable(revision, {}, {}, shadows, {}, 0.0), wanted, old)
            self._loaded.pin(
                name, [*wanted.values(), *shadows.values(), *warm, *table.routes.values()]
            )
            self._tables[name] = table
            return table

    def warnings(self, name: str = DEFAULT_NAME) -> list[str]:
        """One sentence for each version that should answer, and cannot be loaded."""
        table = self._tables.get(name)
        if table is None:
            return []
        sentences = []
        for language, model in table.absent.items():
            route, instead = pick(table.routes, language)
            sentences.append(
                f"{name}/{model.version} cannot be loaded; {name}/{instead.version} ({route}) "
                f"answers for {language}."
            )
        return sentences

    def _prove(
        self, empty: RoutingTable, wanted: dict[str, ModelVersion], old: RoutingTable | None
    ) -> RoutingTable:
        """Load what should answer; where that fails, what answered before or may stand in."""
        table = replace(empty, made_s=time.monotonic())
        on_demand = len(wanted) > EAGER_ROUTES
        for language, model in wanted.items():
            if on_demand and language != DEFAULT_LANGUAGE:
                table.routes[language] = model
                continue
            try:
                table.recognizers[language] = self.load(model)
                table.routes[language] = model
                continue
            except NnpmError as error:
                reason = error
            if old is not None and language in old.routes:
                table.routes[language] = old.routes[language]
                table.recognizers[language] = old.recognizers[language]
            elif language == DEFAULT_LANGUAGE:
                found = self._stand_in(model)
                if found is None:
                    raise reason
                table.routes[language], table.recognizers[language] = found
            table.absent[language] = model
            if old is None or old.absent.get(language) != model:
                instead = table.routes.get(language)
                answers = (
                    "no version of its own" if instead is None else f"version {instead.version}"
                )
                log.error("%s is answered by %s: %s", language, answers, reason)
        return table

    def _on_demand(self, table: RoutingTable, route: str, model: ModelVersion) -> Recognizer | None:
        """Load what a request needs first; None if it cannot be, and a wider route answers."""
        try:
            return self.load(model)
        except NnpmError as error:
            if route == DEFAULT_LANGUAGE:
                raise
            table.absent[route] = model
            table.routes.pop(route, None)
            log.error("%s is answered by a wider route: %s", route, error)
            return None

    def _stand_in(self, model: ModelVersion) -> tuple[ModelVersion, Recognizer] | None:
        """Find the best version that can be loaded in place of one that cannot."""
        for other in self.registry.stand_ins(model.name):
            if other != model:
                with contextlib.suppress(NnpmError):
                    return other, self.load(other)
        return None

    def _changed(self, name: str, aliases: dict[str, Aliases]) -> dict[str, Aliases]:
        self.refresh(name)
        return aliases

    def _watch(self) -> None:
        while not self._stop.wait(LOOK_S):
            for name in list(self._tables):
                try:
                    self.refresh(name)
                except Exception as error:  # a registry that is away comes back; answers go on
                    log.warning("the registry cannot be read now: %s", error)
