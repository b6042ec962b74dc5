"""Turns: what each speaker says between two pauses, found in the channels of a recording.

Prediction, batches, adaptation and evaluation cut a recording here; a stream cuts what has arrived
by the same rules.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from .audio.speech import FRAME_S, NUM_BANDS, VOICE_FRAMES, Frames, analyse, is_speech, is_voice
from .audio.waveform import SAMPLE_RATE_HZ, Waveform

FRAME = round(FRAME_S * SAMPLE_RATE_HZ)
"""Samples of a frame."""

PAUSE_S = 0.3
"""A longer pause ends a turn."""

LONGEST_S = 10.0
"""A longer turn is split at its quietest places."""

SHORT_S = 1.0
"""A shorter turn is joined with its speaker's nearest, if nobody else speaks in between."""

JOIN_S = 0.6
"""Turns with a longer pause between them are never joined."""

_MARGIN = 3  # frames kept on either side
_PAUSE = round(PAUSE_S / FRAME_S)
_LONGEST = round(LONGEST_S / FRAME_S)
_SHORT = round(SHORT_S / FRAME_S)
_JOIN = round(JOIN_S / FRAME_S)
_SHORTEST = 6  # frames: shorter sounds are clicks
_CONTEXT = 300  # frames: 6 s
_NEAR = 100  # frames around a short sound by which it is judged: 2 s
_ON_DB, _OFF_DB = 4.0, 2.5  # over the noise: where speech begins, and to where it goes on
_RANGE_DB = 35.0  # below the loud frames of a turn
_SILENCE_DB = -70.0
_BLOCK = 50  # frames over which the noise is looked at: a second
_AROUND = 10  # blocks on either side
_BAND_FLOOR = 1e-9  # -90 dB
_STEADY_DB = 1.0  # deviation of the level in a second of steady noise
_MAX_ONSET = 25  # frames in which the first sounds of a turn may be too weak to be heard as such
_UNEVEN = 0.1  # of the mean noise: what a codec leaves out of a band is no measure of noise

Span = tuple[int, int]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Turn:
    """What one speaker says, in samples of the channel.

    Attributes:
        parts: start and end of its speech, in order; pauses of more than 0.3 s lie between them.
        has_speech: False where a caller names a turn, or nothing is found, and there is none.
        speaker: who speaks, where a caller says so.
    """

    parts: tuple[Span, ...]
    has_speech: bool = True
    speaker: str | None = None

    @property
    def start(self) -> int:
        """Where it starts."""
        return self.parts[0][0]

    @property
    def end(self) -> int:
        """Where it ends."""
        return self.parts[-1][1]

    @property
    def num_samples(self) -> int:
        """Samples of speech."""
        return sum(end - start for start, end in self.parts)

    def samples(self, waveform: Waveform) -> npt.NDArray[np.float32]:
        """Its speech without the pauses."""
        cut = [waveform.part(*one).samples for one in self.parts]
        return cut[0] if len(cut) == 1 else np.concatenate(cut)


