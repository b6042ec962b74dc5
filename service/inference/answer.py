"""What the model scored, and what is answered: plain data, shared by files and streams.

Two types describe a window: :class:`WindowScore` is what the model computed, :class:`Segment` what
was decided from it. A segment, like a timeline entry and a neighbour, is written to JSON as it
stands here; the order of the fields is that of the JSON.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, pairwise
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from .card import Share

Speaker = Annotated[str | None, Field(exclude_if=lambda name: name is None)]
"""Who speaks, where the turns were given with names; left out of the JSON where not."""

Reason = Literal["no_speech", "too_short", "clipped", "low_confidence", "out_of_domain"]
"""Why a recognizer abstained."""

MAX_SILENT_WINDOWS = 8
"""Where no window of a channel holds speech, this many are scored and count."""


Segmentation = Literal["turns", "windows"]
"""Cut a recording where its speakers pause, or by the clock."""


@dataclass(frozen=True, slots=True)
class GivenTurn:
    """A segment that the caller names, as from a diariser.

    Attributes:
        start_s: seconds from the start of the recording.
        end_s: seconds from the start of the recording.
        channel: counted from 0; None is every channel. It does not matter if they are mixed.
        speaker: who speaks.
    """

    start_s: float
    end_s: float
    channel: int | None = None
    speaker: str | None = None


@dataclass(frozen=True, slots=True)
class Options:
    """How to score one recording.

    Attributes:
        window_s: seconds per window, 0.5 to 10; None takes the bundle's.
        hop_s: seconds between the starts of windows, 0.1 to ``window_s``; None takes the bundle's.
        neighbours: number of nearest source utterances to list, 0 to 100.
        abstain: False forces an answer.
        emotions: the only emotions that may be answered; None takes the bundle's own set.
        segments: None cuts a recording that is longer than a window into turns, unless
            ``window_s`` or ``hop_s`` is given.
        turns: score exactly these.
    """

    window_s: float | None = None
    hop_s: float | None = None
    neighbours: int = 0
    abstain: bool = True
    emotions: tuple[str, ...] | None = None
    segments: Segmentation | None = None
    turns: tuple[GivenTurn, ...] | None = None


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
    """The answer for one turn or window.

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
        speaker: who speaks, if the turns were given with names.
    """

    start_s: float
    end_s: float
    channel: int
    emotion: str | None
    confidence: Share
    scores: dict[str, Share]
    reasons: tuple[Reason, ...]
    speaker: Speaker = None


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
        speaker: that of the turns, if they were given with names.
    """

    start_s: float
    end_s: float
    channel: int
    emotion: str | None
    confidence: Share
    reasons: tuple[Reason, ...]
    speaker: Speaker = None


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
        segments: one per turn or window, in order of start, then channel.
        timeline: adjacent windows with the same outcome merged, in order of start, then channel.
        neighbours: nearest source utterances, nearest first.
        per_channel: one answer per channel if the channels were split, else empty.
        per_speaker: one answer per speaker, by name, if turns were given with names.
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
    per_speaker: tuple[tuple[str, "Answer"], ...] = ()
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
        embedding: by which neighbours are found, shape ``(D,)``; empty where the model did not run.
        reasons: to abstain whatever the probabilities are.
        scored: False where the model did not run, because the window holds no speech.
        weight_s: seconds that it counts with in a mean: its speech, if it is a turn.
        speaker: who speaks, where that was given.
    """

    start_s: float
    end_s: float
    channel: int
    probabilities: npt.NDArray[np.floating]
    out_of_domain: float
    embedding: npt.NDArray[np.floating]
    reasons: tuple[Reason, ...]
    weight_s: float
    scored: bool = True
    speaker: str | None = None

    @property
    def has_speech(self) -> bool:
        """Whether speech was found."""
        return "no_speech" not in self.reasons


NO_EMBEDDING = np.zeros(0, np.float32)
"""The embedding of a window that the model did not score."""


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
        """Average the windows of one channel, weighted by their length; turns by their speech.

        Windows without speech do not count; if no window holds speech, the first
        :data:`MAX_SILENT_WINDOWS` do.

        Args:
            windows: at least one, in order of start.
            speech_ratio: of the channel, in [0, 1].
            reasons: to abstain from the whole channel.
        """
        counting = [one for one in windows if one.has_speech] or windows[:MAX_SILENT_WINDOWS]
        whole = _mean(counting, reasons)
        return cls(whole, tuple(windows), speech_ratio)

    @classmethod
    def of_channels(cls, channels: Sequence["ChannelScores"]) -> "ChannelScores":
        """Average the channels of a recording.

        Each channel counts by its speech; if none holds any, all count. A reason holds for the
        recording if it holds for every channel that counts.

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
            _mean(counting, reasons),
            tuple(sorted(windows, key=lambda one: (one.start_s, one.channel))),
            float(np.mean([one.speech_ratio for one in channels])),
        )

    @classmethod
    def of_speakers(cls, channels: Sequence["ChannelScores"]) -> list[tuple[str, "ChannelScores"]]:
        """Average the turns of each speaker who is named, in order of name."""
        names = {window.speaker for one in channels for window in one.windows} - {None}
        windows = cls.of_channels(channels).windows if names else ()
        found = []
        for name in sorted(filter(None, names)):
            own = [one for one in windows if one.speaker == name]
            reasons = () if any(one.has_speech for one in own) else own[0].reasons
            found.append((name, cls.of_windows(own, 1.0, reasons)))
        return found


