"""POST /adapt: receive the request and its recordings, check them, and store a job.

A form's files are written to the job's folder while they arrive.
"""

import asyncio
import errno
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

from pydantic import Field
from starlette.requests import Request

from ..files import sync
from ..inference.audio.formats import AUDIO_SUFFIXES
from ..inference.errors import ExtraMissingError, NoRoomError, ParameterError, printable
from ..jobs.archive import is_archive
from ..jobs.errors import KeyTakenError
from ..jobs.folder import JobFolder, JobRequest, read_request
from ..jobs.intake import FOLDER, allowed_folder
from ..jobs.job import Job, State, new_id
from ..jobs.names import FreePaths, safe_path
from ..predict.pool import OverloadedError
from .errors import BadFormError, UnsupportedBodyError
from .forms import Form
from .services import Services


class FolderRequest(JobRequest):
    """A request whose recordings lie in a folder of the server."""

    folder: str = Field(min_length=1, max_length=4096)
    """An absolute path under one of NNPM_ADAPT_ROOTS."""


ARCHIVE, FILES = "archive", "files"
"""Names of the parts that hold audio."""


class AdaptForm(Form):
    """Takes a form in pieces; its methods write to disk, so call them from a thread.

    Args:
        content_type: header of the request, with the boundary.
        folder: gets the files; an empty folder.
        max_files: most parts named ``files``.

    Raises:
        BadFormError: if the boundary is missing or invalid.
    """

    max_fields = 16
    max_field_bytes = 4096

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

    def texts(self) -> dict[str, str]:
        """Fields that are not files, by name.

        Raises:
            BadFormError: if one was sent twice.
        """
        texts: dict[str, str] = {}
        for name, text in self.fields:
            if name in texts:
                raise BadFormError(f"The field {name[:64]!r} was sent twice.")
            texts[name] = text
        return texts


def digest_of(*parts: Any) -> str:
    """Digest of a request, equal for equal requests: sha256 of plain data."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


_MAX_JSON_BYTES = 1 << 16
_HOW = (
    'send JSON with "folder", or multipart/form-data with the part "archive" (zip, tar, tar.gz, '
    'tar.zst) or many parts "files"'
)


@dataclass(frozen=True, slots=True)
class _Received:
    fields: JobRequest
    source: str
    digest: str


async def receive_request(request: Request, services: Services, owner: str) -> Job:
    """Receive a request and store a job; the same request with the same key gives the same job.

    Raises:
        ExtraMissingError: if no worker could run the job.
        NnpmError: if the request cannot be accepted; nothing of it is kept then.
    """
    if not services.jobs.takes_jobs:
        raise ExtraMissingError(
            "Adaptation needs the extra 'train', which is not installed: pip install '.[train]' "
            "in the checkout, or set NNPM_ADAPT_WORKERS=0 and run nnpm worker elsewhere."
        )
    if request.query_params:
        name = next(iter(request.query_params))
        raise ParameterError(
            f"{name[:64]!r} is in the query; send it as a field of the form, or in the JSON body."
        )
    key = _key(request)
    if key is None:  # with a key, the job may exist already
        await asyncio.to_thread(_check_queue, services)
    folder = JobFolder(services.settings.jobs, new_id())
    kept = False
    try:
        received = await _receive(request, services, folder)
        job = await asyncio.to_thread(_create, services, folder, received, owner, key)
        kept = job.id == folder.path.name
    except OSError as error:
        raise _storage(error) from error
    finally:
        if not kept:
            await asyncio.shield(asyncio.to_thread(folder.remove))
    return job


def _key(request: Request) -> str | None:
    key = request.headers.get("idempotency-key")
    if key is not None and not (1 <= len(key) <= 255 and key.isascii() and key.isprintable()):
        raise ParameterError(
            f"Idempotency-Key has {len(key)} characters; it must have 1 to 255 printable ASCII "
            "characters."
        )
    return key


def _check_queue(services: Services) -> None:
    waiting = services.jobs.store.counts()[State.QUEUED]
    most = services.settings.adapt_queue_limit
    if waiting >= most:
        raise OverloadedError(
            f"{waiting} adaptations are waiting; at most {most} may wait. Try again later."
        )


async def _receive(request: Request, services: Services, folder: JobFolder) -> _Received:
    content_type = request.headers.get("content-type", "")
    match content_type.partition(";")[0].strip().lower():
        case "application/json":
            named = read_request(FolderRequest, await _small_body(request))
            roots = services.settings.adapt_roots
            place = await asyncio.to_thread(allowed_folder, named.folder, roots)
            await asyncio.to_thread(folder.create)
            source = f"{FOLDER}{printable(place)}"
            return _Received(named, source, digest_of(named.model_dump()))
        case "multipart/form-data":
            await asyncio.to_thread(folder.create)
            return await _receive_form(request, services, folder, content_type)
        case other:
            raise UnsupportedBodyError(f"Content-Type {other[:64]!r}; {_HOW}.")


async def _small_body(request: Request) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body.extend(chunk)
        if len(body) > _MAX_JSON_BYTES:
            raise ParameterError(
                f"The JSON document has more than {_MAX_JSON_BYTES} bytes, the limit."
            )
    return bytes(body)


async def _receive_form(
    request: Request, services: Services, folder: JobFolder, content_type: str
) -> _Received:
    await asyncio.to_thread(folder.upload.mkdir, mode=0o700)
    form = AdaptForm(content_type, folder.upload, services.settings.adapt_max_files)
    try:
        async for chunk in request.stream():
            await asyncio.to_thread(form.write, chunk)
        form.finish()
    finally:
        form.close()
    await asyncio.to_thread(_sync, folder)
    texts = form.texts()
    if "folder" in texts:
        raise BadFormError("folder must be sent as JSON, not in a form with files.")
    fields = read_request(JobRequest, texts)
    return _Received(fields, form.files[0][0], digest_of(fields.model_dump(), form.files))


def _sync(folder: JobFolder) -> None:
    for path in (folder.upload, folder.path, folder.path.parent):
        sync(path)


def _create(
    services: Services, folder: JobFolder, received: _Received, owner: str, key: str | None
) -> Job:
    fields, store = received.fields, services.jobs.store

    def earlier() -> Job | None:
        job = None if key is None else store.find_idempotent(owner, key)
        if job is not None and job.body_digest != received.digest:
            raise KeyTakenError(
                f"The Idempotency-Key {key!r} was sent before with another request; use a new key."
            )
        return job

    if (job := earlier()) is not None:
        return job
    _check_queue(services)
    services.registry.base(fields.name, fields.language, fields.base)
    try:
        job = store.create(
            Job(
                id=folder.path.name,
                owner=owner,
                source=received.source,
                idempotency_key=key,
                body_digest=received.digest,
                **fields.model_dump(exclude={"folder"}),
            )
        )
    except KeyTakenError:  # the same request, received by another thread at the same time
        job = earlier()
        assert job is not None
        return job
    services.jobs.notify()
    return job


def _storage(error: OSError) -> NoRoomError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return NoRoomError("The disk of the service is full; nothing of the upload was kept.")
    return NoRoomError("The service cannot write to its jobs folder; its log says why.")
