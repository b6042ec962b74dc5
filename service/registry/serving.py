"""What answers now: routes by language, switched only to versions that are loaded and proven."""

import logging
import threading
from dataclasses import dataclass

from service.inference.errors import NnpmError
from service.inference.recognizer import Recognizer
from service.registry.loaded import LoadedModels
from service.registry.registry import (
    DEFAULT_LANGUAGE,
    DEFAULT_NAME,
    Aliases,
    ModelVersion,
    Registry,
    canonical,
    pick,
)

LOOK_S = 0.5
"""How often other processes' changes are looked for."""

log = logging.getLogger("nnpm")


@dataclass(frozen=True, slots=True)
class Chosen:
    """What answers one request.

    Attributes:
        model: name, version, folder.
        language: the route that was taken; of a version that was named, its card's.
        recognizer: of the version.
        shadow: the version that shall hear the same; None for none.
    """

    model: ModelVersion
    language: str
    recognizer: Recognizer
    shadow: ModelVersion | None = None


@dataclass(frozen=True, slots=True)
class _View:
    """Routes of one name, as of one revision; replaced whole."""

    revision: object
    routes: dict[str, ModelVersion]
    recognizers: dict[str, Recognizer]
    shadows: dict[str, ModelVersion]


class Serving:
    """Chooses who answers. Many threads ask; one at a time switches.

    Args:
        registry: names, versions, aliases.
        loaded: recognizers.
    """

    def __init__(self, registry: Registry, loaded: LoadedModels) -> None:
        self.registry = registry
        self._loaded = loaded
        self._views: dict[str, _View] = {}
        self._switching = threading.Lock()
        self._stop = threading.Event()
        self._watcher: threading.Thread | None = None

    def choose(self, model: str | None = None, language: str | None = None) -> Chosen:
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
        tag = DEFAULT_LANGUAGE if language is None else canonical(language)
        if slash:
            found = self.registry.resolve(name, version)
            recognizer = self._loaded.get(found)
            return Chosen(found, recognizer.bundle.card.language, recognizer)
        view = self._views.get(name) or self.refresh(name)
        route, found = pick(view.routes, tag)
        return Chosen(found, route, view.recognizers[route], view.shadows.get(route))

    def load(self, model: ModelVersion) -> Recognizer:
        """Load a version, and prove it by its golden probe.

        Raises:
            BundleError: if it cannot be loaded.
        """
        return self._loaded.get(model)

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

    def refresh(self, name: str = DEFAULT_NAME) -> _View:
        """Switch a name to what the registry says now.

        A route whose new version cannot be loaded stays where it is, with a line in the log.

        Raises:
            UnknownModelError: if there is no such model.
            BundleError: if a route that is new cannot be loaded, and no wider one stands in.
        """
        with self._switching:
            revision = self.registry.revision(name)
            old = self._views.get(name)
            if old is not None and old.revision == revision:
                return old
            aliases = self.registry.aliases(name)
            versions = {v: self.registry.resolve(name, v) for v in self.registry.versions(name)}
            shadows = {
                language: versions[held.shadow]
                for language, held in aliases.items()
                if held.shadow in versions
            }
            warm = [versions[h.previous] for h in aliases.values() if h.previous in versions]
            wanted = self.registry.routes(name)
            kept = old.routes.values() if old else ()
            # Pinned first: loading one of them may not push another out.
            self._loaded.pin(name, [*wanted.values(), *shadows.values(), *warm, *kept])
            routes, recognizers = self._prove(wanted, old)
            view = self._views[name] = _View(revision, routes, recognizers, shadows)
            return view

    def _prove(
        self, wanted: dict[str, ModelVersion], old: _View | None
    ) -> tuple[dict[str, ModelVersion], dict[str, Recognizer]]:
        routes: dict[str, ModelVersion] = {}
        recognizers: dict[str, Recognizer] = {}
        for language, model in wanted.items():
            try:
                recognizers[language], routes[language] = self._loaded.get(model), model
            except NnpmError as error:
                if old is not None and language in old.routes:
                    log.error("%s stays at %s: %s", language, old.routes[language].version, error)
                    routes[language] = old.routes[language]
                    recognizers[language] = old.recognizers[language]
                elif language == DEFAULT_LANGUAGE:
                    raise
                else:
                    log.error("no route for %s: %s", language, error)
        return routes, recognizers

    def _changed(self, name: str, aliases: dict[str, Aliases]) -> dict[str, Aliases]:
        self.refresh(name)
        return aliases

    def _watch(self) -> None:
        while not self._stop.wait(LOOK_S):
            for name in list(self._views):
                try:
                    self.refresh(name)
                except Exception as error:  # a registry that is away comes back; answers go on
                    log.warning("the registry cannot be read now: %s", error)
