"""Answers as text for people, with the timeline of each channel as a bar in a terminal."""

import os
import shutil
import sys
from collections.abc import Iterable
from itertools import groupby

from ..inference.errors import printable
from .schemas import PredictAnswer

_COLOURS = {
    "angry": 196, "calm": 79, "disgust": 100, "fear": 135, "happy": 220, "neutral": 250,
    "sad": 33, "surprise": 208,
}  # fmt: skip
_GREY = 240


def text_of(name: str, outcome: PredictAnswer | Exception) -> str:
    """The answer for people: one line, and the timeline where there is more to it."""
    if isinstance(outcome, Exception):
        return f"{name}: error: {outcome}"
    lines = [f"{name}: {_verdict(outcome.emotion, outcome.confidence, outcome.reasons)}"]
    channels = sorted({entry.channel for entry in outcome.timeline})
    if len(outcome.timeline) == 1 and len(outcome.per_channel) < 2:
        return lines[0]
    colours = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    for channel in channels:
        entries = [one for one in outcome.timeline if one.channel == channel]
        whole = next((one for one in outcome.per_channel if one.channel == channel), outcome)
        if len(channels) > 1:
            verdict = _verdict(whole.emotion, whole.confidence, whole.reasons)
            lines.append(f"  channel {channel}: {verdict}")
        if colours:
            lines.append(f"  {_bar(outcome, channel)}")
        for one in entries:
            speaker = f"{printable(one.speaker)}: " if one.speaker else ""
            text = speaker + _verdict(one.emotion, one.confidence, one.reasons)
            span = f"{_clock(one.start_s)} - {_clock(one.end_s)}"
            lines.append(f"    {span}  {_painted(text, one.emotion) if colours else text}")
    return "\n".join(lines)


def _verdict(emotion: str | None, confidence: float, reasons: Iterable[str]) -> str:
    return f"abstains ({', '.join(reasons)})" if emotion is None else f"{emotion} {confidence:.2f}"


def _clock(time_s: float) -> str:
    minutes, tenths = divmod(round(10 * time_s), 600)
    hours, minutes = divmod(minutes, 60)
    return f"{f'{hours}:' if hours else ''}{minutes:02}:{tenths // 10:02}.{tenths % 10}"


def _bar(answer: PredictAnswer, channel: int) -> str:
    """A line of blocks in the colours of the emotions; a dot where nothing was scored."""
    width = max(20, min(100, shutil.get_terminal_size().columns - 4))
    entries = [one for one in answer.timeline if one.channel == channel]
    middles = [(cell + 0.5) / width * answer.audio.duration_s for cell in range(width)]
    shown = [
        next((one for one in entries if one.start_s <= at_s < one.end_s), None) for at_s in middles
    ]
    return "".join(
        "·" * len(cells) if entry is None else _painted("█" * len(cells), entry.emotion)
        for entry, cells in ((entry, list(run)) for entry, run in groupby(shown))
    )


def _painted(text: str, emotion: str | None) -> str:
    return f"\x1b[38;5;{_COLOURS.get(emotion or '', _GREY)}m{text}\x1b[0m"
