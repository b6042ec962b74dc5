"""What the README claims is what the committed results say."""

from pathlib import Path

from benchmarks.charts import draw
from benchmarks.readme import accuracy_table, cost_line

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_accuracy_table_is_generated_from_the_results() -> None:
    assert accuracy_table() in README


def test_what_an_answer_costs_is_what_was_measured() -> None:
    assert cost_line() in README


def test_the_charts_are_drawn_from_the_results(tmp_path: Path) -> None:
    draw(tmp_path)
    words = {
        "accuracy": ["URDU", "EmotionTTS", "as trained", "models/open"],
        "call": ["channel 1", "seconds", "angry", "not sure"],
        "coverage": ["share answered, the surest first"],
    }
    assert {path.stem for path in tmp_path.iterdir()} == set(words)
    for name, expected in words.items():
        text = (tmp_path / f"{name}.svg").read_text(encoding="utf-8")
        for word in expected:
            assert f">{word}<" in text, (name, word)
