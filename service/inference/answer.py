"""What the model scored, and what is answered: plain data, shared by files and streams.

Two types describe a window: :class:`WindowScore` is what the model computed, :class:`Segment` what
was decided from it. A segment, like a timeline entry and a neighbour, is written to JSON as it
stands here; the order of the fields is that of the JSON.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from .card import Share

Reason = Literal["no_speech", "too_short", "clipped", "low_confidence", "out_of_domain"]
"""Why a recognizer abstained."""

MAX_SILENT_WINDOWS = 8
"""Where no window of a channel holds speech, this many are scored and count."""


@dataclass(frozen=True, slots=True)
class Options:
    """How to score one recording.

    Attributes:
        window_s: seconds per window, 0.5 to 10; None takes the bundle's.
        hop_s: seconds between the starts of windows, 0.1 to ``window_s``; None takes the bundle's.
        neighbours: number of nearest source utterances to list, 0 to 100.
        abstain: False forces an answer.
        emotions: the only emotions that may be answered; None allows all of the bundle.
    """

    window_s: float | None = None
    hop_s: float | None = None
    neighbours: int = 0
    abstain: bool = True
    emotions: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Neighbour:
    """One of the nearest source utterances.

    Attributes:
        emotion: its label.
        similarity: cosine, in [-1, 1].
        corpus: the corpus that it comes from.
        language: its language, BCP-47.
    """

    emotion: str
    similarity: Annotated[float, Field(ge=-1, le=1)]
    corpus: str
    language: str


@dataclass(frozen=True, slots=True)
class Segment:
    """The answer for one window.

    The model does not score a window without speech if other windows hold speech: the scores of
    its emotions are then equal.

    Attributes:
        start_s: seconds from the start of the recording.
        end_s: seconds from the start of the recording.
        channel: counted from 0.
        emotion: the most probable emotion; None (null) when abstaining.
        confidence: probability of the most probable emotion.
        scores: probability of every emotion; sums to 1.
        reasons: why it abstains, or would have.
    """

    start_s: float
    end_s: float
    channel: int
    emotion: str | None
    confidence: Share
    scores: dict[str, Share]
    reasons: tuple[Reason, ...]


@dataclass(frozen=True, slots=True)
class TimelineEntry:
    """Adjacent windows of one channel with the same emotion and reasons.

    Attributes:
        start_s: seconds from the start of the recording.
        end_s: seconds from the start of the recording.
        channel: counted from 0.
        emotion: that of the windows; None (null) when abstaining.
        confidence: mean of the windows', weighted by time.
        reasons: those of the windows.
    """

    start_s: float
    end_s: float
    channel: int
    emotion: str | None
    confidence: Share
    reasons: tuple[Reason, ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer for one recording, or for one of its channels.

    Attributes:
        emotion: the most probable emotion, or None when abstaining.
        confidence: probability of the most probable emotion, in [0, 1].
        scores: probability of every emotion, in the bundle's order; sums to 1.
        abstained: whether no emotion is answered.
        reasons: why it abstained; with ``Options.abstain`` False, why it would have.
        out_of_domain: distance from everything in the memory, mapped to [0, 1]; 0 is near.
        speech_ratio: share of the recording that holds speech, in [0, 1].
        segments: one per window, in order of start, then channel.
        timeline: adjacent windows with the same outcome merged, in order of start, then channel.
        neighbours: nearest source utterances, nearest first.
        per_channel: one answer per channel if the channels were split, else empty.
        inference_ms: time spent on scoring, in milliseconds.
    """

    emotion: str | None
    confidence: float
    scores: dict[str, float]
    abstained: bool
    reasons: tuple[Reason, ...]
    out_of_domain: float
    speech_ratio: float
    segments: tuple[Segment, ...]
    timeline: tuple[TimelineEntry, ...] = ()
    neighbours: tuple[Neighbour, ...] = ()
    per_channel: tuple["Answer", ...] = ()
    inference_ms: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class WindowScore:
    """What the model computed for one window, or the mean of several windows.

    Attributes:
        start_s: seconds from the start of the recording.
        end_s: seconds from the start of the recording.
        channel: counted from 0.
        probabilities: shape ``(num_emotions,)``; sums to 1.
        out_of_domain: in [0, 1].
        projection: features that the memory compares, shape ``(width,)``: of unit length for one
            window, shorter for a mean, empty where the model did not run.
        reasons: to abstain whatever the probabilities are.
        scored: False where the model did not run, because the window holds no speech.
    """

    start_s: float
    end_s: float
    channel: int
    probabilities: npt.NDArray[np.floating]
    out_of_domain: float
    projection: npt.NDArray[np.floating]
    reasons: tuple[Reason, ...]
    scored: bool = True

    @property
    def has_speech(self) -> bool:
        """Whether speech was found."""
        return "no_speech" not in self.reasons

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return self.end_s - self.start_s


