"""What a recognizer answers: plain data, in the words of the API."""

from dataclasses import dataclass, field
from typing import Literal

Reason = Literal["no_speech", "too_short", "clipped", "low_confidence", "out_of_domain"]
"""Why a recognizer abstained."""


@dataclass(frozen=True, slots=True)
class Options:
    """How one recording is to be scored.

    Attributes:
        window_s: seconds per window, 0.5 to 10; None takes the bundle's.
        hop_s: seconds between the starts of windows, 0.1 to ``window_s``; None takes the bundle's.
        neighbours: how many of the nearest source utterances to name, 0 to 100.
        abstain: False forces an answer.
        emotions: the only emotions that may be answered; None for all that the bundle knows.
    """

    window_s: float | None = None
    hop_s: float | None = None
    neighbours: int = 0
    abstain: bool = True
    emotions: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Neighbour:
    """One source utterance of the memory; similarity is a cosine in [-1, 1]."""

    emotion: str
    similarity: float
    corpus: str
    language: str


@dataclass(frozen=True, slots=True)
class Segment:
    """The answer for one window; times in seconds of the recording, scores sum to 1.

    A window without speech in a recording with some is not scored: its scores are all alike.
    """

    start_s: float
    end_s: float
    channel: int
    emotion: str | None
    confidence: float
    scores: dict[str, float]
    reasons: tuple[Reason, ...]


@dataclass(frozen=True, slots=True)
class Stretch:
    """Neighbouring windows with one outcome; times in seconds of the recording, no overlaps."""

    start_s: float
    end_s: float
    channel: int
    emotion: str | None
    confidence: float
    reasons: tuple[Reason, ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer for one recording (or one of its channels).

    Attributes:
        emotion: the most probable emotion, or None when abstaining.
        confidence: probability of the most probable emotion, in [0, 1].
        scores: probability of every emotion, in the bundle's order; sums to 1.
        out_of_domain: in [0, 1]; how far from all that the memory knows.
        speech_ratio: share of the recording that holds speech, in [0, 1].
        segments: one per window, in order of start, then channel.
        timeline: windows with the same outcome joined, in order of start, then channel.
        neighbours: nearest source utterances, nearest first.
        per_channel: one answer per channel when the channels were split, else empty.
        inference_ms: time spent in the model.
    """

    emotion: str | None
    confidence: float
    scores: dict[str, float]
    abstained: bool
    reasons: tuple[Reason, ...]
    out_of_domain: float
    speech_ratio: float
    segments: tuple[Segment, ...]
    timeline: tuple[Stretch, ...] = ()
    neighbours: tuple[Neighbour, ...] = ()
    per_channel: tuple["Answer", ...] = field(default=())
    inference_ms: float = 0.0
