"""What a loss of power could take: the order of writing, syncing and renaming."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from nnpm.service.jobs.folder import write_json
from nnpm.service.registry import state
from nnpm.service.registry.registry import Registry
from nnpm.service.registry.state import State
from tests.support.tiny_bundle import write_tiny_bundle

Events = list[tuple[str, str]]


@pytest.fixture
def events(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Events:
    """Syncs, renames and deletions under ``tmp_path``, in their order."""
    if not Path("/proc/self/fd").is_dir():
        pytest.skip("only Linux tells the name of an open file")
    found: Events = []
    fsync = os.fsync

    def note(what: str, path: Path) -> None:
        found.append((what, path.relative_to(tmp_path).as_posix()))

    def synced(handle: int) -> None:
        fsync(handle)
        note("sync", Path(f"/proc/self/fd/{handle}").readlink())

    def renaming(call: Callable[[Path, Path], Path]) -> Callable[[Path, Path], Path]:
        def then(path: Path, target: Path) -> Path:
            note("rename", path)
            call(path, target)
            note("to", target)
            return target

        return then

    monkeypatch.setattr(os, "fsync", synced)
    for name in ("rename", "replace"):
        monkeypatch.setattr(Path, name, renaming(getattr(Path, name)))
    return found


def test_a_version_is_whole_before_it_has_its_name_and_then_keeps_it(
    events: Events, tmp_path: Path
) -> None:
    write_tiny_bundle(tmp_path / "new")
    events.clear()
    version = Registry(tmp_path / "models").publish(tmp_path / "new", "default", key="a")
    (at,) = [
        n for n, (what, path) in enumerate(events) if (what, path) == ("to", "models/default/1")
    ]
    coming = events[at - 1][1]
    before = {path for what, path in events[:at] if what == "sync"}
    assert {f"{coming}/{path.name}" for path in version.path.iterdir()} | {coming} <= before
    assert ("sync", "models/default") in events[at:]


def test_small_files_are_whole_before_they_replace_and_then_keep_their_name(
    events: Events, tmp_path: Path
) -> None:
    state.write(tmp_path, State())
    write_json(tmp_path / "request.json", {"a": 1})
    for name in (state.STATE, "request.json"):
        at = events.index(("to", name))
        assert events[at - 1][0] == "rename"
        assert events[at - 2] == ("sync", events[at - 1][1])
        assert events[at + 1] == ("sync", ".")
