"""POST /predict/batch: many recordings, an answer or an error for each."""

import asyncio
import errno
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any, BinaryIO

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from ...inference.errors import NnpmError, NoRoomError
from ...predict.predict import PredictQuery, Shadow, score
from ...predict.schemas import PredictAnswer
from ...registry.serving import Route
from ..errors import NotReadyError, Problem, UnsupportedBodyError, problem_of
from ..forms import BatchForm
from ..middleware.access import requires
from ..openapi import FILE, problems
from ..services import Services, services_of

router = APIRouter(tags=["predict"])
log = logging.getLogger("nnpm")


BODY: dict[str, Any] = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["files"],
                "properties": {
                    "files": {
                        "type": "array",
                        "minItems": 1,
                        "items": FILE,
                        "description": "Recordings, as for /predict.",
                    }
                },
            }
        }
    },
}


class BatchItem(BaseModel):
    """The result of one recording: an answer, or an error."""

    file: str
    answer: PredictAnswer | None = None
    error: Problem | None = None


class BatchAnswer(BaseModel):
    """One item per file, in the order of the form."""

    results: list[BatchItem]


@router.post(
    "/predict/batch",
    response_model=BatchAnswer,
    response_model_exclude_unset=True,
    responses=problems(404, 413, 415, 422, 500, 503),
    dependencies=[Depends(requires("predict"))],
    openapi_extra={"requestBody": BODY},
)
async def predict_batch(
    request: Request,
    query: Annotated[PredictQuery, Query()],
    services: Annotated[Services, Depends(services_of)],
) -> Response:
    """Recognise the emotion in each of many recordings.

    A recording that cannot be scored gets an error in its place; the others get answers. The same
    version of the model scores all of them.
    """
    if query.model is None and not services.readiness.ready:
        raise NotReadyError(services.readiness.obstacle)
    services.pool.check()
    async with _received(request, services.settings.max_batch_files) as form:
        batch = _Batch(services, query, request)
        scoring = asyncio.create_task(batch.score(form.recordings()))
        leaving = asyncio.create_task(_disconnect(request))
        try:
            await asyncio.wait({scoring, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if not scoring.done():
                raise ClientDisconnect
            batch_answer = BatchAnswer(results=scoring.result())
        finally:
            await _end(scoring, leaving)
    body = await asyncio.to_thread(batch_answer.model_dump_json, exclude_unset=True)
    return Response(body, media_type="application/json")


@asynccontextmanager
async def _received(request: Request, max_files: int) -> AsyncIterator[BatchForm]:
    content_type = request.headers.get("content-type", "")
    if content_type.partition(";")[0].strip().lower() != "multipart/form-data":
        raise UnsupportedBodyError(
            f"The Content-Type is {content_type[:64]!r}; send multipart/form-data with the "
            "recordings as parts 'files'."
        )
    form = BatchForm(content_type, max_files)
    try:
        try:
            async for piece in request.stream():
                await asyncio.to_thread(form.write, piece)
            await asyncio.to_thread(form.finish)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise NoRoomError(
                "The disk for uploads is full; nothing of the upload was kept."
            ) from error
        yield form
    finally:
        await asyncio.to_thread(form.close)


async def _disconnect(request: Request) -> None:
    """Wait until the client closes the connection."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _end(*tasks: asyncio.Task[object]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


class _Batch:
    """Scores the recordings of one request.

    One of them is always being scored or waits in the queue like any request; more are started
    only while a worker is idle. So a batch uses idle workers, and its share of busy ones.
    """

    def __init__(self, services: Services, query: PredictQuery, request: Request) -> None:
        self._services = services
        self._query = query
        self._request = request
        self._request_id: str = request.state.request_id

    async def score(self, recordings: list[tuple[str, BinaryIO]]) -> list[BatchItem]:
        """Score all; the results are in the order of the form."""
        query, services = self._query, self._services
        route = await services.pool.run_in_turn(
            lambda _: services.serving.choose(query.model, query.language)
        )
        items: list[BatchItem] = [BatchItem(file=name) for name, _ in recordings]
        running: set[asyncio.Task[None]] = set()

        async def one(index: int) -> None:
            items[index] = await self._item(route, *recordings[index])

        try:
            for index in range(len(recordings)):
                running.add(asyncio.create_task(one(index)))
                await asyncio.sleep(0)  # so that it is in the queue before that is looked at
                while running and not (services.pool.idle and len(running) < services.pool.workers):
                    done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                    for task in done:
                        task.result()
            await asyncio.gather(*running)
        finally:
            await _end(*running)
        return items

    async def _item(self, route: Route, name: str, file: BinaryIO) -> BatchItem:
        services = self._services

        def job(queue_s: float) -> tuple[PredictAnswer, Shadow | None]:
            return score(
                route,
                file,
                self._query,
                limits=services.limits,
                traffic=services.traffic,
                shadows=services.shadows,
                queue_s=queue_s,
                request_id=self._request_id,
            )

        try:
            answer, shadow = await services.pool.run_in_turn(job)
        except Exception as error:
            return self._error(name, error)
        services.answered(self._request, answer)
        if shadow is not None:
            shadow()
        return BatchItem(file=name, answer=answer)

    def _error(self, name: str, error: Exception) -> BatchItem:
        if not isinstance(error, NnpmError):
            log.error("request %s: one recording failed", self._request_id, exc_info=error)
        problem = problem_of(error, self._request_id)
        self._services.metrics.error(problem.code)
        return BatchItem(file=name, error=problem)
