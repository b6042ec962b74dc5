"""A recording that is still being made: a segment every hop, and at its end an answer.

What a stream says at its end is what :meth:`Recognizer.answer` says of the same recording, as far
as that can be known without keeping it. Windows lie on the same grid, from where the speech begins
in steps of a hop, and are summed up in the same way. What needs the whole recording is judged by
what is at hand instead: where speech begins by the first window, where it ends by the last two.
"""

from collections import deque
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from .answer import MOST_SILENT, Answer, ChannelScores, Mean, Options, Reason, Segment, WindowScore
from .audio.speech import assess, speech_bounds
from .audio.waveform import SAMPLE_RATE_HZ, AudioInfo, Limits, PcmBuffer
from .recognizer import CLIPPED_RATIO, TOO_SHORT_S, Recognizer, windows

KEPT_WINDOWS = 1000
"""Windows that the final answer lists: the last ones. All of them count."""

_NOTHING = np.zeros(0, np.float32)


class StreamRecognizer:
    """Hears one stream; calls come one after the other, from whatever thread.

    Args:
        recognizer: scores it from the first to the last window.
        rate_hz: of the samples that will come.
        channels: interleaved in them; their mean is scored.
        options: windows and abstention.
        limits: how much may come.

    Raises:
        ParameterError: if an option does not fit the bundle.
    """

    def __init__(
        self,
        recognizer: Recognizer,
        *,
        rate_hz: int,
        channels: int,
        options: Options = Options(),  # noqa: B008
        limits: Limits = Limits(),  # noqa: B008
    ) -> None:
        self._recognizer = recognizer
        self._options = options
        self._plan = recognizer.plan(options)
        self._tape = PcmBuffer(rate_hz, channels, limits)
        self._origin = 0  # where the grid of windows begins; positions are the tape's
        self._speaks = False  # whether the grid is fixed: speech was found
        self._next_end = self._first_end(0)
        self._recent: deque[tuple[int, int, WindowScore]] = deque()  # may yet be cut otherwise
        self._settled_end = 0  # of the last window that may not
        # In silence: the recent windows as they are if nothing more is said, and those of silence.
        self._if_over: list[WindowScore] | None = None
        self._quiet: deque[WindowScore] = deque(maxlen=KEPT_WINDOWS)
        self._kept: deque[WindowScore] = deque(maxlen=KEPT_WINDOWS)
        self._speaking, self._silent = Mean(), Mean()
        self._num_silent = 0
        self._active = 0.0
        self._judged = 0

    @property
    def frames_wanted(self) -> int:
        """Frames that have to come until there is another segment, about, or one too many."""
        return self._tape.frames_until(self._next_end)

    @property
    def info(self) -> AudioInfo:
        """Facts about what has come so far."""
        return self._tape.info

    def hear(self, frames: npt.NDArray[np.int16]) -> Segment | None:
        """Take samples, and score one window if one is due.

        Args:
            frames: 16-bit samples, shape ``(num_frames, channels)``; none at all are fine, and
                score the next window if what came before is enough for it.

        Returns:
            The segment, which ends where the window does; None if more frames are wanted.

        Raises:
            AudioTooLongError: if more has come than the limit.
        """
        self._tape.take(frames)
        if self._tape.end < self._next_end:
            return None
        part = self._step(self._next_end)
        self._forget()
        return self._recognizer.segment(part, self._options)

    def finish(self) -> Answer:
        """Answer for the whole.

        Raises:
            AudioTooShortError: if next to nothing has come.
        """
        self._tape.finish()
        tape = self._tape.stretch(self._tape.base, self._tape.end)
        whole = assess(tape)
        end = self._tape.base + speech_bounds(tape, whole)[1] if whole.has_speech else 0
        if not self._speaks or not (self._recent or self._settled_end):
            self._finish_first()
        elif self._if_over is None or end > self._next_end - self._plan.hop:
            self._resume()
            self._recent = deque(self._ended(end)) if end else self._recent
        for part in self._if_over or [part for *_, part in self._recent]:
            self._sum(part)
        if not self._speaking and not self._silent:
            start = max(self._tape.base, self._tape.end - self._plan.window)
            self._sum(self._score(start, self._tape.end, has_speech=False, scored=True))
        mean = self._speaking or self._silent
        reasons = self._reasons(has_speech=bool(self._speaking))
        speech_ratio = (
            whole.speech_ratio if self._tape.base == 0 else self._active / max(1, self._judged)
        )
        track = ChannelScores(mean.part(reasons), tuple(self._kept), speech_ratio)
        return self._recognizer.tell(track, self._options)

    def _step(self, end: int) -> WindowScore:
        """Score the window that ends here, and move on."""
        plan = self._plan
        start = max(self._origin, end - plan.window)
        is_full = end - start == plan.window
        stretch = self._tape.stretch(start, end)
        quality = assess(stretch)
        self._next_end = end + plan.hop
        if is_full and not self._speaks:
            first = speech_bounds(stretch, quality)[0]
            self._speaks = quality.has_speech
            self._judge(0.0, first if self._speaks else plan.hop)
            if self._speaks:
                self._kept.clear()  # silence before speech is no part of the answer
            if first:  # the grid begins with the speech: this window is not on it
                self._origin = start + first
                self._next_end = self._first_end(end)
                return self._score(start, end, has_speech=True)
        first_ones = is_full and not self._speaks and self._num_silent < MOST_SILENT
        part = self._score(start, end, has_speech=quality.has_speech, scored=first_ones)
        if not is_full:
            return part
        if self._speaks:
            is_first = start == self._origin
            self._judge(quality.speech_ratio, plan.window if is_first else plan.hop)
            self._place(start, end, part)
        else:
            self._origin = start + plan.hop
            self._num_silent += 1
            self._sum(part)
        return part

    def _place(self, start: int, end: int, part: WindowScore) -> None:
        """Put a window on the grid. What is said before a window of silence may be the end."""
        if part.has_speech:
            self._resume()
            self._recent.append((start, end, part))
            return
        if self._if_over is None:
            tape = self._tape.stretch(self._tape.base, start)
            stop = self._tape.base + speech_bounds(tape, assess(tape))[1]
            self._if_over = [part for *_, part in self._ended(stop)]
        self._quiet.append(part)

    def _resume(self) -> None:
        """It was not the end: the windows before the silence count as they are."""
        if self._if_over is None:
            return
        for part in (*(part for *_, part in self._recent), *self._quiet):
            self._sum(part)
            self._settled_end = round(part.end_s * SAMPLE_RATE_HZ)
        self._recent.clear()
        self._quiet.clear()
        self._if_over = None

    def _first_end(self, after: int) -> int:
        """The first end on the grid after a position; windows before the first full one are short.

        A window that would be too short to say anything is left out.
        """
        plan, least = self._plan, round(TOO_SHORT_S * SAMPLE_RATE_HZ)
        full = self._origin + plan.window
        after = max(after, self._origin + least - 1)
        return full - (full - after - 1) // plan.hop * plan.hop

    def _forget(self) -> None:
        """Drop audio, and sum up windows, that the end of the stream cannot change any more."""
        settled = self._next_end - 2 * self._plan.window - self._plan.hop
        while self._recent and self._recent[0][0] < settled and self._if_over is None:
            _, self._settled_end, part = self._recent.popleft()
            self._sum(part)
        self._tape.forget(settled)

    def _finish_first(self) -> None:
        """No full window has held speech: judge what there is after the silence."""
        rest = self._tape.stretch(self._origin, self._tape.end)
        quality = assess(rest)
        if not quality.has_speech and self._silent:
            return
        start, end = speech_bounds(rest, quality)
        self._judge(quality.speech_ratio, len(rest.samples))
        if quality.has_speech:
            self._kept.clear()
        for first, last in windows(end - start, self._plan.window, self._plan.hop):
            cut = (self._origin + start + first, self._origin + start + last)
            part = self._score(*cut, has_speech=quality.has_speech, scored=True)
            self._recent.append((*cut, part))

    def _ended(self, end: int) -> list[tuple[int, int, WindowScore]]:
        """The recent windows, cut as :func:`windows` would have, had it known where speech ends."""
        plan, recent = self._plan, list(self._recent)
        if self._settled_end and end - plan.window < self._tape.base:
            return recent  # it ended too long ago
        while recent and recent[-1][1] > end:
            recent.pop()
        if not recent and not self._settled_end:
            cut = (self._origin, end)
        else:
            last = recent[-1][1] if recent else self._settled_end
            if 2 * (end - last) > plan.hop:
                cut = (end - plan.window, end)
            elif recent and end > last:
                cut = (recent.pop()[0], end)
            else:
                return recent
        has_speech = assess(self._tape.stretch(*cut)).has_speech
        return [*recent, (*cut, self._score(*cut, has_speech=has_speech))]

    def _score(
        self, start: int, end: int, *, has_speech: bool, scored: bool = False
    ) -> WindowScore:
        """One window; without speech the model is asked only if ``scored`` says so."""
        part = self._recognizer.part(
            self._tape.stretch(self._tape.base, self._tape.end),
            (start - self._tape.base, end - self._tape.base),
            0,
            self._plan,
            self._reasons(has_speech=has_speech),
            has_speech or scored,
        )
        return replace(part, start_s=start / SAMPLE_RATE_HZ, end_s=end / SAMPLE_RATE_HZ)

    def _sum(self, part: WindowScore) -> None:
        if part.has_speech:
            self._speaking.add(part)
        elif part.scored:
            self._silent.add(part)
        self._kept.append(replace(part, projection=_NOTHING))

    def _judge(self, speech_ratio: float, num_samples: int) -> None:
        self._active += speech_ratio * num_samples
        self._judged += num_samples

    def _reasons(self, *, has_speech: bool) -> tuple[Reason, ...]:
        info = self.info
        found: dict[Reason, bool] = {
            "no_speech": not has_speech,
            "too_short": info.duration_s < TOO_SHORT_S,
            "clipped": info.clipped_ratio >= CLIPPED_RATIO,
        }
        return tuple(reason for reason, holds in found.items() if holds)
