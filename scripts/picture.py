"""Write docs/architecture.md's list of files and its picture from the code: ``make picture``.

A room is a folder or a file directly below service/ or training/; an arrow means that one room
imports the other. tests/test_architecture.py fails while page or picture differ from the code.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/architecture.md"
PICTURE = ROOT / "docs/architecture.svg"
PARTS = ("service", "training")

Arrow = tuple[str, str]


def modules(part: str) -> list[Path]:
    """Every module of a part in the order of a tree: a folder's files before its folders."""
    found = (path.relative_to(ROOT) for path in (ROOT / part).rglob("*.py"))
    return sorted(found, key=_tree_order)


def arrows() -> list[Arrow]:
    """Every pair of rooms of which the first imports the second, sorted."""
    pairs = {
        (_room(path), _room(target))
        for part in PARTS
        for path in modules(part)
        for target in imported(path)
    }
    return sorted((a, b) for a, b in pairs if a != b and "" not in (a, b))


def imported(path: Path) -> Iterator[Path]:
    """The files of this repository that a module imports, relatively or absolutely."""
    package = ("nnpm", *path.parent.parts)
    for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name.split(".") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = list(package[: len(package) + 1 - node.level]) if node.level else []
            base += node.module.split(".") if node.module else []
            names = [[*base, alias.name] for alias in node.names]
        else:
            continue
        for name in names:
            if name[0] == "nnpm" and (target := _file(name[1:])):
                yield target


def tree() -> str:
    """The files of both parts, indented, each with the first line of its docstring."""
    lines = []
    for part in PARTS:
        for path in modules(part):
            folder = path.name == "__init__.py"
            depth = len(path.parts) - (2 if folder else 1)
            name = f"{path.parent.name}/" if folder else path.name
            lines.append(f"{'  ' * depth + name:<30} {_summary(path)}".rstrip())
    return "\n".join(lines)


def with_tree(page: str) -> str:
    """The page with the list between its markers replaced by the present one."""
    pattern = r"(?<=<!-- tree -->\n).*?(?=<!-- /tree -->)"
    return re.sub(pattern, lambda _: f"```text\n{tree()}\n```\n", page, flags=re.DOTALL)


def description(pairs: list[Arrow]) -> str:
    """The arrows as one line, which the picture carries in its metadata."""
    return "; ".join(f"{a} imports {b}" for a, b in pairs)


def draw(pairs: list[Arrow], path: Path) -> None:
    """Draw rooms in levels, each above those it imports; an arrow that runs back up is red.

    Arrows that follow from others are left out of the drawing, not out of its description.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    mpl.rcParams.update({"svg.hashsalt": "nnpm", "svg.fonttype": "none"})
    level, back = levels(pairs)
    rows = _rows(level, pairs)
    figure = Figure(figsize=(11, 1.05 * len(rows) + 0.4))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    place = {}
    for height, row in enumerate(rows):
        for column, room in enumerate(row):
            place[room] = ((column + 0.5) / len(row), height)
            colour = "#dce9f7" if room.startswith("service") else "#e6f2dd"
            axes.text(
                *place[room], room.replace(".", "\n"), ha="center", va="center", fontsize=9,
                zorder=3, bbox={"boxstyle": "round", "facecolor": colour, "edgecolor": "#55606e"},
            )  # fmt: skip
    for a, b in [*_reduced([pair for pair in pairs if pair not in back]), *sorted(back)]:
        axes.annotate(
            "", xy=place[b], xytext=place[a], zorder=1,
            arrowprops={
                "arrowstyle": "-|>", "color": "#c0392b" if (a, b) in back else "#8792a0",
                "shrinkA": 18, "shrinkB": 20, "connectionstyle": "arc3,rad=0.06",
            },
        )  # fmt: skip
    axes.set_xlim(0, 1)
    axes.set_ylim(-0.5, len(rows) - 0.5)
    figure.savefig(path, metadata={"Date": None, "Description": description(pairs)})
    text = path.read_text(encoding="utf-8")
    path.write_text("\n".join(line.rstrip() for line in text.splitlines()) + "\n", "utf-8")


def levels(pairs: list[Arrow]) -> tuple[dict[str, int], set[Arrow]]:
    """How high each room stands (0 imports none), and the arrows that close circles."""
    below: dict[str, list[str]] = {room: [] for pair in pairs for room in pair}
    for a, b in pairs:
        below[a].append(b)
    level: dict[str, int] = {}
    back: set[Arrow] = set()

    def visit(room: str, above: tuple[str, ...]) -> int:
        if room not in level:
            heights = [0]
            for other in below[room]:
                if other in (*above, room):
                    back.add((room, other))
                else:
                    heights.append(1 + visit(other, (*above, room)))
            level[room] = max(heights)
        return level[room]

    for room in sorted(below, key=lambda room: (room != "service.cli", room)):
        visit(room, ())
    return level, back


def main() -> None:
    """Write page and picture."""
    PAGE.write_text(with_tree(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    draw(arrows(), PICTURE)


def _tree_order(path: Path) -> list[tuple[bool, str]]:
    *folders, name = path.parts
    return [*((True, folder) for folder in folders), (False, name)]


def _room(path: Path) -> str:
    """The room of a file, such as ``service.api``; empty for a part's own entry points."""
    part, first, *_ = path.with_suffix("").parts
    return "" if first.startswith("__") else f"{part}.{first}"


def _file(name: list[str]) -> Path | None:
    """The file that a dotted name leads to; its last word may be something within that file."""
    for words in (name, name[:-1]):
        if len(words) > 1 and words[0] in PARTS:
            for path in (Path(*words).with_suffix(".py"), Path(*words, "__init__.py")):
                if (ROOT / path).is_file():
                    return path
    return None


def _summary(path: Path) -> str:
    text = ast.get_docstring(ast.parse((ROOT / path).read_text(encoding="utf-8"))) or ""
    return " ".join(text.split("\n\n")[0].split()).removesuffix(".")


def _rows(level: dict[str, int], pairs: list[Arrow]) -> list[list[str]]:
    """Rooms by level, lowest first; in a level near to the mean place of what they import."""
    rows: list[list[str]] = []
    place: dict[str, float] = {}
    for height in range(max(level.values()) + 1):
        row = sorted(room for room, own in level.items() if own == height)
        below = {room: [place[b] for a, b in pairs if a == room and b in place] for room in row}
        mean = {room: sum(places) / (len(places) or 1) for room, places in below.items()}
        row.sort(key=lambda room: (room.startswith("training"), mean[room]))
        place |= {room: (column + 0.5) / len(row) for column, room in enumerate(row)}
        rows.append(row)
    return rows


def _reduced(pairs: list[Arrow]) -> list[Arrow]:
    """Arrows without those that follow from others; the pairs hold no circle."""
    below: dict[str, set[str]] = {}
    for a, b in pairs:
        below.setdefault(a, set()).add(b)

    def reached(room: str) -> set[str]:
        direct = below.get(room, set())
        return direct.union(*(reached(other) for other in direct))

    return [
        (a, b) for a, b in pairs if not any(b in reached(other) for other in below[a] if other != b)
    ]


if __name__ == "__main__":
    main()
