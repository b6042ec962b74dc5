"""Scoring audio while it arrives: a segment per turn or per hop, and an answer at the end.

By turns, the answer at the end is the mean of the turns that were sent.

By the clock, it is what :meth:`Recognizer.answer` gives for the same recording, as far as it can
be known without keeping the recording. Windows lie on the same grid, from where speech starts in
steps of a hop, and are averaged in the same way. Two decisions that need the whole recording are
made from what is in memory instead: where speech starts from the first window, where it ends from
the last two.
"""

from abc import ABC, abstractmethod
from collections import deque
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from .answer import (
    MAX_SILENT_WINDOWS,
    NO_EMBEDDING,
    Answer,
    ChannelScores,
    Options,
    Reason,
    RunningMean,
    Segment,
    WindowScore,
)
from .audio.speech import assess, speech_bounds
from .audio.waveform import SAMPLE_RATE_HZ, AudioInfo, Limits, PcmBuffer, Waveform
from .recognizer import Recognizer
from .segments import TOO_SHORT_S, signal_reasons, windows
from .turns import Turn, TurnFinder

MAX_SEGMENTS = 1000
"""The final answer lists this many windows: the last ones. All of them count."""


class Stream(ABC):
    """Scores one stream; calls come one after the other, from any thread.

    Args:
        recognizer: scores the stream from the first to the last segment.
        buffer: holds the latest audio.
        options: windows and abstention.
    """

    def __init__(self, recognizer: Recognizer, buffer: PcmBuffer, options: Options) -> None:
        self._recognizer = recognizer
        self._options = options
        self._plan = recognizer.plan(options)
        self._buffer = buffer
        self._listed: deque[WindowScore] = deque(maxlen=MAX_SEGMENTS)
        self._speech_mean, self._silence_mean = RunningMean(), RunningMean()

    @property
    def info(self) -> AudioInfo:
        """Facts about what has arrived so far."""
        return self._buffer.info

    @property
    @abstractmethod
    def frames_needed(self) -> int:
        """Frames until there may be a segment; at most one more than the limit leaves."""

    @abstractmethod
    def push(self, frames: npt.NDArray[np.int16]) -> Segment | None:
        """Add samples, and score one segment if one is complete.

        Args:
            frames: 16-bit samples, shape ``(num_frames, channels)``; an empty array scores the
                next segment if it is already complete.

        Returns:
            The segment; None if it is not complete yet.

        Raises:
            AudioTooLongError: if the stream is longer than the limit.
        """

    @abstractmethod
    def finish(self) -> Answer:
        """Answer for the whole stream.

        Raises:
            AudioTooShortError: if the stream is shorter than the limit.
        """

    def _held(self) -> Waveform:
        return self._buffer.part(self._buffer.base, self._buffer.end)

    def _score(
        self, start: int, end: int, *, has_speech: bool, run_model: bool = False
    ) -> WindowScore:
        """Score one segment; the model runs on speech, and on silence if ``run_model`` says so."""
        base = self._buffer.base
        return self._recognizer.score_window(
            self._held(),
            Turn(((start - base, end - base),)),
            self._plan,
            reasons=self._reasons(has_speech=has_speech),
            run_model=has_speech or run_model,
            offset=base,
        )

    def _count(self, score: WindowScore) -> None:
        if score.has_speech:
            self._speech_mean.add(score)
        elif score.scored:
            self._silence_mean.add(score)
        # without the embedding, which is the largest part of it
        self._listed.append(replace(score, embedding=NO_EMBEDDING))

    def _reasons(self, *, has_speech: bool) -> tuple[Reason, ...]:
        return signal_reasons(has_speech, self.info.duration_s, self.info.clipped_ratio)

    def _answer(self, speech_ratio: float) -> Answer:
        mean = self._speech_mean or self._silence_mean
        reasons = self._reasons(has_speech=bool(self._speech_mean))
        scores = ChannelScores(mean.score(reasons), tuple(self._listed), speech_ratio)
        return self._recognizer.decide(scores, self._options)


def open_stream(
    recognizer: Recognizer,
    *,
    rate_hz: int,
    channels: int,
    options: Options = Options(),  # noqa: B008
    limits: Limits = Limits(),  # noqa: B008
) -> Stream:
    """Begin to score a stream.

    Args:
        recognizer: scores the stream from the first to the last segment.
        rate_hz: sample rate of the stream.
        channels: interleaved in the stream; their mean is scored.
        options: turns or windows, and abstention.
        limits: how long the stream may be, and has to be.

    Raises:
        ParameterError: if an option does not fit the bundle.
    """
    kind = TurnStream if recognizer.plan(options).by_turns else WindowStream
    return kind(recognizer, PcmBuffer(rate_hz, channels, limits), options)


