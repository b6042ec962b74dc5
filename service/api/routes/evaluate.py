"""POST /models/{name}/{version}/evaluate: measure a version on labelled recordings.

Few recordings are scored at once; more become a job. Either way a process of its own does the
work, as for adaptation, and the recordings are deleted afterwards.
"""

import asyncio
import shutil
import threading
import time
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, ConfigDict
from starlette.responses import JSONResponse, Response

from ...inference import bundle as bundles
from ...inference.errors import ExtraMissingError, ParameterError, check_abandoned
from ...jobs.archive import IntakeLimits, unpack
from ...jobs.errors import ArchiveTooLargeError
from ...jobs.folder import EvaluationTask, JobFolder, read_json, read_request, write_json
from ...jobs.job import Job, Kind, new_id
from ...jobs.labels import MANIFEST, MAX_MANIFEST_BYTES, labelled_folder, read_labels
from ...jobs.process import Child
from ...predict.pool import OverloadedError
from ...registry.folder import ModelVersion
from ..adaptation import check_queue
from ..adaptation_form import ARCHIVE, receive_form
from ..errors import BadFormError, EvaluationError, UnsupportedBodyError
from ..forms import storing
from ..middleware.access import Caller, require, requires
from ..openapi import FILE, problems
from ..services import Services, services_of, while_connected
from .adapt import JobPart, describe_job

router = APIRouter(prefix="/models", tags=["models"])

TheServices = Annotated[Services, Depends(services_of)]
TheCaller = Annotated[Caller, Depends(requires("adapt"))]

MAX_CLIPS = 100
"""With more recordings, or more bytes of them, an evaluation is a job."""

_MAX_BYTES = 32 << 20
_LOOK_S = 0.05
_ONE_AT_A_TIME = threading.Lock()


class _Part(BaseModel):
    model_config = ConfigDict(use_attribute_docstrings=True)


class Figure(_Part):
    """A figure with its interval."""

    value: float
    low: float
    """Lower end of the 95 % interval: bootstrap over recordings."""
    high: float


class Figures(_Part):
    """How well the answers fit the labels."""

    wa: Figure
    """Share of right answers; every recording counts as answered."""
    uar: Figure
    """Mean recall of the emotions."""
    ece: Figure
    """Mean gap between confidence and accuracy."""
    answered_share: Figure
    """Share that gets an answer."""


class Recalibrated(Figures):
    """The same after recalibration, of recordings that it was not fitted to, in turn."""

    temperature: float
    low_confidence: float
    """Confidence below which there would be no answer."""
    logit_bias: list[float]
    """Added for each emotion; empty with fewer than 40 recordings."""


class Recall(_Part):
    """One emotion."""

    clips: int
    recall: float


class EvaluationAnswer(Figures):
    """A version, measured on labelled recordings."""

    clips: dict[str, Any]
    """Recordings, counted as in a job."""
    undecodable: int
    """Recordings that cannot be decoded; they count as wrong."""
    labels: list[str]
    """Emotions of the version."""
    calibrated: bool
    """Whether the version's confidence was calibrated on labels."""
    per_class: dict[str, Recall]
    recalibrated: Recalibrated | None
    """What recalibration would change; null if there are too few recordings."""
    reason: str
    """Why there is no recalibration; else empty."""
    bundle: str | None
    """The recalibrated version, name/version, if `apply` published it."""


class _Choice(BaseModel):
    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    apply: bool = False
    """Publish a recalibrated version; it is not promoted. Needs the scope admin."""


BODY = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": [ARCHIVE],
                "properties": {
                    ARCHIVE: {
                        **FILE,
                        "description": "zip, tar, tar.gz or tar.zst: recordings, and metadata.csv "
                        "with the columns path and emotion.",
                    },
                    **_Choice.model_json_schema()["properties"],
                },
            }
        }
    },
}


@router.post(
    "/{name}/{version}/evaluate",
    response_model=EvaluationAnswer,
    responses={
        202: {
            "description": f"More than {MAX_CLIPS} recordings: a job.",
            "model": JobPart,
            "headers": {"Location": {"description": "The job.", "schema": {"type": "string"}}},
        },
        **problems(404, 413, 415, 422, 501, 503),
    },
    openapi_extra={"requestBody": BODY},
)
async def evaluate(
    name: str,
    version: str,
    request: Request,
    services: TheServices,
    caller: TheCaller,
    apply: bool = False,
) -> Response:
    """Measure a version on labelled recordings, and what recalibration would change.

    Above 100 recordings, or 32 MiB of them unpacked, the answer is 202 and a job. The archive is
    deleted afterwards.
    """
    if not services.jobs.takes_jobs:
        raise ExtraMissingError(
            "An evaluation needs the extra 'adapt', which is not installed: pip install "
            "'nnpm[adapt]'."
        )
    model = await asyncio.to_thread(services.registry.resolve, name, version)
    folder = JobFolder(services.settings.jobs, new_id())
    kept = False
    try:
        apply = await _receive(request, services, folder) or apply
        if apply:
            require(caller, "admin")
        work = _Evaluation(services, folder, model, apply)
        if await asyncio.to_thread(work.is_small):
            report = await while_connected(request, asyncio.to_thread(work.run))
            return JSONResponse(report)
        job = await asyncio.to_thread(work.enqueue, caller.name)
        kept = True
    finally:
        if not kept:
            await asyncio.shield(asyncio.to_thread(folder.remove))
    location = str(request.url_for("show_job", id=job.id).path)
    return Response(describe_job(job), 202, {"Location": location}, "application/json")


