"""The answer as JSON, the same for /predict and for ``nnpm predict --json``.

Numbers are rounded here, once, so that JSON, tables and annotations show the same.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field

from ..inference.answer import Answer, Neighbour, Reason, Segment, TimelineEntry
from ..inference.audio.waveform import AudioInfo
from ..inference.card import Share

DIGITS = 4
"""Digits of probabilities, unless a request says otherwise."""

TIME_DIGITS = 4
"""Digits of seconds: a tenth of a millisecond."""

PEAK_DIGITS = 3
"""Digits of samples for a drawing."""

Digits = Annotated[int, Field(ge=0, le=9)]


def round_scores(scores: Mapping[str, float], digits: int) -> dict[str, float]:
    """Round probabilities so that they still sum to exactly 1.

    Each is rounded down; what is missing from 1 goes, one unit of the last digit each, to those
    that lost most: the method of the largest remainder. It keeps their order.

    Args:
        scores: not negative, with a sum that is 1 but for the rounding of floats.
        digits: after the point; 0 returns them unrounded.

    Examples:
        >>> round_scores({"angry": 1 / 3, "happy": 1 / 3, "sad": 1 / 3}, 2)
        {'angry': 0.34, 'happy': 0.33, 'sad': 0.33}
    """
    total = sum(scores.values())
    if not digits or not total > 0:
        return dict(scores)
    units = 10**digits
    exact = {emotion: score / total * units for emotion, score in scores.items()}
    whole = {emotion: int(count) for emotion, count in exact.items()}
    missing = units - sum(whole.values())
    by_loss = sorted(exact, key=lambda emotion: whole[emotion] - exact[emotion])
    for emotion in by_loss[:missing]:
        whole[emotion] += 1
    return {emotion: count / units for emotion, count in whole.items()}


def rounded(answer: Answer, digits: int = DIGITS) -> Answer:
    """Round every number of an answer, and of its channels'.

    Args:
        answer: as the recognizer gave it.
        digits: of scores, confidence and other shares; seconds have :data:`TIME_DIGITS`. 0 rounds
            nothing.
    """
    if not digits:
        return answer
    scores = round_scores(answer.scores, digits)
    confidence = _confidence(answer, scores, digits)
    return replace(
        answer,
        scores=scores,
        confidence=confidence,
        out_of_domain=round(answer.out_of_domain, digits),
        speech_ratio=round(answer.speech_ratio, digits),
        segments=tuple(
            _with_times(one, confidence, scores)
            if one.scores is answer.scores
            else rounded_segment(one, digits)
            for one in answer.segments
        ),
        timeline=tuple(
            replace(
                one,
                start_s=round(one.start_s, TIME_DIGITS),
                end_s=round(one.end_s, TIME_DIGITS),
                confidence=round(one.confidence, digits),
            )
            for one in answer.timeline
        ),
        neighbours=tuple(
            replace(one, similarity=round(one.similarity, digits)) for one in answer.neighbours
        ),
        per_channel=tuple(rounded(one, digits) for one in answer.per_channel),
        per_speaker=tuple((name, rounded(one, digits)) for name, one in answer.per_speaker),
    )


def rounded_segment(segment: Segment, digits: int = DIGITS) -> Segment:
    """Round the numbers of a segment, as :func:`rounded` does."""
    if not digits:
        return segment
    scores = round_scores(segment.scores, digits)
    return _with_times(segment, _confidence(segment, scores, digits), scores)


def _with_times(segment: Segment, confidence: float, scores: dict[str, float]) -> Segment:
    return replace(
        segment,
        start_s=round(segment.start_s, TIME_DIGITS),
        end_s=round(segment.end_s, TIME_DIGITS),
        confidence=confidence,
        scores=scores,
    )


def _confidence(given: Answer | Segment, scores: Mapping[str, float], digits: int) -> float:
    """The rounded score of the emotion that the confidence belongs to."""
    for emotion, score in given.scores.items():
        if score == given.confidence:
            return scores[emotion]
    return round(given.confidence, digits)


class _Part(BaseModel):
    model_config = ConfigDict(use_attribute_docstrings=True, protected_namespaces=())


class TopPart(_Part):
    """One of the most probable emotions."""

    emotion: str
    score: Share


class AudioPart(_Part):
    """The recording as it was sent."""

    duration_s: float
    """Seconds decoded."""
    sample_rate_hz: int
    channels: int
    format: str
    """Container: WAV, FLAC, OGG, MP3, MP4, WEBM, ..."""
    speech_ratio: Share
    """Share of the recording that holds speech."""
    warnings: list[str]

    @classmethod
    def of(cls, info: AudioInfo, speech_ratio: float, digits: int = DIGITS) -> Self:
        """Build it from the facts about a recording and its share of speech."""
        return cls(
            duration_s=round(info.duration_s, TIME_DIGITS) if digits else info.duration_s,
            sample_rate_hz=info.sample_rate_hz,
            channels=info.channels,
            format=info.format,
            speech_ratio=speech_ratio,
            warnings=list(info.warnings),
        )


class ModelPart(_Part):
    """Which bundle answered."""

    name: str
    version: str
    language: str
    """BCP-47 tag of the route that answered; for a version that the request names, its own."""


class TimingPart(_Part):
    """Milliseconds, counted from when the upload was complete."""

    queue: float
    decode: float
    inference: float
    total: float


class Verdict(_Part):
    """The answer for a recording or a channel; ``top`` and ``neighbours`` only on request."""

    emotion: str | None
    """The most probable emotion; null where the model abstains."""
    confidence: Share
    """Probability of the most probable emotion."""
    calibrated: bool
    """Whether the confidence of this version was calibrated on labels."""
    scores: dict[str, Share]
    """Probability of every emotion of the model; they sum to 1."""
    abstained: bool
    reasons: list[Reason]
    """Why the model abstains; with ``abstain=false``, why it would have abstained."""
    out_of_domain: Share
    """0: like what the model knows; 1: unlike everything that it knows."""
    top: list[TopPart] = Field(default_factory=list)
    neighbours: list[Neighbour] = Field(default_factory=list)

    @classmethod
    def of(
        cls, answer: Answer, *, calibrated: bool, top_k: int | None, neighbours: bool, **more: Any
    ) -> Self:
        """Build it from an answer; ``more`` are the fields of a subclass."""
        extras: dict[str, Any] = {}
        if top_k is not None:
            extras["top"] = _top(answer.scores, top_k)
        if neighbours:
            extras["neighbours"] = list(answer.neighbours)
        return cls(
            emotion=answer.emotion,
            confidence=answer.confidence,
            calibrated=calibrated,
            scores=answer.scores,
            abstained=answer.abstained,
            reasons=list(answer.reasons),
            out_of_domain=answer.out_of_domain,
            **extras,
            **more,
        )


class ChannelPart(Verdict):
    """The answer for one channel; its segments are among those of the recording."""

    channel: int


class SpeakerPart(Verdict):
    """The answer for one speaker: over all turns that were given with this name."""

    speaker: str


class PredictAnswer(Verdict):
    """The answer to one recording."""

    segments: list[Segment]
    """One per turn or window, of all channels."""
    timeline: list[TimelineEntry]
    """Adjacent segments with the same outcome, merged; entries of a channel do not overlap."""
    audio: AudioPart
    model: ModelPart
    request_id: str = ""
    timing_ms: TimingPart
    per_channel: list[ChannelPart] = Field(default_factory=list)
    """One answer per channel, with ``channels=split``."""
    per_speaker: list[SpeakerPart] = Field(default_factory=list)
    """One answer per speaker, by name, where turns were given with speakers."""
    peaks: list[list[tuple[float, float]]] = Field(default_factory=list)
    """With ``peaks=N``: for each channel as it was sent, N pairs of its least and greatest samples,
    in [-1, 1]."""

    @classmethod
    def of(cls, answer: Answer, **more: Any) -> Self:
        """Build it from a rounded answer; ``more`` are as for :meth:`Verdict.of`."""
        return super().of(
            answer, segments=list(answer.segments), timeline=list(answer.timeline), **more
        )

    def to_json(self) -> str:
        """Write it as JSON, without the fields that the request does not ask for."""
        return self.model_dump_json(exclude_unset=True)


def _top(scores: Mapping[str, float], top_k: int) -> list[TopPart]:
    best = sorted(scores.items(), key=lambda item: -item[1])[:top_k]
    return [TopPart(emotion=emotion, score=score) for emotion, score in best]