NO_PROJECTION = np.zeros(0, np.float32)
"""The projection of a window that the model did not score."""


@dataclass(frozen=True, slots=True, eq=False)
class ChannelScores:
    """The scores of one channel, or of all channels together.

    Attributes:
        whole: the mean of the windows that count.
        windows: in order of start, then channel.
        speech_ratio: share of the channel that holds speech, in [0, 1].
    """

    whole: WindowScore
    windows: tuple[WindowScore, ...]
    speech_ratio: float

    @classmethod
    def of_windows(
        cls, windows: Sequence[WindowScore], speech_ratio: float, reasons: tuple[Reason, ...]
    ) -> "ChannelScores":
        """Average the windows of one channel, weighted by their length.

        Windows without speech do not count; if no window holds speech, the first
        :data:`MAX_SILENT_WINDOWS` do.

        Args:
            windows: at least one, in order of start.
            speech_ratio: of the channel, in [0, 1].
            reasons: to abstain from the whole channel.
        """
        counting = [one for one in windows if one.has_speech] or windows[:MAX_SILENT_WINDOWS]
        whole = _mean(counting, [one.duration_s for one in counting], reasons)
        return cls(whole, tuple(windows), speech_ratio)

    @classmethod
    def of_channels(cls, channels: Sequence["ChannelScores"]) -> "ChannelScores":
        """Average the channels of a recording.

        Each channel that holds speech counts the same; if none does, all count. A reason holds for
        the recording if it holds for every channel that counts.

        Args:
            channels: at least one.
        """
        wholes = [one.whole for one in channels]
        counting = [one for one in wholes if one.has_speech] or wholes
        reasons = tuple(
            reason
            for reason in counting[0].reasons
            if all(reason in one.reasons for one in counting)
        )
        windows = [window for one in channels for window in one.windows]
        return cls(
            _mean(counting, [1.0] * len(counting), reasons),
            tuple(sorted(windows, key=lambda one: (one.start_s, one.channel))),
            float(np.mean([one.speech_ratio for one in channels])),
        )


def _mean(
    scores: Sequence[WindowScore], weights: Sequence[float], reasons: tuple[Reason, ...]
) -> WindowScore:
    shares = np.array(weights) / np.sum(weights)
    return WindowScore(
        start_s=scores[0].start_s,
        end_s=scores[-1].end_s,
        channel=scores[0].channel,
        probabilities=shares @ np.stack([one.probabilities for one in scores]),
        out_of_domain=float(shares @ [one.out_of_domain for one in scores]),
        projection=shares @ np.stack([one.projection for one in scores]),
        reasons=reasons,
    )


def merge_windows(segments: Sequence[Segment]) -> tuple[TimelineEntry, ...]:
    """Merge adjacent windows with the same emotion and reasons, channel by channel.

    Where two windows overlap, each keeps the half of the overlap that is nearer to its middle. So
    the entries of a channel do not overlap, and they cover what its windows cover.

    Args:
        segments: windows; those of one channel in order of start.

    Returns:
        Entries in order of start, then channel. Their confidence is the mean of the windows',
        weighted by the time that each window keeps.

    Examples:
        >>> def window(start_s, emotion, confidence):
        ...     return Segment(start_s, start_s + 2, 0, emotion, confidence, {}, ())
        >>> for entry in merge_windows(
        ...     [window(0, "sad", 0.5), window(1, "sad", 0.8), window(2, "angry", 1)]
        ... ):
        ...     print(entry.start_s, entry.end_s, entry.emotion, round(entry.confidence, 3))
        0 2.5 sad 0.62
        2.5 4 angry 1.0
    """
    by_channel = sorted(segments, key=lambda one: one.channel)
    entries = [
        entry
        for _, channel in groupby(by_channel, key=lambda one: one.channel)
        for entry in _merge_channel(list(channel))
    ]
    return tuple(sorted(entries, key=lambda one: (one.start_s, one.channel)))


def _merge_channel(segments: Sequence[Segment]) -> Iterator[TimelineEntry]:
    borders = [(one.end_s + following.start_s) / 2 for one, following in pairwise(segments)]
    starts = [segments[0].start_s, *borders]
    ends = [*borders, segments[-1].end_s]
    pieces = zip(starts, ends, segments, strict=True)
    for (emotion, reasons), run in groupby(
        pieces, key=lambda piece: (piece[2].emotion, piece[2].reasons)
    ):
        merged = list(run)
        total_s = sum(end - start for start, end, _ in merged)
        weighted = sum((end - start) * one.confidence for start, end, one in merged)
        yield TimelineEntry(
            start_s=merged[0][0],
            end_s=merged[-1][1],
            channel=merged[0][2].channel,
            emotion=emotion,
            confidence=min(1.0, weighted / total_s),
            reasons=reasons,
        )
