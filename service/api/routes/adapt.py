"""/adapt: start an adaptation job from unlabelled recordings; list, watch and cancel jobs."""

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Annotated, Self

from fastapi import APIRouter, Depends, Query, Request
from fastapi import Path as PathParameter
from fastapi.responses import HTMLResponse
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from sse_starlette import EventSourceResponse
from starlette.responses import JSONResponse, Response

from ...inference.errors import printable
from ...jobs.errors import StoreUnavailableError, UnknownJobError
from ...jobs.folder import JobFolder
from ...jobs.intake import subfolders
from ...jobs.job import Job, Kind, State
from ...jobs.store import JobStore
from ..adaptation import AdaptRequest, FolderRequest, receive_request
from ..adaptation_form import LABELS
from ..errors import NoClipError
from ..middleware.access import Caller, requires
from ..openapi import FILE, problems
from ..reports import PAGE_POLICY, read_report, report_page
from ..services import Services, services_of

Share = Annotated[float, Field(ge=0, le=1)]


Name = Annotated[str, BeforeValidator(printable)]
"""Of a file; a database of an earlier version may hold some that no answer can."""


class _Part(BaseModel):
    model_config = ConfigDict(use_attribute_docstrings=True, from_attributes=True)


class ClipsPart(_Part):
    """The recordings of a job, counted."""

    accepted: int = 0
    """Recordings that the adaptation used."""
    skipped: dict[str, int] = Field(default_factory=dict)
    """Recordings left out, by reason: undecodable, too_short, too_long, no_speech, duplicate."""
    examples: dict[str, list[Name]] = Field(default_factory=dict)
    """Some of the names of these and of what was passed over, by reason."""
    passed_over: dict[str, int] = Field(default_factory=dict)
    """Files that are no recordings, by reason: not_audio, hidden, system_folder, not_a_file."""


class EstimatePart(_Part):
    """An accuracy that was estimated without labels."""

    value: Share
    error: Share
    """Mean absolute error of such estimates."""


class ChangePart(_Part):
    """A figure of the base, and the same of the new version, on the same recordings."""

    before: Share
    after: Share


class JobPart(_Part):
    """One job."""

    id: str
    kind: Kind
    """adapt, or evaluate: POST /models/{name}/{version}/evaluate made it."""
    owner: str
    """Name of the API key that started it; anonymous on a service without keys."""
    state: State
    progress: Share
    eta_s: float | None
    """Seconds until the end; null if unknown."""
    name: str
    """The model that gets a new version."""
    language: str
    """BCP-47."""
    method: str
    emotions: list[str]
    """Emotions that occur in the recordings, as the request said; empty for all."""
    channels: str | int
    """Channels that are learnt from: mix, split, or the number of one."""
    seed: int
    base: str | None
    """The version that is adapted; null until the work begins, unless the request named one."""
    auto_promote: bool
    force: bool
    keep_audio: bool
    """Whether recordings whose answer changed are kept for a while: GET /adapt/{id}/clips/{n}."""
    version: str | None
    """The version that was published; null until then."""
    clips: ClipsPart | None
    """Null until the audio has been examined."""
    verdict: str | None
    """Of the evidence: improved, no change or reject."""
    estimated_accuracy: EstimatePart | None
    answered_share: ChangePart | None
    """Share of the recordings that get an answer; null until the evidence is there."""
    callback_url: str | None
    """Where the job is posted when it ends."""
    error: str | None
    """Why the job failed or was rejected, or why it is tried again."""
    attempts: int
    """How often a worker claimed the job."""
    created_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, job: Job) -> Self:
        """The job without the fields that only store and workers need."""
        return cls.model_validate(job)


def describe_job(job: Job) -> str:
    """The job as GET /adapt/{id} shows it, in JSON: what a callback posts."""
    return JobPart.of(job).model_dump_json()


class JobList(_Part):
    """The jobs that the caller may see, newest first."""

    jobs: list[JobPart]


_LOOK_S = 0.3


