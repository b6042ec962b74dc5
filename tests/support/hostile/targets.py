"""The calls that are fuzzed: each may refuse its input with one of our errors, nothing else."""

import asyncio
import contextlib
import io
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from unittest.mock import patch

from starlette.requests import Request
from starlette.types import Message

from nnpm.service.api.adaptation_form import AdaptForm
from nnpm.service.api.errors import BadFormError, UnsupportedBodyError
from nnpm.service.api.forms import audio_body
from nnpm.service.inference.audio import decoder as decoding
from nnpm.service.inference.audio.formats import format_of
from nnpm.service.inference.audio.reader import DecodeBudget
from nnpm.service.inference.errors import AudioError
from nnpm.service.jobs.archive import IntakeLimits, unpack
from nnpm.service.jobs.errors import IntakeError
from tests.support.hostile.archives import archives
from tests.support.hostile.bending import repeated, truncated
from tests.support.hostile.bombs import bombs
from tests.support.hostile.judge import CPU_S, verdict
from tests.support.hostile.seeds import seeds

LIMITS = IntakeLimits(max_members=100, max_unpacked_bytes=1 << 22, max_ratio=200)
LARGEST_SEED_BYTES = 50_000


class FaultError(AssertionError):
    """A fault that no refusal excuses."""


def decoder(data: bytes) -> None:
    """Decode, mixed and split; what a library reads, in a process of its own."""
    verdict(data)


def opener(data: bytes) -> None:
    """Open and read with the libraries in this process: what hangs or crashes ends the fuzzing.

    Only here does the fuzzing see which code an input reaches.
    """
    file = io.BytesIO(data)
    row = format_of(file)
    if row is None:
        return
    budget = DecodeBudget()
    without_limit = patch.object(decoding, "_allow", lambda _: None)  # it would end this process
    with contextlib.suppress(AudioError), without_limit:
        reader = decoding.open_reader(file, row, budget)
        with contextlib.closing(reader):
            for block in reader.blocks():
                budget.add_audio(len(block) / max(1, reader.rate_hz))
                budget.check()


def archive(data: bytes) -> None:
    """Unpack; nothing may be written but plain files in the folder."""
    with tempfile.TemporaryDirectory() as home:
        packed, into = Path(home, "packed"), Path(home, "into")
        packed.write_bytes(data)
        with contextlib.suppress(IntakeError):
            unpack(packed, into, LIMITS)
        if {path.name for path in Path(home).iterdir()} - {"packed", "into"}:
            raise FaultError("a file outside of the folder")
        _check_files(into)


def form(data: bytes) -> None:
    """Take the form of POST /adapt in two pieces, and that of POST /predict in three."""
    with tempfile.TemporaryDirectory() as home:
        into = Path(home, "into")
        into.mkdir()
        half = len(data) // 2
        taken = AdaptForm("multipart/form-data; boundary=b", into, max_files=5)
        with contextlib.suppress(BadFormError):
            taken.write(data[:half])
            taken.write(data[half:])
            taken.finish()
        taken.close()
        if [path.name for path in Path(home).iterdir()] != ["into"]:
            raise FaultError("a file outside of the folder")
        _check_files(into)
    asyncio.run(_predict_form(data))


async def _predict_form(data: bytes) -> None:
    pieces = [data[:10], data[10 : len(data) // 2], data[len(data) // 2 :]]

    async def receive() -> Message:
        piece = pieces.pop(0)
        return {"type": "http.request", "body": piece, "more_body": bool(pieces)}

    headers = [(b"content-type", b"multipart/form-data; boundary=b")]
    scope = {"type": "http", "method": "POST", "headers": headers, "app": None}
    request = Request(scope, receive)
    with contextlib.suppress(BadFormError, UnsupportedBodyError):
        async with audio_body(request) as upload:
            upload.file.read()


def _check_files(folder: Path) -> None:
    total = 0
    for path in folder.rglob("*"):
        if path.is_symlink() or not (path.is_dir() or path.is_file()):
            raise FaultError(f"{path.name!r} is no plain file")
        total += path.stat().st_size if path.is_file() else 0
    if total > LIMITS.max_unpacked_bytes:
        raise FaultError(f"{total} bytes")


def timed(target: Callable[[bytes], None], data: bytes) -> None:
    """Run a target; taking too long is a fault."""
    started_s = time.thread_time()
    target(data)
    if (took_s := time.thread_time() - started_s) > CPU_S:
        raise FaultError(f"{took_s:.1f} s of CPU")


def _clips() -> Iterator[bytes]:
    for clip in seeds().values():
        yield clip
        yield from (data for _, data in chain(truncated(clip), repeated(clip)))
    yield from (make() for make in bombs().values())


def _forms() -> Iterator[bytes]:
    wav = seeds()["WAV PCM_16"]
    for name in (
        'name="file"; filename="a.wav"',
        'name="files"; filename="../a.wav"',
        'name="archive"; filename="a.zip"',
        'name="language"',
        "name*=utf-8''x",
        'name="files"; filename="a\\"b.wav"',
        'name="files"; filename="\x00.wav"',
    ):
        head = f"--b\r\nContent-Disposition: form-data; {name}\r\n"
        for more in ("", "Content-Type: audio/wav\r\n", "Content-Transfer-Encoding: base64\r\n"):
            part = (head + more + "\r\n").encode() + wav[:200] + b"\r\n"
            yield part + b"--b--\r\n"
            yield part * 3 + b"--b--"


TARGETS: dict[str, tuple[Callable[[bytes], None], Callable[[], Iterator[bytes]]]] = {
    "decoder": (decoder, _clips),
    "opener": (opener, _clips),
    "archive": (archive, lambda: (make() for make in archives().values())),
    "form": (form, _forms),
}
"""By name: the call, and the seeds that its fuzzing starts from."""
