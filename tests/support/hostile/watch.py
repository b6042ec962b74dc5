"""The cost of a call: CPU seconds of its thread, and peak memory."""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

_STATUS = Path("/proc/self/status")
_RESET = Path("/proc/self/clear_refs")


@dataclass(frozen=True, slots=True)
class Cost:
    """The cost of one call.

    Attributes:
        cpu_s: of the calling thread.
        peak_mib: resident memory over what there was before; 0 where nobody can tell.
    """

    cpu_s: float
    peak_mib: float


def resident_mib(field: str = "VmRSS") -> float:
    """Resident memory of this process, now or (VmHWM) at its highest since the last reset."""
    if not _STATUS.exists():
        return 0.0
    return int(re.findall(rf"^{field}:\s+(\d+)", _STATUS.read_text(), re.MULTILINE)[0]) / 1024


def watched(call: Callable[[], object]) -> Cost:
    """Make the call and measure its cost."""
    can_reset = _forget_the_peak()
    before_mib, started_s = resident_mib(), time.thread_time()
    call()
    cpu_s = time.thread_time() - started_s
    peak_mib = resident_mib("VmHWM") - before_mib if can_reset else 0.0
    return Cost(cpu_s, max(0.0, peak_mib))


def _forget_the_peak() -> bool:
    try:
        _RESET.write_text("5")
    except OSError:
        return False
    return True
