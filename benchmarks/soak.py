"""Send the service thousands of recordings of all kinds; does it grow, fail, or stay busy?

    python -m benchmarks.soak [--clips 10000] [--connections 4] [--minutes 60]

Linux only (it reads /proc). Writes benchmarks/results/soak.md.
"""

import argparse
import collections
import http.client
import itertools
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from benchmarks.make_clips import CLASSES, Clip, draw, make_pool
from benchmarks.provenance import provenance, write
from benchmarks.service import Service, running_service

IDLE_S = 30
WARM_UP = 0.2
"""Share of the clips after which growth is measured: until then buffers find their size."""
BLOCKS = 20


@dataclass
class Tally:
    """What came back; threads add to it under its lock."""

    statuses: collections.Counter[int] = field(default_factory=collections.Counter)
    unexpected: collections.Counter[str] = field(default_factory=collections.Counter)
    latencies_ms: list[float] = field(default_factory=list)
    resident: list[tuple[int, float]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, clip: Clip, status: int, latency_ms: float, service: Service) -> None:
        """Count one answer; look at the memory after every tenth."""
        with self.lock:
            self.statuses[status] += 1
            self.latencies_ms.append(latency_ms)
            if status not in clip.expected:
                self.unexpected[f"{status} for {clip.name}"] += 1
            if len(self.latencies_ms) % 10 == 0:
                self.resident.append((len(self.latencies_ms), service.resident_mib()))


