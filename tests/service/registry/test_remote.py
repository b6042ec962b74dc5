import threading
import uuid
from pathlib import Path

import pytest

from nnpm.service.registry import remote
from nnpm.service.registry.opening import open_registry
from nnpm.service.registry.registry import ModelInUseError, Registry
from nnpm.service.registry.remote import RemoteRegistry
from nnpm.service.registry.state import RegistryError
from nnpm.service.settings import Settings
from tests.support.tiny_bundle import write_tiny_bundle


@pytest.fixture(params=["memory", "file"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"memory://{uuid.uuid4().hex}" if request.param == "memory" else f"file://{tmp_path}/far"


@pytest.fixture
def machines(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[RemoteRegistry, RemoteRegistry]:
    """Two machines with a registry at one URL, in which version 1 stands."""
    monkeypatch.setattr(remote, "_FRESH_S", 0.0)
    write_tiny_bundle(tmp_path / "bundle")
    here, there = (RemoteRegistry(url, tmp_path / name) for name in ("here", "there"))
    here.publish(tmp_path / "bundle", "default", key="first")
    return here, there


def test_what_one_machine_changes_another_sees(
    machines: tuple[RemoteRegistry, RemoteRegistry], tmp_path: Path
) -> None:
    here, there = machines
    assert there.names() == ["default"]
    before = there.revision("default")
    assert there.publish(tmp_path / "bundle", "default", key="second").version == "2"
    assert there.publish(tmp_path / "bundle", "default", key="second").version == "2"
    assert here.versions("default") == ["1", "2"]
    here.promote("default", "2", "ur")
    assert there.live("default", "ur").version == "2"
    assert there.revision("default") != before
    there.shadow("default", "1", "ur")
    assert here.aliases("default")["ur"].shadow == "1"
    with pytest.raises(ModelInUseError):
        here.delete("default", "2")
    here.rollback("default")
    there.shadow("default", None, "ur")
    there.promote("default", "2", "und")
    here.delete("default", "1")
    assert there.versions("default") == ["2"]
    assert sorted(p.name for p in (tmp_path / "there/default").iterdir() if p.is_dir()) == ["2"]


def test_half_a_version_is_not_seen(
    machines: tuple[RemoteRegistry, RemoteRegistry],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    here, there = machines
    put, left = here._store.put_file, [2]

    def dies(*paths: str) -> None:
        if not left[0]:
            raise ConnectionError("secret")
        left[0] -= 1
        put(*paths)

    with monkeypatch.context() as patch:
        patch.setattr(here._store, "put_file", dies)
        with pytest.raises(RegistryError, match="cannot be used now") as caught:
            here.publish(tmp_path / "bundle", "default", key="second")
        assert "secret" not in str(caught.value)
    for registry in machines:
        assert registry.versions("default") == ["1"]
    assert there.publish(tmp_path / "bundle", "default", key="third").version == "2"
    assert Registry(tmp_path / "there").resolve("default", "2")


def test_writers_keep_each_other_out(
    machines: tuple[RemoteRegistry, RemoteRegistry], tmp_path: Path
) -> None:
    made: list[str] = []

    def publish(registry: RemoteRegistry, key: str) -> None:
        made.append(registry.publish(tmp_path / "bundle", "default", key=key).version)

    threads = [
        threading.Thread(target=publish, args=(machines[number % 2], f"k{number}"))
        for number in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(made) == ["2", "3", "4", "5", "6", "7"]
    assert machines[0].versions("default") == ["1", *sorted(made)]


def test_the_lock_of_a_dead_writer_is_broken(
    machines: tuple[RemoteRegistry, RemoteRegistry],
) -> None:
    here, there = machines
    lock = str(here._top / "default/.lock")
    here._store.pipe_file(lock, b'{"by": "dead", "until": 1}')
    there.promote("default", "1", "ur")
    assert here.live("default", "ur").version == "1"
    assert not here._store.exists(lock)


def test_the_settings_choose(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    found = open_registry(Settings.model_validate({"models": "memory://x", "models_cache": cache}))
    assert isinstance(found, RemoteRegistry)
    assert type(open_registry(Settings.model_validate({"models": str(tmp_path)}))) is Registry
    with pytest.raises(RegistryError, match=r"nonsense:// needs fsspec"):
        RemoteRegistry("nonsense://x", cache)
