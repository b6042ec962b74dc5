"""What the README claims is what the committed results say."""

from pathlib import Path

from benchmarks.readme import accuracy_table


def test_the_accuracy_table_is_generated_from_the_results() -> None:
    assert accuracy_table() in (Path(__file__).parents[1] / "README.md").read_text()
