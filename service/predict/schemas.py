"""The answer as JSON, the same for /predict and for ``nnpm predict --json``."""

from collections.abc import Mapping
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field

from ..inference.answer import Answer, Neighbour, Reason, Segment, TimelineEntry
from ..inference.audio.waveform import AudioInfo
from ..inference.card import Share


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
    def of(cls, info: AudioInfo, speech_ratio: float) -> Self:
        """Build it from the facts about a recording and its share of speech."""
        return cls(
            duration_s=info.duration_s,
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
    segments: list[Segment]
    """One per window."""
    timeline: list[TimelineEntry]
    """Adjacent windows with the same outcome, merged; entries of a channel do not overlap."""
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
            segments=list(answer.segments),
            timeline=list(answer.timeline),
            **extras,
            **more,
        )


class ChannelPart(Verdict):
    """The answer for one channel."""

    channel: int


class PredictAnswer(Verdict):
    """The answer to one recording."""

    audio: AudioPart
    model: ModelPart
    request_id: str = ""
    timing_ms: TimingPart
    per_channel: list[ChannelPart] = Field(default_factory=list)
    """One answer per channel, with ``channels=split``."""

    def to_json(self) -> str:
        """Write it as JSON, without the fields that the request does not ask for."""
        return self.model_dump_json(exclude_unset=True)


def _top(scores: Mapping[str, float], top_k: int) -> list[TopPart]:
    best = sorted(scores.items(), key=lambda item: -item[1])[:top_k]
    return [TopPart(emotion=emotion, score=score) for emotion, score in best]
