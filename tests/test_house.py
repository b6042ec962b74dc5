"""The layout of service/ and training/: no module for one reader, small folders, few arrows."""

from collections import defaultdict
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from scripts.picture import ROOT, imported, modules

PARTS = ("service", "training")
MODULES = [path for part in PARTS for path in modules(part)]
NAMED = [path for path in MODULES if not path.name.startswith("__")]
LINES = {path: len((ROOT / path).read_text("utf-8").splitlines()) for path in MODULES}
MAX_MODULES, MAX_NAMES, MAX_LINES = 190, 12, 400

# Folders whose modules stand beside each other, and are read by one list of them or by nobody.
FAMILIES = {
    "service/api/middleware", "service/api/routes", "service/cli", "service/inference/audio",
    "service/jobs/migrations", "service/jobs/migrations/versions", "service/scale",
    "training/adaptation/methods",
    "training/benchmark", "training/corpora", "training/network/encoders",
}  # fmt: skip
ALONE = {
    "service/api/app.py": "what any ASGI server imports",
    "service/api/server.py": "given to uvicorn by nnpm serve alone",
    "service/registry/remote.py": "needs the extra remote, and is imported for a URL alone",
    "training/adaptation/job.py": "the child process that the service starts",
    "training/adaptation/full.py": "needs torch, and is imported for --full alone",
    "training/labelled/label_studio.py": "the format of another program",
    "training/cli.py": "what python -m nnpm.training runs",
}
LARGE_FOLDERS = {
    "service/jobs": (14, "the way of a job from its upload to its callback"),
    "service/inference": (13, "from samples to an answer, on a processor or a GPU"),
    "service/inference/audio": (13, "the readers of formats, and what all of them give"),
    "service": (14, "seven rooms, and what all of them share"),
    "service/api": (16, "its families, its pages, and what an app consists of"),
    "training": (15, "its rooms, its commands and what all share"),
    "training/adaptation": (13, "each is a step from folder to adapted version"),
    "training/corpora": (17, "one file per corpus"),
}
LONG_FILES: set[str] = set()
"""At most three; each says in its first lines why it is one file."""

READERS: dict[Path, set[Path]] = defaultdict(set)
OTHERS = [
    path.relative_to(ROOT)
    for part in ("benchmarks", "scripts")
    for path in (ROOT / part).glob("*.py")
]
for reader in [*MODULES, *OTHERS]:
    for target in set(imported(reader)) - {reader}:
        READERS[target].add(reader)


@pytest.mark.parametrize("path", NAMED, ids=str)
def test_a_module_has_two_readers_or_a_family(path: Path) -> None:
    """With one reader it is part of it, unless both together are too long for a file."""
    if str(path.parent) in FAMILIES or str(path) in ALONE:
        return
    readers = READERS[path]
    assert readers, "nobody imports it"
    one = next(iter(readers))
    assert len(readers) > 1 or LINES[path] + LINES.get(one, 0) > MAX_LINES, f"only {one} reads it"


@pytest.mark.parametrize("folder", sorted({str(path.parent) for path in MODULES}))
def test_a_folder_is_seen_at_a_glance(folder: str) -> None:
    names = [path for path in (ROOT / folder).iterdir() if not path.name.startswith("__")]
    assert len(names) <= LARGE_FOLDERS.get(folder, (MAX_NAMES, ""))[0]


def test_files_are_short_and_not_many() -> None:
    assert len(NAMED) <= MAX_MODULES
    assert len(LONG_FILES) <= 3
    assert {str(path) for path, lines in LINES.items() if lines > MAX_LINES} == LONG_FILES


@pytest.mark.parametrize(("part", "most"), [("service/api", 38), ("training", 52)])
def test_few_arrows_between_rooms(part: str, most: int) -> None:
    def room(path: Path) -> str:
        return path.relative_to(part).parts[0]

    inside = [
        path for path in MODULES if path.is_relative_to(part) and path != Path(part, "__init__.py")
    ]
    arrows = {
        (room(path), room(target))
        for path in inside
        for target in imported(path)
        if target in inside and room(path) != room(target)
    }
    assert len(arrows) <= most


def test_imports_run_in_no_circle() -> None:
    TopologicalSorter({path: set(imported(path)) - {path} for path in MODULES}).prepare()