def _mean(scores: Sequence[WindowScore], reasons: tuple[Reason, ...]) -> WindowScore:
    if len(scores) == 1:
        return replace(scores[0], reasons=reasons, scored=True, speaker=None)
    weights = np.array([one.weight_s for one in scores])
    shares = weights / weights.sum()
    return WindowScore(
        start_s=scores[0].start_s,
        end_s=scores[-1].end_s,
        channel=scores[0].channel,
        probabilities=shares @ np.stack([one.probabilities for one in scores]),
        out_of_domain=float(shares @ [one.out_of_domain for one in scores]),
        embedding=shares @ np.stack([one.embedding for one in scores]),
        reasons=reasons,
        weight_s=float(weights.sum()),
    )


class RunningMean:
    """The mean of windows or turns as they come, weighted; false while there are none."""

    def __init__(self) -> None:
        self._first: WindowScore | None = None
        self._end_s = self._total_s = self._out_of_domain = 0.0
        self._probabilities = self._embedding = np.zeros(())

    def __bool__(self) -> bool:
        return self._first is not None

    def add(self, score: WindowScore) -> None:
        """Count one more."""
        length_s = score.weight_s
        self._first = self._first or score
        self._end_s = score.end_s
        self._total_s += length_s
        self._probabilities = self._probabilities + length_s * score.probabilities
        self._out_of_domain += length_s * score.out_of_domain
        self._embedding = self._embedding + length_s * score.embedding

    def score(self, reasons: tuple[Reason, ...]) -> WindowScore:
        """The mean; there has to be something to average."""
        assert self._first is not None
        return WindowScore(
            start_s=self._first.start_s,
            end_s=self._end_s,
            channel=self._first.channel,
            probabilities=self._probabilities / self._total_s,
            out_of_domain=self._out_of_domain / self._total_s,
            embedding=self._embedding / self._total_s,
            reasons=reasons,
            weight_s=self._total_s,
        )


def merge_windows(segments: Sequence[Segment]) -> tuple[TimelineEntry, ...]:
    """Merge adjacent windows or turns with the same outcome and speaker, channel by channel.

    Turns with a pause between them are not adjacent. Where two windows overlap, each keeps the half
    of the overlap that is nearer to its middle. So the entries of a channel do not overlap, unless
    given turns lie within each other, and they cover what its segments cover.

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
    if len(segments) == 1:
        return tuple(_merge_channel(segments))
    by_channel = sorted(segments, key=lambda one: one.channel)
    entries = [
        entry
        for _, channel in groupby(by_channel, key=lambda one: one.channel)
        for entry in _merge_channel(list(channel))
    ]
    return tuple(sorted(entries, key=lambda one: (one.start_s, one.channel)))


def _merge_channel(segments: Sequence[Segment]) -> Iterator[TimelineEntry]:
    starts, ends = [one.start_s for one in segments], [one.end_s for one in segments]
    for index, (one, following) in enumerate(pairwise(segments)):
        if following.start_s < one.end_s <= following.end_s:
            ends[index] = starts[index + 1] = (one.end_s + following.start_s) / 2
    runs: list[list[int]] = []
    for index, one in enumerate(segments):
        last = segments[index - 1]
        outcome = (one.emotion, one.reasons, one.speaker)
        is_next = bool(runs) and ends[index - 1] == starts[index]
        if is_next and outcome == (last.emotion, last.reasons, last.speaker):
            runs[-1].append(index)
        else:
            runs.append([index])
    for run in runs:
        lengths = [ends[index] - starts[index] for index in run]
        weighted = sum(
            length * segments[index].confidence for length, index in zip(lengths, run, strict=True)
        )
        first = segments[run[0]]
        yield TimelineEntry(
            start_s=starts[run[0]],
            end_s=ends[run[-1]],
            channel=first.channel,
            emotion=first.emotion,
            confidence=min(1.0, weighted / sum(lengths)),
            reasons=first.reasons,
            speaker=first.speaker,
        )
