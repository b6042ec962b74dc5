"""How many cores this process may use: containers are given fewer than the host has.

Memory that does not grow: glibc's malloc set up for few threads and large buffers.

Silence for C libraries, which report what is wrong with a file on the standard streams.
"""

import ctypes
import functools
import math
import os
import platform
from pathlib import Path


def available_cores(root: Path = Path("/")) -> int:
    """Count the cores that the scheduler and the cgroup's quota leave to this process.

    Args:
        root: where ``proc`` and ``sys`` are mounted.

    Returns:
        At least 1; a fraction of a core counts as one.
    """
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    quotas = [quota for quota in (_quota_v2(root), _quota_v1(root)) if quota is not None]
    return max(1, min(affinity or 1, *(math.ceil(quota) for quota in quotas), 1 << 16))


def _quota_v2(root: Path) -> float | None:
    """The smallest quota on the way from this process's cgroup up to the root, in cores."""
    mount = root / "sys/fs/cgroup"
    lines = _read(root / "proc/self/cgroup").splitlines()
    own = next((line[3:] for line in lines if line.startswith("0::")), "/")
    folders = [mount, *(mount / part for part in _ancestors(own))]
    quotas = []
    for folder in folders:
        match _read(folder / "cpu.max").split():
            case [quota, period] if quota != "max":
                quotas.append(int(quota) / int(period))
    return min(quotas, default=None)


def _quota_v1(root: Path) -> float | None:
    folder = root / "sys/fs/cgroup/cpu"
    quota = _read(folder / "cpu.cfs_quota_us").strip()
    period = _read(folder / "cpu.cfs_period_us").strip()
    return int(quota) / int(period) if period and int(quota) > 0 else None


def _ancestors(cgroup: str) -> list[str]:
    parts = [part for part in cgroup.split("/") if part not in ("", "..")]
    return ["/".join(parts[: count + 1]) for count in range(len(parts))]


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8

ARENAS = 2
"""Heaps that threads share. glibc would make eight for each core, each of which keeps what was free
in it: 3000 recordings left them 18 MiB larger, and two of them 1 MiB."""

OWN_PAGES_BYTES = 1 << 20
"""Blocks from here on have pages of their own, which go back when they are freed. glibc would raise
this bound with every large block, and keep the pages of long recordings."""

KEPT_BYTES = 4 << 20
"""What each heap may keep at its end. It would be 128 KiB once the bound above is set, and every
answer would give pages back and fault 60 to 160 of them in again."""


def steady_memory() -> bool:
    """Set malloc up, before there are threads.

    Returns:
        Whether it was done: not where malloc is another's, or the environment sets it up.
    """
    told = "MALLOC_ARENA_MAX" in os.environ or "glibc.malloc" in os.environ.get(
        "GLIBC_TUNABLES", ""
    )
    if told or platform.libc_ver()[0] != "glibc":
        return False
    process = ctypes.CDLL(None)
    return bool(
        process.mallopt(_M_ARENA_MAX, ARENAS)
        and process.mallopt(_M_TRIM_THRESHOLD, KEPT_BYTES)
        and process.mallopt(_M_MMAP_THRESHOLD, OWN_PAGES_BYTES)
    )


_STREAMS = ("stdout", "stderr")


@functools.cache
def silence_native_stdio() -> bool:
    """Send what C libraries print through the C streams of these names to nowhere, for good.

    libmpg123 tells each damaged frame, and libsndfile's ALAC each bad packet; neither can be told
    to be quiet. One upload of 1 MB made 100,000 lines in the log. Python, the last words of glibc
    and the tracebacks of ``faulthandler`` go to the descriptors, which stay.

    Returns:
        Whether it was done; the streams can be replaced in glibc, and are left alone elsewhere.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    process = ctypes.CDLL(None)
    process.fopen.restype = ctypes.c_void_p
    nowhere = process.fopen(os.devnull.encode(), b"w")
    if not nowhere:  # no descriptor left
        return False
    for name in _STREAMS:
        ctypes.c_void_p.in_dll(process, name).value = nowhere
    return True
