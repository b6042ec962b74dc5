"""The servers of a comparison: started, paused, and measured by their processes."""

import asyncio
import contextlib
import os
import re
import resource
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from benchmarks.provenance import ROOT
from benchmarks.service import SERVE, cpu_s, free_port


@dataclass(frozen=True)
class Kind:
    """How a server is started and asked.

    Attributes:
        name: in the table.
        folder: of the peer, which holds its run.sh; None for our own.
        path: to post to.
        raw: Content-Type of a body that is the audio alone; None for a form.
        settings: environment variables.
        start: arguments of Python, of our own.
    """

    name: str
    folder: str | None
    path: str = "/predict"
    raw: str | None = None
    settings: dict[str, str] = field(default_factory=dict)
    start: tuple[str, ...] = SERVE


KINDS = (
    Kind("nnpm", None),
    Kind("nnpm, raw body", None, raw="audio/wav"),
    Kind("nnpm, one answer cached", None, start=("-m", "benchmarks.cached_baseline")),
    Kind("plain FastAPI", "fastapi_plain"),
    Kind("KServe", "kserve", "/v1/models/ser:predict", "audio/wav"),
    Kind("MLServer", "mlserver", "/predict", "application/octet-stream"),
    Kind("LitServe", "litserve", settings={"WORKERS": "2"}),
    Kind("BentoML", "bentoml", settings={"BENTO_MODE": "plain"}),
    Kind("Ray Serve", "rayserve"),
)


@dataclass(frozen=True)
class Load:
    """What a load generator saw, and the CPU that it took itself and that the server took."""

    requests: int
    seconds: float
    p50_ms: float
    p99_ms: float
    failed: int
    generator_ms: float = 0.0
    cpu_ms: float = 0.0


class Server:
    """One server, in as many processes as it likes; all carry a mark in their environment."""

    def __init__(self, kind: Kind, model: Path, peers: Path | None, venvs: Path | None) -> None:
        self.kind = kind
        self.port = free_port()
        self._mark = f"BENCH_MARK={kind.name.replace(' ', '_')}-{self.port}"
        name, _, value = self._mark.partition("=")
        env = {**os.environ, **kind.settings, name: value, "PORT": str(self.port)}
        env["THREADS"] = "1"
        if kind.folder is None:
            command = [sys.executable, *kind.start]
            env |= {"NNPM_PORT": str(self.port), "NNPM_ADAPT_WORKERS": "0"}
        else:
            assert peers is not None
            assert venvs is not None
            command = [str(peers / kind.folder / "run.sh")]
            venv = "base" if kind.folder == "fastapi_plain" else kind.folder
            env |= {"MODEL": str(model), "PY": str(venvs / venv / "bin")}
        self._process = subprocess.Popen(
            command, cwd=ROOT, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.signal(signal.SIGCONT)
        self.signal(signal.SIGTERM)
        time.sleep(2)
        self.signal(signal.SIGKILL)
        self._process.wait()

    def wait(self, clip: Path, seconds: float = 90) -> bool:
        """Ask until it answers; False if it does not."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            load = self.load(clip, connections=1, seconds=1)
            if load is not None and load.requests and not load.failed:
                return True
        return False

    def load(self, clip: Path, *, connections: int, seconds: int) -> Load | None:
        """Let wrk post the clip, as fast as answers come; None if it saw nothing."""
        env = {**os.environ, "CLIP": str(clip)} | ({"RAW": self.kind.raw} if self.kind.raw else {})
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        output = subprocess.run(
            ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "30s",
             "-s", str(ROOT / "benchmarks/upload.lua"),
             f"http://127.0.0.1:{self.port}{self.kind.path}"],
            env=env, capture_output=True, text=True, check=False,
        )  # fmt: skip
        found = re.search(r"RESULT (\d+) (\S+) (\S+) (\S+) (\d+)", output.stdout)
        if found is None:
            return None
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        used_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        requests, took, p50, p99, failed = found.groups()
        seen = (float(took), float(p50), float(p99), int(failed))
        return Load(int(requests), *seen, generator_ms=1000 * used_s)

    def latencies_ms(self, clip: Path, arrivals: list[float]) -> list[float]:
        """Post the clip at planned times, whatever is still on its way; milliseconds of each.

        Args:
            clip: WAV file.
            arrivals: seconds from the beginning, in order.

        Returns:
            From the planned time to the last byte of the answer, so that a request that was sent
            late counts from when it should have been.
        """
        return asyncio.run(self._post_at(_request(self.kind, clip.read_bytes()), arrivals))

    async def _post_at(self, request: bytes, arrivals: list[float]) -> list[float]:
        idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

        async def post(at: float) -> float:
            while idle and idle[-1][0].at_eof():  # the server closes what is idle for long
                idle.pop()[1].close()
            if not idle:
                idle.append(await asyncio.open_connection("127.0.0.1", self.port))
            connection = idle.pop()
            reader, writer = connection
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200 "), head
            length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
            assert length is not None, head
            await reader.readexactly(int(length[1]))
            idle.append(connection)
            return 1000 * (time.perf_counter() - began - at)

        began = time.perf_counter() + 0.1
        posts = []
        for at in arrivals:
            await asyncio.sleep(began + at - time.perf_counter())
            posts.append(asyncio.create_task(post(at)))
        took_ms = await asyncio.gather(*posts)
        for _, writer in idle:
            writer.close()
        return took_ms

    def signal(self, sign: signal.Signals) -> None:
        """Send a signal to all of its processes; SIGSTOP pauses them, SIGCONT resumes them."""
        for pid in self._pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, sign)

    def cpu_ms(self) -> float:
        """CPU time that its processes have used, in ms."""
        total_s = 0.0
        for pid in self._pids():
            with contextlib.suppress(OSError):
                total_s += cpu_s(pid)
        return 1000 * total_s

    def memory_mib(self) -> float:
        """Memory of all its processes, pages that they share counted once (PSS)."""
        total = 0
        for pid in self._pids():
            with contextlib.suppress(OSError):
                text = Path(f"/proc/{pid}/smaps_rollup").read_text()
                total += int(re.findall(r"^Pss:\s+(\d+)", text, re.MULTILINE)[0])
        return total / 1024

    def _pids(self) -> list[int]:
        found = []
        for path in Path("/proc").iterdir():
            if path.name.isdigit():
                with contextlib.suppress(OSError):
                    if self._mark.encode() in (path / "environ").read_bytes().split(b"\0"):
                        found.append(int(path.name))
        return found


def _request(kind: Kind, data: bytes) -> bytes:
    """A whole POST of one WAV file, as upload.lua makes it."""
    if kind.raw is None:
        part = b'Content-Disposition: form-data; name="file"; filename="a.wav"\r\n'
        data = b"--b7d1\r\n" + part + b"Content-Type: audio/wav\r\n\r\n" + data
        data += b"\r\n--b7d1--\r\n"
    content_type = kind.raw or "multipart/form-data; boundary=b7d1"
    head = (
        f"POST {kind.path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {content_type}\r\n"
        f"Content-Length: {len(data)}\r\n\r\n"
    )
    return head.encode() + data
