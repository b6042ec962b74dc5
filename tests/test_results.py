"""What the README claims is what the committed results say."""

import csv
from pathlib import Path

import pytest

from benchmarks.charts import draw
from benchmarks.readme import ADAPTATION, accuracy_table, adaptation_table

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_accuracy_table_is_generated_from_the_results() -> None:
    assert accuracy_table() in README


def test_the_adaptation_table_is_generated_from_the_results() -> None:
    assert adaptation_table() in README


def test_the_adaptation_table_agrees_with_the_benchmarks_own() -> None:
    """Computed twice: here from every row, rounded in the file, there by `nnpm benchmark`."""
    lines = (ROOT / ADAPTATION / "main-uar.csv").read_text(encoding="utf-8").splitlines()
    theirs = {row.pop("method"): row for row in csv.DictReader(lines[1:])}
    ours = [line.strip("| ").split(" | ") for line in adaptation_table().splitlines()]
    rows = {cells[0].strip("`"): cells[1:] for cells in ours if cells[0].startswith("`")}
    left_out = {"ased (uncurated)", "least gain"}
    expected = {
        method: [value for name, value in row.items() if name not in left_out]
        for method, row in theirs.items()
    }
    assert rows.keys() == expected.keys()
    for method, cells in rows.items():
        assert [_numbers(cell) for cell in cells] == [
            pytest.approx(_numbers(cell), abs=0.0011) for cell in expected[method]
        ]


def test_the_charts_are_drawn_from_the_results(tmp_path: Path) -> None:
    draw(tmp_path)
    words = {
        "uar": ["urdu", "ased", "mean", "source_only", "nnpm"],
        "curve": ["clips adapted to", "entropy", "emotiontts"],
        "confusion": ["emodb", "self_training", "angry"],
        "map": ["ased, source_only", "ased, nnpm", "sad"],
        "coverage": ["share answered, the surest first", "source, test speakers, eight emotions"],
    }
    assert {path.stem for path in tmp_path.iterdir()} == set(words)
    for name, expected in words.items():
        text = (tmp_path / f"{name}.svg").read_text(encoding="utf-8")
        for word in expected:
            assert f">{word}<" in text, (name, word)


def _numbers(cell: str) -> list[float]:
    return [float(number) for number in cell.split(" ± ")]