async def _receive(request: Request, services: Services, folder: JobFolder) -> bool:
    """Store the archive; whether the form says ``apply``."""
    content_type = request.headers.get("content-type", "")
    if content_type.partition(";")[0].strip().lower() != "multipart/form-data":
        raise UnsupportedBodyError(
            f"Content-Type {content_type[:64]!r}; send multipart/form-data with the part "
            "'archive' (curl -F archive=@labelled.zip)."
        )
    with storing():
        await asyncio.to_thread(folder.create)
        form = await receive_form(request, folder, services.settings.adapt_max_files)
    if form.files[0][0] != ARCHIVE:
        raise BadFormError(
            "The recordings came as 'files'; send an archive of them and their metadata.csv as "
            "'archive' (curl -F archive=@labelled.zip)."
        )
    return read_request(_Choice, form.texts()).apply


@dataclass(frozen=True, slots=True)
class _Evaluation:
    """One evaluation; its methods read and write files, so call them on a thread."""

    services: Services
    folder: JobFolder
    model: ModelVersion
    apply: bool

    def is_small(self) -> bool:
        """Unpack the archive, as long as it is small, and check what is in it.

        Raises:
            ArchiveError: if it cannot be unpacked.
            ParameterError: if it has no metadata.csv, or its labels cannot be used.
        """
        settings = self.services.settings
        limits = IntakeLimits(
            min(settings.adapt_max_members, 3 * MAX_CLIPS),
            min(settings.adapt_max_unpacked_bytes, _MAX_BYTES),
            settings.adapt_max_ratio,
            MANIFEST,
        )
        target = self.folder.target / "0"
        try:
            unpack(self.folder.upload / ARCHIVE, target, limits)
        except ArchiveTooLargeError:
            shutil.rmtree(target, ignore_errors=True)
            return False
        place = labelled_folder(target)
        labels = read_labels(place / MANIFEST, place, max_bytes=MAX_MANIFEST_BYTES)
        known = bundles.load(self.model.path).labels
        if unknown := sorted(set(labels.values()) - set(known)):
            raise ParameterError(
                f"The labels name {', '.join(unknown)}, which version {self.model.version} of "
                f"{self.model.name} does not answer; it answers {', '.join(known)}."
            )
        return len(labels) <= MAX_CLIPS

    def run(self) -> dict[str, Any]:
        """Evaluate at once.

        Raises:
            OverloadedError: if another evaluation runs.
            EvaluationError: if the version cannot be evaluated.
        """
        if not _ONE_AT_A_TIME.acquire(blocking=False):
            raise OverloadedError("An evaluation is running; try again when it has ended.")
        child = Child(self.folder, self.services.jobs.command)
        try:
            task = EvaluationTask(
                bundle=self.model.path.resolve(),
                target=labelled_folder(self.folder.target / "0").resolve(),
                out=self.folder.out.resolve() if self.apply else None,
                threads=self.services.settings.adapt_threads,
            )
            write_json(self.folder.request, task.model_dump(mode="json"))
            child.start(self.services.settings.adapt_threads, self.services.settings.adapt_nice)
            while child.alive():
                check_abandoned()
                time.sleep(_LOOK_S)
        finally:
            child.stop()
            _ONE_AT_A_TIME.release()
        report = read_json(self.folder.report)
        if report is None:
            error = read_json(self.folder.error)
            if error is None:
                raise RuntimeError(child.exit_reason())
            if error.get("errno") is not None:
                with storing():
                    raise OSError(error["errno"], str(error["detail"]))
            raise EvaluationError(str(error["detail"]))
        if report["bundle"] is not None:
            new = self.services.registry.publish(
                self.folder.out, self.model.name, key=self.folder.path.name
            )
            self.services.serving.refresh(self.model.name)
            report["bundle"] = new.title
        fields = EvaluationAnswer.model_validate(report)
        return fields.model_dump(mode="json")

    def enqueue(self, owner: str) -> Job:
        """Store a job that evaluates.

        Raises:
            OverloadedError: if too many jobs wait.
        """
        shutil.rmtree(self.folder.target, ignore_errors=True)
        check_queue(self.services)
        job = Job(
            id=self.folder.path.name,
            kind=Kind.EVALUATE,
            apply=self.apply,
            owner=owner,
            source=ARCHIVE,
            name=self.model.name,
            base=self.model.version,
            language=bundles.load(self.model.path).card.language,
        )
        job = self.services.jobs.store.create(job)
        self.services.jobs.notify()
        return job
