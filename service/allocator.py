"""Memory that does not grow: glibc's malloc set up for few threads and large buffers."""

import ctypes
import os
import platform

_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8

ARENAS = 2
"""Heaps that threads share. glibc would make eight for each core, each of which keeps what was free
in it: 3000 recordings left them 18 MiB larger, and two of them 1 MiB."""

OWN_PAGES_BYTES = 1 << 20
"""Blocks from here on have pages of their own, which go back when they are freed. glibc would raise
this bound with every large block, and keep the pages of long recordings."""


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
        and process.mallopt(_M_MMAP_THRESHOLD, OWN_PAGES_BYTES)
    )
