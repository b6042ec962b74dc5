"""Start the service as users do: time to the first answer, memory after a 60 s clip, idle CPU.

    python -m benchmarks.footprint

Linux only (it reads /proc). Writes benchmarks/results/footprint.md.
"""

import argparse
import io
import time

import numpy as np
import soundfile

from benchmarks.provenance import machine_load, provenance, write
from benchmarks.service import running_service
from nnpm.training.bundle.parts import voice

STARTS = 5
IDLE_S = 20


def main() -> None:
    """Measure and write."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    file, short = io.BytesIO(), io.BytesIO()
    soundfile.write(short, voice(180.0, 3.0, seed=0), 16_000, format="WAV", subtype="PCM_16")
    minute = np.tile(voice(170.0, 3.0, seed=0), 60)[: 60 * 48_000]
    soundfile.write(file, np.stack([minute, minute], 1), 48_000, format="WAV", subtype="PCM_16")
    ready_s, answered_s = [], []
    for number in range(STARTS):
        with running_service() as service:
            ready_s.append(service.ready_s)
            start = time.perf_counter()
            service.post(short.getvalue())
            answered_s.append(service.ready_s + time.perf_counter() - start)
            idle = service.resident_mib()
            service.post(file.getvalue())
            after, peak = service.resident_mib(), service.peak_mib()
            if number == STARTS - 1:
                time.sleep(1)
                cpu_s = service.cpu_s()
                time.sleep(IDLE_S)
                idle_percent = 100 * (service.cpu_s() - cpu_s) / IDLE_S
    table = [
        "| the service with the bundled model | |",
        "| --- | --- |",
        f"| process start to ready, median of {STARTS} | {np.median(ready_s):.2f} s |",
        f"| the slowest of them | {max(ready_s):.2f} s |",
        f"| process start to the first answer (3 s clip), median | {np.median(answered_s):.2f} s |",
        f"| the slowest of them | {max(answered_s):.2f} s |",
        f"| resident when ready | {idle:.0f} MiB |",
        f"| resident after a 60 s clip (48 kHz stereo) | {after:.0f} MiB |",
        f"| its peak | {peak:.0f} MiB |",
        f"| CPU over {IDLE_S} s without a request | {idle_percent:.2f} % |",
    ]
    write("footprint", "\n".join(table), provenance("benchmarks/footprint.py") | machine_load())


if __name__ == "__main__":
    main()
