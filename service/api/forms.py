"""Bodies that carry audio, received into temporary files: a form, or the audio itself.

``audio_body`` receives the one recording of POST /predict. ``BatchForm`` receives many, and
``Form`` is what it shares with the form of POST /adapt: a form that is written to disk while it
comes. Starlette's own forms keep one open file per part until the end, and write each to two
places in turn: too much for hundreds of recordings or an archive of half a gigabyte.
"""

import contextlib
import io
import os
import threading
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from tempfile import SpooledTemporaryFile, TemporaryFile
from typing import IO, BinaryIO, cast

from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException

from ..inference.errors import printable
from .errors import BadFormError, UnsupportedBodyError, UploadTooLargeError


class Form(ABC):
    """Parses multipart/form-data in pieces; subclasses decide what becomes of the parts.

    Its methods may write to disk, so call them on a thread.

    Args:
        content_type: of the request, with its boundary.

    Raises:
        BadFormError: if the boundary is missing or too long.
    """

    def __init__(self, content_type: str) -> None:
        _, options = parse_options_header(content_type)
        self._header = (bytearray(), bytearray())
        self._disposition = b""
        self.complete = False
        """Whether the last boundary has come."""
        try:
            self._parser = MultipartParser(
                options.get(b"boundary", b""),
                {
                    "on_part_begin": self._on_part,
                    "on_header_field": self._on_header_name,
                    "on_header_value": self._on_header_value,
                    "on_header_end": self._on_header_end,
                    "on_headers_finished": self._on_headers,
                    "on_part_data": self._on_data,
                    "on_part_end": self.end,
                    "on_end": self._on_end,
                },
            )
        except FormParserError:
            raise BadFormError(
                "The form's boundary is too long; let your client write the Content-Type."
            ) from None
        if not options.get(b"boundary"):
            raise BadFormError(
                "The Content-Type names no boundary; let your client write the Content-Type."
            )

    def write(self, piece: bytes) -> None:
        """Take the next piece.

        Raises:
            BadFormError: if the form is malformed or exceeds a limit.
            OSError: if the disk is full.
        """
        try:
            self._parser.write(piece)
        except FormParserError as error:
            raise BadFormError("The form is malformed; send multipart/form-data.") from error

    def finish(self) -> None:
        """Check that the form is complete.

        Raises:
            BadFormError: if the last boundary is missing.
        """
        if not self.complete:
            raise BadFormError("The form ends before its last boundary; send all of it.")

    @abstractmethod
    def begin(self, name: str, filename: str | None) -> None:
        """Begin a part; it is a file if it has a file name."""

    @abstractmethod
    def data(self, piece: memoryview) -> None:
        """Take the next bytes of the part."""

    @abstractmethod
    def end(self) -> None:
        """End the part."""

    def _on_part(self) -> None:
        self._disposition = b""

    def _on_header_name(self, data: bytes, start: int, end: int) -> None:
        self._header[0].extend(data[start:end])

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header[1].extend(data[start:end])

    def _on_header_end(self) -> None:
        name, value = self._header
        if bytes(name).lower() == b"content-disposition":
            self._disposition = bytes(value)
        self._header = (bytearray(), bytearray())

    def _on_headers(self) -> None:
        _, options = parse_options_header(self._disposition)
        if b"name" not in options:
            raise BadFormError("A part of the form has no name; name every part.")
        filename = options.get(b"filename")
        self.begin(_name(options[b"name"]), None if filename is None else _name(filename))

    def _on_data(self, data: bytes, start: int, end: int) -> None:
        self.data(memoryview(data)[start:end])

    def _on_end(self) -> None:
        self.complete = True


def _name(text: bytes) -> str:
    """Decode a name in a form, whatever its bytes are, so that it can be shown."""
    return printable(text.decode("utf-8", "surrogateescape"))


FILES = "files"
"""The parts that hold audio."""

_MAX_NAME = 255
_HOW_MANY = (
    "send multipart/form-data with the recordings as parts 'files' (curl -F files=@a.wav -F ...)"
)


