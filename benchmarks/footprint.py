"""Start the service as users do; time it to ready, and weigh it before and after a 60 s clip.

    python -m benchmarks.footprint

Linux only (it reads /proc). Writes benchmarks/results/footprint.md.
"""

import io
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import soundfile

from benchmarks.provenance import provenance, write
from nnpm.training.bundle.files import voice

ROOT = Path(__file__).parents[1]
STARTS = 5


def resident_mib(process: int, field: str = "VmRSS") -> float:
    """Resident memory of a process, now or (VmHWM) at its highest, in MiB."""
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) / 1024
    raise LookupError(field)


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def start(log: io.IOBase) -> tuple[subprocess.Popen[bytes], str, float]:
    """Start a service; return it with its address and the seconds until it was ready."""
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    begin = time.perf_counter()
    code = (
        "import sys; from nnpm.service.cli import main; "
        f"sys.exit(main(['serve', '--port', '{port}']))"
    )
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=log, stderr=log)
    while True:
        try:
            urllib.request.urlopen(f"{address}/health/ready")
            return process, address, time.perf_counter() - begin
        except (urllib.error.URLError, ConnectionError):
            assert process.poll() is None, "the service ended"
            time.sleep(0.005)


def post(address: str, clip: bytes) -> None:
    """Send one clip as a raw body."""
    request = urllib.request.Request(
        f"{address}/predict", data=clip, headers={"Content-Type": "audio/wav"}
    )
    with urllib.request.urlopen(request) as answer:
        answer.read()


def main() -> None:
    """Measure and write."""
    file, short = io.BytesIO(), io.BytesIO()
    soundfile.write(short, voice(180.0, 3.0, seed=0), 16_000, format="WAV", subtype="PCM_16")
    minute = np.tile(voice(170.0, 3.0, seed=0), 60)[: 60 * 48_000]
    soundfile.write(file, np.stack([minute, minute], 1), 48_000, format="WAV", subtype="PCM_16")
    ready_s, answered_s = [], []
    with tempfile.TemporaryFile() as log:
        for _ in range(STARTS):
            process, address, seconds = start(log)
            ready_s.append(seconds)
            began = time.perf_counter()
            post(address, short.getvalue())
            answered_s.append(seconds + time.perf_counter() - began)
            idle = resident_mib(process.pid)
            post(address, file.getvalue())
            after, peak = resident_mib(process.pid), resident_mib(process.pid, "VmHWM")
            process.terminate()
            process.wait()
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
    ]
    write("footprint", "\n".join(table), provenance("benchmarks/footprint.py"))


if __name__ == "__main__":
    main()
