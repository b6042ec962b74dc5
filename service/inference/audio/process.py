"""Decoding in another process, which can be killed: a call into a C library may never return.

The readers of libsndfile and FFmpeg run in child processes (decoder.py), started when the first
file needs one, at most one for each thread that decodes, and used again. A child gets the file as a
descriptor and answers with the header, blocks of samples and warnings, or with one of our errors.
It has a limit of CPU time that the kernel keeps: a child that spins dies of SIGPROF. One that waits
for ever is killed here.
"""

import atexit
import contextlib
import io
import json
import logging
import os
import select
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from ..errors import AudioError, DecoderUnavailableError, NoRoomError, check_abandoned
from .reader import decoder_died, decoder_stalled, descriptor_of

OPENING, HEADER, BLOCK, END, ERROR = b"OHBEX"
"""What a message of a child is; its first byte. OPENING comes before the library is called."""
MESSAGE_HEAD = struct.Struct("<BI")
"""Kind of a message, and how many bytes follow."""

STALL_S = 30.0
"""Seconds that a child may be silent. CPU time, which a busy machine does not inflate, ends a child
that works; this ends one that waits for ever."""

COMMAND = (sys.executable, "-P", "-m", f"{__package__}.decoder")
"""Starts a child, which gets its socket as standard input."""

log = logging.getLogger("nnpm")

_POLL_S = 0.2
_MAX_FILES = 2_000
"""Files that a child decodes before it is replaced, as C libraries leak on some damaged files."""
_ERRORS = {kind.__name__: kind for kind in AudioError.__subclasses__()}