class BatchForm(Form):
    """Parses the form of POST /predict/batch; all recordings share one unnamed open file.

    Args:
        content_type: of the request, with its boundary.
        max_files: most recordings.

    Raises:
        BadFormError: if the boundary is missing or too long.
    """

    def __init__(self, content_type: str, max_files: int) -> None:
        super().__init__(content_type)
        self._max_files = max_files
        self._store = TemporaryFile()  # noqa: SIM115 (closed by close)
        self._lock = threading.Lock()
        self._size = 0
        self._bounds: list[tuple[str, int, int]] = []

    def begin(self, name: str, filename: str | None) -> None:
        """Begin a recording."""
        if name != FILES or filename is None:
            kind = "field" if filename is None else "file"
            raise BadFormError(f"The form has a {kind} named {name[:64]!r}; {_HOW_MANY}.")
        if len(self._bounds) >= self._max_files:
            raise BadFormError(
                f"The form has more than {self._max_files} files; send several requests, or "
                "score the folder with 'nnpm predict'."
            )
        self._bounds.append((filename[:_MAX_NAME], self._size, self._size))

    def data(self, piece: memoryview) -> None:
        """Write the next bytes of a recording."""
        self._store.write(piece)
        self._size += len(piece)

    def end(self) -> None:
        """End a recording."""
        name, start, _ = self._bounds[-1]
        self._bounds[-1] = (name, start, self._size)

    def finish(self) -> None:
        """Check that the form is complete.

        Raises:
            BadFormError: if the last boundary is missing, or the form holds no recording.
        """
        super().finish()
        if not self._bounds:
            raise BadFormError(f"The form has no file; {_HOW_MANY}.")
        self._store.flush()

    def recordings(self) -> list[tuple[str, BinaryIO]]:
        """List name as sent and content of each recording; threads may read them at once."""
        return [
            (name, cast(BinaryIO, _Section(self._store, self._lock, start, end)))
            for name, start, end in self._bounds
        ]

    def close(self) -> None:
        """Delete the recordings; a thread that still reads one comes to its end."""
        with self._lock:
            self._store.close()


class _Section(io.RawIOBase):
    """A section of a file that other threads read, too; empty once the file is closed."""

    def __init__(self, store: IO[bytes], lock: threading.Lock, start: int, end: int) -> None:
        self._store = store
        self._lock = lock
        self._start = start
        self._size = end - start
        self._position = 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move; return the position."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise ValueError(f"{base + offset} is before the start")
        self._position = base + offset
        return self._position

    def tell(self) -> int:
        """Return the position."""
        return self._position

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Fill the buffer as far as there are bytes; return how many."""
        count = max(0, min(len(buffer), self._size - self._position))
        with self._lock:
            # A decoder that calls back from C understands the end of the file, but no exception.
            if self._store.closed:
                return 0
            self._store.seek(self._start + self._position)
            piece = self._store.read(count)
        buffer[: len(piece)] = piece
        self._position += len(piece)
        return len(piece)


_IN_MEMORY_BYTES = 1 << 20
_RAW = ("", "application/octet-stream")
_HOW = "send multipart/form-data with the recording as the part 'file' (curl -F file=@clip.wav)"


@contextlib.asynccontextmanager
async def audio_body(request: Request) -> AsyncIterator[BinaryIO]:
    """Receive the audio of a request into a temporary file.

    Up to 1 MiB stays in memory; the rest goes into an unnamed file.

    Raises:
        UnsupportedBodyError: if the Content-Type is none of audio or of a form.
        BadFormError: if the form is malformed or lacks its file.
    """
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type == "multipart/form-data":
        receiving = _form_file(request)
    elif content_type.startswith(("audio/", "video/")) or content_type in _RAW:
        receiving = raw_body(request)
    else:
        raise UnsupportedBodyError(
            f"The Content-Type is {content_type[:64]!r}; {_HOW}, or the audio itself as audio/*, "
            "video/* or application/octet-stream."
        )
    async with receiving as file:
        yield file


@contextlib.asynccontextmanager
async def _form_file(request: Request) -> AsyncIterator[BinaryIO]:
    try:
        form = await request.form(max_files=1, max_fields=16)
    except HTTPException as error:
        raise BadFormError(
            f"The form is malformed, or holds more than one file or 16 fields; {_HOW}."
        ) from error
    except ValueError as error:  # an unknown charset
        raise BadFormError(f"The form's charset is unknown; {_HOW}.") from error
    try:
        files = [part for part in form.getlist("file") if isinstance(part, UploadFile)]
        if not files:
            raise BadFormError(f"{_without_file(form)}; {_HOW}.")
        yield files[0].file
    finally:
        await form.close()


def _without_file(form: FormData) -> str:
    if "file" in form:
        return "The part 'file' is text, not a file"
    names = ", ".join(repr(name[:64]) for name in form) or "none"
    return f"The form has no file named 'file'; its parts are: {names}"


@contextlib.asynccontextmanager
async def raw_body(request: Request, max_bytes: int | None = None) -> AsyncIterator[BinaryIO]:
    """Receive the whole body into a temporary file.

    Raises:
        UploadTooLargeError: if it has more than ``max_bytes``.
    """
    spool = SpooledTemporaryFile(max_size=_IN_MEMORY_BYTES)  # noqa: SIM115 (closed below)
    upload = UploadFile(cast(BinaryIO, spool), size=0)  # its write leaves the loop for the disk
    try:
        async for chunk in request.stream():
            await upload.write(chunk)
            if max_bytes is not None and (upload.size or 0) > max_bytes:
                raise UploadTooLargeError(
                    f"The body has {upload.size} bytes or more; at most {max_bytes} are accepted "
                    "here: send several requests."
                )
        await upload.seek(0)
        yield upload.file
    finally:
        await upload.close()
