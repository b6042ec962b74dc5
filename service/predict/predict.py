"""One recording to one answer: what /predict and ``nnpm predict`` share."""

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Literal, Self

import numpy as np
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    WithJsonSchema,
    model_validator,
)

from ..inference.answer import Answer, Options, Segmentation
from ..inference.audio.decode import decode
from ..inference.audio.waveform import Limits, Recording
from ..inference.card import given_language
from ..inference.errors import ParameterError, nearest, validation_detail
from ..inference.recognizer import Recognizer
from ..registry.serving import Route
from .schemas import (
    DIGITS,
    PEAK_DIGITS,
    AudioPart,
    ChannelPart,
    Digits,
    ModelPart,
    PredictAnswer,
    SpeakerPart,
    TimingPart,
    rounded,
)
from .tables import FORMATS, Level, known_format
from .traffic import Shadows, Traffic
from .turns import MAX_TURNS_CHARS, check_turns, read_turns

WindowSeconds = Annotated[float, Field(ge=0.5, le=10, allow_inf_nan=False)]
HopSeconds = Annotated[float, Field(ge=0.1, le=10, allow_inf_nan=False)]


LANGUAGE_PATTERN = r"^([A-Za-z]{2,8}([-_][A-Za-z0-9]{1,8})*)?$"
LanguageTag = Annotated[
    str | None,
    BeforeValidator(given_language),
    WithJsonSchema({"type": "string", "pattern": LANGUAGE_PATTERN}),
]
"""A canonical tag; None if it is empty or auto."""


FormatName = Annotated[
    str,
    AfterValidator(known_format),
    WithJsonSchema({"type": "string", "enum": ["json", *FORMATS]}),
]


Turns = Annotated[str, Field(max_length=MAX_TURNS_CHARS), AfterValidator(check_turns)]


def require_hop_within(window_s: float | None, hop_s: float | None) -> None:
    """See that a hop is no longer than its window, where both are given.

    Raises:
        ValueError: if it is longer.
    """
    if window_s is not None and hop_s is not None and hop_s > window_s:
        raise ValueError(f"hop_s is {hop_s:g}; it must be between 0.1 and window_s ({window_s:g}).")


class PredictQuery(BaseModel):
    """How to score a recording."""

    model_config = ConfigDict(use_attribute_docstrings=True, frozen=True)

    model: str | None = Field(default=None, max_length=256)
    """``name`` or ``name/version``; the model named default if not given. A name without a version
    is answered by the version promoted for ``language``; if there is none, by the one promoted for
    und, else by the newest version that no adaptation made."""

    language: LanguageTag = None
    """BCP-47 tag of the language (ur, pt-BR, zh_CN); picks the version that was promoted for
    it, if there is one. Empty and auto mean that it is not given."""

    channels: Literal["mix", "split"] = "mix"
    """Score the mean of the channels, or each of them."""

    window_s: WindowSeconds | None = None
    """Seconds per window; the bundle's own length by default."""

    hop_s: HopSeconds | None = None
    """Seconds from one window to the next, at most ``window_s``; the bundle's own by default."""

    top_k: int | None = Field(default=None, ge=1, le=8)
    """Add the k most probable emotions."""

    neighbours: int = Field(default=0, ge=0, le=100)
    """Add this many of the nearest utterances in the model's memory."""

    abstain: bool = True
    """Whether the model may abstain; false forces an answer."""

    emotions: tuple[str, ...] | None = Field(default=None, min_length=1, max_length=8)
    """Answer with one of these alone, where no other can occur; repeat the parameter for each. By
    default the set in the model's card, which is all that it knows unless it was adapted to a
    few."""

    digits: Digits = DIGITS
    """Digits of scores and other shares, rounded so that scores sum to exactly 1; 0 for all."""

    format: FormatName | None = None
    """How the answer is written; by default as the Accept header says, else as JSON."""

    level: Level = "recording"
    """What a row of a table is: a recording, a channel or a segment."""

    segments: Segmentation | None = None
    """``turns`` cuts a recording where its speakers pause, ``windows`` by the clock. By default
    turns, unless the recording is no longer than a window, or ``window_s`` or ``hop_s`` is
    given."""

    peaks: int = Field(default=0, ge=0, le=10_000)
    """For a drawing: add the least and the greatest sample of this many parts of equal length of
    each channel."""

    turns: Turns | None = None
    """Score exactly these, and nothing else: a JSON list of ``{"start_s", "end_s", "channel"?,
    "speaker"?}``, or RTTM. In a form it may be a file, too."""

    @model_validator(mode="after")
    def _hop_fits_window(self) -> Self:
        require_hop_within(self.window_s, self.hop_s)
        return self

    def options(self, recording: str | None = None) -> Options:
        """The same as options of the recognizer.

        Args:
            recording: name of the file, by which RTTM of several recordings is read.

        Raises:
            TurnsError: if such RTTM does not name it.
        """
        return Options(
            segments=self.segments,
            turns=None if self.turns is None else read_turns(self.turns, recording),
            window_s=self.window_s,
            hop_s=self.hop_s,
            neighbours=self.neighbours,
            abstain=self.abstain,
            emotions=self.emotions,
        )


