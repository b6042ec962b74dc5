"""Where a result comes from: the lines that stand under every table of benchmarks/results/."""

import datetime
import os
import platform
import subprocess
from pathlib import Path

RESULTS = Path(__file__).parent / "results"


def provenance(command: str) -> dict[str, str]:
    """Command, machine, commit and date of a measurement."""
    RESULTS.mkdir(exist_ok=True)  # git does not keep an empty folder
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True
    )
    return {
        "command": command,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, "
        f"Python {platform.python_version()}",
        "commit": commit.stdout.strip(),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }


def write(name: str, table: str, facts: dict[str, str]) -> None:
    """Write ``results/NAME.md`` and show the table."""
    listing = "\n".join(f"- {key}: {value}" for key, value in facts.items())
    (RESULTS / f"{name}.md").write_text(f"{table}\n\n{listing}\n")
    print(table)
