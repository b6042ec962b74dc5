"""POST /predict: one recording, one answer."""

from collections.abc import Callable
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from starlette.background import BackgroundTask
from starlette.responses import Response

from ...predict.predict import Shadow, score
from ...predict.schemas import PredictAnswer
from ..errors import NotReadyError
from ..forms import PARAMETERS, TheQuery, audio_body
from ..middleware.access import requires
from ..openapi import AUDIO_BODY, problems
from ..services import Services, services_of

router = APIRouter(tags=["predict"])


@router.post(
    "/predict",
    response_model=PredictAnswer,
    responses=problems(404, 413, 415, 422, 500, 503),
    openapi_extra={"parameters": PARAMETERS, "requestBody": AUDIO_BODY},
    dependencies=[Depends(requires("predict"))],
)
async def predict_one(
    request: Request,
    query: TheQuery,
    services: Annotated[Services, Depends(services_of)],
) -> Response:
    """Recognise the emotion in one recording.

    Silence, noise and speech that the model is unsure of are answered with 200 and
    ``abstained``; what is not audio, or not audio enough, is a problem.
    """
    if query.model is None and not services.readiness.ready:
        raise NotReadyError(services.readiness.obstacle)
    services.executor.check()
    request_id = request.state.request_id
    async with audio_body(request) as file:

        def job(queue_s: float) -> tuple[PredictAnswer, str, Shadow | None]:
            chosen = services.serving.choose(query.model, query.language)
            answer, shadow = score(
                chosen,
                file,
                query,
                limits=services.settings.limits,
                traffic=services.traffic,
                shadows=services.shadows,
                queue_s=queue_s,
                request_id=request_id,
            )
            return answer, answer.to_json(), shadow

        answer, body, shadow = await services.executor.run(job)
    services.answered(request, answer)
    # After the answer: a shadow may take time, but nobody's.
    after = None if shadow is None else BackgroundTask(_on_the_loop, shadow)
    return Response(body, media_type="application/json", background=after)


async def _on_the_loop(call: Callable[[], None]) -> None:
    call()
