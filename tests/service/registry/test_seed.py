import shutil
from pathlib import Path

import pytest

from nnpm.service.registry.opening import seed_registry
from nnpm.service.registry.registry import Registry, RegistryError
from tests.support.tiny_bundle import write_tiny_bundle


@pytest.fixture
def bundled(tmp_path: Path) -> Path:
    write_tiny_bundle(tmp_path / "bundled/default/1")
    return tmp_path / "bundled"


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "data/models")


def test_an_empty_registry_gets_what_is_bundled(registry: Registry, bundled: Path) -> None:
    assert [model.version for model in seed_registry(registry, bundled)] == ["1"]
    assert registry.live().version == "1"


def test_a_bundle_keeps_its_number_and_no_number_is_used_again(
    registry: Registry, tmp_path: Path
) -> None:
    write_tiny_bundle(tmp_path / "bundled/default/2")
    write_tiny_bundle(tmp_path / "bundled/open/1")
    found = [f"{m.name}/{m.version}" for m in seed_registry(registry, tmp_path / "bundled")]
    assert found == ["default/2", "open/1"]
    write_tiny_bundle(tmp_path / "urdu", language="ur", parent="1")
    assert registry.publish(tmp_path / "urdu", "default", key="job").version == "3"
    write_tiny_bundle(registry.root / "default/7", metrics={"mine": True})
    registry.promote("default", "2", "und")
    registry.delete("default", "7")
    assert registry.publish(tmp_path / "urdu", "default", key="another").version == "8"


def test_once(registry: Registry, bundled: Path) -> None:
    seed_registry(registry, bundled)
    assert seed_registry(registry, bundled) == []
    assert registry.versions("default") == ["1"]


def test_a_newer_one_answers_also_where_its_number_is_taken(
    registry: Registry, bundled: Path, tmp_path: Path
) -> None:
    seed_registry(registry, bundled)
    write_tiny_bundle(tmp_path / "urdu", language="ur", parent="1")
    assert registry.publish(tmp_path / "urdu", "default", key="job").version == "2"
    registry.promote("default", "2")
    write_tiny_bundle(bundled / "default/2", metrics={"release": 2})
    assert [model.version for model in seed_registry(registry, bundled)] == ["3"]
    assert registry.live().version == "3"
    assert registry.live("default", "ur").version == "2"


def test_what_was_copied_by_hand_is_not_copied_again(registry: Registry, bundled: Path) -> None:
    shutil.copytree(bundled / "default/1", registry.root / "default/7")
    assert seed_registry(registry, bundled) == []


def test_a_folder_that_cannot_be_written_is_one_error(bundled: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(RegistryError, match="cannot be written"):
        seed_registry(Registry(tmp_path / "file/models"), bundled)
