"""``nnpm.adapt``: the command's adaptation, called from Python."""

from pathlib import Path

import pytest

import nnpm
from nnpm.service.inference.bundle import Bundle


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("config") / "adapt.toml"
    path.write_text("steps = 10\nsource_batch = 16\ntarget_batch = 16\nviews = 1\n")
    return path


def test_a_folder_becomes_a_bundle(
    base: Bundle, voices: Path, config: Path, tmp_path: Path
) -> None:
    seen: list[str] = []
    report = nnpm.adapt(
        nnpm.load(base.path), voices, out=tmp_path / "out", language="ur_PK", force=True,
        config=config, method="adabn", progress=lambda stage, _done, _total: seen.append(stage),
    )  # fmt: skip
    assert report.clips.accepted >= 20
    assert report.language == "ur-PK"
    assert report.bundle is not None
    assert nnpm.load(report.bundle).language == "ur-PK"
    assert "listen" in seen


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"method": "magic"}, "method is"),
        ({"language": "no language"}, "language"),
        ({"folder": "nowhere"}, "nowhere"),
        ({"bundle": "./nowhere"}, "nowhere"),
        ({"config": "nowhere.toml"}, "nowhere.toml"),
    ],
)
def test_what_cannot_be_adapted_is_an_error(
    base: Bundle, voices: Path, tmp_path: Path, changes: dict[str, str], said: str
) -> None:
    given = {"bundle": str(base.path), "folder": str(voices), "out": tmp_path / "out"} | changes
    with pytest.raises(nnpm.Error, match=said):
        nnpm.adapt(**given)
    assert list(tmp_path.iterdir()) == []