class TurnStream(Stream):
    """One segment per turn: when a pause of 0.3 s ends it, or it is as long as a turn may be."""

    def __init__(self, recognizer: Recognizer, buffer: PcmBuffer, options: Options) -> None:
        super().__init__(recognizer, buffer, options)
        self._finder = TurnFinder()
        self._ended: deque[Turn] = deque()
        self._num_spoken = 0

    @property
    def frames_needed(self) -> int:
        """Frames until a turn may have ended."""
        return self._buffer.frames_until(self._finder.due)

    def push(self, frames: npt.NDArray[np.int16]) -> Segment | None:
        """Add samples, and score one turn if one has ended."""
        self._buffer.push(frames)
        while not self._ended and self._buffer.end >= self._finder.due:
            self._find(self._finder.due)
        if not self._ended:
            return None
        return self._recognizer.decide_window(self._score_first(), self._options)

    def finish(self) -> Answer:
        """Answer for the whole stream: the mean of its turns, weighted by their lengths."""
        self._buffer.flush()
        while self._buffer.end > self._finder.due:
            self._find(self._finder.due)
        self._find(self._buffer.end, last=True)
        while self._ended:
            self._score_first()
        if not self._speech_mean:  # all is held, or the last window of it
            held = self._held()
            quality = assess(held)
            is_short = self._buffer.base == 0 and len(held) <= self._plan.window_length
            found = is_short and quality.has_speech
            start, end = speech_bounds(held, quality) if found else (0, len(held))
            base = self._buffer.base
            self._count(self._score(base + start, base + end, has_speech=found, run_model=True))
            return self._answer(quality.speech_ratio if found else 0.0)
        return self._answer(min(1.0, self._num_spoken / max(1, self._buffer.end)))

    def _find(self, end: int, *, last: bool = False) -> None:
        """Look for turns in what has arrived until then, and drop what can't be in any."""
        part = self._buffer.part(self._finder.arrived, end)
        self._ended += self._finder.push(part, last=last)
        if not self._ended:
            window = self._plan.window_length if not self._speech_mean else 0
            self._buffer.drop(min(self._finder.needed, self._finder.arrived, end - window))

    def _score_first(self) -> WindowScore:
        turn = self._ended.popleft()
        score = self._score(turn.start, turn.end, has_speech=True)
        self._num_spoken += turn.num_samples
        self._count(score)
        return score


