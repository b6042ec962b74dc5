"""The form with recordings: an archive or many files, written to a folder while they arrive."""

import asyncio
import hashlib
from pathlib import Path, PurePosixPath
from typing import IO, ClassVar

from starlette.requests import Request

from ..files import FreePaths, safe_path, sync
from ..inference.audio.formats import AUDIO_SUFFIXES
from ..jobs.archive import is_archive
from ..jobs.folder import JobFolder
from ..jobs.labels import MAX_LABELS_BYTES
from .errors import BadFormError
from .forms import Form

ARCHIVE, FILES = "archive", "files"
"""Names of the parts that hold audio."""

LABELS = "labels"
"""Name of the part that holds a few labels."""


async def receive_form(request: Request, folder: JobFolder, max_files: int) -> "AdaptForm":
    """Receive a form into the folder of a job, whose files are on the disk then.

    Args:
        request: whose body was not read yet.
        folder: that exists, and has no uploads yet.
        max_files: most parts named ``files``.

    Raises:
        BadFormError: if the body is no such form.
        OSError: if it cannot be stored.
    """
    await asyncio.to_thread(folder.upload.mkdir, mode=0o700)
    content_type = request.headers.get("content-type", "")
    form = AdaptForm(content_type, folder.upload, max_files)
    try:
        async for chunk in request.stream():
            await asyncio.to_thread(form.write, chunk)
        form.finish()
    finally:
        form.close()
    for path in (folder.upload, folder.path, folder.path.parent):
        await asyncio.to_thread(sync, path)
    return form


class AdaptForm(Form):
    """Takes a form in pieces; its methods write to disk, so call them from a thread.

    Args:
        content_type: header of the request, with the boundary.
        folder: gets the files; an empty folder.
        max_files: most parts named ``files``.

    Raises:
        BadFormError: if the boundary is missing or invalid.
    """

    max_fields = 32
    max_field_bytes = 4096
    text_files: ClassVar[dict[str, int]] = {LABELS: MAX_LABELS_BYTES}

    def __init__(self, content_type: str, folder: Path, max_files: int) -> None:
        super().__init__(content_type, ARCHIVE, FILES)
        self._folder = folder
        self._places = FreePaths(folder)
        self._max_files = max_files
        self._name = ""
        self._path = folder
        self._file: IO[bytes] | None = None
        self._sum = hashlib.sha256()
        self.files: list[tuple[str, str, str]] = []
        """Part, name as sent, and sha256 of every file, in order."""

    def finish(self) -> None:
        """Check that the form is complete.

        Raises:
            BadFormError: if its end is missing, or it holds no audio.
        """
        super().finish()
        self.texts()
        kinds = {part for part, _, _ in self.files}
        if not kinds:
            raise BadFormError(
                "No file named 'archive' or 'files' among the parts; send an archive (curl -F "
                "archive=@clips.zip), or recordings (curl -F files=@a.wav -F files=@b.wav)."
            )
        if len(kinds) > 1:
            raise BadFormError("Both 'archive' and 'files' were sent; send one of them.")

    def close(self) -> None:
        """Close the file that is open."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def begin(self, name: str, filename: str) -> None:
        """Open the file of a part."""
        self._name = name
        self._path = self._place(filename)
        self._file = self._path.open("xb")
        self._sum = hashlib.sha256()
        self.files.append((name, filename, ""))

    def _place(self, sent: str) -> Path:
        count = sum(part == self._name for part, _, _ in self.files)
        if self._name == ARCHIVE:
            if count:
                raise BadFormError("More than one 'archive' was sent; send only one.")
            return self._folder / ARCHIVE
        if self._name != FILES:
            raise BadFormError(
                f"A file named {self._name[:64]!r} was sent; its name must be 'archive' or 'files'."
            )
        if count >= self._max_files:
            raise BadFormError(
                f"More than {self._max_files} files were sent; an archive may hold more."
            )
        name = PurePosixPath(sent.replace("\\", "/")).name.lstrip(".")
        path = safe_path(name) or PurePosixPath("recording")
        if path.suffix.lower() not in AUDIO_SUFFIXES:  # its first bytes show the format
            path = path.with_name(f"{path.name}.wav")
        return self._places.free(path)

    def data(self, piece: memoryview) -> None:
        """Write to the file."""
        assert self._file is not None
        self._sum.update(piece)
        self._file.write(piece)

    def end(self) -> None:
        """Close the file."""
        self.close()
        part, sent, _ = self.files[-1]
        if part == FILES and is_archive(self._path):
            raise BadFormError(
                f"The part 'files' holds an archive, {sent[:64]!r}; send it as the part 'archive' "
                "(curl -F archive=@clips.zip)."
            )
        sync(self._path)
        self.files[-1] = (part, sent, self._sum.hexdigest())

    def texts(self) -> dict[str, str | list[str]]:
        """Fields that are not files, by name; ``emotions`` may be sent many times.

        Raises:
            BadFormError: if another one was sent twice.
        """
        texts: dict[str, str | list[str]] = {}
        for name, text in self.fields:
            if name == "emotions":
                texts[name] = [*texts.get(name, ()), text]
            elif name in texts:
                raise BadFormError(f"The field {name[:64]!r} was sent twice.")
            else:
                texts[name] = text
        return texts
