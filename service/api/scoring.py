"""One recording of a request: scored by the chosen version, and kept for its shadow."""

from collections.abc import Callable
from functools import partial
from typing import BinaryIO

from service.api.prediction import PredictQuery, predict
from service.api.schemas import ModelPart, PredictAnswer
from service.api.services import Services
from service.inference.answer import Answer
from service.inference.audio import Recording
from service.registry.serving import Chosen

Shadow = Callable[[], None]
"""Lets a shadow hear a recording that was answered; to be called on the event loop."""


def score(
    services: Services,
    chosen: Chosen,
    file: BinaryIO,
    query: PredictQuery,
    *,
    queue_s: float,
    request_id: str,
) -> tuple[PredictAnswer, Shadow | None]:
    """Answer one recording; computes, so it belongs on a worker. The caller counts the answer.

    Args:
        services: of the app.
        chosen: the version that answers.
        file: the recording.
        query: how to score it.
        queue_s: seconds that it has waited for a worker.
        request_id: of the request.

    Raises:
        AudioError: if the recording cannot be scored.
        ParameterError: if an option does not fit the bundle.
    """
    shadow: Shadow | None = None
    model = chosen.model

    def heard(recording: Recording, told: Answer) -> None:
        nonlocal shadow
        limit = chosen.recognizer.bundle.card.decision.out_of_domain
        services.traffic.live(model.name, model.version, chosen.language, told, limit)
        if services.shadows.wants(chosen, recording):
            shadow = partial(services.shadows.hear, chosen, recording, query.options, told)

    answer = predict(
        chosen.recognizer,
        file,
        query,
        model=model_part(chosen),
        limits=services.settings.limits,
        queue_s=queue_s,
        request_id=request_id,
        on_heard=heard,
    )
    return answer, shadow


def model_part(chosen: Chosen) -> ModelPart:
    """Name the version that answers."""
    return ModelPart(name=chosen.model.name, version=chosen.model.version, language=chosen.language)
