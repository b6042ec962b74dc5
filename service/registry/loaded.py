"""Bundles in memory: loaded once, shared by all threads, the least recently used one dropped."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from pathlib import Path

from service.inference import bundle
from service.inference.recognizer import Recognizer
from service.registry.folder import ModelVersion


def load_recognizer(path: Path) -> Recognizer:
    """Load a bundle from its folder and check its golden probe.

    Raises:
        BundleError: if it is missing, damaged or not ours.
    """
    return Recognizer(bundle.load(path))


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

    def get(self, model: ModelVersion) -> Recognizer:
        """Return a recognizer, loading it first if need be; other threads wait for that.

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
