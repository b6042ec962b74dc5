import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from nnpm.service.inference.errors import BundleError
from nnpm.service.registry.folder import ModelVersion
from nnpm.service.registry.serving import LoadedModels


def model(version: str) -> ModelVersion:
    return ModelVersion("default", version, Path(version))


class Loader:
    def __init__(self) -> None:
        self.calls: list[str] = []
        self.broken = False
        self.lock = threading.Lock()

    def __call__(self, path: Path) -> Any:
        with self.lock:
            self.calls.append(path.name)
        time.sleep(0.02)
        if self.broken:
            raise BundleError("broken")
        return object()


def test_many_threads_load_once() -> None:
    loader = Loader()
    models = LoadedModels(loader, capacity=2)
    with ThreadPoolExecutor(8) as pool:
        got = list(pool.map(models.get, [model("1")] * 16))
    assert len(set(map(id, got))) == 1
    assert loader.calls == ["1"]


def test_the_least_recently_used_is_dropped() -> None:
    loader = Loader()
    models = LoadedModels(loader, capacity=2)
    for version in ("1", "2", "1", "3", "1", "2"):
        models.get(model(version))
    assert loader.calls == ["1", "2", "3", "2"]


def test_a_failure_reaches_all_who_wait_and_is_not_kept() -> None:
    loader = Loader()
    models = LoadedModels(loader, capacity=2)
    loader.broken = True

    def fails(_: int) -> bool:
        with pytest.raises(BundleError):
            models.get(model("1"))
        return True

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(fails, range(4)))
    loader.broken = False
    assert models.get(model("1")) is models.get(model("1"))