class WindowStream(Stream):
    """One segment per hop."""

    def __init__(self, recognizer: Recognizer, buffer: PcmBuffer, options: Options) -> None:
        super().__init__(recognizer, buffer, options)
        # Positions are the buffer's: samples at 16 kHz from the start of the stream.
        self._grid_start = 0  # of the first window
        self._speech_found = False  # from here on the grid does not move
        self._next_end = self._first_end(0)
        # Windows on the grid that may be cut otherwise, if speech ends in them.
        self._recent: deque[tuple[int, int, WindowScore]] = deque()
        self._settled_end = 0  # of the last window that stays as it is
        # During a pause: what the recent windows are if the pause lasts, and the windows of it.
        self._if_ended: list[WindowScore] | None = None
        self._pause: deque[WindowScore] = deque(maxlen=MAX_SEGMENTS)
        self._num_silent = 0
        self._speech_samples = 0.0
        self._assessed_samples = 0

    @property
    def frames_needed(self) -> int:
        """Frames until about the next segment; at most one more than the limit leaves."""
        return self._buffer.frames_until(self._next_end)

    def push(self, frames: npt.NDArray[np.int16]) -> Segment | None:
        """Add samples, and score one window if one is complete."""
        self._buffer.push(frames)
        if self._buffer.end < self._next_end:
            return None
        score = self._score_next(self._next_end)
        self._settle()
        return self._recognizer.decide_window(score, self._options)

    def finish(self) -> Answer:
        """Answer for the whole stream as if it had been a recording."""
        self._buffer.flush()
        held = self._held()
        quality = assess(held)
        end = self._buffer.base + speech_bounds(held, quality)[1] if quality.has_speech else 0
        if not self._speech_found or not (self._recent or self._settled_end):
            self._score_remainder()
        elif self._if_ended is None or end > self._next_end - self._plan.hop_length:
            self._end_pause()
            self._recent = deque(self._cut_at(end)) if end else self._recent
        for score in self._if_ended or [score for *_, score in self._recent]:
            self._count(score)
        if not self._speech_mean and not self._silence_mean:
            start = max(self._buffer.base, self._buffer.end - self._plan.window_length)
            self._count(self._score(start, self._buffer.end, has_speech=False, run_model=True))
        if self._buffer.base == 0:  # all of the stream is held
            speech_ratio = quality.speech_ratio
        else:
            speech_ratio = self._speech_samples / max(1, self._assessed_samples)
        return self._answer(speech_ratio)

    def _score_next(self, end: int) -> WindowScore:
        """Score the window that ends here, and move on to the next."""
        plan = self._plan
        start = max(self._grid_start, end - plan.window_length)
        is_full = end - start == plan.window_length
        window = self._buffer.part(start, end)
        quality = assess(window)
        self._next_end = end + plan.hop_length
        if is_full and not self._speech_found:
            first = speech_bounds(window, quality)[0]
            self._speech_found = quality.has_speech
            self._count_speech(0.0, first if self._speech_found else plan.hop_length)
            if self._speech_found:
                self._listed.clear()  # silence before speech is not part of the answer
            if first:  # the grid starts where speech does: this window does not lie on it
                self._grid_start = start + first
                self._next_end = self._first_end(end)
                return self._score(start, end, has_speech=True)
        score = self._score(
            start,
            end,
            has_speech=quality.has_speech,
            run_model=is_full and not self._speech_found and self._num_silent < MAX_SILENT_WINDOWS,
        )
        if not is_full:
            return score
        if self._speech_found:
            is_first = start == self._grid_start
            self._count_speech(
                quality.speech_ratio, plan.window_length if is_first else plan.hop_length
            )
            self._place(start, end, score)
        else:
            self._grid_start = start + plan.hop_length
            self._num_silent += 1
            self._count(score)
        return score

    def _first_end(self, after: int) -> int:
        """The first end of a window after a position.

        Windows before the first full one are short; those shorter than TOO_SHORT_S are left out.
        """
        plan, min_length = self._plan, round(TOO_SHORT_S * SAMPLE_RATE_HZ)
        full = self._grid_start + plan.window_length
        after = max(after, self._grid_start + min_length - 1)
        return full - (full - after - 1) // plan.hop_length * plan.hop_length

    def _place(self, start: int, end: int, score: WindowScore) -> None:
        """Put a window on the grid. Speech before a window of silence may have been the last."""
        if score.has_speech:
            self._end_pause()
            self._recent.append((start, end, score))
            return
        if self._if_ended is None:
            before = self._buffer.part(self._buffer.base, start)
            stop = self._buffer.base + speech_bounds(before, assess(before))[1]
            self._if_ended = [score for *_, score in self._cut_at(stop)]
        self._pause.append(score)

    def _end_pause(self) -> None:
        """Speech goes on: the windows before and during the pause count as they are."""
        if self._if_ended is None:
            return
        for score in (*(score for *_, score in self._recent), *self._pause):
            self._count(score)
            self._settled_end = round(score.end_s * SAMPLE_RATE_HZ)
        self._recent.clear()
        self._pause.clear()
        self._if_ended = None

    def _settle(self) -> None:
        """Count windows, and drop audio, that the end of the stream cannot change any more."""
        settled = self._next_end - 2 * self._plan.window_length - self._plan.hop_length
        while self._recent and self._recent[0][0] < settled and self._if_ended is None:
            _, self._settled_end, score = self._recent.popleft()
            self._count(score)
        self._buffer.drop(settled)

    def _score_remainder(self) -> None:
        """Score what follows the silence, where no full window has held speech."""
        remainder = self._buffer.part(self._grid_start, self._buffer.end)
        quality = assess(remainder)
        if not quality.has_speech and self._silence_mean:
            return
        start, end = speech_bounds(remainder, quality)
        self._count_speech(quality.speech_ratio, len(remainder))
        if quality.has_speech:
            self._listed.clear()
        offset = self._grid_start + start
        plan = self._plan
        for first, last in windows(end - start, plan.window_length, plan.hop_length):
            bounds = (offset + first, offset + last)
            score = self._score(*bounds, has_speech=quality.has_speech, run_model=True)
            self._recent.append((*bounds, score))

    def _cut_at(self, end: int) -> list[tuple[int, int, WindowScore]]:
        """The recent windows as :func:`windows` would cut them if speech ended here."""
        plan, recent = self._plan, list(self._recent)
        if self._settled_end and end - plan.window_length < self._buffer.base:
            return recent  # too long ago: the audio is gone
        while recent and recent[-1][1] > end:
            recent.pop()
        if not recent and not self._settled_end:
            bounds = (self._grid_start, end)
        else:
            last = recent[-1][1] if recent else self._settled_end
            if 2 * (end - last) > plan.hop_length:
                bounds = (end - plan.window_length, end)
            elif recent and end > last:
                bounds = (recent.pop()[0], end)
            else:
                return recent
        has_speech = assess(self._buffer.part(*bounds)).has_speech
        return [*recent, (*bounds, self._score(*bounds, has_speech=has_speech))]

    def _count_speech(self, speech_ratio: float, num_samples: int) -> None:
        self._speech_samples += speech_ratio * num_samples
        self._assessed_samples += num_samples
