import threading
import uuid
from pathlib import Path

import pytest

from nnpm.service.inference import bundle as bundles
from nnpm.service.registry import remote
from nnpm.service.registry.opening import open_registry
from nnpm.service.registry.registry import ModelInUseError, Registry
from nnpm.service.registry.remote import RemoteRegistry
from nnpm.service.registry.serving import LoadedModels, Serving, load_recognizer
from nnpm.service.registry.state import RegistryError
from nnpm.service.settings import Settings
from tests.support.tiny_bundle import tiny_card, tiny_files, write_tiny_bundle


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


def test_a_version_is_fetched_when_it_is_needed(
    machines: tuple[RemoteRegistry, RemoteRegistry],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A thousand versions need not lie on every machine; what lies there needs no store."""
    here, there = machines
    card = tiny_card(language="ur", parent="0" * 64)
    bundles.save(tmp_path / "adapted", card, tiny_files())
    for number in range(3):
        here.publish(tmp_path / "adapted", "default", key=f"adapted {number}")
    here.promote("default", "2")

    def files(version: str) -> int:
        return len(list((tmp_path / "there/default" / version).iterdir()))

    assert there.versions("default") == ["1", "2", "3", "4"]
    assert there.routes("default")["ur"].version == "2"
    assert there.routes("default")["und"].version == "1"
    assert [files(version) for version in "1234"] == [2] * 4  # card and seal
    serving = Serving(there, LoadedModels(load_recognizer, 4))
    assert serving.choose(language="ur").model.version == "2"
    assert files("2") == 8
    assert [files(version) for version in "34"] == [2, 2]
    assert bundles.load(there.resolve("default", "3").path).card.language == "ur"

    def away(*_: object, **__: object) -> None:
        raise ConnectionError("secret")

    for name in ("get_file", "find"):
        monkeypatch.setattr(there._store, name, away)
    monkeypatch.setattr(remote, "_FRESH_S", 1e9)
    there._whole.clear()  # as another process has it
    assert there.resolve("default", "3").version == "3"
    with pytest.raises(RegistryError, match="cannot be used now") as caught:
        there.resolve("default", "4")
    assert "secret" not in str(caught.value)
    assert files("4") == 2  # no half a file


def test_a_look_asks_for_one_small_file(
    machines: tuple[RemoteRegistry, RemoteRegistry],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Listing a thousand versions each second would take a fifth of a core."""
    here, there = machines
    monkeypatch.setattr(remote, "_UNREST_S", 0.0)
    assert there.versions("default") == ["1"]
    find, listings = there._store.find, []

    def counted(path: str) -> list[str]:
        listings.append(path)
        return list(find(path))

    monkeypatch.setattr(there._store, "find", counted)
    for _ in range(3):
        assert there.revision("default")[1] == ("1",)
    assert not listings
    here.publish(tmp_path / "bundle", "default", key="second")
    here.promote("default", "2", "ur")
    listings.clear()  # those of here, if the store is one object
    assert there.live("default", "ur").version == "2"
    assert len(listings) == 1
    # what somebody copies into the store by hand is seen by the next listing
    source, by_hand = there._top / "default/2", there._top / "default/hand"
    for file in (tmp_path / "here/default/2").iterdir():
        there._store.makedirs(str(by_hand), exist_ok=True)
        there._store.pipe_file(
            str(by_hand / file.name), there._store.cat_file(str(source / file.name))
        )
    assert there.versions("default") == ["1", "2"]
    assert there.names() == ["default"]
    assert there.versions("default") == ["hand", "1", "2"]


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