def main() -> None:
    """Soak and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, default=10_000)
    parser.add_argument("--connections", type=int, default=4)
    parser.add_argument("--minutes", type=float, default=120.0, help="stop sending after these")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        (home / "clips").mkdir()
        pool = make_pool(home / "clips", options.seed)
        (home / "tmp").mkdir()
        settings = {
            "TMPDIR": str(home / "tmp"),
            "NNPM_JOBS": str(home / "jobs"),
            "NNPM_DATABASE_URL": f"sqlite:///{home / 'nnpm.db'}",
        }
        with running_service(settings, home / "log") as service:
            _soak(options, service, pool, home)


def _soak(
    options: argparse.Namespace,
    service: Service,
    pool: tuple[list[list[Clip]], list[Clip]],
    home: Path,
) -> None:
    tally = Tally()
    before = _state(service, home)
    began = time.monotonic()
    clips = draw(pool, options.clips, options.seed)
    deadline = began + 60 * options.minutes
    threads = [
        threading.Thread(target=_send, args=(clips, tally, service, number, deadline))
        for number in range(options.connections)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took_s = time.monotonic() - began
    time.sleep(5)
    busy_s = service.cpu_s()
    time.sleep(IDLE_S)
    idle_percent = 100 * (service.cpu_s() - busy_s) / IDLE_S
    after = _state(service, home)
    table = _table(tally, before, after, took_s, busy_s, idle_percent)
    log_lines = len((home / "log").read_bytes().splitlines())
    table.append(f"| lines in the log | {log_lines} |")
    command = f"python -m benchmarks.soak --clips {options.clips} --connections "
    facts = provenance(f"{command}{options.connections} --minutes {options.minutes:g}")
    facts["load of the machine at the end"] = f"{os.getloadavg()[1]:.1f} (5 minutes)"
    write("soak", "\n".join([*table, "", _note()]), facts)


_TAKE = threading.Lock()


def _send(
    clips: Iterator[Clip], tally: Tally, service: Service, number: int, deadline: float
) -> None:
    """Send clip after clip on one connection, in turn as a form, raw, and chunked."""
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=300)
    for turn in itertools.count(number):
        with _TAKE:
            clip = next(clips, None)
        if clip is None or time.monotonic() > deadline:
            break
        body, headers = _request(clip, turn)
        started = time.perf_counter()
        try:
            chunked = "Transfer-Encoding" in headers
            connection.request("POST", "/predict", body, headers, encode_chunked=chunked)
            response = connection.getresponse()
            response.read()
            status = response.status
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            status = 0
            print(f"{clip.name}: {error!r}", file=sys.stderr)
        tally.add(clip, status, 1000 * (time.perf_counter() - started), service)
    connection.close()


def _request(clip: Clip, turn: int) -> tuple[bytes | Iterator[bytes], dict[str, str]]:
    data = clip.path.read_bytes()
    kind = turn % 3
    if kind == 0:
        head = b'--x\r\nContent-Disposition: form-data; name="file"; filename="clip"\r\n\r\n'
        form = {"Content-Type": "multipart/form-data; boundary=x"}
        return head + data + b"\r\n--x--\r\n", form
    if kind == 1:
        return data, {"Content-Type": "audio/wav"}
    pieces = (data[start : start + 65_536] for start in range(0, len(data), 65_536))
    return pieces, {"Content-Type": "application/octet-stream", "Transfer-Encoding": "chunked"}


def _state(service: Service, home: Path) -> dict[str, float]:
    temporary = sum(path.is_file() for path in (home / "tmp").rglob("*"))
    return {
        "resident MiB": round(service.resident_mib(), 1),
        "file descriptors": len(list(Path(f"/proc/{service.pid}/fd").iterdir())),
        "threads": len(list(Path(f"/proc/{service.pid}/task").iterdir())),
        "temporary files": temporary,
    }


def growth(resident: list[tuple[int, float]]) -> tuple[float, float]:
    """Slope of memory over clips after the warm-up, in MiB per 1000, and its standard error.

    Neighbouring looks are alike, so the line goes through the means of 20 blocks.
    """
    count = resident[-1][0]
    kept = np.array([look for look in resident if look[0] > WARM_UP * count])
    if len(kept) < BLOCKS:
        return float("nan"), float("nan")
    means = np.array([block.mean(axis=0) for block in np.array_split(kept, BLOCKS)])
    x, y = means[:, 0] / 1000, means[:, 1]
    centred = x - x.mean()
    slope = float(centred @ y / (centred @ centred))
    rest = y - y.mean() - slope * centred
    error = float(np.sqrt(rest @ rest / (len(x) - 2) / (centred @ centred)))
    return slope, error


def _table(
    tally: Tally,
    before: dict[str, float],
    after: dict[str, float],
    took_s: float,
    cpu_s: float,
    idle_percent: float,
) -> list[str]:
    slope, error = growth(tally.resident)
    quantiles = statistics.quantiles(tally.latencies_ms, n=100)
    statuses = ", ".join(f"{status}: {n}" for status, n in sorted(tally.statuses.items()))
    unexpected = ", ".join(f"{n} x {what}" for what, n in tally.unexpected.items()) or "none"
    count = len(tally.latencies_ms)
    resident = [mib for _, mib in tally.resident]
    rows = {
        "clips sent, and for how long": f"{count} in {took_s / 60:.1f} min",
        "answers by status": statuses,
        "answers that were not expected": unexpected,
        "latency, median and 99th": f"{quantiles[49]:.0f} ms, {quantiles[98]:.0f} ms",
        "CPU of the service": f"{cpu_s:.0f} s",
        "resident memory, growth after the first fifth": (
            f"{slope:+.2f} ± {error:.2f} MiB per 1000 clips"
        ),
        "its mean in each tenth": ", ".join(
            f"{part.mean():.0f}" for part in np.array_split(resident, 10) if len(part)
        ),
        "its highest": f"{max(resident):.0f} MiB",
        **{
            f"{name}, before and afterwards": f"{before[name]:g}, {after[name]:g}"
            for name in before
        },
        f"CPU over {IDLE_S} s of rest afterwards": f"{idle_percent:.2f} %",
    }
    return [
        "| soak | |",
        "| --- | --- |",
        *(f"| {name} | {value} |" for name, value in rows.items()),
    ]


def _note() -> str:
    classes = "; ".join(
        f"{100 * share:.0f} % of {low_s:g} to {high_s:g} s" for share, low_s, high_s, _ in CLASSES
    )
    return (
        f"Lengths: {classes}. WAV, FLAC, Opus, Vorbis and MP3 of 8 to 48 kHz, one file in twenty "
        "bad; in turn as a form, raw and chunked. Growth is a line through the means of "
        f"{BLOCKS} blocks, ± its standard error."
    )


if __name__ == "__main__":
    main()
