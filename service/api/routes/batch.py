"""POST /predict/batch: many recordings, an answer or an error for each."""

import asyncio
import contextlib
import io
import logging
import os
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from tempfile import TemporaryFile
from typing import IO, Annotated, Any, BinaryIO, cast

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel
from starlette.responses import Response

from ...inference.errors import AbandonedError, NnpmError, ParameterError
from ...predict.predict import PredictQuery, Shadow, model_part, read_query, score
from ...predict.schemas import ModelPart, PredictAnswer
from ...predict.tables import Failure, Item, render
from ...registry.serving import Route
from ..errors import BadFormError, NotReadyError, Problem, UnsupportedBodyError, problem_of
from ..forms import Form, require_uncompressed, storing
from ..headers import FORMAT_CONTENT, answer_format, written
from ..middleware.access import requires
from ..openapi import FILE, problems
from ..services import Services, services_of, while_connected

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

    def as_item(self, model: ModelPart) -> Item:
        """The same for tables and annotations."""
        if self.answer is not None:
            return Item(self.file, self.answer)
        assert self.error is not None
        return Item(self.file, Failure(self.error.code, self.error.detail), model)


class BatchAnswer(BaseModel):
    """One item per file, in the order of the form."""

    results: list[BatchItem]


@router.post(
    "/predict/batch",
    response_model=BatchAnswer,
    response_model_exclude_unset=True,
    responses={200: {"content": FORMAT_CONTENT}, **problems(404, 413, 415, 422, 500, 501, 503)},
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
    sent = request.query_params.multi_items()
    answer_format(request, read_query(sent), many=True)
    async with _received(request, services.settings.max_batch_files) as form:
        query = read_query(sent, form.fields)
        if query.peaks:
            raise ParameterError("peaks is for one recording; send it to /predict.")
        kind = answer_format(request, query, many=True)
        batch = _Batch(services, query, request)
        items = await while_connected(request, batch.score(form.recordings()))

    def body() -> bytes | str:
        if kind == "json":
            return BatchAnswer(results=items).model_dump_json(exclude_unset=True)
        found = [one.as_item(model_part(batch.route)) for one in items]
        return render(kind, found, query.level, batch.route.recognizer.bundle.labels)

    return written(kind, await asyncio.to_thread(body), "answers")


FILES = "files"
"""Name of the parts that hold audio."""

_MAX_NAME = 255
_HOW_MANY = (
    "send multipart/form-data with the recordings as parts 'files' (curl -F files=@a.wav -F ...)"
)


class BatchForm(Form):
    """Parses the form of POST /predict/batch; all recordings share one unnamed open file.

    Args:
        content_type: of the request, with its boundary.
        max_files: most recordings.

    Raises:
        BadFormError: if the boundary is missing or too long.
    """

    def __init__(self, content_type: str, max_files: int) -> None:
        super().__init__(content_type, FILES)
        self._max_files = max_files
        self._store = TemporaryFile()  # noqa: SIM115 (closed by close)
        self._lock = threading.Lock()
        self._size = 0
        self._bounds: list[tuple[str, int, int]] = []

    def begin(self, name: str, filename: str) -> None:
        """Begin a recording."""
        if name != FILES:
            raise BadFormError(f"The form has a file named {name[:64]!r}; {_HOW_MANY}.")
        if len(self._bounds) >= self._max_files:
            raise BadFormError(
                f"The form has more than {self._max_files} files; send several requests, or "
                "score the folder with 'nnpm predict'."
            )
        name = filename[:_MAX_NAME] or f"recording {len(self._bounds) + 1}"
        self._bounds.append((name, self._size, self._size))

    def data(self, piece: memoryview) -> None:
        """Write the next bytes of a recording."""
        self._store.write(piece)
        self._size += len(piece)

    def end(self) -> None:
        """End a recording."""
        name, start, _ = self._bounds[-1]
        self._bounds[-1] = (name, start, self._size)

    def finish(self) -> None:
        """Check that the form is complete.

        Raises:
            BadFormError: if the last boundary is missing, or the form holds no recording.
        """
        super().finish()
        if not self._bounds:
            raise BadFormError(f"The form has no file; {_HOW_MANY}.")
        self._store.flush()

    def recordings(self) -> list[tuple[str, BinaryIO]]:
        """List name as sent and content of each recording; threads may read them at once."""
        return [
            (name, cast(BinaryIO, _Section(self._store, self._lock, start, end)))
            for name, start, end in self._bounds
        ]

    def close(self) -> None:
        """Delete the recordings; a thread that still reads one comes to its end."""
        with self._lock, contextlib.suppress(OSError):  # a full disk, which was reported
            self._store.close()


class _Section(io.RawIOBase):
    """A section of a file that other threads read, too; empty once the file is closed."""

    def __init__(self, store: IO[bytes], lock: threading.Lock, start: int, end: int) -> None:
        self._store = store
        self._lock = lock
        self._start = start
        self._size = end - start
        self._position = 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move; return the position."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise ValueError(f"{base + offset} is before the start")
        self._position = base + offset
        return self._position

    def tell(self) -> int:
        """Return the position."""
        return self._position

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Fill the buffer as far as there are bytes; return how many."""
        count = max(0, min(len(buffer), self._size - self._position))
        with self._lock:
            # A decoder that calls back from C understands the end of the file, but no exception.
            if self._store.closed:
                return 0
            self._store.seek(self._start + self._position)
            piece = self._store.read(count)
        buffer[: len(piece)] = piece
        self._position += len(piece)
        return len(piece)


@asynccontextmanager
async def _received(request: Request, max_files: int) -> AsyncIterator[BatchForm]:
    content_type = request.headers.get("content-type", "")
    if content_type.partition(";")[0].strip().lower() != "multipart/form-data":
        raise UnsupportedBodyError(
            f"The Content-Type is {content_type[:64]!r}; send multipart/form-data with the "
            "recordings as parts 'files'."
        )
    with storing():
        form = BatchForm(content_type, max_files)
    try:
        with storing():
            async for piece in request.stream():
                await asyncio.to_thread(form.write, piece)
            await asyncio.to_thread(form.finish)
        yield form
    finally:
        await asyncio.to_thread(form.close)


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
        self.route: Route
        """What answers, once it is chosen."""

    async def score(self, recordings: list[tuple[str, BinaryIO]]) -> list[BatchItem]:
        """Score all; the results are in the order of the form."""
        query, services = self._query, self._services
        route = await services.pool.run_in_turn(
            lambda _: services.serving.choose(query.model, query.language)
        )
        self.route = route
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
            require_uncompressed(file)
            return score(
                route,
                file,
                self._query,
                limits=services.limits,
                traffic=services.traffic,
                shadows=services.shadows,
                name=name,
                queue_s=queue_s,
                request_id=self._request_id,
            )

        try:
            answer, shadow = await services.pool.run_in_turn(job)
        except AbandonedError:
            raise
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
