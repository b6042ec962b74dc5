"""Forms that are written to disk while they come.

Starlette's own forms keep one open file per part until the end, and each in two places in turn:
too much for hundreds of recordings or an archive of half a gigabyte.

The form of POST /predict/batch: many recordings in one unnamed file that is gone afterwards.

The audio of a request: a multipart part named ``file``, or the whole body.

The query of /predict and /predict/batch.
"""

import contextlib
import io
import os
import threading
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from functools import lru_cache
from tempfile import SpooledTemporaryFile, TemporaryFile
from typing import IO, Annotated, Any, BinaryIO, cast

from fastapi import Depends, FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.datastructures import FormData, QueryParams, UploadFile
from starlette.exceptions import HTTPException

from ..predict.predict import PredictQuery
from .errors import BadFormError, UnsupportedBodyError, UploadTooLargeError


class Form(ABC):
    """Takes multipart/form-data in pieces; what becomes of the parts is a subclass's.

    Its methods may write to disk and so belong on a thread.

    Args:
        content_type: of the request, with its boundary.

    Raises:
        BadFormError: if there is no boundary, or one that cannot be.
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
            raise BadFormError("The form's boundary is longer than one may be.") from None
        if not options.get(b"boundary"):
            raise BadFormError("The Content-Type names no boundary; let your client write it.")

    def write(self, piece: bytes) -> None:
        """Take the next piece.

        Raises:
            BadFormError: if this is no form, or one that nobody should send.
            OSError: if the disk is full.
        """
        try:
            self._parser.write(piece)
        except FormParserError as error:
            raise BadFormError("The form is malformed; send multipart/form-data.") from error

    def finish(self) -> None:
        """See that the form is whole.

        Raises:
            BadFormError: if the end is missing.
        """
        if not self.complete:
            raise BadFormError("The form breaks off before its last boundary; send all of it.")

    @abstractmethod
    def begin(self, name: str, filename: str | None) -> None:
        """Begin a part: a file, if it has a file's name."""

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
            raise BadFormError("A part of the form has no name.")
        filename = options.get(b"filename")
        self.begin(decoded(options[b"name"]), None if filename is None else decoded(filename))

    def _on_data(self, data: bytes, start: int, end: int) -> None:
        self.data(memoryview(data)[start:end])

    def _on_end(self) -> None:
        self.complete = True


def decoded(text: bytes) -> str:
    """Text of a form, whatever its bytes are."""
    return text.decode("utf-8", "replace")


FILES = "files"
"""The parts that hold audio."""

_MAX_NAME = 255
_HOW_MANY = (
    "send multipart/form-data with the recordings as parts 'files' (curl -F files=@a.wav -F ...)"
)


class BatchForm(Form):
    """Takes the form in pieces. However many recordings it holds, it is one open file.

    Args:
        content_type: of the request, with its boundary.
        max_files: recordings at most.

    Raises:
        BadFormError: if there is no boundary, or one that cannot be.
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
                f"More than {self._max_files} files; send them in several requests, or score the "
                "folder with 'nnpm predict'."
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
        """See that the form is whole.

        Raises:
            BadFormError: if the end is missing, or there is no recording in it.
        """
        super().finish()
        if not self._bounds:
            raise BadFormError(f"There is no file in the form; {_HOW_MANY}.")
        self._store.flush()

    def recordings(self) -> list[tuple[str, BinaryIO]]:
        """Name as sent, and content, of each recording; threads may read them side by side."""
        return [
            (name, cast(BinaryIO, _Section(self._store, self._lock, start, end)))
            for name, start, end in self._bounds
        ]

    def close(self) -> None:
        """Drop all of it; whoever still reads comes to an end."""
        with self._lock:
            self._store.close()


class _Section(io.RawIOBase):
    """A stretch of a file that others read too; empty once that is closed."""

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
            # A decoder that calls back from C cannot be told more than that there is no more.
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
    """Receive the audio of a request into a file that is gone afterwards.

    Up to 1 MiB stays in memory; the rest goes into an unnamed file.

    Raises:
        UnsupportedBodyError: if the Content-Type carries no audio.
        BadFormError: if the form is malformed or lacks its file.
    """
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type == "multipart/form-data":
        receive = _form_file(request)
    elif content_type.startswith(("audio/", "video/")) or content_type in _RAW:
        receive = raw_body(request)
    else:
        raise UnsupportedBodyError(
            f"Content-Type {content_type[:64]!r}; {_HOW}, or the audio itself as audio/*, video/* "
            "or application/octet-stream."
        )
    async with receive as file:
        yield file


@contextlib.asynccontextmanager
async def _form_file(request: Request) -> AsyncIterator[BinaryIO]:
    try:
        form = await request.form(max_files=1, max_fields=16)
    except HTTPException as error:
        raise BadFormError(f"{error.detail} One file is wanted: {_HOW}.") from error
    except ValueError as error:  # of a charset that decodes nothing
        raise BadFormError(f"The form's charset cannot be decoded; {_HOW}.") from error
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
    return f"No file named 'file' among the parts ({names})"


@contextlib.asynccontextmanager
async def raw_body(request: Request, max_bytes: int | None = None) -> AsyncIterator[BinaryIO]:
    """Receive the whole body into a file that is gone afterwards.

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
                    f"{upload.size} bytes or more; at most {max_bytes} are accepted here: send "
                    "less at a time."
                )
        await upload.seek(0)
        yield upload.file
    finally:
        await upload.close()


_MANY = frozenset({"emotions"})
"""Parameters that may be repeated."""


async def query_of(request: Request) -> PredictQuery:
    """Dependency: the query of this request.

    FastAPI reads a model of nine parameters in 0.1 ms, a quarter of all that a request costs
    besides its audio; most requests have the query of the one before.

    Raises:
        RequestValidationError: as FastAPI would.
    """
    return _parsed(request.scope["query_string"])


TheQuery = Annotated[PredictQuery, Depends(query_of)]


@lru_cache(256)
def _parsed(text: bytes) -> PredictQuery:
    sent = QueryParams(text)
    given = {
        name: sent.getlist(name) if name in _MANY else sent[name]
        for name in PredictQuery.model_fields
        if name in sent
    }
    try:
        return PredictQuery.model_validate(given)
    except ValidationError as error:
        raise RequestValidationError(
            [{**one, "loc": ("query", *one["loc"])} for one in error.errors(include_url=False)]
        ) from None


def _described() -> list[dict[str, Any]]:
    """What FastAPI would write about these parameters."""
    app = FastAPI()

    @app.get("/")
    def route(query: Annotated[PredictQuery, Query()]) -> None: ...

    parameters: list[dict[str, Any]] = app.openapi()["paths"]["/"]["get"]["parameters"]
    return parameters


PARAMETERS = _described()
"""For the OpenAPI document."""
