"""What the README claims is what the committed results say."""

import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_accuracy_table_is_generated_from_the_results() -> None:
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        import readme
    finally:
        sys.path.pop(0)
    assert readme.accuracy_table() in (ROOT / "README.md").read_text()
