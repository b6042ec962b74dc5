"""Forms that are written to disk while they come.

Starlette's own forms keep one open file per part until the end, and each in two places in turn:
too much for hundreds of recordings or an archive of half a gigabyte.
"""

from abc import ABC, abstractmethod

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from service.api.errors import BadFormError


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
