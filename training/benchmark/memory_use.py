"""The memory that a piece of work takes."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_PROCESS = Path("/proc/self")
_MIB = 1024.0


@dataclass(slots=True)
class Use:
    """What was measured; None where the system is not Linux.

    Attributes:
        rise_mib: peak of the resident set over what it was before. What the process had freed
            before and takes again does not show.
        peak_mib: peak of the resident set, with Python, torch and the features.
    """

    rise_mib: float | None = None
    peak_mib: float | None = None


@contextmanager
def watch_memory() -> Iterator[Use]:
    """Measure the block: the kernel's own peak (VmHWM), set back at the start."""
    use, before = Use(), None
    try:
        (_PROCESS / "clear_refs").write_text("5")  # proc(5): resets the peak to what is there
        before = _read("VmRSS")
    except OSError:
        pass
    yield use
    if before is not None:
        use.peak_mib = round(_read("VmHWM") / _MIB, 1)
        use.rise_mib = round(max(0.0, use.peak_mib - before / _MIB), 1)


def _read(name: str) -> float:
    """In KiB."""
    lines = (_PROCESS / "status").read_text().splitlines()
    return float(next(line for line in lines if line.startswith(name)).split()[1])
