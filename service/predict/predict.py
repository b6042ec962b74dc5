"""One recording to one answer: what /predict and ``nnpm predict`` share."""

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ..inference.answer import Answer, Options
from ..inference.audio.decode import decode
from ..inference.audio.waveform import Limits, Recording
from ..inference.recognizer import Recognizer
from ..registry.serving import Route
from .schemas import AudioPart, ChannelPart, ModelPart, PredictAnswer, TimingPart
from .traffic import Shadows, Traffic

WindowSeconds = Annotated[float, Field(ge=0.5, le=10, allow_inf_nan=False)]
HopSeconds = Annotated[float, Field(ge=0.1, le=10, allow_inf_nan=False)]


def require_hop_within(window_s: float | None, hop_s: float | None) -> None:
    """See that a hop is no longer than its window, where both are given.

    Raises:
        ValueError: if it is longer.
    """
    if window_s is not None and hop_s is not None and hop_s > window_s:
        raise ValueError(f"hop_s is {hop_s:g}; it must be between 0.1 and window_s ({window_s:g}).")


class PredictQuery(BaseModel):
    """How a recording is to be scored."""

    model_config = ConfigDict(use_attribute_docstrings=True, frozen=True)

    model: str | None = Field(default=None, max_length=256)
    """``name`` or ``name/version``; the default model's highest version otherwise."""

    language: str | None = Field(default=None, pattern=r"^[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8})*$")
    """BCP-47; picks the version promoted for that language, the default model if there is none."""

    channels: Literal["mix", "split"] = "mix"
    """Score the mean of the channels, or each of them."""

    window_s: WindowSeconds | None = None
    """Seconds per window; the bundle's own otherwise."""

    hop_s: HopSeconds | None = None
    """Seconds from one window to the next, at most ``window_s``; the bundle's own otherwise."""

    top_k: int | None = Field(default=None, ge=1, le=8)
    """Add the k most probable emotions."""

    neighbours: int = Field(default=0, ge=0, le=100)
    """Add the nearest utterances of the memory."""

    abstain: bool = True
    """False forces an answer."""

    emotions: tuple[str, ...] | None = Field(default=None, min_length=1, max_length=8)
    """Those that may be answered, where it is known that no others occur; repeat it for each."""

    @model_validator(mode="after")
    def _hop_fits_window(self) -> Self:
        require_hop_within(self.window_s, self.hop_s)
        return self

    @property
    def options(self) -> Options:
        """The same in the words of the recognizer."""
        return Options(
            window_s=self.window_s,
            hop_s=self.hop_s,
            neighbours=self.neighbours,
            abstain=self.abstain,
            emotions=self.emotions,
        )


@dataclass(frozen=True, slots=True)
class Scored:
    """A recording and what was answered.

    Attributes:
        document: the answer as JSON has it.
        recording: as decoded; the samples of a long one lay in a file that is closed.
        answer: as the recognizer gave it.
    """

    document: PredictAnswer
    recording: Recording
    answer: Answer


def predict(
    recognizer: Recognizer,
    source: BinaryIO | Path,
    query: PredictQuery,
    *,
    model: ModelPart,
    limits: Limits,
    queue_s: float = 0.0,
    request_id: str | None = None,
) -> Scored:
    """Decode one recording and score it.

    Args:
        recognizer: scores it.
        source: an audio file.
        query: how to score it.
        model: what the answer names.
        limits: what is refused.
        queue_s: seconds that the recording has waited.
        request_id: of the HTTP request, if there is one.

    Raises:
        AudioError: if the recording cannot be scored.
        NoRoomError: if it is long, and the disk is full.
        ParameterError: if an option does not fit the bundle.
    """
    started = time.perf_counter()
    recording = decode(source, channels=query.channels, limits=limits)
    decode_s = time.perf_counter() - started
    with contextlib.closing(recording):
        answer = recognizer.answer(recording, query.options)
    card = recognizer.bundle.card
    info = recording.info

    how: dict[str, Any] = {
        "calibrated": card.calibrated,
        "top_k": query.top_k,
        "neighbours": query.neighbours > 0,
    }
    extras: dict[str, Any] = {}
    if request_id is not None:
        extras["request_id"] = request_id
    if query.channels == "split":
        extras["per_channel"] = [
            ChannelPart.of(one, channel=channel, **how)
            for channel, one in enumerate(answer.per_channel or (answer,))
        ]
    total_s = queue_s + time.perf_counter() - started
    document = PredictAnswer.of(
        answer,
        audio=AudioPart.of(info, answer.speech_ratio),
        model=model,
        timing_ms=TimingPart(
            queue=round(1000 * queue_s, 3),
            decode=round(1000 * decode_s, 3),
            inference=round(answer.inference_ms, 3),
            total=round(1000 * total_s, 3),
        ),
        **how,
        **extras,
    )
    return Scored(document, recording, answer)


Shadow = Callable[[], None]
"""Lets a shadow score a recording that was answered; to be called on the event loop."""


def score(
    chosen: Route,
    file: BinaryIO,
    query: PredictQuery,
    *,
    limits: Limits,
    traffic: Traffic,
    shadows: Shadows,
    queue_s: float,
    request_id: str,
) -> tuple[PredictAnswer, Shadow | None]:
    """Answer one recording of a request; computes, so it belongs on a worker.

    Args:
        chosen: the version that answers.
        file: the recording.
        query: how to score it.
        limits: what is refused.
        traffic: counts the answer.
        shadows: say whether a shadow scores the recording, too.
        queue_s: seconds that it has waited for a worker.
        request_id: of the request.

    Raises:
        AudioError: if the recording cannot be scored.
        ParameterError: if an option does not fit the bundle.
    """
    model = chosen.model
    scored = predict(
        chosen.recognizer,
        file,
        query,
        model=model_part(chosen),
        limits=limits,
        queue_s=queue_s,
        request_id=request_id,
    )
    limit = chosen.recognizer.bundle.card.decision.out_of_domain
    traffic.live(model.name, model.version, chosen.language, scored.answer, limit)
    if not shadows.wants(chosen, scored.recording):
        return scored.document, None
    return scored.document, partial(
        shadows.hear, chosen, scored.recording, query.options, scored.answer
    )


def model_part(chosen: Route) -> ModelPart:
    """Name the version that answers."""
    return ModelPart(name=chosen.model.name, version=chosen.model.version, language=chosen.language)