Pairs = Sequence[tuple[str, str]]


def read_query(query: Pairs, fields: Pairs = ()) -> PredictQuery:
    """Read the parameters of a request from its query and from the fields of its form.

    Args:
        query: names and values in the order sent.
        fields: of the form; they mean the same.

    Raises:
        ParameterError: if a name is unknown, a value cannot be used, or a parameter that takes one
            value has two.

    Examples:
        >>> read_query([("top_k", "2")], [("language", "ur_PK")]).language
        'ur-PK'
    """
    if not query and not fields:
        return _DEFAULT
    values: dict[str, list[str]] = {}
    for where, pairs in (("query", query), ("form", fields)):
        for name, value in pairs:
            if name not in PredictQuery.model_fields:
                kind = "parameter" if where == "query" else "field of the form"
                known = ", ".join(PredictQuery.model_fields)
                raise ParameterError(
                    f"{name[:64]!r} is not a known {kind}; known are {known}."
                    f"{nearest(name, PredictQuery.model_fields)}"
                )
            values.setdefault(name, []).append(value)
    for name, sent in values.items():
        if name not in _LISTS and len(set(sent)) > 1:
            shown = " and ".join(repr(value[:64]) for value in dict.fromkeys(sent))
            raise ParameterError(f"{name} is both {shown}; send it once.")
    try:
        return PredictQuery.model_validate(
            {name: sent if name in _LISTS else sent[-1] for name, sent in values.items()}
        )
    except ValidationError as error:
        raise ParameterError(validation_detail(error.errors())) from None


_DEFAULT = PredictQuery()
_LISTS = frozenset({"emotions"})
"""Parameters that may be repeated."""


@dataclass(frozen=True, slots=True)
class Scored:
    """A recording and its answer.

    Attributes:
        document: the answer as it is written in JSON.
        recording: as decoded; the samples of a long one were in a file that is closed now.
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
    name: str | None = None,
    queue_s: float = 0.0,
    request_id: str | None = None,
) -> Scored:
    """Decode one recording and score it.

    Args:
        recognizer: scores it.
        source: an audio file.
        query: how to score it.
        model: name, version and language that the answer shows.
        limits: of length and channels; more is refused.
        name: of the file, by which RTTM of several recordings is read.
        queue_s: seconds that the recording has waited.
        request_id: of the HTTP request, if there is one.

    Raises:
        AudioError: if the recording cannot be scored.
        NoRoomError: if it is long, and the disk is full.
        ParameterError: if an option does not fit the bundle.
    """
    started = time.perf_counter()
    recording = decode(source, channels=query.channels, limits=limits, num_peaks=query.peaks)
    decode_s = time.perf_counter() - started
    with contextlib.closing(recording):
        answer = recognizer.answer(recording, query.options(name))
    recognizer.release_after(recording.info.duration_s)
    shown = rounded(answer, query.digits)
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
            for channel, one in enumerate(shown.per_channel or (shown,))
        ]
    if shown.per_speaker:
        extras["per_speaker"] = [
            SpeakerPart.of(one, speaker=speaker, **how) for speaker, one in shown.per_speaker
        ]
    if recording.peaks is not None:
        extras["peaks"] = (np.round(recording.peaks.astype(float), PEAK_DIGITS) + 0.0).tolist()
    total_s = queue_s + time.perf_counter() - started
    document = PredictAnswer.of(
        shown,
        audio=AudioPart.of(info, shown.speech_ratio, query.digits),
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
"""Lets a shadow score a recording that was answered; call it on the event loop."""


def score(
    route: Route,
    file: BinaryIO,
    query: PredictQuery,
    *,
    limits: Limits,
    traffic: Traffic,
    shadows: Shadows,
    name: str,
    queue_s: float,
    request_id: str,
) -> tuple[PredictAnswer, Shadow | None]:
    """Answer one recording of a request; it computes, so call it on a worker.

    Args:
        route: the version that answers.
        file: the recording.
        query: how to score it.
        limits: of length and channels; more is refused.
        traffic: counts the answer.
        shadows: decide whether a shadow scores the recording, too.
        name: of the file.
        queue_s: seconds that the recording has waited for a worker.
        request_id: of the request.

    Raises:
        AudioError: if the recording cannot be scored.
        ParameterError: if an option does not fit the bundle.

    Returns:
        The answer, and the shadow's turn if there is one.
    """
    model = route.model
    scored = predict(
        route.recognizer,
        file,
        query,
        model=model_part(route),
        limits=limits,
        name=name,
        queue_s=queue_s,
        request_id=request_id,
    )
    limit = route.recognizer.bundle.card.decision.out_of_domain
    traffic.count_live(model.name, model.version, route.language, scored.answer, limit)
    if not shadows.wants(route, scored.recording):
        return scored.document, None
    return scored.document, partial(
        shadows.score, route, scored.recording, query.options(name), scored.answer
    )


def model_part(route: Route) -> ModelPart:
    """Name the version that answers."""
    return ModelPart(name=route.model.name, version=route.model.version, language=route.language)
