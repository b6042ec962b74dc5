"""Count the files that a request or an adaptation passes, and the calls between them.

A hop is a call of a function in one of our files from another of our files, whatever libraries
stand between the two. One warm POST /predict of a WAV of three seconds is sent to the service in
this process, without a network; the warm-up requests before it are not counted. The adaptation
goes from POST /adapt with a folder of synthetic clips to the version that was promoted, in the
service and in its child process; how often its worker looks for work depends on the clock, so of
it only the files are counted.

    python scripts/hops.py             # the counts; the adaptation needs the extra train
    python scripts/hops.py --list      # every file and every hop
"""

import argparse
import asyncio
import contextlib
import inspect
import io
import json
import shutil
import sys
import tempfile
import threading
import wave
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import numpy as np
from starlette.types import ASGIApp, Message

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("service", "training")
DURATION_S, RATE_HZ = 3, 16_000
NUM_CLIPS = 24
WATCHER = "nnpm-registry"
"""The thread that looks for new versions every second, which is no part of a request."""

SUSPENDS = inspect.CO_COROUTINE | inspect.CO_GENERATOR | inspect.CO_ASYNC_GENERATOR


class HopCounter:
    """Notes which of our functions call which, in all threads that start after it was made."""

    def __init__(self) -> None:
        self.files: set[str] = set()
        self.hops: Counter[tuple[str, str]] = Counter()
        self._names: dict[CodeType, str | None] = {}
        self._suspended: set[FrameType] = set()
        self._counting = False
        threading.setprofile(self._on_event)
        sys.setprofile(self._on_event)

    @contextlib.contextmanager
    def counting(self) -> Iterator[None]:
        """Count what is called meanwhile."""
        self._counting = True
        try:
            yield
        finally:
            self._counting = False
            self._suspended.clear()

    def _on_event(self, frame: FrameType, event: str, _: object) -> None:
        if not self._counting or event != "call" or threading.current_thread().name == WATCHER:
            return
        if not frame.f_code.co_flags & inspect.CO_OPTIMIZED:  # the body of a module or a class
            return
        callee = self._file_of(frame.f_code)
        if callee is None:
            return
        if frame.f_code.co_flags & SUSPENDS:
            if frame in self._suspended:  # resumed, not called
                return
            self._suspended.add(frame)
        self.files.add(callee)
        caller = self._caller_of(frame)
        if caller is not None and caller != callee:
            self.hops[caller, callee] += 1

    def _caller_of(self, frame: FrameType) -> str | None:
        above = frame.f_back
        while above is not None:
            if (name := self._file_of(above.f_code)) is not None:
                return name
            above = above.f_back
        return None

    def _file_of(self, code: CodeType) -> str | None:
        if code not in self._names:
            path = Path(code.co_filename)
            ours = path.is_absolute() and path.resolve().is_relative_to(ROOT)
            name = path.resolve().relative_to(ROOT).as_posix() if ours else ""
            self._names[code] = name if name.startswith(PACKAGES) else None
        return self._names[code]


def recording() -> bytes:
    """Make a WAV of three seconds that speech detection takes for speech."""
    t = np.arange(DURATION_S * RATE_HZ) / RATE_HZ
    buzz = sum(np.sin(2 * np.pi * 130 * k * t) / k for k in range(1, 20))
    syllables = np.clip(np.sin(2 * np.pi * 3.1 * t), 0, None) ** 2
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(RATE_HZ)
        out.writeframes((3000 * buzz * syllables).astype("<i2").tobytes())
    return file.getvalue()


def as_form(wav: bytes) -> tuple[bytes, bytes]:
    """Write a form with one file; return it and its Content-Type."""
    head = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
    return head + wav + b"\r\n--x--\r\n", b"multipart/form-data; boundary=x"


async def post(app: ASGIApp, path: str, body: bytes, content_type: bytes) -> tuple[int, bytes]:
    """Send one request to an app of this process; return status and body of the answer."""
    messages = iter([{"type": "http.request", "body": body, "more_body": False}])
    status, answer = 0, b""

    async def receive() -> Message:
        if (message := next(messages, None)) is None:
            await asyncio.Event().wait()  # the client stays: a disconnect would end the work
        assert message is not None
        return message

    async def send(message: Message) -> None:
        nonlocal status, answer
        status = message.get("status", status)
        answer += message.get("body", b"")

    headers = [
        (b"host", b"localhost"),
        (b"content-type", content_type),
        (b"content-length", str(len(body)).encode()),
    ]
    scope: dict[str, Any] = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": headers,
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 8000),
        "state": {},
    }
    await app(scope, receive, send)
    return status, answer


