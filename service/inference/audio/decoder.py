"""The process that decodes: gets files over a socket, and sends their samples back.

``python -m nnpm.service.inference.audio.decoder``, with the socket as standard input; process.py
starts it. It is made to be killed: it has nothing that is not in the file before it, writes no
file, and asks the kernel to end it when a library computes for too long.
"""

import contextlib
import io
import json
import os
import resource
import signal
import socket
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np

from ..errors import AudioError, DamagedAudioError, NotAudioError
from .ffmpeg import MediaReader, load_av
from .formats import FORMATS, Format, supported_formats
from .process import BLOCK, END, ERROR, HEADER, MESSAGE_HEAD, OPENING
from .reader import DecodeBudget, Reader
from .sndfile import open_sound
from .wav import parse

OPEN_CPU_S = 0.25
"""CPU seconds until the first block, and from block to block, of a small file."""
_CPU_S_PER_BYTE = 0.04 / (1 << 20)
"""Added for each byte of the file. A gigabyte of tags or of an index may take its time."""

_IN_MEMORY_BYTES = 4 << 20
_MPEG_AUDIO = (0x50, 0x55)
_REQUEST_BYTES = 65_536
_DATA_BYTES = 1 << 29


def main() -> None:
    """Decode one file after the other, until the other end closes."""
    _restrain()
    connection = socket.socket(fileno=0)
    while True:
        request, descriptors, *_ = socket.recv_fds(connection, _REQUEST_BYTES, 1)
        if not request:
            os._exit(0)
        with os.fdopen(descriptors[0], "rb") as file, contextlib.suppress(BrokenPipeError):
            serve(connection, file, **json.loads(request))


def serve(
    connection: socket.socket, file: BinaryIO, row: int, track: int | None, live: int = 0
) -> None:
    """Decode one file, and send what comes of it."""
    try:
        for kind, body in messages(file if live else _in_memory(file), row, track, live=bool(live)):
            _send(connection, kind, body)
    except AudioError as error:
        _send(connection, ERROR, _json([type(error).__name__, str(error)]))
    finally:
        _allow(0)


def open_reader(
    file: BinaryIO, row: Format, budget: DecodeBudget, track: int | None = None
) -> Reader:
    """Open a file with the library for its format, or else with the other.

    Raises:
        AudioError: if it cannot be opened.
    """
    if row.needs_media:
        return MediaReader(file, row, budget, track=track)
    unsupported = NotAudioError(f"Unsupported audio format; send {supported_formats()}.")
    codec, bounds = _codec(file, row)
    try:
        reader = open_sound(file, budget, unsupported, bounds)
    except NotAudioError:
        if not row.media_codecs:
            raise
    else:
        reader.format = row.name if bounds is not None else reader.format
        return reader
    _allow(0)
    if load_av() is None and codec is None:
        raise unsupported
    _allow(_gap_s(file))
    return MediaReader(file, row, budget, track=track, codec=codec)


def _codec(file: BinaryIO, row: Format) -> tuple[str | None, tuple[int, int] | None]:
    """What a container says of its codec, for messages; and where its MP3 stream is, if any."""
    if row.name == "WAV":
        layout = parse(file)
        parts = layout.parts
        bounds = (parts[0][0], sum(parts[-1])) if layout.codec in _MPEG_AUDIO else None
        return f"codec 0x{layout.codec:04x}", bounds
    file.seek(0)
    head = file.read(64)
    if row.demuxer == "caf" and head[8:12] == b"desc":
        return f"codec {head[28:32].decode('ascii', 'replace').strip()}", None
    if head[28:36] == b"Speex   ":
        return "Speex", None
    return None, None


def _gap_s(file: BinaryIO) -> float:
    """CPU seconds that a file may take from one block of samples to the next."""
    return OPEN_CPU_S + _CPU_S_PER_BYTE * file.seek(0, io.SEEK_END)


def messages(
    file: BinaryIO, row: int, track: int | None = None, *, live: bool = False
) -> Iterator[tuple[int, memoryview]]:
    """Decode one file.

    Args:
        file: seekable.
        row: number of its format in ``FORMATS``; -1 asks whether the process works.
        track: number of the sound track to read; by default the one that the file prefers.
        live: the file is a pipe.

    Yields:
        Kind and body of each message: OPENING, HEADER, blocks, END.

    Raises:
        AudioError: if it cannot be decoded.
    """
    if row < 0:
        raise NotAudioError("The process works.")
    known = FORMATS[row]
    if known.needs_media:
        load_av()  # takes longer than a file may
    yield OPENING, memoryview(b"")
    gap_s = OPEN_CPU_S if live else _gap_s(file)
    _allow(gap_s)
    budget = DecodeBudget()
    try:
        with contextlib.closing(
            MediaReader(file, known, budget, live=True)
            if live
            else open_reader(file, known, budget, track)
        ) as reader:
            yield (
                HEADER,
                _json(
                    {
                        "rate_hz": reader.rate_hz,
                        "num_channels": reader.num_channels,
                        "format": reader.format,
                        "stated_frames": reader.stated_frames,
                        "num_tracks": reader.num_tracks,
                    }
                ),
            )
            num_frames, peak = 0, 0.0
            for block in reader.blocks():
                _allow(min(gap_s, max(0.1, budget.left_s)))
                budget.add_audio(len(block) / max(1, reader.rate_hz))
                budget.check()
                num_frames += len(block)
                peak = max(peak, float(block.max()), -float(block.min()))
                yield BLOCK, np.ascontiguousarray(block, np.float32).data.cast("B")
            yield END, _json(list(reader.warnings(num_frames, peak)))
    except AudioError:
        budget.check()  # if it is exceeded, the file only seemed to end: this is the cause
        raise
    except MemoryError:
        raise DamagedAudioError(
            f"The file is damaged: decoding it needs more than {_DATA_BYTES >> 20} MiB of memory; "
            "export the audio again."
        ) from None


def _json(value: object) -> memoryview:
    return memoryview(json.dumps(value).encode())


def _send(connection: socket.socket, kind: int, body: memoryview) -> None:
    head = memoryview(MESSAGE_HEAD.pack(kind, len(body)))
    sent = connection.sendmsg([head, body])
    if sent < len(head) + len(body):
        connection.sendall((bytes(head) + bytes(body))[sent:])


def _in_memory(file: BinaryIO) -> BinaryIO:
    """A small file as bytes: a library reads it in many small pieces."""
    size = file.seek(0, io.SEEK_END)
    if size > _IN_MEMORY_BYTES:
        return file
    file.seek(0)
    return io.BytesIO(file.read())


def _allow(cpu_s: float) -> None:
    """Let the kernel end this process after so much more CPU time; 0 takes the limit away."""
    signal.setitimer(signal.ITIMER_PROF, cpu_s)


def _restrain() -> None:
    """Take away what decoding does not need."""
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    for ignored in (signal.SIGINT, signal.SIGTERM):  # of a group: the other end decides
        signal.signal(ignored, signal.SIG_IGN)
    for limit, most in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_DATA, _DATA_BYTES),
    ):
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(limit, (most, most))


if __name__ == "__main__":
    main()
