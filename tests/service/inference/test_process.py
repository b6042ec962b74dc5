"""Decoding in processes that can be killed: by spinning, crashing and waiting children."""

import contextlib
import io
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from nnpm.service.inference.audio import process
from nnpm.service.inference.audio.decode import decode
from nnpm.service.inference.errors import (
    AbandonedError,
    AudioError,
    CostlyAudioError,
    DamagedAudioError,
    DecoderUnavailableError,
    abandonable,
)
from tests.support.hostile.spinning import spinning_wav
from tests.support.sounds import encode, speechlike

FLAC = encode(speechlike(), container="FLAC")
SPIN = "import re; re.match('(a+)+b', 'a' * 60)"  # in C, with the lock of the interpreter
START_S = 10.0
"""Seconds that a loaded machine may need to start a process."""

Install = Callable[[str], None]


@pytest.fixture(autouse=True)
def _children(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Each test has children of its own, and leaves none."""
    children = process._Children()
    monkeypatch.setattr(process, "_children", children)
    yield
    children.end()


@pytest.fixture
def instead(monkeypatch: pytest.MonkeyPatch) -> Install:
    """Let children run a piece of code in place of opening a file."""

    def install(code: str) -> None:
        code = (
            "from nnpm.service.inference.audio import decoder\n"
            f"def open_reader(*_):\n    {code}\n"
            "decoder.open_reader = open_reader\ndecoder.main()"
        )
        monkeypatch.setattr(process, "COMMAND", (sys.executable, "-P", "-c", code))

    return install


def idle() -> list[int]:
    return [child._process.pid for child in process._children._idle]


def test_a_child_is_used_again() -> None:
    decode(FLAC)
    (pid,) = idle()
    for _ in range(3):
        decode(FLAC)
        with pytest.raises(AudioError):
            decode(FLAC[:100])
    assert idle() == [pid]


def test_a_call_that_spins_is_ended_by_its_cpu_time(instead: Install) -> None:
    instead(SPIN)
    started = time.monotonic()
    with pytest.raises(CostlyAudioError, match="took too long without coming to a sample"):
        decode(FLAC)
    assert time.monotonic() - started < START_S
    assert idle() == []


def test_a_call_that_waits_is_ended_by_the_clock(
    instead: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    instead("import time; time.sleep(1000)")
    monkeypatch.setattr(process, "STALL_S", 0.5)
    with pytest.raises(CostlyAudioError, match=r"no sample within 0\.5 s"):
        decode(FLAC)


@pytest.mark.parametrize(
    "code",
    ["import os; os.abort()", "import os; os._exit(0)", "raise ValueError", "bytes(1 << 34)"],
)
def test_a_crash_is_an_error_of_the_file(instead: Install, code: str) -> None:
    instead(code)
    for _ in range(2):
        with pytest.raises(DamagedAudioError, match="The file is damaged"):
            decode(FLAC)


def test_a_file_that_libsndfile_never_finishes_is_refused() -> None:
    with contextlib.suppress(AudioError):  # a later version may well read it
        decode(spinning_wav())
    assert decode(FLAC).info.duration_s == 1.5


def test_others_decode_meanwhile(instead: Install) -> None:
    instead(f"if _[0].seek(0, 2) > 500: raise ValueError\n    {SPIN}")
    with ThreadPoolExecutor(2) as pool:
        spinning = pool.submit(decode, FLAC[:500])
        for _ in range(10):
            with pytest.raises(DamagedAudioError):
                decode(FLAC)
        with pytest.raises(CostlyAudioError):
            spinning.result()


def test_a_child_that_ended_meanwhile_is_replaced() -> None:
    decode(FLAC)
    (pid,) = idle()
    os.kill(pid, signal.SIGKILL)
    assert decode(FLAC).info.duration_s == 1.5
    assert len(idle()) == 1
    assert idle() != [pid]


def test_a_reader_that_is_closed_early_ends_its_child() -> None:
    silence = np.zeros(3_000_000)
    silence[0] = np.nan
    with pytest.raises(DamagedAudioError, match="not a finite number"):
        decode(encode(silence, container="AU", subtype="FLOAT"))
    assert idle() == []


def test_a_child_is_replaced_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "_MAX_FILES", 2)
    decode(FLAC)
    assert len(idle()) == 1
    decode(FLAC)
    assert idle() == []


def test_threads_have_a_child_each_and_no_more() -> None:
    with ThreadPoolExecutor(3) as pool:
        lengths = list(pool.map(lambda _: len(decode(FLAC).waveforms[0].samples), range(60)))
    assert lengths == [24_000] * 60
    assert 1 <= len(idle()) <= 3


def test_no_child_can_be_started(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(process, "COMMAND", (str(tmp_path / "missing"),))
    with pytest.raises(DecoderUnavailableError, match="cannot be started: No such file"):
        decode(FLAC)
    assert decode(encode(speechlike())).info.format == "WAV"  # needs no child
    assert "cannot be started" in (process.decoder_obstacle() or "")
    monkeypatch.setattr(process, "COMMAND", (sys.executable, "-c", ""))
    with pytest.raises(DecoderUnavailableError, match="it ended at once"):
        decode(FLAC)
    monkeypatch.undo()
    process._children._obstacle = "as above"
    assert process.decoder_obstacle() is None


def test_a_child_gets_no_secrets(instead: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NNPM_DATABASE_URL", "postgresql://secret")
    monkeypatch.setenv("NNPM_TEST_KEY", "secret")
    instead("import os; 'secret' in str(os.environ) or os.listdir('/proc/self/fd')[6:] or re.x")
    with pytest.raises(DamagedAudioError):
        decode(FLAC)
    instead("import os; os.kill(os.getpid(), 15); " + SPIN)
    with pytest.raises(CostlyAudioError):  # SIGTERM, which a group gets, is left to the parent
        decode(FLAC)


class Opaque(io.RawIOBase):
    """A file without a descriptor."""

    def __init__(self, data: bytes) -> None:
        self._data = io.BytesIO(data)

    def read(self, size: int = -1) -> bytes:
        return self._data.read(size)

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._data.seek(offset, whence)

    def tell(self) -> int:
        return self._data.tell()


@pytest.mark.parametrize("duration_s", [1, 60])
def test_any_file_is_handed_over(tmp_path: Path, duration_s: int) -> None:
    clip = encode(
        np.random.default_rng(0).uniform(-0.5, 0.5, 16_000 * duration_s), container="FLAC"
    )
    path = tmp_path / "clip.flac"
    path.write_bytes(clip)
    for source in (clip, io.BytesIO(clip), path, Opaque(clip)):
        assert decode(source).info.duration_s == duration_s


@pytest.mark.parametrize("doing", ["idle", "spinning"])
def test_a_child_ends_with_its_parent(tmp_path: Path, doing: str) -> None:
    (tmp_path / "clip.flac").write_bytes(FLAC)
    code = (
        "import os, pathlib, sys\n"
        "from nnpm.service.inference.audio import process\n"
        "from nnpm.service.inference.audio.decode import decode\n"
        "decode(pathlib.Path(sys.argv[1]))\n"
        "child = process._children.take()\n"
        "print(child._process.pid, flush=True)\n"
    )
    if doing == "spinning":
        code += "child.request({'row': -2}, os.open(sys.argv[1], os.O_RDONLY))\n"
    code += "os.kill(os.getpid(), 9)"
    parent = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "clip.flac"],
        stdout=subprocess.PIPE, check=False, env={**os.environ, "PYTHONPATH": ":".join(sys.path)},
    )  # fmt: skip
    pid = int(parent.stdout)
    deadline = time.monotonic() + START_S
    while Path(f"/proc/{pid}/exe").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not Path(f"/proc/{pid}/exe").exists()


def test_a_fork_leaves_the_children_alone() -> None:
    decode(FLAC)
    (pid,) = idle()
    child = os.fork()
    if child == 0:
        os._exit(0 if not idle() else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    decode(FLAC)
    assert idle() == [pid]


def test_no_thread_and_no_descriptor_is_left() -> None:
    decode(FLAC)
    before = threading.active_count(), len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(5):
        decode(FLAC)
        with contextlib.suppress(AudioError):
            decode(FLAC[:200])
    assert (threading.active_count(), len(list(Path("/proc/self/fd").iterdir()))) == before


def test_work_that_was_abandoned_ends_early(instead: Install) -> None:
    with abandonable() as abandoned:
        decode(FLAC)
        abandoned.set()
        for clip in (FLAC, encode(speechlike())):
            with pytest.raises(AbandonedError):
                decode(clip)
        abandoned.clear()
        instead("import time; time.sleep(1000)")
        for child in process._children._idle:
            child.kill()
        timer = threading.Timer(0.1, abandoned.set)
        timer.start()
        with pytest.raises(AbandonedError):
            decode(FLAC)
        timer.join()
    assert idle() == []
    decode(encode(speechlike()))  # nothing of it is left
