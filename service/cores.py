"""How many cores this process may use: containers are given fewer than the host has."""

import math
import os
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
