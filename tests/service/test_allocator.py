"""malloc as `nnpm serve` sets it up, in a process of its own."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# Threads that allocate at the same time, so that each would get a heap of its own; then how many
# heaps there are, as glibc tells.
HEAPS = """
import ctypes, sys, tempfile, threading
from nnpm.service.system import steady_memory
done = steady_memory() if sys.argv[1] == "steady" else None
process = ctypes.CDLL(None)
process.malloc.restype = process.fopen.restype = ctypes.c_void_p
gate = threading.Barrier(16)
def work():
    gate.wait()
    for _ in range(2000):
        process.malloc(ctypes.c_size_t(64))
    gate.wait()
threads = [threading.Thread(target=work) for _ in range(16)]
for thread in threads: thread.start()
for thread in threads: thread.join()
with tempfile.NamedTemporaryFile() as file:
    stream = ctypes.c_void_p(process.fopen(file.name.encode(), b"w"))
    process.malloc_info(0, stream)
    process.fclose(stream)
    print(done, file.read().count(b"<heap nr="))
"""


def heaps(how: str, **environment: str) -> tuple[str, int]:
    inherited = {
        name: value
        for name, value in os.environ.items()
        if name not in ("MALLOC_ARENA_MAX", "GLIBC_TUNABLES")
    }
    told = subprocess.run(
        [sys.executable, "-c", HEAPS, how],
        cwd=ROOT, env={**inherited, **environment}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    done, count = told.stdout.split()
    return done, int(count)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="malloc is another's here")
def test_threads_share_two_heaps() -> None:
    assert heaps("as it is")[1] > 2
    done, count = heaps("steady")
    assert done == "True"
    assert count <= 2


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="malloc is another's here")
def test_who_sets_malloc_up_is_left_alone() -> None:
    assert heaps("steady", MALLOC_ARENA_MAX="5") == ("False", 5)