async def predict(counter: HopCounter, body: bytes, content_type: bytes) -> None:
    """Count one POST /predict after a few that warm everything up."""
    from nnpm.service.api.app import create_app
    from nnpm.service.settings import Settings

    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(
            models=ROOT / "models",
            jobs=Path(folder) / "jobs",
            database_url=f"sqlite:///{folder}/nnpm.db",
            adapt_workers=0,
            workers=1,
        )
        ready = asyncio.Event()
        app = create_app(settings, on_ready=ready.set)
        async with app.router.lifespan_context(app):
            await ready.wait()
            for _ in range(3):
                status, answer = await post(app, "/predict", body, content_type)
                assert status == 200, answer
            with counter.counting():
                await post(app, "/predict", body, content_type)


async def adapt(counter: HopCounter) -> None:
    """Count an adaptation from its folder to the promoted version."""
    import soundfile

    from nnpm.service.api.app import create_app
    from nnpm.service.settings import Settings
    from nnpm.training.bundle.parts import voice

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "clips").mkdir()
        for clip in range(NUM_CLIPS):
            sound = voice(100.0 + 10 * clip, 1.0 + 0.05 * clip, seed=clip)
            soundfile.write(folder / "clips" / f"{clip}.wav", sound, RATE_HZ)
        shutil.copytree(ROOT / "models", folder / "models")
        settings = Settings(
            models=folder / "models",
            jobs=folder / "jobs",
            database_url=f"sqlite:///{folder}/nnpm.db",
            adapt_workers=1,
            adapt_roots=(folder,),
        )
        child = (sys.executable, __file__, "--child", str(folder / "child.json"))
        ready = asyncio.Event()
        app = create_app(settings, on_ready=ready.set, adapt_command=child)
        async with app.router.lifespan_context(app):
            await ready.wait()
            request = {
                "folder": str(folder / "clips"),
                "language": "ur",
                "force": True,
            }
            with counter.counting():
                status, answer = await post(
                    app, "/adapt", json.dumps(request).encode(), b"application/json"
                )
                assert status == 202, answer
                jobs = app.state.services.jobs
                for _ in range(1200):
                    job = await asyncio.to_thread(jobs.store.get, json.loads(answer)["id"])
                    if job.ended:
                        break
                    await asyncio.sleep(0.1)
                assert job.version is not None, job
                promotion = json.dumps({"version": job.version}).encode()
                status, answer = await post(
                    app, "/models/default/promote", promotion, b"application/json"
                )
                assert status == 200, answer
        counter.files.update(json.loads((folder / "child.json").read_text()))


def run_child(out: Path, folder: str) -> None:
    """Work on one job as the service's child does, and write which files it passed."""
    from nnpm.training.adaptation import command, job  # noqa: F401 - so that no import is counted
    from nnpm.training.cli import main as training

    counter = HopCounter()
    with counter.counting():
        training(["adapt", "--job", folder])
    out.write_text(json.dumps(sorted(counter.files)))


def report(name: str, counter: HopCounter, *, everything: bool) -> None:
    """Print what was counted."""
    print(f"{name}: {len(counter.files)} files, {counter.hops.total()} hops")
    if everything:
        for path in sorted(counter.files):
            print(f"  {path}")
        for (caller, callee), count in sorted(counter.hops.items()):
            print(f"  {count:3d}  {caller} -> {callee}")


def main() -> None:
    """Measure both ways to send a recording, and an adaptation."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--list", action="store_true", help="print every file and every hop")
    parser.add_argument("--child", nargs=2, metavar=("OUT", "JOB"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        run_child(Path(options.child[0]), options.child[1])
        return
    wav = recording()
    journeys: dict[str, Callable[[HopCounter], Any]] = {
        "POST /predict, raw": lambda counter: predict(counter, wav, b"audio/wav"),
        "POST /predict, multipart": lambda counter: predict(counter, *as_form(wav)),
        "a folder to a promoted version": adapt,
    }
    for name, journey in journeys.items():
        counter = HopCounter()
        asyncio.run(journey(counter))
        report(name, counter, everything=options.list)


if __name__ == "__main__":
    main()
