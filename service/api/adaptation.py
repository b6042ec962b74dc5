"""POST /adapt: receive the request and its recordings, check them, and store a job.

A form's files are written to the job's folder while they arrive.
"""

import asyncio
import contextlib
import errno
import hashlib
import json
from dataclasses import dataclass
from typing import Any

from pydantic import Field
from starlette.requests import Request

from ..files import sync, write_new
from ..inference import bundle as bundles
from ..inference.errors import ExtraMissingError, NoRoomError, ParameterError, printable
from ..jobs.errors import AdaptationOffError, KeyTakenError
from ..jobs.folder import (
    JobFolder,
    JobRequest,
    read_request,
)
from ..jobs.intake import FOLDER, allowed_folder
from ..jobs.job import Job, State, new_id
from ..jobs.labels import parse_labels, require_labelled
from ..predict.pool import OverloadedError
from ..registry.folder import ModelVersion
from .adaptation_form import FILES, LABELS, receive_form
from .errors import BadFormError, UnsupportedBodyError
from .services import Services


class AdaptRequest(JobRequest):
    """A request as it is sent with recordings."""

    callback_url: str | None = None
    """Where the job is posted when it ends: an address of http or https whose host is among
    NNPM_CALLBACK_HOSTS. The header X-NNPM-Signature holds the HMAC of the body."""


class FolderRequest(AdaptRequest):
    """A request whose recordings lie in a folder of the server."""

    folder: str = Field(min_length=1, max_length=4096)
    """An absolute path under one of NNPM_ADAPT_ROOTS."""


_SINCE = ("emotions", "channels", "callback_url", "keep_audio")
"""Fields that earlier releases did not have: at their defaults they are not in a digest, so that a
request that is repeated after an upgrade is known again."""


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
    fields: AdaptRequest
    source: str
    digest: str
    labels: tuple[str, ...] = ()
    """Emotions of the labels that came with it."""

    def job_fields(self) -> dict[str, Any]:
        """The fields of the job."""
        return self.fields.model_dump(exclude={"folder"})

    def check_emotions(self, base: ModelVersion) -> None:
        """Check that the base knows the emotions of the request and of its labels, and they agree.

        Raises:
            ParameterError: if not.
        """
        for what, emotions in (
            ("emotions names", self.fields.emotions),
            ("The labels name", self.labels),
        ):
            labels = bundles.load(base.path).labels if emotions else ()
            if unknown := sorted(set(emotions) - set(labels)):
                raise ParameterError(
                    f"{what} {', '.join(unknown)}, which version {base.version} of {base.name} "
                    f"does not answer; it answers {', '.join(labels)}."
                )
        occur = self.fields.emotions
        if occur and (outside := sorted(set(self.labels) - set(occur))):
            raise ParameterError(
                f"The labels name {', '.join(outside)}, and emotions names only "
                f"{', '.join(occur)}: name all that occur, or correct the labels."
            )


async def receive_request(request: Request, services: Services, owner: str) -> Job:
    """Receive a request and store a job; the same request with the same key gives the same job.

    Raises:
        AdaptationOffError: if this service only predicts.
        ExtraMissingError: if no worker could run the job.
        NnpmError: if the request cannot be accepted; nothing of it is kept then.
    """
    if not services.settings.adapt:
        raise AdaptationOffError("This service only predicts: NNPM_ADAPT is 0.")
    if not services.jobs.takes_jobs:
        raise ExtraMissingError(
            "Adaptation needs the extra 'adapt', which is not installed: pip install "
            "'nnpm[adapt]', or set NNPM_ADAPT_WORKERS=0 and run nnpm worker elsewhere."
        )
    if request.query_params:
        name = next(iter(request.query_params))
        raise ParameterError(
            f"{name[:64]!r} is in the query; send it as a field of the form, or in the JSON body."
        )
    key = _key(request)
    if key is None:  # with a key, the job may exist already
        await asyncio.to_thread(check_queue, services)
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


def check_queue(services: Services) -> None:
    """Check that one more job may wait.

    Raises:
        OverloadedError: if not.
    """
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
            return _Received(named, source, digest_of(_for_digest(named)))
        case "multipart/form-data":
            await asyncio.to_thread(folder.create)
            return await _receive_form(request, services, folder)
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


async def _receive_form(request: Request, services: Services, folder: JobFolder) -> _Received:
    form = await receive_form(request, folder, services.settings.adapt_max_files)
    texts = form.texts()
    if "folder" in texts:
        raise BadFormError("folder must be sent as JSON, not in a form with files.")
    labels = texts.pop(LABELS, None)
    fields = read_request(AdaptRequest, texts)
    part = form.files[0][0]
    if labels is None:
        return _Received(fields, part, digest_of(_for_digest(fields), form.files))
    emotions = await asyncio.to_thread(_keep_labels, str(labels), part, folder)
    digest = digest_of(_for_digest(fields), form.files, labels)
    return _Received(fields, part, digest, emotions)


def _keep_labels(text: str, part: str, folder: JobFolder) -> tuple[str, ...]:
    """Check the labels and store them; those of an archive meet its members when it is unpacked.

    Returns:
        Their emotions.

    Raises:
        ParameterError: if they cannot be used.
    """
    found = parse_labels(text)
    if part == FILES:
        require_labelled(found, folder.upload)
    write_new(folder.labels, text.encode())
    sync(folder.labels)
    return tuple(sorted(set(found.values())))


def _for_digest(fields: AdaptRequest) -> dict[str, Any]:
    given = fields.model_dump(exclude_defaults=True)
    return fields.model_dump(exclude={name for name in _SINCE if name not in given})


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
    check_queue(services)
    base = services.registry.base(fields.name, fields.language, fields.base)
    if fields.callback_url is not None:
        _check_callback(services, fields.callback_url)
    received.check_emotions(base)
    try:
        job = store.create(
            Job(
                id=folder.path.name,
                owner=owner,
                source=received.source,
                idempotency_key=key,
                body_digest=received.digest,
                **received.job_fields(),
            )
        )
    except KeyTakenError:  # the same request, received by another thread at the same time
        job = earlier()
        assert job is not None
        return job
    services.jobs.notify()
    return job


def _check_callback(services: Services, url: str) -> None:
    hosts = services.jobs.callback_hosts
    parts = hosts.require(url)
    with contextlib.suppress(OSError):  # no name server now; each try looks the name up again
        hosts.addresses(parts)


def _storage(error: OSError) -> NoRoomError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return NoRoomError("The disk of the service is full; nothing of the upload was kept.")
    return NoRoomError("The service cannot write to its jobs folder; its log says why.")
