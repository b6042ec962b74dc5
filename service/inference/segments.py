"""How a recording is cut: into turns, into windows by the clock, or as the caller says.

Prediction, batches, adaptation and evaluation cut here; a stream makes its plan here.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from .answer import GivenTurn, Options, Reason
from .audio.speech import Quality, assess, speech_bounds
from .audio.waveform import SAMPLE_RATE_HZ, Recording, Waveform
from .card import Card
from .errors import ParameterError, TurnsError
from .turns import Turn, find_turns

TOO_SHORT_S = 0.3
"""A shorter recording is scored, but not answered."""

CLIPPED_RATIO = 0.05
"""A recording is not answered if at least this share of its samples is at full scale."""

_MAX_WINDOW_S = 10.0
_MAX_WINDOWS = 10_000  # about a minute of work


@dataclass(frozen=True, slots=True)
class Plan:
    """Options with the bundle's own filled in.

    Attributes:
        window_length: of a window, in samples.
        hop_length: from the start of one window to the start of the next, in samples.
        allowed: indices of the emotions that may be answered.
        force: whether every window is scored, because an answer is forced on each.
        by_turns: whether a recording is cut into turns.
        short_too: whether a recording is that is no longer than a window.
        given: the turns, where the caller names them.
    """

    window_length: int
    hop_length: int
    allowed: list[int]
    force: bool
    by_turns: bool
    short_too: bool = False
    given: tuple[GivenTurn, ...] | None = None


def plan(card: Card, labels: tuple[str, ...], options: Options) -> Plan:
    """Check options, and fill in the bundle's own.

    Args:
        card: of the bundle.
        labels: of the bundle.
        options: of the caller.

    Raises:
        ParameterError: if an option is out of range.
    """
    window_s = card.window_s if options.window_s is None else options.window_s
    hop_s = min(card.hop_s, window_s) if options.hop_s is None else options.hop_s
    if not 0.5 <= window_s <= _MAX_WINDOW_S:
        raise ParameterError(
            f"window_s is {window_s:g}; it must be between 0.5 and {_MAX_WINDOW_S:g}."
        )
    if not 0.1 <= hop_s <= window_s:
        raise ParameterError(
            f"hop_s is {hop_s:g}; it must be between 0.1 and window_s ({window_s:g})."
        )
    if not 0 <= options.neighbours <= 100:
        raise ParameterError(f"neighbours is {options.neighbours}; it must be between 0 and 100.")
    by_clock = options.window_s is not None or options.hop_s is not None
    if options.segments == "turns" and options.hop_s is not None:
        raise ParameterError(
            "hop_s is given, which cuts by the clock; leave it out, or take segments=windows."
        )
    return Plan(
        window_length=round(window_s * SAMPLE_RATE_HZ),
        hop_length=round(hop_s * SAMPLE_RATE_HZ),
        allowed=_indices(labels, card.answers if options.emotions is None else options.emotions),
        force=not options.abstain,
        by_turns=(options.segments or ("windows" if by_clock else "turns")) == "turns",
        short_too=options.segments == "turns",
        given=options.turns,
    )


def _indices(labels: tuple[str, ...], allowed: tuple[str, ...]) -> list[int]:
    known = f"this model knows {', '.join(labels)}."
    if not allowed:
        raise ParameterError(f"emotions is empty; {known}")
    if unknown := [emotion for emotion in allowed if emotion not in labels]:
        raise ParameterError(f"emotions contains {', '.join(unknown)}; {known}")
    return [labels.index(emotion) for emotion in allowed]


@dataclass(frozen=True, slots=True)
class ChannelCut:
    """The segments of one channel.

    Attributes:
        turns: in order of start; at least one, if only to say that there is no speech.
        speech_ratio: share of the channel that holds speech, in [0, 1].
        by_clock: whether they are windows.
    """

    turns: list[Turn]
    speech_ratio: float
    by_clock: bool


def cut(recording: Recording, plan: Plan) -> list[ChannelCut]:
    """Cut each channel of a recording.

    A recording that is no longer than a window is one segment without its silent edges, unless
    the plan says otherwise. A channel without a turn has its first window for a segment.

    Raises:
        TurnsError: if given turns do not fit the recording.
        ParameterError: if there would be too many windows.
    """
    waveforms = recording.waveforms
    if plan.given is not None:
        found = _given_turns(recording, plan.given)
    elif plan.by_turns and (
        plan.short_too or max(len(one) for one in waveforms) > plan.window_length
    ):
        found = find_turns(waveforms, plan.window_length)
    else:
        return [_windows_of(waveform, plan, len(waveforms)) for waveform in waveforms]
    cuts = []
    for waveform, turns in zip(waveforms, found, strict=True):
        spoken = sum(turn.num_samples for turn in turns if turn.has_speech)
        first = ((0, min(len(waveform), plan.window_length)),)
        cuts.append(
            ChannelCut(
                turns or [Turn(first, has_speech=False)],
                speech_ratio=min(1.0, spoken / len(waveform)),
                by_clock=False,
            )
        )
    return cuts


def cut_turns(recording: Recording, window_s: float) -> list[ChannelCut]:
    """Cut each channel as prediction does without options.

    Args:
        recording: as decoded.
        window_s: of the bundle.
    """
    length = round(window_s * SAMPLE_RATE_HZ)
    plan = Plan(length, length, allowed=[], force=False, by_turns=True)
    return cut(recording, plan)


def _windows_of(waveform: Waveform, plan: Plan, num_channels: int) -> ChannelCut:
    """Windows by the clock; the silent edges of the channel are left out."""
    quality = assess(waveform)
    bounds = _window_bounds(waveform, quality, plan, num_channels)
    if len(bounds) == 1 or not quality.has_speech:
        speech = [quality.has_speech] * len(bounds)
    else:
        speech = [assess(waveform.part(*one)).has_speech for one in bounds]
    turns = [Turn((one,), has_speech) for one, has_speech in zip(bounds, speech, strict=True)]
    return ChannelCut(turns, quality.speech_ratio, by_clock=True)


def signal_reasons(has_speech: bool, duration_s: float, clipped_ratio: float) -> tuple[Reason, ...]:
    """Why to abstain whatever the model computes.

    Args:
        has_speech: whether speech was found.
        duration_s: length of the recording in seconds.
        clipped_ratio: share of its samples at full scale, in [0, 1].

    Examples:
        >>> signal_reasons(has_speech=False, duration_s=0.2, clipped_ratio=0.0)
        ('no_speech', 'too_short')
    """
    found: dict[Reason, bool] = {
        "no_speech": not has_speech,
        "too_short": duration_s < TOO_SHORT_S,
        "clipped": clipped_ratio >= CLIPPED_RATIO,
    }
    return tuple(reason for reason, holds in found.items() if holds)


def _given_turns(recording: Recording, given: Sequence[GivenTurn]) -> list[list[Turn]]:
    """The turns of each channel, exactly as the caller gives them.

    Raises:
        TurnsError: if a turn lies outside the recording, or they are too many or too long.
    """
    waveforms = recording.waveforms
    duration_s, num_channels = waveforms[0].duration_s, recording.info.channels
    found: list[list[Turn]] = [[] for _ in waveforms]
    for one in sorted(given, key=lambda turn: (turn.start_s, turn.end_s)):
        if not 0 <= one.start_s < one.end_s <= duration_s + 0.5:
            raise TurnsError(
                f"turns has one from {one.start_s:g} to {one.end_s:g} s; it must end after it "
                f"starts, within the {duration_s:.2f} s of the recording."
            )
        if one.channel is not None and not 0 <= one.channel < num_channels:
            raise TurnsError(
                f"turns has one on channel {one.channel}; the recording has {num_channels}, "
                "counted from 0."
            )
        for channel, waveform in enumerate(waveforms):
            if len(waveforms) > 1 and one.channel not in (None, channel):
                continue
            end = min(len(waveform), round(one.end_s * SAMPLE_RATE_HZ))
            start = min(round(one.start_s * SAMPLE_RATE_HZ), end - 1)
            has_speech = assess(waveform.part(start, end)).has_speech
            found[channel].append(Turn(((start, end),), has_speech, one.speaker))
    num_turns = sum(map(len, found))
    total_s = sum(turn.num_samples for turns in found for turn in turns) / SAMPLE_RATE_HZ
    most_s = 4 * duration_s * len(waveforms)
    if num_turns > _MAX_WINDOWS or total_s > most_s:
        raise TurnsError(
            f"turns has {num_turns} turns of {total_s:.0f} s in all; at most {_MAX_WINDOWS} are "
            f"scored, and {most_s:.0f} s, four times the recording."
        )
    return found


def _window_bounds(
    waveform: Waveform, quality: Quality, plan: Plan, num_channels: int
) -> list[tuple[int, int]]:
    """Start and end of each window in samples of the waveform; silent edges are left out."""
    offset, stop = speech_bounds(waveform, quality)
    bounds = windows(stop - offset, plan.window_length, plan.hop_length)
    num_windows = len(bounds) * num_channels
    if num_windows > _MAX_WINDOWS:
        hop_s = waveform.duration_s * num_channels / _MAX_WINDOWS + 0.01
        raise ParameterError(
            f"hop_s is {plan.hop_length / SAMPLE_RATE_HZ:g}, which cuts "
            f"{waveform.duration_s:.0f} s into {num_windows} windows; at most {_MAX_WINDOWS} are "
            f"scored: take a hop of {hop_s:.2f} s or more."
        )
    return [(offset + start, offset + end) for start, end in bounds]


def windows(num_samples: int, window_length: int, hop_length: int) -> list[tuple[int, int]]:
    """Cut a clip into windows that cover all of it.

    Args:
        num_samples: length of the clip.
        window_length: of a window, in samples.
        hop_length: from the start of one window to the start of the next, in samples; 1 to
            ``window_length``.

    Returns:
        ``(start, end)`` of each window in samples, in order of start. A remainder of at most half
        a hop is added to the last window, so that a clip hardly longer than a window is still one;
        a longer remainder gets a window of its own, which ends where the clip ends.

    Examples:
        >>> windows(10, window_length=4, hop_length=2)
        [(0, 4), (2, 6), (4, 8), (6, 10)]
        >>> windows(9, window_length=4, hop_length=4)
        [(0, 4), (4, 9)]
        >>> windows(11, window_length=4, hop_length=4)
        [(0, 4), (4, 8), (7, 11)]
        >>> windows(3, window_length=4, hop_length=4)
        [(0, 3)]
    """
    assert 0 < hop_length <= window_length, f"hop {hop_length} is not in 1..{window_length}"
    if num_samples <= window_length:
        return [(0, num_samples)]
    bounds = [
        (start, start + window_length)
        for start in range(0, num_samples - window_length + 1, hop_length)
    ]
    remainder = num_samples - bounds[-1][1]
    if 2 * remainder > hop_length:
        bounds.append((num_samples - window_length, num_samples))
    elif remainder:
        bounds[-1] = (bounds[-1][0], num_samples)
    return bounds
