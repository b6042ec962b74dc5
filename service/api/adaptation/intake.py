"""A request for an adaptation to a job: received whole, checked, and kept."""

import asyncio
import errno
from dataclasses import dataclass

from starlette.requests import Request

from service.api.adaptation.fields import AdaptFields, FolderFields, parse
from service.api.adaptation.form import AdaptForm, digest_of
from service.api.errors import (
    BadFormError,
    ExtraMissingError,
    OverloadedError,
    UnsupportedBodyError,
)
from service.api.services import Services
from service.inference.disk import sync
from service.inference.errors import NoRoomError, ParameterError
from service.jobs.errors import KeyTakenError
from service.jobs.intake.folder import allowed_folder
from service.jobs.intake.prepare import FOLDER
from service.jobs.job import Job, new_id
from service.jobs.layout import JobFolder
from service.jobs.states import State

_MAX_JSON_BYTES = 1 << 16
_HOW = (
    'send JSON with "folder", or multipart/form-data with the part "archive" (zip, tar, tar.gz, '
    'tar.zst) or many parts "files"'
)


@dataclass(frozen=True, slots=True)
class _Received:
    fields: AdaptFields
    source: str
    digest: str


async def take(request: Request, services: Services, owner: str) -> Job:
    """Receive a request, and make it a job; the same request with the same key gives the same job.

    Raises:
        ExtraMissingError: if nobody here can adapt.
        NnpmError: whatever is wrong with the request; nothing of it is left behind then.
    """
    if not services.office.takes_jobs:
        raise ExtraMissingError(
            "Adaptation needs the extra 'train', which is not installed: pip install '.[train]' "
            "in the checkout, or let workers elsewhere do it (NNPM_ADAPT_WORKERS=0)."
        )
    key = _key(request)
    if key is None:  # with one, the job may be there already
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
            f"Idempotency-Key has {len(key)} characters; 1 to 255 printable ones of ASCII are "
            "wanted."
        )
    return key


def _check_queue(services: Services) -> None:
    waiting = services.office.store.counts()[State.QUEUED]
    most = services.settings.adapt_queue_limit
    if waiting >= most:
        raise OverloadedError(f"{waiting} adaptations wait and {most} may; try again later.")


async def _receive(request: Request, services: Services, folder: JobFolder) -> _Received:
    content_type = request.headers.get("content-type", "")
    match content_type.partition(";")[0].strip().lower():
        case "application/json":
            named = parse(FolderFields, await _small_body(request))
            roots = services.settings.adapt_roots
            place = await asyncio.to_thread(allowed_folder, named.folder, roots)
            await asyncio.to_thread(folder.create)
            return _Received(named, f"{FOLDER}{place}", digest_of(named.model_dump()))
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
                f"The JSON document has more than {_MAX_JSON_BYTES} bytes; so long is none."
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
    await asyncio.to_thread(_keep, folder)
    if "folder" in form.texts:
        raise BadFormError("A folder is named in JSON, not in a form with files; choose one.")
    fields = parse(AdaptFields, form.texts)
    return _Received(fields, form.files[0][0], digest_of(fields.model_dump(), form.files))


def _keep(folder: JobFolder) -> None:
    for path in (folder.upload, folder.path, folder.path.parent):
        sync(path)


def _create(
    services: Services, folder: JobFolder, received: _Received, owner: str, key: str | None
) -> Job:
    fields, store = received.fields, services.office.store

    def earlier() -> Job | None:
        job = None if key is None else store.find_idempotent(owner, key)
        if job is not None and job.body_digest != received.digest:
            raise KeyTakenError(
                f"The Idempotency-Key {key!r} was sent with another request before; take a new one."
            )
        return job

    if (job := earlier()) is not None:
        return job
    _check_queue(services)
    services.registry.resolve(fields.name, fields.base)
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
    except KeyTakenError:  # by the same request, which another thread was just receiving
        job = earlier()
        assert job is not None
        return job
    services.office.tell()
    return job


def _storage(error: OSError) -> NoRoomError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return NoRoomError("The disk of the service is full; nothing was kept of the upload.")
    return NoRoomError("The service cannot write its folder of jobs; its log says why.")
