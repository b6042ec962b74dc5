"""Bodies that carry audio, received into temporary files: a form, or the audio itself.

``Form`` is what the forms of POST /predict, /predict/batch and /adapt share: it is parsed while it
comes, its fields are kept and its files written where each route wants them. Starlette's own forms
keep one open file per part until the end, take no file without a file name, and let a full disk
pass as a fault.
"""

import asyncio
import contextlib
import errno
import logging
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from tempfile import SpooledTemporaryFile
from typing import BinaryIO, ClassVar, cast

from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from ..inference.errors import NoRoomError, printable
from ..predict.turns import MAX_TURNS_CHARS
from .errors import BadFormError, BodyEncodingError, UnsupportedBodyError, UploadTooLargeError

log = logging.getLogger("nnpm")


class Form(ABC):
    """Parses multipart/form-data in pieces; subclasses decide what becomes of the files.

    A part is a file if it has a file name, or the name of a part that holds audio: some clients
    send audio without a file name. All other parts are fields of text.

    Its methods may write to disk, so call them on a thread.

    Args:
        content_type: of the request, with its boundary.
        file_parts: names of the parts that hold audio.

    Raises:
        BadFormError: if the boundary is missing or too long.
    """

    max_fields = 32
    max_field_bytes = 1 << 16
    text_files: ClassVar[dict[str, int]] = {"turns": MAX_TURNS_CHARS}
    """Fields that may come as files of text, and how many bytes they may have."""

    def __init__(self, content_type: str, *file_parts: str) -> None:
        options = _options_of(content_type.encode("latin-1", "replace"))
        self._header = (bytearray(), bytearray())
        self._disposition = b""
        self._file_parts = file_parts
        self._field: tuple[str, bytearray] | None = None
        self._unnamed: tuple[str, bytearray] | None = None  # a file without name: its first bytes
        self.fields: list[tuple[str, str]] = []
        """Names and texts of the parts that are not files, in order."""
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
                    "on_part_end": self._on_part_end,
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
    def begin(self, name: str, filename: str) -> None:
        """Begin a file; its name is empty if none was sent."""

    @abstractmethod
    def data(self, piece: memoryview) -> None:
        """Take the next bytes of the file."""

    @abstractmethod
    def end(self) -> None:
        """End the file."""

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
        options = _options_of(self._disposition)
        if b"name" not in options:
            raise BadFormError("A part of the form has no name; name every part.")
        name, filename = _name(options[b"name"]), options.get(b"filename")
        is_file = filename is not None and name not in self.text_files
        if is_file or name in self._file_parts:
            self._field = None
            self._unnamed = (name, bytearray()) if filename is None else None
            self.begin(name, _name(filename or b""))
            return
        if len(self.fields) >= self.max_fields:
            raise BadFormError(f"The form has more than {self.max_fields} fields, the limit.")
        self._field = (name, bytearray())

    def _on_data(self, data: bytes, start: int, end: int) -> None:
        if self._field is None:
            if self._unnamed is not None:
                self._unnamed[1].extend(data[start : min(end, start + _HEAD_BYTES)])
            self.data(memoryview(data)[start:end])
            return
        name, text = self._field
        text.extend(data[start:end])
        if len(text) > (most := self.text_files.get(name, self.max_field_bytes)):
            raise BadFormError(f"The field {name[:64]!r} has more than {most} bytes, the limit.")

    def _on_part_end(self) -> None:
        if self._field is None:
            if self._unnamed is not None and _is_text(head := self._unnamed[1][:_HEAD_BYTES]):
                name, shown = self._unnamed[0], head.decode("ascii")
                raise BadFormError(
                    f"The part {name!r} is text, {shown!r}, not a file; with curl write "
                    f"-F {name}=@clip.wav."
                )
            self.end()
        else:
            name, text = self._field
            self.fields.append((name, text.decode("utf-8", "replace")))

    def _on_end(self) -> None:
        self.complete = True


_HEAD_BYTES = 64
_SHORT_BYTES = 256


def _options_of(header: bytes) -> Mapping[bytes, bytes]:
    """What follows the first semicolon of a header; short ones come again and again."""
    if len(header) <= _SHORT_BYTES:
        return _options_of_short(header)
    return parse_options_header(header)[1]


@lru_cache(256)
def _options_of_short(header: bytes) -> Mapping[bytes, bytes]:
    return parse_options_header(header)[1]


def _is_text(head: bytearray) -> bool:
    """Whether the first bytes of a file are text, which no audio begins with for so long."""
    return head.isascii() and head.decode("ascii").isprintable()


def _name(text: bytes) -> str:
    """Decode a name in a form, whatever its bytes are, so that it can be shown."""
    return printable(text.decode("utf-8", "surrogateescape"))


_IN_MEMORY_BYTES = 1 << 20
_RAW = (
    "", "application/octet-stream", "binary/octet-stream", "application/ogg", "application/x-ogg",
)  # fmt: skip
_HOW = "send multipart/form-data with the recording as the part 'file' (curl -F file=@clip.wav)"
_FILE = "file"


