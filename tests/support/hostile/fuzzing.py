"""Fuzz one target, guided by coverage of our Python and its libraries' (atheris).

python -m tests.support.hostile.fuzzing decoder SEEDS_FOLDER [options of libFuzzer]
"""

import hashlib
import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(
    include=["nnpm", "soundfile", "zipfile", "tarfile", "python_multipart", "starlette"]
):
    from tests.support.hostile.targets import LARGEST_SEED_BYTES, TARGETS, timed


def main() -> None:
    """Write the seeds, and fuzz until libFuzzer's options end it."""
    name, folder = sys.argv[1], Path(sys.argv[2])
    target, seeds = TARGETS[name]
    for seed in seeds():
        if len(seed) <= LARGEST_SEED_BYTES:
            (folder / hashlib.sha256(seed).hexdigest()).write_bytes(seed)

    def one(data: bytes) -> None:
        timed(target, data)

    atheris.Setup([sys.argv[0], *sys.argv[3:], str(folder)], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
