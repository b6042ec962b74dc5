"""Writing a result with the lines that tell where it comes from, under benchmarks/results/."""

from pathlib import Path

from nnpm.training.benchmark.results import markdown_list, provenance

__all__ = ["RESULTS", "provenance", "write"]

RESULTS = Path(__file__).parent / "results"


def write(name: str, table: str, facts: dict[str, str]) -> None:
    """Write ``results/NAME.md`` and show the table."""
    RESULTS.mkdir(exist_ok=True)  # git does not keep an empty folder
    (RESULTS / f"{name}.md").write_text(f"{table}\n\n{markdown_list(facts)}\n")
    print(table)
