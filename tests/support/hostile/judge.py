"""A hostile file is either decoded or refused with one of our errors; anything else is a fault."""

import ctypes
from collections.abc import Iterable

from nnpm.service.inference.audio.decode import decode
from nnpm.service.inference.audio.waveform import Limits
from nnpm.service.inference.errors import AudioError
from tests.support.hostile.watch import watched

CPU_S = 3.0
"""Far above what any of these files takes (0.1 s), far below what a hanging one would."""

PEAK_MIB = 48.0
"""A minute at 16 kHz has 4 MiB, and the decoders some."""

LIMITS = Limits(max_duration_s=60)


def verdict(data: bytes, limits: Limits = LIMITS) -> str:
    """Decode mixed and split; return the name of the error, or ok.

    Whatever is not an AudioError is raised.
    """
    told = ""
    for channels in ("mix", "split"):
        try:
            decode(data, channels=channels, limits=limits)
            told = told or "ok"
        except AudioError as error:
            text = str(error)
            assert text.endswith("."), text
            assert not any(leak in text for leak in ("object at", "Error", "libsnd", "/")), text
            told = type(error).__name__
    return told


def faults(cases: Iterable[tuple[str, bytes]]) -> list[str]:
    """Decode each case; return the faults, by name."""
    found = []
    for name, data in cases:

        def judge(data: bytes = data) -> None:
            verdict(data)

        try:
            cost = watched(judge)
        except Exception as error:  # any other error is a fault
            found.append(f"{name}: {type(error).__name__}: {error}")
            continue
        if cost.cpu_s > CPU_S:
            found.append(f"{name}: {cost.cpu_s:.1f} s of CPU")
        if cost.peak_mib > PEAK_MIB:
            found.append(f"{name}: {cost.peak_mib:.0f} MiB at the peak")
    return found


def flush_c_streams() -> None:
    """Flush what C libraries have printed to the descriptors."""
    ctypes.CDLL(None).fflush(None)
