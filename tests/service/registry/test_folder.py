from pathlib import Path

import pytest

from nnpm.service.registry.folder import ModelFolder, UnknownModelError


@pytest.fixture
def folder(tmp_path: Path) -> ModelFolder:
    for path in ("default/1", "default/2", "default/10", "default/alpha", "urdu/3"):
        (tmp_path / path).mkdir(parents=True)
        (tmp_path / path / "bundle.json").touch()
    (tmp_path / "default/.11.tmp").mkdir()
    (tmp_path / "default/.11.tmp/bundle.json").touch()
    (tmp_path / "default/12").mkdir()  # no bundle.json
    (tmp_path / "file").touch()
    return ModelFolder(tmp_path)


def test_names_and_versions_in_order(folder: ModelFolder) -> None:
    assert folder.names() == ["default", "urdu"]
    assert folder.versions("default") == ["alpha", "1", "2", "10"]


@pytest.mark.parametrize(
    ("text", "name", "version"),
    [
        (None, "default", "10"),
        ("default", "default", "10"),
        ("default/2", "default", "2"),
        ("urdu", "urdu", "3"),
    ],
)
def test_a_name_finds_a_version(
    folder: ModelFolder, text: str | None, name: str, version: str
) -> None:
    found = folder.parse(text)
    assert (found.name, found.version) == (name, version)
    assert (found.path / "bundle.json").is_file()


@pytest.mark.parametrize(
    "text", ["x", "default/3", "default/", "/", "..", "../x", "default/..", ".", "default/.11.tmp"]
)
def test_what_is_not_listed_is_unknown(folder: ModelFolder, text: str) -> None:
    with pytest.raises(UnknownModelError, match="there is"):
        folder.parse(text)


def test_a_version_published_later_is_seen(folder: ModelFolder) -> None:
    (folder.root / "default/12/bundle.json").touch()
    assert folder.resolve().version == "12"


def test_a_missing_folder_is_an_empty_one(tmp_path: Path) -> None:
    folder = ModelFolder(tmp_path / "missing")
    assert folder.names() == []
    with pytest.raises(UnknownModelError, match="the models folder is empty"):
        folder.resolve()
