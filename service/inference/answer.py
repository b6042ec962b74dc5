"""What a recognizer answers: plain data, in the words of the API.

Overlapping windows joined into the stretches of a timeline.

What was heard, window by window and as a whole, before anything is decided.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby, pairwise
from typing import Literal

import numpy as np
import numpy.typing as npt

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
class TimelineEntry:
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
    timeline: tuple[TimelineEntry, ...] = ()
    neighbours: tuple[Neighbour, ...] = ()
    per_channel: tuple["Answer", ...] = field(default=())
    inference_ms: float = 0.0


def merge_windows(segments: Sequence[Segment]) -> tuple[TimelineEntry, ...]:
    """Join neighbouring windows with the same outcome, channel by channel.

    Where two windows overlap, each keeps what is nearer to its middle: the border lies half way
    through the overlap. So stretches do not overlap, and leave out only what no window covers.

    Args:
        segments: windows; those of one channel in order of start.

    Returns:
        Stretches in order of start, then channel. Outcomes are the same if emotion and reasons
        are; the confidence is the mean of the windows', each counting by the time that it keeps.

    Examples:
        >>> def window(start_s, emotion, confidence):
        ...     return Segment(start_s, start_s + 2, 0, emotion, confidence, {}, ())
        >>> for one in join([window(0, "sad", 0.5), window(1, "sad", 0.8), window(2, "angry", 1)]):
        ...     print(one.start_s, one.end_s, one.emotion, round(one.confidence, 3))
        0 2.5 sad 0.62
        2.5 4 angry 1.0
    """
    ordered = sorted(segments, key=lambda one: one.channel)
    found = [
        stretch
        for _, channel in groupby(ordered, key=lambda one: one.channel)
        for stretch in _of_channel(list(channel))
    ]
    return tuple(sorted(found, key=lambda one: (one.start_s, one.channel)))


def _of_channel(segments: Sequence[Segment]) -> Iterator[TimelineEntry]:
    between = [(one.end_s + next_one.start_s) / 2 for one, next_one in pairwise(segments)]
    starts = [segments[0].start_s, *between]
    ends = [*between, segments[-1].end_s]
    kept = list(zip(starts, ends, segments, strict=True))
    for (emotion, reasons), run in groupby(kept, key=lambda one: (one[2].emotion, one[2].reasons)):
        parts = list(run)
        total_s = sum(end - start for start, end, _ in parts)
        weighted = sum((end - start) * one.confidence for start, end, one in parts)
        yield TimelineEntry(
            start_s=parts[0][0],
            end_s=parts[-1][1],
            channel=parts[0][2].channel,
            emotion=emotion,
            confidence=min(1.0, weighted / total_s),
            reasons=reasons,
        )


MOST_SILENT = 8
"""So many windows of a channel are scored, and count, where none of them holds speech."""


@dataclass(frozen=True, slots=True, eq=False)
class WindowScore:
    """What one stretch of one channel sounds like.

    Attributes:
        start_s: in seconds of the recording.
        end_s: in seconds of the recording.
        channel: counted from 0.
        probabilities: shape ``(emotions,)``; sums to 1.
        out_of_domain: in [0, 1].
        projection: unit features, shape ``(width,)``; shorter for a mean.
        reasons: to abstain whatever the probabilities are.
        scored: False where the model was not asked, because there is no speech.
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


@dataclass(frozen=True, slots=True, eq=False)
class ChannelScores:
    """One channel, or several in one: the whole, its windows, and its share of speech."""

    whole: WindowScore
    windows: tuple[WindowScore, ...]
    speech_ratio: float

    @classmethod
    def of_windows(
        cls, windows: Sequence[WindowScore], speech_ratio: float, reasons: tuple[Reason, ...]
    ) -> "ChannelScores":
        """Sum up one channel; a window counts by its length, and one without speech not at all.

        Where none holds speech, the first few count.
        """
        counting = [part for part in windows if part.has_speech] or windows[:MOST_SILENT]
        lengths = [part.end_s - part.start_s for part in counting]
        return cls(_mean(counting, lengths, reasons), tuple(windows), speech_ratio)

    @classmethod
    def of_channels(cls, tracks: Sequence["ChannelScores"]) -> "ChannelScores":
        """Sum up the channels of a recording; each one that holds speech counts alike.

        What holds for every speaking channel holds for the recording.
        """
        speaking = _speaking([track.whole for track in tracks])
        reasons = tuple(
            reason
            for reason in speaking[0].reasons
            if all(reason in part.reasons for part in speaking)
        )
        windows = [part for track in tracks for part in track.windows]
        return cls(
            _mean(speaking, [1.0] * len(speaking), reasons),
            tuple(sorted(windows, key=lambda part: (part.start_s, part.channel))),
            float(np.mean([track.speech_ratio for track in tracks])),
        )


def _speaking(parts: Sequence[WindowScore]) -> Sequence[WindowScore]:
    """Those that hold speech; all, where none does."""
    return [part for part in parts if part.has_speech] or parts


def _mean(
    parts: Sequence[WindowScore], weights: Sequence[float], reasons: tuple[Reason, ...]
) -> WindowScore:
    shares = np.array(weights) / np.sum(weights)
    return WindowScore(
        start_s=parts[0].start_s,
        end_s=parts[-1].end_s,
        channel=parts[0].channel,
        probabilities=shares @ np.stack([part.probabilities for part in parts]),
        out_of_domain=float(shares @ [part.out_of_domain for part in parts]),
        projection=shares @ np.stack([part.projection for part in parts]),
        reasons=reasons,
    )


class Mean:
    """Windows summed up as they come; each counts by its length. False while there are none."""

    def __init__(self) -> None:
        self._length_s = 0.0
        self._first: WindowScore | None = None
        self._end_s = 0.0
        self._probabilities = np.zeros(())
        self._out_of_domain = 0.0
        self._projection = np.zeros(())

    def __bool__(self) -> bool:
        return self._first is not None

    def add(self, part: WindowScore) -> None:
        """Add a window."""
        length_s = part.end_s - part.start_s
        self._first = self._first or part
        self._end_s = part.end_s
        self._length_s += length_s
        self._probabilities = self._probabilities + length_s * part.probabilities
        self._out_of_domain += length_s * part.out_of_domain
        self._projection = self._projection + length_s * part.projection

    def part(self, reasons: tuple[Reason, ...]) -> WindowScore:
        """The mean of all that were added."""
        assert self._first is not None
        return WindowScore(
            start_s=self._first.start_s,
            end_s=self._end_s,
            channel=self._first.channel,
            probabilities=self._probabilities / self._length_s,
            out_of_domain=self._out_of_domain / self._length_s,
            projection=self._projection / self._length_s,
            reasons=reasons,
        )
