"""POST /predict: one recording, one answer."""

from collections.abc import Callable, Coroutine
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from fastapi.routing import APIRoute
from starlette.background import BackgroundTask
from starlette.responses import Response

from ...inference.errors import ParameterError
from ...predict.predict import PredictQuery, Shadow, read_query, score
from ...predict.schemas import PredictAnswer
from ...predict.tables import Item, render
from ..errors import NotReadyError
from ..forms import audio_body
from ..headers import FORMAT_CONTENT, answer_format, written
from ..middleware.access import caller_of, require, requires
from ..openapi import FILE, problems
from ..services import Services, services_of, while_connected

_UNWATCHED_S = 1.0
"""Under load most requests wait for a thread for a quarter of a second, and watching each costs."""


class _Quick(APIRoute):
    """A route that reads its query itself, and leaves what it cannot read to FastAPI.

    FastAPI goes through all parameters one by one, which costs more than decoding a clip. What
    :func:`read_query` takes, FastAPI takes too and reads alike; what it refuses, FastAPI answers,
    as well as requests that are traced.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Make the handler."""
        handler = super().get_route_handler()

        async def quick(request: Request) -> Response:
            services = await services_of(request)
            try:
                query = read_query(request.query_params.multi_items())
            except ParameterError:
                return await handler(request)
            if services.tracing.is_on:
                return await handler(request)
            require(await caller_of(request), "predict")
            return await predict_one(request, query, services)

        return quick


router = APIRouter(tags=["predict"], route_class=_Quick)

BODY: dict[str, Any] = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["file"],
                "properties": {
                    "file": {
                        **FILE,
                        "description": (
                            "WAV, FLAC, MP3, Ogg (Opus or Vorbis), AIFF, AU or CAF; with the "
                            "extra 'media' also MP4, M4A, WebM, AMR, WMA and the sound of videos."
                        ),
                    },
                    "turns": {
                        "type": "string",
                        "description": "The turns to score: RTTM or JSON, as text or as a file.",
                    },
                },
            }
        },
        "audio/*": {"schema": FILE},
        "video/*": {"schema": FILE},
        "application/octet-stream": {"schema": FILE},
    },
}


@router.post(
    "/predict",
    operation_id="predict",
    response_model=PredictAnswer,
    responses={200: {"content": FORMAT_CONTENT}, **problems(404, 413, 415, 422, 500, 501, 503)},
    openapi_extra={"requestBody": BODY},
    dependencies=[Depends(requires("predict"))],
)
async def predict_one(
    request: Request,
    query: Annotated[PredictQuery, Query()],
    services: Annotated[Services, Depends(services_of)],
) -> Response:
    """Recognise the emotion in one recording.

    Silence, noise and speech that the model is unsure of are answered with 200 and
    ``abstained``. Recordings that cannot be decoded, or are too short, are errors.
    """
    if query.model is None and not services.readiness.ready:
        raise NotReadyError(services.readiness.obstacle)
    services.pool.check()
    sent = request.query_params.multi_items()
    answer_format(request, read_query(sent), many=False)
    async with audio_body(request) as upload:
        query = read_query(sent, upload.fields)
        form = answer_format(request, query, many=False)

        def job(queue_s: float) -> tuple[PredictAnswer, bytes | str, Shadow | None]:
            answer, shadow = score(
                services.serving.choose(query.model, query.language),
                upload.file,
                query,
                limits=services.limits,
                traffic=services.traffic,
                shadows=services.shadows,
                name=upload.name,
                queue_s=queue_s,
                request_id=request.state.request_id,
            )
            if form == "json":
                return answer, answer.to_json(), shadow
            body = render(form, [Item(upload.name, answer)], query.level, answer.scores)
            return answer, body, shadow

        work = services.pool.run(job)
        answer, body, shadow = await while_connected(request, work, unwatched_s=_UNWATCHED_S)
    services.answered(request, answer)
    response = written(form, body, upload.name)
    if shadow is not None:  # after the answer, which waits for no shadow
        response.background = BackgroundTask(_on_the_loop, shadow)
    return response


async def _on_the_loop(call: Callable[[], None]) -> None:
    call()
