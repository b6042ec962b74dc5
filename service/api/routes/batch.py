"""POST /predict/batch: many recordings, an answer or an error for each."""

import asyncio
import errno
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, BinaryIO

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from ...inference.errors import NnpmError, NoRoomError
from ...predict.predict import PredictQuery, Shadow, score
from ...predict.schemas import PredictAnswer
from ...registry.serving import Route
from ..errors import NotReadyError, Problem, UnsupportedBodyError, problem_of
from ..forms import PARAMETERS, BatchForm, TheQuery
from ..middleware.access import requires
from ..openapi import BATCH_BODY, problems
from ..services import Services, services_of

router = APIRouter(tags=["predict"])
log = logging.getLogger("nnpm")


class BatchItem(BaseModel):
    """What became of one recording: an answer, or an error."""

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
    openapi_extra={"parameters": PARAMETERS, "requestBody": BATCH_BODY},
)
async def predict_batch(
    request: Request,
    query: TheQuery,
    services: Annotated[Services, Depends(services_of)],
) -> Response:
    """Recognise the emotion in each of many recordings.

    A recording that cannot be scored is an error in its own place; the others are answered. All
    of them are scored by the same version of the model.
    """
    if query.model is None and not services.readiness.ready:
        raise NotReadyError(services.readiness.obstacle)
    services.executor.check()
    async with _received(request, services.settings.max_batch_files) as form:
        batch = _Batch(services, query, request)
        scoring = asyncio.create_task(batch.score(form.recordings()))
        leaving = asyncio.create_task(_left(request))
        try:
            await asyncio.wait({scoring, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if not scoring.done():
                raise ClientDisconnect
            items = scoring.result()
        finally:
            await _end(scoring, leaving)
    return Response(f'{{"results":[{",".join(items)}]}}', media_type="application/json")


@asynccontextmanager
async def _received(request: Request, max_files: int) -> AsyncIterator[BatchForm]:
    content_type = request.headers.get("content-type", "")
    if content_type.partition(";")[0].strip().lower() != "multipart/form-data":
        raise UnsupportedBodyError(
            f"Content-Type {content_type[:64]!r}; send multipart/form-data with the recordings as "
            "parts 'files'."
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
            raise NoRoomError("The disk for uploads is full; nothing was kept.") from error
        yield form
    finally:
        await asyncio.to_thread(form.close)


async def _left(request: Request) -> None:
    """Wait until the client closes the connection."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _end(*tasks: asyncio.Task[object]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


class _Batch:
    """Scores the recordings of one request.

    One of them always is under way or waits in the queue like any request; more are only started
    while a worker has nothing to do. So a batch takes what is idle, and its share of what is not.
    """

    def __init__(self, services: Services, query: PredictQuery, request: Request) -> None:
        self._services = services
        self._query = query
        self._request = request
        self._request_id: str = request.state.request_id

    async def score(self, recordings: list[tuple[str, BinaryIO]]) -> list[str]:
        """Score all; items as JSON, in order."""
        query, services = self._query, self._services
        chosen = await services.executor.run_in_turn(
            lambda _: services.serving.choose(query.model, query.language)
        )
        items = [""] * len(recordings)
        running: set[asyncio.Task[None]] = set()

        async def one(index: int) -> None:
            items[index] = await self._item(chosen, *recordings[index])

        try:
            for index in range(len(recordings)):
                running.add(asyncio.create_task(one(index)))
                await asyncio.sleep(0)  # so that it is in the queue before that is looked at
                while running and not (
                    services.executor.idle and len(running) < services.executor.workers
                ):
                    done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                    for task in done:
                        task.result()
            await asyncio.gather(*running)
        finally:
            await _end(*running)
        return items

    async def _item(self, chosen: Route, name: str, file: BinaryIO) -> str:
        services = self._services

        def job(queue_s: float) -> tuple[PredictAnswer, str, Shadow | None]:
            answer, shadow = score(
                chosen,
                file,
                self._query,
                limits=services.settings.limits,
                traffic=services.traffic,
                shadows=services.shadows,
                queue_s=queue_s,
                request_id=self._request_id,
            )
            return answer, answer.to_json(), shadow

        try:
            answer, text, shadow = await services.executor.run_in_turn(job)
        except Exception as error:
            return self._error(name, error)
        services.answered(self._request, answer)
        if shadow is not None:
            shadow()
        return f'{{"file":{json.dumps(name)},"answer":{text}}}'

    def _error(self, name: str, error: Exception) -> str:
        if not isinstance(error, NnpmError):
            log.error("request %s: an item failed", self._request_id, exc_info=error)
        problem = problem_of(error).model_copy(update={"request_id": self._request_id})
        self._services.metrics.error(problem.code)
        return f'{{"file":{json.dumps(name)},"error":{problem.model_dump_json()}}}'
