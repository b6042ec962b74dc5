"""POST /adapt: unlabelled recordings in, a better model for their language out; and its jobs."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import HTMLResponse
from sse_starlette import EventSourceResponse
from starlette.responses import JSONResponse, Response

from service.api.adaptation import report as reports
from service.api.adaptation.events import events
from service.api.adaptation.intake import take
from service.api.adaptation.schemas import JobList, JobPart
from service.api.auth import Caller, requires
from service.api.openapi import ADAPT_BODY, problems
from service.api.services import Services, services_of
from service.jobs.errors import UnknownJobError
from service.jobs.job import Job
from service.jobs.layout import JobFolder

router = APIRouter(prefix="/adapt", tags=["adapt"])

TheServices = Annotated[Services, Depends(services_of)]
TheCaller = Annotated[Caller, Depends(requires("adapt"))]
_PING_S = 10


def _job(id: str, services: TheServices, caller: TheCaller) -> Job:  # noqa: A002 - the path's word
    """Find a job that the caller may see; another's is as unknown as one that never was."""
    job = services.office.store.get(id)
    if job.owner != caller.name and not caller.is_admin:
        raise UnknownJobError(f"There is no job {id[:64]!r}.")
    return job


TheJob = Annotated[Job, Depends(_job)]


@router.post(
    "",
    status_code=202,
    response_model=JobPart,
    responses={
        202: {"headers": {"Location": {"description": "The job.", "schema": {"type": "string"}}}},
        **problems(404, 409, 413, 415, 422, 501, 503),
    },
    openapi_extra={
        "requestBody": ADAPT_BODY,
        "parameters": [
            {
                "name": "Idempotency-Key",
                "in": "header",
                "required": False,
                "description": "The same key with the same request gives the same job.",
                "schema": {"type": "string", "minLength": 1, "maxLength": 255},
            }
        ],
    },
)
async def adapt(request: Request, services: TheServices, caller: TheCaller) -> Response:
    """Take unlabelled recordings of a language, and begin to make a better model for it.

    The answer is a job that waits for its turn. Nothing that answers now changes before the new
    version is promoted.
    """
    job = await take(request, services, caller.name)
    body = JobPart.of(job).model_dump_json()
    location = str(request.url_for("show_job", id=job.id).path)
    return Response(body, 202, {"Location": location}, "application/json")


@router.get("", responses=problems(422, 503))
def list_jobs(
    services: TheServices, caller: TheCaller, limit: Annotated[int, Query(ge=1, le=1000)] = 100
) -> JobList:
    """List the caller's jobs, newest first; an admin sees all."""
    owner = None if caller.is_admin else caller.name
    found = services.office.store.list(owner, limit=limit)
    return JobList(jobs=[JobPart.of(job) for job in found])


@router.get("/{id}", responses=problems(404, 422, 503))
def show_job(job: TheJob) -> JobPart:
    """Show one job."""
    return JobPart.of(job)


@router.get(
    "/{id}/events",
    response_class=EventSourceResponse,
    responses={
        200: {
            "description": "Events named `job`; the data of each are the job, as GET /adapt/{id} "
            "gives it. The last is of its end.",
            "content": {"text/event-stream": {"schema": {"type": "string"}}},
        },
        **problems(404, 422, 503),
    },
)
def watch_job(job: TheJob, services: TheServices) -> Response:
    """Watch one job: server-sent events until it has ended."""
    return EventSourceResponse(events(services.office.store, job), ping=_PING_S)


@router.get(
    "/{id}/report",
    response_class=HTMLResponse,
    responses={
        200: {
            "description": "A page; JSON, as `nnpm adapt --json` prints it, where Accept asks so.",
            "content": {"application/json": {"schema": {"type": "object"}}},
        },
        **problems(404, 422, 503),
    },
)
def show_report(request: Request, job: TheJob, services: TheServices) -> Response:
    """Show what the adaptation found."""
    report = reports.read(job, JobFolder(services.settings.jobs, job.id))
    accept = request.headers.get("accept", "")
    headers = {"Vary": "Accept"}
    if "json" in accept and "text/html" not in accept:
        return JSONResponse(report, headers=headers)
    headers["Content-Security-Policy"] = reports.PAGE_POLICY
    return HTMLResponse(reports.page(job, report), headers=headers)


@router.delete("/{id}", responses=problems(404, 422, 503))
def cancel_job(job: TheJob, services: TheServices) -> JobPart:
    """Cancel a job: at once while it waits, within a second while it runs.

    One that has ended stays as it is.
    """
    return JobPart.of(services.office.cancel(job.id))