@contextlib.contextmanager
def storing() -> Iterator[None]:
    """Tell a client that its upload could not be stored, whatever the disk says.

    Raises:
        NoRoomError: in place of an OSError.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise NoRoomError(
                "The disk for uploads is full; nothing of the upload was kept."
            ) from error
        log.error("an upload cannot be stored: %s", error)
        raise NoRoomError("The service cannot store uploads; its log says why.") from error


class _Spool:
    """A temporary file: up to 1 MiB in memory, beyond that on disk and without a name."""

    def __init__(self) -> None:
        self._file = SpooledTemporaryFile(max_size=_IN_MEMORY_BYTES)  # noqa: SIM115 (see close)
        self.file = cast(BinaryIO, self._file)
        self.size = 0

    def write(self, piece: bytes | memoryview) -> None:
        self._file.write(piece)
        self.size += len(piece)

    def close(self) -> None:
        with contextlib.suppress(OSError):  # a full disk, which was reported
            self._file.close()


class _FileForm(Form):
    """Parses the form of POST /predict: one recording, and fields."""

    def __init__(self, content_type: str, spool: _Spool) -> None:
        super().__init__(content_type, _FILE)
        self._spool = spool
        self._count = 0
        self.recording = ""

    def begin(self, name: str, filename: str) -> None:
        """Begin the recording."""
        if name != _FILE:
            raise BadFormError(
                f"The form has no file named 'file', but one named {name[:64]!r}; {_HOW}."
            )
        if self._count:
            raise BadFormError(
                "The form has more than one file; send many recordings to /predict/batch."
            )
        self._count += 1
        self.recording = filename

    def data(self, piece: memoryview) -> None:
        """Write the next bytes of the recording."""
        self._spool.write(piece)

    def end(self) -> None:
        """End the recording."""

    def finish(self) -> None:
        """Check that the form is complete.

        Raises:
            BadFormError: if the last boundary is missing, or the form holds no recording.
        """
        super().finish()
        if not self._count:
            names = ", ".join(repr(name[:64]) for name, _ in self.fields) or "none"
            raise BadFormError(
                f"The form has no file named 'file'; its parts are: {names}; {_HOW}."
            )


@dataclass(frozen=True, slots=True)
class Upload:
    """The recording of a request, and the fields that came with it."""

    file: BinaryIO
    fields: list[tuple[str, str]]
    name: str
    """Of the file that was sent; recording if it has none."""


@contextlib.asynccontextmanager
async def audio_body(request: Request) -> AsyncIterator[Upload]:
    """Receive the audio of a request into a temporary file.

    Up to 1 MiB stays in memory; the rest goes into an unnamed file.

    Raises:
        UnsupportedBodyError: if the Content-Type is none of audio or of a form.
        BadFormError: if the form is malformed or lacks its file.
        BodyEncodingError: if the audio is compressed once more.
        NoRoomError: if it cannot be stored.
    """
    content_type = request.headers.get("content-type", "")
    kind = content_type.partition(";")[0].strip().lower()
    is_form = kind == "multipart/form-data"
    if not (is_form or kind.startswith(("audio/", "video/")) or kind in _RAW):
        raise UnsupportedBodyError(
            f"The Content-Type is {kind[:64]!r}; {_HOW}, or the audio itself as audio/*, "
            "video/* or application/octet-stream."
        )
    spool = _Spool()
    try:
        form = _FileForm(content_type, spool) if is_form else None
        with storing():
            await _receive(request, spool, spool.write if form is None else form.write)
        if form is not None:
            form.finish()
        require_uncompressed(spool.file)
        if form is None:
            yield Upload(spool.file, [], "recording")
        else:
            yield Upload(spool.file, form.fields, form.recording or "recording")
    finally:
        spool.close()


async def _receive(
    request: Request, spool: _Spool, write: Callable[[bytes], None], max_bytes: int | None = None
) -> None:
    """Write the body into a spool; once it is a file, a thread does it."""
    size = 0
    async for piece in request.stream():
        size += len(piece)
        if max_bytes is not None and size > max_bytes:
            raise UploadTooLargeError(
                f"The body has {size} bytes or more; at most {max_bytes} are accepted here: send "
                "several requests."
            )
        if spool.size + len(piece) > _IN_MEMORY_BYTES:
            await asyncio.to_thread(write, piece)
        else:
            write(piece)
    if spool.size > _IN_MEMORY_BYTES:
        await asyncio.to_thread(spool.file.seek, 0)  # and write what is left to write
    else:
        spool.file.seek(0)


@contextlib.asynccontextmanager
async def raw_body(request: Request, max_bytes: int) -> AsyncIterator[BinaryIO]:
    """Receive the whole body into a temporary file.

    Raises:
        UploadTooLargeError: if it has more than ``max_bytes``.
        NoRoomError: if it cannot be stored.
    """
    spool = _Spool()
    try:
        with storing():
            await _receive(request, spool, spool.write, max_bytes)
        yield spool.file
    finally:
        spool.close()


_COMPRESSED = {b"\x1f\x8b\x08": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}


def require_uncompressed(file: BinaryIO) -> None:
    """Check that a recording is not compressed as a whole; leaves the file at its start.

    Raises:
        BodyEncodingError: if it is.
    """
    head = file.read(4)
    file.seek(0)
    for signature, name in _COMPRESSED.items():
        if head.startswith(signature):
            raise BodyEncodingError(
                f"The audio is compressed with {name}, as by Content-Encoding: {name}; send it "
                "uncompressed."
            )
