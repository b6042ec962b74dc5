"""Turns that a caller gives: JSON, or RTTM as diarisers write it."""

import math
import re
from pathlib import Path, PurePath
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from ..inference.answer import GivenTurn
from ..inference.errors import ParameterError, TurnsError, validation_detail

MAX_TURNS_CHARS = 1 << 20
"""Length of the longest text: some ten thousand turns."""

_MAX_TURNS = 10_000


class _Turn(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    start_s: Annotated[float, Field(ge=0)]
    end_s: Annotated[float, Field(gt=0)]
    channel: Annotated[int, Field(ge=0, le=255)] | None = None
    speaker: Annotated[str, Field(min_length=1, max_length=128)] | None = None


_TURNS = TypeAdapter(list[_Turn])


def turns_file(path: Path) -> str:
    """Read the text of a file of turns, no more of it than is of use.

    Raises:
        ParameterError: if it cannot be read.
    """
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return file.read(MAX_TURNS_CHARS + 1)
    except OSError as error:
        raise ParameterError(f"{path}: {error.strerror}.") from None


def check_turns(text: str) -> str:
    """See that a text holds turns, and return it.

    Raises:
        ValueError: if it is neither JSON nor RTTM, holds no turn, or one does not end after it
            starts.
    """
    turns = _parse(text)
    if not 1 <= len(turns) <= _MAX_TURNS:
        raise ValueError(f"turns has {len(turns)} turns; it must have 1 to {_MAX_TURNS}.")
    for _, one in turns:
        if one.end_s <= one.start_s:
            raise ValueError(
                f"turns has one from {one.start_s:g} to {one.end_s:g} s; it must end after it "
                "starts."
            )
    return text


def read_turns(text: str, recording: str | None = None) -> tuple[GivenTurn, ...]:
    """Read the turns of one recording.

    Args:
        text: a JSON list of ``{"start_s", "end_s", "channel"?, "speaker"?}``, channels counted
            from 0; or RTTM, whose SPEAKER lines name file, channel (counted from 1), start and
            duration in seconds, and speaker. Lines of other types are ignored.
        recording: its file; matters if the RTTM names several, without their suffixes.

    Raises:
        ValueError: as :func:`check_turns`.
        TurnsError: if several files are named, and this is none of them.

    Examples:
        >>> read_turns('[{"start_s": 0, "end_s": 1.5, "speaker": "Ada"}]')
        (GivenTurn(start_s=0.0, end_s=1.5, channel=None, speaker='Ada'),)
        >>> read_turns("SPEAKER call 1 2.0 0.5 <NA> <NA> Bo <NA> <NA>")
        (GivenTurn(start_s=2.0, end_s=2.5, channel=0, speaker='Bo'),)
    """
    turns = _parse(check_turns(text))
    files = {file for file, _ in turns}
    if recording is None or len(files) == 1:
        return tuple(one for _, one in turns)
    names = {recording, PurePath(recording).name, PurePath(recording).stem}
    found = tuple(one for file, one in turns if file in names)
    if not found:
        named = ", ".join(sorted(files)[:5])
        raise TurnsError(
            f"turns names {len(files)} recordings ({named}), and {recording!r} is none of them."
        )
    return found


def _parse(text: str) -> list[tuple[str, GivenTurn]]:
    """Turns, each with the file that it names."""
    return _of_json(text) if text.lstrip().startswith(("[", "{")) else _of_rttm(text)


def _of_json(text: str) -> list[tuple[str, GivenTurn]]:
    try:
        found = _TURNS.validate_json(text)
    except ValidationError as error:
        detail = validation_detail(
            error.errors(), name=lambda field: f"turns.{field}", document="turns", limit=1
        )
        raise ValueError(detail) from None
    return [("", GivenTurn(one.start_s, one.end_s, one.channel, one.speaker)) for one in found]


def _of_rttm(text: str) -> list[tuple[str, GivenTurn]]:
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        fields = line.split()
        if not fields or fields[0] != "SPEAKER":
            if fields and not re.fullmatch(r"[A-Z][A-Z0-9_-]*|;;.*", fields[0]):
                raise ValueError(
                    f"Line {number} of turns is neither RTTM nor JSON; a line of RTTM is 'SPEAKER "
                    "file channel start duration <NA> <NA> speaker <NA> <NA>'."
                )
            continue
        try:
            channel, start_s, duration_s = int(fields[2]), float(fields[3]), float(fields[4])
            speaker = fields[7]
        except (IndexError, ValueError):
            raise ValueError(
                f"Line {number} of turns has no channel, start, duration and speaker; write "
                "'SPEAKER file channel start duration <NA> <NA> speaker <NA> <NA>'."
            ) from None
        if not (channel >= 0 and start_s >= 0 and duration_s > 0 and math.isfinite(duration_s)):
            raise ValueError(
                f"Line {number} of turns has channel {channel}, start {start_s:g} s and duration "
                f"{duration_s:g} s; the duration must be above 0, and none below it."
            )
        name = None if speaker == "<NA>" else speaker[:128]
        turn = GivenTurn(start_s, start_s + duration_s, max(0, channel - 1), name)
        found.append((fields[1], turn))
    return found