async def job_events(store: JobStore, job: Job) -> AsyncIterator[dict[str, str]]:
    """Yield the job, and again after every change, until it has ended.

    Each event is named ``job``; its data are the job as JSON. There are no events while the
    database is unavailable.
    """
    yield _event(job)
    while not job.ended:
        await asyncio.sleep(_LOOK_S)
        try:
            found = await asyncio.to_thread(store.get, job.id)
        except StoreUnavailableError:
            continue
        except UnknownJobError:
            return
        if (found.updated_at, found.state) != (job.updated_at, job.state):
            yield _event(found)
        job = found


def _event(job: Job) -> dict[str, str]:
    return {"event": "job", "data": describe_job(job)}


router = APIRouter(prefix="/adapt", tags=["adapt"])

TheServices = Annotated[Services, Depends(services_of)]
TheCaller = Annotated[Caller, Depends(requires("adapt"))]
_PING_S = 10


def _job(id: str, services: TheServices, caller: TheCaller) -> Job:  # noqa: A002 - the path's word
    """Find a job that the caller may see; any other job is unknown to the caller."""
    job = services.jobs.store.get(id)
    if job.owner != caller.name and not caller.is_admin:
        raise UnknownJobError(f"There is no job {id[:64]!r}.")
    return job


TheJob = Annotated[Job, Depends(_job)]


BODY = {
    "required": True,
    "content": {
        "application/json": {
            "schema": FolderRequest.model_json_schema(),
            "example": {"folder": "/data/urdu", "language": "ur"},
        },
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "properties": {
                    "archive": {**FILE, "description": "zip, tar, tar.gz or tar.zst."},
                    "files": {"type": "array", "items": FILE, "description": "Recordings."},
                    LABELS: {
                        **FILE,
                        "description": "A few labels: CSV with the columns path, as in the "
                        "upload, and emotion.",
                    },
                    **AdaptRequest.model_json_schema()["properties"],
                },
                "oneOf": [{"required": ["archive"]}, {"required": ["files"]}],
            }
        },
    },
}


@router.post(
    "",
    status_code=202,
    response_model=JobPart,
    responses={
        202: {"headers": {"Location": {"description": "The job.", "schema": {"type": "string"}}}},
        **problems(403, 404, 409, 413, 415, 422, 501, 503),
    },
    openapi_extra={
        "requestBody": BODY,
        "parameters": [
            {
                "name": "Idempotency-Key",
                "in": "header",
                "required": False,
                "description": "The same request with the same key gives the same job.",
                "schema": {"type": "string", "minLength": 1, "maxLength": 255},
            }
        ],
    },
)
async def adapt(request: Request, services: TheServices, caller: TheCaller) -> Response:
    """Start to adapt a model to a language, from unlabelled recordings.

    The answer is a queued job. The versions that answer now stay until the new one is promoted.
    """
    job = await receive_request(request, services, caller.name)
    body = describe_job(job)
    location = str(request.url_for("show_job", id=job.id).path)
    return Response(body, 202, {"Location": location}, "application/json")


@router.get("", responses=problems(422, 503))
def list_jobs(
    services: TheServices, caller: TheCaller, limit: Annotated[int, Query(ge=1, le=1000)] = 100
) -> JobList:
    """List the caller's jobs, newest first; an admin sees all."""
    owner = None if caller.is_admin else caller.name
    found = services.jobs.store.list(owner, limit=limit)
    return JobList(jobs=[JobPart.of(job) for job in found])


class RootPart(_Part):
    """A folder under which POST /adapt may name a folder."""

    path: str
    """Absolute."""
    folders: list[str]
    """Those below it, absolute too, the nearest first; at most 1000."""
    truncated: bool
    """Whether there are more."""


class FolderList(_Part):
    """The folders that POST /adapt accepts."""

    roots: list[RootPart]


