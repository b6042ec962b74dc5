"""What we ask of the operating system: the number of cores, and steady memory."""

import ctypes
import math
import os
import platform
from pathlib import Path


def available_cores(root: Path = Path("/")) -> int:
    """Count the cores that this process may use; containers often get fewer than the host has.

    Args:
        root: holds ``proc`` and ``sys``.

    Returns:
        The cores of the CPU affinity and of the cgroup's quota, rounded up; at least 1.
    """
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    quotas = [quota for quota in (_quota_v2(root), _quota_v1(root)) if quota is not None]
    return max(1, min(affinity or 1, *(math.ceil(quota) for quota in quotas), 1 << 16))


def _quota_v2(root: Path) -> float | None:
    """The smallest quota of this process's cgroup and those above it, in cores."""
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
"""Heaps that threads share. glibc makes up to eight for each core, and each keeps its free
memory: after 3000 recordings they were 18 MiB larger, and two heaps only 1 MiB."""

OWN_PAGES_BYTES = 16 << 20
"""Blocks of this size or more get pages of their own, which are returned when they are freed: long
recordings. glibc would raise this bound with every large block, and keep the pages of all."""

KEPT_BYTES = 24 << 20
"""Free memory that each heap may keep at its end: what the graph needs for 5 s. With 4 MiB, and own
pages from 1 MiB on, each run of the graph returned its pages and faulted 1600 (3 s) to 6400 (5 s)
of them in again, which was 15 to 30 % of its time."""


def steady_memory() -> bool:
    """Configure glibc's malloc so that memory does not grow; call it before threads start.

    Returns:
        Whether it was done: not with another malloc, or if the environment configures it.
    """
    configured = "MALLOC_ARENA_MAX" in os.environ or "glibc.malloc" in os.environ.get(
        "GLIBC_TUNABLES", ""
    )
    if configured or platform.libc_ver()[0] != "glibc":
        return False
    process = ctypes.CDLL(None)
    return bool(
        process.mallopt(_M_ARENA_MAX, ARENAS)
        and process.mallopt(_M_TRIM_THRESHOLD, KEPT_BYTES)
        and process.mallopt(_M_MMAP_THRESHOLD, OWN_PAGES_BYTES)
    )


def return_memory() -> None:
    """Return free memory to the system now, which a heap would keep: what starting has used."""
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)
