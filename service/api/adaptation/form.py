"""The form of POST /adapt, written to disk while it comes."""

import hashlib
import json
import os
from pathlib import Path, PurePosixPath
from typing import IO, Any

from service.api.errors import BadFormError
from service.api.multipart import Form, decoded
from service.inference.files import AUDIO_SUFFIXES
from service.jobs.intake.names import Places, safe_path

ARCHIVE, FILES = "archive", "files"
"""The parts that hold audio."""

_MAX_TEXT_BYTES = 4096
_MAX_TEXTS = 16


class AdaptForm(Form):
    """Takes a form in pieces; its methods write to disk and so belong on a thread.

    Args:
        content_type: of the request, with its boundary.
        folder: gets the files; it is there and empty.
        max_files: parts named ``files`` at most.

    Raises:
        BadFormError: if there is no boundary, or one that cannot be.
    """

    def __init__(self, content_type: str, folder: Path, max_files: int) -> None:
        super().__init__(content_type)
        self._folder = folder
        self._places = Places(folder)
        self._max_files = max_files
        self._name = ""
        self._text = bytearray()
        self._file: IO[bytes] | None = None
        self._sum = hashlib.sha256()
        self.texts: dict[str, str] = {}
        """The parts that are no files."""
        self.files: list[tuple[str, str, str]] = []
        """Part, name as sent, and sha256 of every file."""

    def finish(self) -> None:
        """See that the form is whole, and make what was written survive a loss of power.

        Raises:
            BadFormError: if the end is missing, or there is no audio in it.
        """
        super().finish()
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

    def begin(self, name: str, filename: str | None) -> None:
        """Open the file of a part."""
        self._name, self._text = name, bytearray()
        if filename is None:
            if len(self.texts) >= _MAX_TEXTS:
                raise BadFormError(f"More than {_MAX_TEXTS} fields; there are not so many.")
            return
        self._file = self._place(filename).open("xb")
        self._sum = hashlib.sha256()
        self.files.append((name, filename, ""))

    def _place(self, sent: str) -> Path:
        count = sum(part == self._name for part, _, _ in self.files)
        if self._name == ARCHIVE:
            if count:
                raise BadFormError("More than one 'archive' was sent; one is wanted.")
            return self._folder / ARCHIVE
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
        return self._places.free(path)

    def data(self, piece: memoryview) -> None:
        """Write to the file, or gather the text."""
        if self._file is not None:
            self._sum.update(piece)
            self._file.write(piece)
            return
        self._text.extend(piece)
        if len(self._text) > _MAX_TEXT_BYTES:
            raise BadFormError(
                f"The field {self._name[:64]!r} has more than {_MAX_TEXT_BYTES} bytes."
            )

    def end(self) -> None:
        """Close the file, or keep the text."""
        if self._file is None:
            if self._name in self.texts:
                raise BadFormError(f"The field {self._name[:64]!r} was sent twice.")
            self.texts[self._name] = decoded(bytes(self._text))
            return
        self._file.flush()
        os.fsync(self._file.fileno())
        self.close()
        part, sent, _ = self.files[-1]
        self.files[-1] = (part, sent, self._sum.hexdigest())


def digest_of(*parts: Any) -> str:
    """Tell one request from another: sha256 of plain data."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
