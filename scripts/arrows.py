"""Count the arrows between the rooms of a folder, and find circles of imports.

A room is a file or a folder that lies directly in the folder given; an arrow is one room that
imports another, wherever in the file the import stands. A circle is a chain of modules each of
which imports the next one, through to the first.

    python scripts/arrows.py service/api          # rooms and arrows; exit 1 where there is a circle
    python scripts/arrows.py --list service/api   # every arrow, and the modules that make it
"""

import argparse
import ast
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "nnpm"
"""Name under which service/ and training/ are imported."""


def modules(folder: Path) -> dict[str, Path]:
    """Find the modules under a folder, by their name below the package."""
    found = {}
    for path in sorted(folder.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported(path: Path, known: dict[str, Path], *, at_start: bool = False) -> Iterator[str]:
    """Yield the known modules that a module imports.

    Args:
        path: of the module.
        known: modules by name.
        at_start: leave imports inside of functions out: they close no circle.
    """
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = _outside_of_functions(tree) if at_start else ast.walk(tree)
    package = path.relative_to(ROOT).parent.parts
    for node in nodes:
        for name in _names(node, package):
            # "from .a import b" names the module a.b, or something in a.
            module = name if name in known else name.rpartition(".")[0]
            if module in known and known[module] != path:
                yield module


def _outside_of_functions(tree: ast.AST) -> Iterator[ast.AST]:
    for node in ast.iter_child_nodes(tree):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield node
            if not (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)):
                yield from _outside_of_functions(node)


def _names(node: ast.AST, package: tuple[str, ...]) -> Iterator[str]:
    """Yield what one statement imports, by absolute names below the package."""
    if isinstance(node, ast.Import):
        for alias in node.names:
            yield alias.name.removeprefix(f"{PACKAGE}.")
    elif isinstance(node, ast.ImportFrom):
        above = package[: len(package) - node.level + 1] if node.level else ()
        start = ".".join([*above, *(node.module or "").split(".")]).strip(".")
        for alias in node.names:
            yield f"{start}.{alias.name}".removeprefix(f"{PACKAGE}.")


def arrows(folder: Path) -> tuple[set[str], dict[tuple[str, str], set[str]]]:
    """Find the rooms of a folder, and the arrows between them with the modules that make them."""
    known = modules(folder)
    depth = len(folder.resolve().relative_to(ROOT).parts)
    room_of = {name: name.split(".")[depth] for name in known if name.count(".") >= depth}
    found: dict[tuple[str, str], set[str]] = {}
    for name, room in room_of.items():
        for other in imported(known[name], known):
            if other in room_of and room_of[other] != room:
                found.setdefault((room, room_of[other]), set()).add(f"{name} -> {other}")
    return set(room_of.values()), found


def circle(folder: Path) -> list[str]:
    """Find one circle of imports; empty where there is none."""
    known = modules(folder)
    graph = {name: set(imported(path, known, at_start=True)) for name, path in known.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        found: list[str] = error.args[1]
        return found
    return []


def main() -> int:
    """Report on every folder."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER")
    parser.add_argument("--list", action="store_true", help="print every arrow")
    args = parser.parse_args()
    status = 0
    for folder in args.folders:
        rooms, found = arrows(folder.resolve())
        print(f"{folder}: {len(rooms)} rooms, {len(found)} arrows")
        if args.list:
            for (room, other), reasons in sorted(found.items()):
                print(f"  {room} -> {other}: {', '.join(sorted(reasons))}")
        if chain := circle(folder.resolve()):
            print(f"{folder}: a circle of imports: {' -> '.join(chain)}")
            status = 1
    return status


if __name__ == "__main__":
    sys.exit(main())