@router.get("/folders", responses=problems(422, 503), dependencies=[Depends(requires("adapt"))])
def list_folders(services: TheServices) -> FolderList:
    """List the folders that POST /adapt accepts: those of NNPM_ADAPT_ROOTS, and those below."""
    roots = []
    for root in dict.fromkeys(root.resolve() for root in services.settings.adapt_roots):
        found, truncated = subfolders(root)
        names = [printable(path) for path in found]
        roots.append(RootPart(path=printable(root), folders=names, truncated=truncated))
    return FolderList(roots=roots)


@router.get("/{id}", responses=problems(404, 422, 503))
def show_job(job: TheJob) -> JobPart:
    """Show one job."""
    return JobPart.of(job)


@router.get(
    "/{id}/events",
    response_class=EventSourceResponse,
    responses={
        200: {
            "description": "Events named `job`; their data are the job, as in GET /adapt/{id}. "
            "The last event is the job in its final state.",
            "content": {"text/event-stream": {"schema": {"type": "string"}}},
        },
        **problems(404, 422, 503),
    },
)
def watch_job(job: TheJob, services: TheServices) -> Response:
    """Watch one job: server-sent events until it has ended."""
    return EventSourceResponse(job_events(services.jobs.store, job), ping=_PING_S)


@router.get(
    "/{id}/report",
    response_class=HTMLResponse,
    responses={
        200: {
            "description": "A page; JSON, as `nnpm adapt --json` prints it, if Accept wants it.",
            "content": {"application/json": {"schema": {"type": "object"}}},
        },
        **problems(404, 409, 422, 503),
    },
)
def show_report(request: Request, job: TheJob, services: TheServices) -> Response:
    """Show the report of the adaptation."""
    report = read_report(job, JobFolder(services.settings.jobs, job.id))
    accept = request.headers.get("accept", "")
    headers = {"Vary": "Accept"}
    if "json" in accept and "text/html" not in accept:
        return JSONResponse(report, headers=headers)
    headers["Content-Security-Policy"] = PAGE_POLICY
    address = str(request.base_url).rstrip("/")
    keyed = services.settings.api_keys_file is not None
    return HTMLResponse(report_page(job, report, address, keyed=keyed), headers=headers)


@router.get(
    "/{id}/clips/{n}",
    response_class=Response,
    responses={
        200: {
            "description": "The recording in WAV: 16 kHz, one channel, at most a minute.",
            "content": {"audio/wav": {"schema": FILE}},
        },
        **problems(404, 409, 422, 503),
    },
)
def show_clip(
    job: TheJob, services: TheServices, n: Annotated[int, PathParameter(ge=0, le=10_000)]
) -> Response:
    """Give the audio of a recording whose answer changed, if the job was sent with keep_audio.

    Its number is that of the list `changed_clips` of the report, from 0. It is deleted
    NNPM_KEEP_AUDIO_S after the end of the job, or by DELETE /adapt/{id}.
    """
    if not job.keep_audio:
        raise NoClipError("The job keeps no audio; send keep_audio=true with POST /adapt.")
    folder = JobFolder(services.settings.jobs, job.id)
    changed = read_report(job, folder).get("changed_clips", [])
    if n >= len(changed):
        last = f"0 to {len(changed) - 1}" if changed else "none"
        raise NoClipError(f"The recording's number is {n}; the report lists {last}.")
    keep_s = services.settings.keep_audio_s
    try:
        audio = (folder.clips / f"{n}.wav").read_bytes() if job.keeps_audio(keep_s) else None
    except OSError:
        audio = None
    if audio is None:
        raise NoClipError(
            f"The audio is not there: it is deleted {keep_s:g} s after the end of the job, or when "
            "somebody asks for that; or it could not be kept."
        )
    return Response(audio, media_type="audio/wav")


@router.delete("/{id}", responses=problems(404, 422, 503))
def cancel_job(job: TheJob, services: TheServices) -> JobPart:
    """Cancel a job: at once while it is queued, within a second while it runs.

    A job that has ended does not change, but the audio that it keeps is deleted.
    """
    return JobPart.of(services.jobs.cancel(job.id))