# A child gets no more of the environment than it needs to start: no keys, no database.
_KEPT_VARIABLES = ("HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "PATH", "SYSTEMROOT", "TMPDIR")


class RemoteReader:
    """A :class:`~.reader.Reader` whose library runs in a child process.

    Args:
        file: seekable.
        row: number of its format in ``FORMATS``.
        track: number of the sound track to read; by default the one that the file prefers.

    Raises:
        AudioError: if the file cannot be read, or its decoding costs too much or ends the child.
        DecoderUnavailableError: if no child can be started.
        NoRoomError: if there is no room to hand the file over.
    """

    def __init__(self, file: BinaryIO, row: int, track: int | None = None) -> None:
        self._is_done = False
        with contextlib.ExitStack() as stack:
            self._begin(descriptor_of(file, stack), {"row": row, "track": track})
        self._warnings: list[str] = []
        kind, size = self._next()
        self._read_header(self._body(kind, size))

    def _read_header(self, body: bytes) -> None:
        header = json.loads(body)
        self.rate_hz: int = header["rate_hz"]
        self.num_channels: int = header["num_channels"]
        self.format: str = header["format"]
        self.stated_frames: int | None = header["stated_frames"]
        self.num_tracks: int = header["num_tracks"]

    def blocks(self) -> Iterator[npt.NDArray[np.float32]]:
        """Yield the audio in blocks; see :meth:`.reader.Reader.blocks`."""
        while not self._is_done:
            yield from self._block()

    def _block(self) -> Iterator[npt.NDArray[np.float32]]:
        """Read a message: yield its audio, if it is audio, or note that it is the last."""
        kind, size = self._next()
        if kind == BLOCK:
            block = np.empty(size // 4, np.float32)
            self._receive(block.view(np.uint8).data)
            yield block.reshape(-1, self.num_channels)
            return
        body = self._body(kind, size)
        if kind == HEADER:
            self._read_header(body)
            return
        self._warnings = json.loads(body)
        self._give_back()

    def warnings(self, num_frames: int, peak: float) -> Iterator[str]:  # noqa: ARG002
        """Yield sentences for the user; see :meth:`.reader.Reader.warnings`."""
        yield from self._warnings

    def close(self) -> None:
        """End the child if it is still at work."""
        if not self._is_done:
            self._child.kill()

    def _give_back(self) -> None:
        self._is_done = True
        _children.put(self._child)

    def _begin(self, descriptor: int, request: dict[str, int | None]) -> None:
        """Send a file to a child that is alive."""
        while True:
            self._child = child = _children.take()
            try:
                child.request(request, descriptor)
                kind, size = self._next()
            except (_GoneError, OSError) as error:
                child.kill()
                if child.is_new:
                    raise _children.failed(error) from error
                continue  # it ended while it was idle
            if kind == OPENING:
                return
            self._body(kind, size)

    def _next(self) -> tuple[int, int]:
        head = bytearray(MESSAGE_HEAD.size)
        self._receive(memoryview(head))
        kind, size = MESSAGE_HEAD.unpack(head)
        return kind, size

    def _body(self, kind: int, size: int) -> bytes:
        """The rest of a message; raises the error that it may hold."""
        body = bytearray(size)
        self._receive(memoryview(body))
        if kind == ERROR:
            self._give_back()
            name, text = json.loads(body)
            raise _ERRORS[name](text)
        return bytes(body)

    def _receive(self, buffer: memoryview) -> None:
        """Fill the buffer; what goes wrong ends the child, and is an error of the file."""
        try:
            self._child.receive(buffer)
        except _GoneError:
            if not self._child.has_begun:
                raise
            raise decoder_died(self._child.kill()) from None
        except BaseException:
            self._child.kill()
            raise


class RemoteStream(RemoteReader):
    """Audio in a container that arrives piece by piece; its ``rate_hz`` is 0 until its header has.

    Args:
        row: number of the format in ``FORMATS``.

    Raises:
        DecoderUnavailableError: if no child can be started.
    """

    def __init__(self, row: int) -> None:
        self._is_done = False
        self.rate_hz = 0
        end, self._pipe = os.pipe()
        try:
            self._begin(end, {"row": row, "track": None, "live": 1})
        except BaseException:
            self._close_pipe()
            raise
        finally:
            os.close(end)
        os.set_blocking(self._pipe, False)

    def push(self, data: bytes) -> Iterator[npt.NDArray[np.float32]]:
        """Hand a piece over, and yield the blocks of audio that are decoded by now.

        Raises:
            AudioError: if the audio cannot be decoded, or the child does not read.
        """
        rest, quiet_since_s, poll = memoryview(data), time.monotonic(), select.poll()
        poll.register(self._child.fileno(), select.POLLIN)
        poll.register(self._pipe, select.POLLOUT)
        while not self._is_done:
            if not rest:
                poll.modify(self._pipe, 0)
            ready = dict(poll.poll(int(1000 * _POLL_S) if rest else 0))
            if self._child.fileno() in ready:
                yield from self._block()
            elif rest and self._pipe in ready:
                with contextlib.suppress(BrokenPipeError):  # it sends why, soon
                    rest = rest[os.write(self._pipe, rest[: select.PIPE_BUF]) :]
            elif not rest:
                return
            elif time.monotonic() - quiet_since_s > STALL_S:
                raise decoder_stalled(STALL_S)
            else:
                check_abandoned()
                continue
            quiet_since_s = time.monotonic()

    def blocks(self) -> Iterator[npt.NDArray[np.float32]]:
        """Yield the rest of the audio: there are no more pieces."""
        self._close_pipe()
        yield from super().blocks()

    def close(self) -> None:
        """End the child if it is still at work."""
        self._close_pipe()
        super().close()

    def _give_back(self) -> None:
        # there may be many streams at once, and no more children are kept than threads
        self._is_done = True
        self._child.kill()

    def _close_pipe(self) -> None:
        pipe, self._pipe = self._pipe, -1
        if pipe >= 0:
            os.close(pipe)


class _GoneError(Exception):
    """The child has ended."""


class _Child:
    """One decoder process.

    Raises:
        OSError: if it cannot be started.
    """

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                self._process = subprocess.Popen(  # noqa: S603 - our own command
                    COMMAND,
                    stdin=theirs.fileno(),
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    env=_environment(),
                )
        except BaseException:
            ours.close()
            raise
        ours.settimeout(_POLL_S)
        self._socket = ours
        self.num_files = 0
        self.has_begun = False

    @property
    def is_new(self) -> bool:
        """Whether it has not yet worked on a file."""
        return self.num_files <= 1

    @property
    def is_worn(self) -> bool:
        """Whether it has worked on so many files that another should follow."""
        return self.num_files >= _MAX_FILES

    def fileno(self) -> int:
        """Descriptor of the socket that its messages come from."""
        return self._socket.fileno()

    def request(self, request: dict[str, Any], descriptor: int) -> None:
        """Hand a file over."""
        self.num_files += 1
        self.has_begun = False
        self._silent_since_s = time.monotonic()
        socket.send_fds(self._socket, [json.dumps(request).encode()], [descriptor])

    def receive(self, buffer: memoryview) -> None:
        """Fill the buffer.

        Raises:
            _GoneError: if the child ends before.
            CostlyAudioError: if it is silent for too long.
        """
        while buffer:
            try:
                num_bytes = self._socket.recv_into(buffer)
            except TimeoutError:
                check_abandoned()
                if time.monotonic() - self._silent_since_s > STALL_S:
                    raise decoder_stalled(STALL_S) from None
                continue
            except OSError as error:
                raise _GoneError from error
            if num_bytes == 0:
                raise _GoneError
            self._silent_since_s = time.monotonic()
            buffer = buffer[num_bytes:]
            self.has_begun = True

    def kill(self) -> int:
        """End it, and return its exit status."""
        self._socket.close()
        self._process.kill()  # it may have ended of itself: then its own status stays
        status: int = self._process.wait()
        return status

    def forget(self) -> None:
        """Close the socket only: the process is that of another one."""
        self._socket.close()
        self._process.returncode = 0  # or its finalizer would warn


class _Children:
    """The idle children of this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: list[_Child] = []
        self._obstacle: str | None = None

    def take(self) -> _Child:
        """Take the child used last, or start one."""
        with self._lock:
            if self._idle:
                return self._idle.pop()
        try:
            return _Child()
        except OSError as error:
            raise self.failed(error) from error

    def put(self, child: _Child) -> None:
        """Take one back that has done its work."""
        self._obstacle = None
        if child.is_worn:
            child.kill()
            return
        with self._lock:
            self._idle.append(child)

    def failed(self, error: Exception) -> DecoderUnavailableError:
        """Note that no child can be started, and make the error that says so."""
        reason = getattr(error, "strerror", None) or "it ended at once"
        self._obstacle = f"The process that decodes audio cannot be started: {reason}."
        return DecoderUnavailableError(self._obstacle)

    def obstacle(self) -> str | None:
        """Try to start a child if the last try failed; return a sentence if that fails again."""
        if self._obstacle is not None:
            with contextlib.suppress(AudioError, DecoderUnavailableError, NoRoomError):
                RemoteReader(io.BytesIO(b"x"), -1)
        return self._obstacle

    def end(self) -> None:
        """End all that are idle."""
        with self._lock:
            idle, self._idle = self._idle, []
        for child in idle:
            child.kill()

    def after_fork(self) -> None:
        """Leave the children to the process that was forked."""
        self._lock = threading.Lock()
        idle, self._idle = self._idle, []
        for child in idle:
            child.forget()


_children = _Children()
atexit.register(lambda: _children.end())
os.register_at_fork(after_in_child=lambda: _children.after_fork())


def decoder_obstacle() -> str | None:
    """Say why no decoder process can be started, if the last try failed; it is tried again."""
    return _children.obstacle()


def _environment() -> dict[str, str]:
    kept = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
    # one thread is enough, and each of more would reserve memory
    return kept | {
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "OPENBLAS_NUM_THREADS": "1",
    }
