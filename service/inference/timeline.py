"""What was heard, window by window and as a whole, before anything is decided."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from service.inference.answer import Reason

MOST_SILENT = 8
"""So many windows of a channel are scored, and count, where none of them holds speech."""


@dataclass(frozen=True, slots=True, eq=False)
class Part:
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
class Track:
    """One channel, or several in one: the whole, its windows, and its share of speech."""

    whole: Part
    windows: tuple[Part, ...]
    speech_ratio: float

    @classmethod
    def of_windows(
        cls, windows: Sequence[Part], speech_ratio: float, reasons: tuple[Reason, ...]
    ) -> "Track":
        """Sum up one channel; a window counts by its length, and one without speech not at all.

        Where none holds speech, the first few count.
        """
        counting = [part for part in windows if part.has_speech] or windows[:MOST_SILENT]
        lengths = [part.end_s - part.start_s for part in counting]
        return cls(_mean(counting, lengths, reasons), tuple(windows), speech_ratio)

    @classmethod
    def of_channels(cls, tracks: Sequence["Track"]) -> "Track":
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


def _speaking(parts: Sequence[Part]) -> Sequence[Part]:
    """Those that hold speech; all, where none does."""
    return [part for part in parts if part.has_speech] or parts


def _mean(parts: Sequence[Part], weights: Sequence[float], reasons: tuple[Reason, ...]) -> Part:
    shares = np.array(weights) / np.sum(weights)
    return Part(
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
        self._first: Part | None = None
        self._end_s = 0.0
        self._probabilities = np.zeros(())
        self._out_of_domain = 0.0
        self._projection = np.zeros(())

    def __bool__(self) -> bool:
        return self._first is not None

    def add(self, part: Part) -> None:
        """Add a window."""
        length_s = part.end_s - part.start_s
        self._first = self._first or part
        self._end_s = part.end_s
        self._length_s += length_s
        self._probabilities = self._probabilities + length_s * part.probabilities
        self._out_of_domain += length_s * part.out_of_domain
        self._projection = self._projection + length_s * part.projection

    def part(self, reasons: tuple[Reason, ...]) -> Part:
        """The mean of all that were added."""
        assert self._first is not None
        return Part(
            start_s=self._first.start_s,
            end_s=self._end_s,
            channel=self._first.channel,
            probabilities=self._probabilities / self._length_s,
            out_of_domain=self._out_of_domain / self._length_s,
            projection=self._projection / self._length_s,
            reasons=reasons,
        )
