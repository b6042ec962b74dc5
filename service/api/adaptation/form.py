"""The form of POST /adapt, written to disk while it comes.

Starlette's own forms keep one open file per part until the end, and each in two places in turn:
too much for hundreds of recordings or an archive of half a gigabyte.
"""

import hashlib
import json
import os
from pathlib import Path, PurePosixPath
from typing import IO, Any

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from service.api.errors import BadFormError
from service.inference.files import AUDIO_SUFFIXES
from service.jobs.intake.names import Places, safe_path

ARCHIVE, FILES = "archive", "files"
"""The parts that hold audio."""

_MAX_TEXT_BYTES = 4096
_MAX_TEXTS = 16


class AdaptForm:
    """Takes a form in pieces; its methods write to disk and so belong on a thread.

    Args:
        content_type: of the request, with its boundary.
        folder: gets the files; it is there and empty.
        max_files: parts named ``files`` at most.

    Raises:
        BadFormError: if there is no boundary, or one that cannot be.
    """

    def __init__(self, content_type: str, folder: Path, max_files: int) -> None:
        _, options = parse_options_header(content_type)
        self._folder = folder
        self._places = Places(folder)
        self._max_files = max_files
        self._header = (bytearray(), bytearray())
        self._disposition = b""
        self._name = ""
        self._text = bytearray()
        self._file: IO[bytes] | None = None
        self._sum = hashlib.sha256()
        self._complete = False
        self.texts: dict[str, str] = {}
        """The parts that are no files."""
        self.files: list[tuple[str, str, str]] = []
        """Part, name as sent, and sha256 of every file."""
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
            raise BadFormError("The form's boundary is longer than one may be.") from None
        if not options.get(b"boundary"):
            raise BadFormError("The Content-Type names no boundary; let your client write it.")

    def write(self, data: bytes) -> None:
        """Take the next piece.

        Raises:
            BadFormError: if this is no form, or one that nobody should send.
            OSError: if the disk is full.
        """
        try:
            self._parser.write(data)
        except FormParserError as error:
            raise BadFormError("The form is malformed; send multipart/form-data.") from error

    def finish(self) -> None:
        """See that the form is whole, and make what was written survive a loss of power.

        Raises:
            BadFormError: if the end is missing, or there is no audio in it.
        """
        if not self._complete:
            raise BadFormError("The form breaks off before its last boundary; send all of it.")
        kinds = {part for part, _, _ in self.files}
        if not kinds:
            raise BadFormError(
                "No file named 'archive' or 'files' among the parts; send an archive (curl -F "
                "archive=@clips.zip), or recordings (curl -F files=@a.wav -F files=@b.wav)."
            )
        if len(kinds) > 1:
            raise BadFormError("Both 'archive' and 'files' were sent; one of them is wanted.")

    def close(self) -> None:
        """Close what is open."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _on_part(self) -> None:
        self._disposition, self._name, self._text = b"", "", bytearray()

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
        self._name = _decoded(options[b"name"])
        if b"filename" not in options:
            if len(self.texts) >= _MAX_TEXTS:
                raise BadFormError(f"More than {_MAX_TEXTS} fields; there are not so many.")
            return
        sent = _decoded(options[b"filename"])
        self._file = self._create(sent)
        self._sum = hashlib.sha256()
        self.files.append((self._name, sent, ""))

    def _create(self, sent: str) -> IO[bytes]:
        count = sum(part == self._name for part, _, _ in self.files)
        if self._name == ARCHIVE:
            if count:
                raise BadFormError("More than one 'archive' was sent; one is wanted.")
            return (self._folder / ARCHIVE).open("xb")
        if self._name != FILES:
            raise BadFormError(
                f"A file named {self._name[:64]!r} was sent; 'archive' or 'files' is wanted."
            )
        if count >= self._max_files:
            raise BadFormError(
                f"More than {self._max_files} files; send an archive, which may hold more."
            )
        name = PurePosixPath(sent.replace("\\", "/")).name.lstrip(".")
        path = safe_path(name) or PurePosixPath("recording")
        if path.suffix.lower() not in AUDIO_SUFFIXES:  # what it is, its first bytes tell
            path = path.with_name(f"{path.name}.wav")
        return self._places.open(path)

    def _on_data(self, data: bytes, start: int, end: int) -> None:
        if self._file is not None:
            piece = memoryview(data)[start:end]
            self._sum.update(piece)
            self._file.write(piece)
            return
        self._text.extend(data[start:end])
        if len(self._text) > _MAX_TEXT_BYTES:
            raise BadFormError(
                f"The field {self._name[:64]!r} has more than {_MAX_TEXT_BYTES} bytes."
            )

    def _on_part_end(self) -> None:
        if self._file is None:
            if self._name in self.texts:
                raise BadFormError(f"The field {self._name[:64]!r} was sent twice.")
            self.texts[self._name] = _decoded(bytes(self._text))
            return
        self._file.flush()
        os.fsync(self._file.fileno())
        self.close()
        part, sent, _ = self.files[-1]
        self.files[-1] = (part, sent, self._sum.hexdigest())

    def _on_end(self) -> None:
        self._complete = True


def _decoded(text: bytes) -> str:
    return text.decode("utf-8", "replace")


def digest_of(*parts: Any) -> str:
    """Tell one request from another: sha256 of plain data."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
