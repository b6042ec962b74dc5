"""Results under benchmarks/results/, each with the lines that say where it comes from."""

import os
from pathlib import Path

from nnpm.training.benchmark.results import markdown_list, provenance

__all__ = ["RESULTS", "ROOT", "machine_load", "provenance", "write"]

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks/results"


def write(name: str, table: str, facts: dict[str, str]) -> None:
    """Write ``results/NAME.md`` and print the table."""
    RESULTS.mkdir(exist_ok=True)  # git does not keep an empty folder
    (RESULTS / f"{name}.md").write_text(f"{table}\n\n{markdown_list(facts)}\n")
    print(table)


def machine_load() -> dict[str, str]:
    """The load average, for the provenance of a result that other work may have disturbed."""
    return {"load of the machine": f"{os.getloadavg()[0]:.1f} (other work beside it if over 2)"}