def find_turns(waveforms: Sequence[Waveform], window_length: int) -> list[list[Turn]]:
    """Find the turns on each channel.

    Args:
        waveforms: the channels of one recording, at 16 kHz.
        window_length: up to which short turns are joined, in samples.

    Returns:
        For each channel its turns in order; they do not overlap.
    """
    channels = [analyse(one, FRAME) for one in waveforms]
    active = [active_frames(one) for one in channels]
    without_echo = [
        mask & ~_echo(index, channels, active) if len(channels) > 1 else mask
        for index, mask in enumerate(active)
    ]
    found = [speech_spans(*one) for one in zip(channels, without_echo, strict=True)]
    turns = []
    for index, (waveform, frames, spans) in enumerate(zip(waveforms, channels, found, strict=True)):
        others = np.zeros(len(frames.levels), bool)
        for other in found[:index] + found[index + 1 :]:
            for start, end in other:
                others[start:end] = True
        joined = _join(spans, others, window_length // FRAME)
        pieces = [piece for parts in joined for piece in split(parts, frames.levels, _LONGEST)]
        turns.append(_with_margins(pieces, len(waveform)))
    return turns


def active_frames(frames: Frames) -> Mask:
    """Frames that stand out from the noise, shape ``(num_frames,)``.

    The noise is followed in ten bands: in each the level that a fifth of the frames stay below,
    over some twenty seconds, or that of seconds which are steady, as where a line fills its
    silences with noise. A run of frames 2.5 dB above it counts if one of them is 4 dB above.
    """
    bands = np.maximum(frames.bands, _BAND_FLOOR)
    num_blocks = max(1, len(bands) // _BLOCK)
    size = len(bands) // num_blocks
    blocks = bands[: num_blocks * size].reshape(num_blocks, size, NUM_BANDS)
    quiet = np.partition(blocks, size // 5, axis=1)[:, size // 5]
    padded = np.pad(quiet, ((_AROUND, _AROUND), (0, 0)), mode="edge")
    around = np.lib.stride_tricks.sliding_window_view(padded, 2 * _AROUND + 1, axis=0)
    noise = np.partition(around, _AROUND // 3, axis=2)[:, :, _AROUND // 3]
    noise = np.maximum(noise, _UNEVEN * noise.mean(axis=1, keepdims=True))
    noise = np.maximum(noise, _steady_noise(frames.levels[: num_blocks * size], blocks))
    ratios = bands / noise[np.minimum(np.arange(len(bands)) // size, num_blocks - 1)]
    rest = np.maximum(ratios.sum(axis=1) - ratios.max(axis=1), 1e-9)  # without the loudest band
    smooth = np.convolve(np.pad(rest, 1, mode="edge"), np.full(3, 1 / 3), mode="valid")
    above = 10 * np.log10(smooth / (NUM_BANDS - 1))
    audible = frames.levels > _SILENCE_DB
    active = np.zeros(len(bands), bool)
    for start, end in runs(audible & (above > _OFF_DB)):
        active[start:end] = bool((above[start:end] > _ON_DB).any())
    return active


def _steady_noise(
    levels: npt.NDArray[np.float32], blocks: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    """The bands of steady seconds, of each block the geometric mean around it; 0 without any."""
    steady = (levels.reshape(len(blocks), -1).std(axis=1) < _STEADY_DB)[:, None]
    logs = np.log(blocks.mean(axis=1)) * steady
    sums = np.cumsum(np.pad(np.hstack([logs, steady]), ((_AROUND + 1, _AROUND), (0, 0))), axis=0)
    around = sums[2 * _AROUND + 1 :] - sums[: -2 * _AROUND - 1]
    found = around[:, -1:] > 0.5
    noise: npt.NDArray[np.float32] = np.exp(around[:, :-1] / np.maximum(around[:, -1:], 1)) * found
    return noise


def speech_spans(frames: Frames, active: Mask, span: Span | None = None) -> list[Span]:
    """Spans of speech within a span, in frames: without the pauses, and without other sounds."""
    pieces = pieces_of_sound(frames, active, span)
    return [piece for piece in pieces if _is_speech(frames, active, *piece)]


def pieces_of_sound(frames: Frames, active: Mask, span: Span | None = None) -> Iterator[Span]:
    """Spans between two pauses, in frames, before it is known whether they are speech."""
    begin, stop = span or (0, len(active))
    for start, end in _close(runs(active[begin:stop])):
        levels = frames.levels[begin + start : begin + end]
        audible = levels > _loud(levels) - _RANGE_DB
        for first, last in _close(runs(active[begin + start : begin + end] & audible)):
            piece = (begin + start + first, begin + start + last)
            for (one,) in split([piece], frames.levels, _LONGEST):
                if one[1] - one[0] >= _SHORTEST:
                    yield one


def _loud(levels: npt.NDArray[np.float32]) -> float:
    """The level that a twentieth of the frames exceed."""
    rank = len(levels) - 1 - len(levels) // 20
    return float(np.partition(levels, rank)[rank])


def _is_speech(frames: Frames, active: Mask, start: int, end: int) -> bool:
    """Judge a piece; how it moves, if it is short, with the sound before and behind it."""
    levels, bands, own = frames.levels, frames.bands, slice(start, end)
    around = levels[context(start, end)]
    if end - start >= VOICE_FRAMES:
        moves = is_voice(Frames(levels[own], bands[own]), around)
    else:
        near = slice(max(0, start - _NEAR), end + _NEAR)
        mine = active[near]
        moves = is_voice(Frames(levels[near][mine], bands[near][mine]), around)
    return moves and is_speech(levels[own], bands[own].copy())


def context(start: int, end: int) -> slice:
    """The frames around a piece, 6 s or more with its own, by which a crowd is known."""
    wider = max(0, _CONTEXT - end + start) // 2
    return slice(max(0, start - wider), end + wider)


def split(parts: list[Span], levels: npt.NDArray[np.float32], longest: int) -> Iterator[list[Span]]:
    """Split a turn at its quietest places until no piece is longer; in frames."""
    start, end = parts[0][0], parts[-1][1]
    if end - start <= longest:
        yield parts
        return
    if len(parts) > 1:
        gaps = [following[0] - one[1] for one, following in pairwise(parts)]
        at = int(np.argmax(gaps)) + 1
        halves = [parts[:at], parts[at:]]
    else:
        cut = quietest(levels[start:end], longest) + start
        halves = [[(start, cut)], [(cut, end)]]
    for half in halves:
        yield from split(half, levels, longest)


def quietest(levels: npt.NDArray[np.float32], longest: int) -> int:
    """The quietest place to split, which leaves both sides a third of the longest."""
    smooth = np.convolve(np.maximum(levels, -100), np.full(5, 0.2), mode="same")
    third = min(longest, len(levels)) // 3
    last = min(longest, len(levels) - third)
    return third + int(np.argmin(smooth[third:last]))


class TurnFinder:
    """Finds the turns of one channel while it arrives, by the rules of :func:`find_turns`.

    Short turns are not joined and pauses are not shared, as the next turn is not known yet, and the
    noise is that of the last twenty seconds.
    """

    def __init__(self) -> None:
        self._frames = Frames(np.zeros(0, np.float32), np.zeros((0, NUM_BANDS), np.float32))
        self._base = 0  # of the first frame that is kept
        self._decided = 0  # frames before it are in turns that have ended, or in none
        self._last_end = 0  # of the last turn, with its margin
        self.due = (_PAUSE + 1) * FRAME
        """Sample that has to arrive before anything more can be decided."""

    @property
    def arrived(self) -> int:
        """Samples that have been taken."""
        return (self._base + len(self._frames.levels)) * FRAME

    @property
    def needed(self) -> int:
        """Sample from which on audio may become a turn."""
        return max(self._last_end, self._decided - _MARGIN) * FRAME

    def push(self, waveform: Waveform, *, last: bool = False) -> list[Turn]:
        """Take the audio from ``arrived`` to ``due``; less, if it is the last.

        Returns:
            The turns that have ended, in samples from the start.
        """
        if len(waveform) >= FRAME:
            new = analyse(waveform, FRAME)
            self._frames = Frames(
                np.concatenate([self._frames.levels, new.levels]),
                np.concatenate([self._frames.bands, new.bands]),
            )
        now = self._base + len(self._frames.levels)
        if now == self._base:
            return []
        active = active_frames(self._frames)
        fresh = active & (np.arange(len(active)) >= self._decided - self._base)
        spans = [(self._base + start, self._base + end) for start, end in _close(runs(fresh))]
        turns: list[Turn] = []
        for start, end in spans:
            first = start
            while end - first > _LONGEST:
                cut = first + quietest(self._levels(first, end), _LONGEST)
                turns += self._end(first, cut, active)
                first = cut
            if last or now - end > _PAUSE:
                turns += self._end(first, end, active)
        pending = spans[-1][1] if spans and spans[-1][1] > self._decided else None
        if pending is None:
            self._decided = max(self._decided, now - _MAX_ONSET)
        wait = _PAUSE + 1 if pending is None else max(1, _PAUSE + 1 - (now - pending))
        self._forget(min(self._decided, now - 2 * _AROUND * _BLOCK))
        self.due = (now + wait) * FRAME
        return turns

    def _levels(self, start: int, end: int) -> npt.NDArray[np.float32]:
        return self._frames.levels[start - self._base : end - self._base]

    def _end(self, start: int, end: int, active: Mask) -> list[Turn]:
        """The turns in a span, which is decided with that."""
        now = self._base + len(self._frames.levels)
        turns = []
        span = (start - self._base, end - self._base)
        for first, last in speech_spans(self._frames, active, span):
            begin = max(self._last_end, self._base + first - _MARGIN)
            self._last_end = min(self._base + last + _MARGIN, now)
            turns.append(Turn(((begin * FRAME, self._last_end * FRAME),)))
        self._decided = end
        return turns

    def _forget(self, before: int) -> None:
        if (count := before - self._base) > 0:
            self._frames = Frames(self._frames.levels[count:], self._frames.bands[count:])
            self._base = before


def runs(mask: Mask) -> list[Span]:
    """Start and end of each run of True.

    Examples:
        >>> runs(np.array([True, False, True, True]))
        [(0, 1), (2, 4)]
    """
    edges = np.flatnonzero(np.diff(np.concatenate([[0], mask.astype(np.int8), [0]])))
    return [(int(start), int(end)) for start, end in edges.reshape(-1, 2)]


def _close(spans: list[Span]) -> list[Span]:
    """Close the pauses that end no turn."""
    closed: list[Span] = []
    for start, end in spans:
        if closed and start - closed[-1][1] <= _PAUSE:
            closed[-1] = (closed[-1][0], end)
        else:
            closed.append((start, end))
    return closed


def _join(spans: list[Span], others: Mask, longest: int) -> list[list[Span]]:
    """Join short turns with the nearest of the same speaker, the smallest pause first."""
    turns = [[one] for one in spans]

    def length(turn: list[Span]) -> int:
        return sum(end - start for start, end in turn)

    while True:
        best, place = _JOIN + 1, -1
        for index, (one, following) in enumerate(pairwise(turns)):
            end, start = one[-1][1], following[0][0]
            if (
                start - end < best
                and min(length(one), length(following)) < _SHORT
                and length(one) + length(following) <= longest
                and not others[end:start].any()
            ):
                best, place = start - end, index
        if place < 0:
            return turns
        turns[place : place + 2] = [turns[place] + turns[place + 1]]


def _echo(index: int, channels: Sequence[Frames], active: Sequence[Mask]) -> Mask:
    """Frames in which a channel holds no more than the echo of another.

    There is an echo if, while the other channel speaks, the level of this one follows it at a
    steady distance of 12 dB or more.
    """
    ours, echo = channels[index].levels, np.zeros(len(active[index]), bool)
    for other, frames in enumerate(channels):
        if other == index:
            continue
        theirs = np.where(active[other], frames.levels, -120.0)
        tightest, gain, delay = 3.0, 0.0, -1
        for lag in range(20):
            shifted = np.concatenate([np.full(lag, -120.0), theirs[: len(theirs) - lag]])
            both = active[index] & (shifted > ours + 12)
            if both.sum() < 50:
                continue
            apart = ours[both] - shifted[both]
            middle = float(np.median(apart))
            spread = float(np.median(np.abs(apart - middle)))
            if spread < tightest:
                tightest, gain, delay = spread, middle, lag
        if delay >= 0:
            shifted = np.concatenate([np.full(delay, -120.0), theirs[: len(theirs) - delay]])
            loudest = np.lib.stride_tricks.sliding_window_view(
                np.pad(shifted, 3, constant_values=-120.0), 7
            ).max(axis=1)
            echo |= ours < loudest + gain + 6
    return echo


def _with_margins(turns: Sequence[list[Span]], num_samples: int) -> list[Turn]:
    """Turns in samples, with a margin of 60 ms; a pause of one speaker is shared by both sides."""
    parts = [part for turn in turns for part in turn]
    rooms = [(following[0] - one[1]) // 2 for one, following in pairwise(parts)]
    same_turn = [within for turn in turns for within in [True] * (len(turn) - 1) + [False]]
    margins = [
        room if 2 * room <= _JOIN and not within else min(_MARGIN, room)
        for room, within in zip(rooms, same_turn, strict=False)
    ]
    before, after = [_MARGIN, *margins], [*margins, _MARGIN]
    padded = iter(
        (max(0, (start - left) * FRAME), min(num_samples, (end + right) * FRAME))
        for (start, end), left, right in zip(parts, before, after, strict=True)
    )
    return [Turn(tuple(next(padded) for _ in turn)) for turn in turns]
