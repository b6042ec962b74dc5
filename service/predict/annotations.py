"""The timeline of one recording in the formats of annotation tools.

How to add a format: a function from the recording's name and answer to text, and a row in
:data:`ANNOTATIONS`. HTTP, command line, documentation of the API and the test of all formats
follow from the row.

Each format has the entries of the answer's timeline that hold an emotion, or ``abstained``; what
holds no speech is a gap. Entries lie on tiers: one per speaker where speakers are known, else one
per channel, else one called ``emotion``. Entries of a tier do not overlap. Names and labels are
written in UTF-8.
"""

import html
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import PurePath
from urllib.parse import quote

from ..inference.errors import printable
from .schemas import PredictAnswer

ABSTAINED = "abstained"
"""Label of speech for which no emotion is answered."""

_SHORTEST_S = 0.001
"""Formats count in milliseconds: anything shorter would have no length."""

_NOT_IN_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True, slots=True)
class Annotation:
    """A format that holds a timeline.

    Attributes:
        media_type: of an HTTP answer.
        suffix: of files.
        write: makes the text, from the name of the recording and its answer.
        holds_many: whether the texts of several recordings, one after another, are one file.
    """

    media_type: str
    suffix: str
    write: Callable[[str, PredictAnswer], str]
    holds_many: bool = False


@dataclass(frozen=True, slots=True)
class _Mark:
    """An entry of a tier; times in seconds, the channel counted from 0."""

    start_s: float
    end_s: float
    channel: int
    speaker: str | None
    tier: str
    label: str
    confidence: float


def rttm(name: str, answer: PredictAnswer) -> str:
    """Write Rich Transcription Time Marked lines, the format of speaker diarisation.

    The emotion stands where diarisation puts the speaker, a given speaker in the field before it.
    Channels count from 1, as the format wants it.

    References:
        NIST, The 2009 Rich Transcription evaluation plan, appendix A.
    """
    file_id = _word(PurePath(name).stem) or "recording"
    return _lines(
        f"SPEAKER {file_id} {mark.channel + 1} {mark.start_s:.3f} {mark.end_s - mark.start_s:.3f} "
        f"<NA> {_word(mark.speaker or '<NA>')} {mark.label} {mark.confidence:g} <NA>"
        for mark in _marks(answer)
    )


def vtt(_: str, answer: PredictAnswer) -> str:
    """Write WebVTT; where there are several tiers, each is a voice.

    References:
        https://www.w3.org/TR/webvtt1/
    """
    marks = _marks(answer)
    cues = [
        f"{_clock(mark.start_s, '.')} --> {_clock(mark.end_s, '.')}\n"
        f"{_voice(mark, marks)}{mark.label} {mark.confidence:.2f}\n"
        for mark in marks
    ]
    return "\n".join(["WEBVTT\n", *cues])


def srt(_: str, answer: PredictAnswer) -> str:
    """Write SubRip subtitles; where there are several tiers, each text begins with its name."""
    marks = _marks(answer)
    several = len({mark.tier for mark in marks}) > 1
    cues = [
        f"{number}\n{_clock(mark.start_s, ',')} --> {_clock(mark.end_s, ',')}\n"
        f"{f'{mark.tier}: ' if several else ''}{mark.label} {mark.confidence:.2f}\n"
        for number, mark in enumerate(marks, 1)
    ]
    return "\n".join(cues)


def audacity(_: str, answer: PredictAnswer) -> str:
    """Write a label track of Audacity: start, end and label, separated by tabs."""
    marks = _marks(answer)
    several = len({mark.tier for mark in marks}) > 1
    lines = [
        f"{mark.start_s:.6f}\t{mark.end_s:.6f}\t{f'{mark.tier}: ' if several else ''}{mark.label}"
        for mark in marks
    ]
    return _lines(lines)


def textgrid(_: str, answer: PredictAnswer) -> str:
    """Write a TextGrid of Praat in the long text format; gaps are intervals without text.

    References:
        https://www.fon.hum.uva.nl/praat/manual/TextGrid_file_formats.html
    """
    length_s = answer.audio.duration_s
    end = _number(length_s)
    tiers = _tiers(answer)
    lines = ['File type = "ooTextFile"', 'Object class = "TextGrid"', ""]
    lines += ["xmin = 0", f"xmax = {end}", "tiers? <exists>", f"size = {len(tiers)}", "item []:"]
    for number, (tier, marks) in enumerate(tiers.items(), 1):
        intervals = list(_without_gaps(marks, length_s))
        lines += [
            f"    item [{number}]:",
            '        class = "IntervalTier"',
            f'        name = "{_praat(tier)}"',
            "        xmin = 0",
            f"        xmax = {end}",
            f"        intervals: size = {len(intervals)}",
        ]
        for index, (start_s, end_s, label) in enumerate(intervals, 1):
            lines += [
                f"        intervals [{index}]:",
                f"            xmin = {_number(start_s)}",
                f"            xmax = {_number(end_s)}",
                f'            text = "{_praat(label)}"',
            ]
    return _lines(lines)


def eaf(name: str, answer: PredictAnswer) -> str:
    """Write an annotation document of ELAN, with a link to the recording beside it.

    References:
        https://www.mpi.nl/tools/elan/EAF_Annotation_Format_3.0_and_ELAN.pdf
    """
    media = _xml(f"./{quote(PurePath(name).name)}")
    slots: list[str] = []
    tiers: list[str] = []
    number = 0
    for tier, marks in _tiers(answer).items():
        tiers.append(f'    <TIER LINGUISTIC_TYPE_REF="emotion" TIER_ID="{_xml(tier)}">')
        for mark in marks:
            number += 1
            first, second = f"ts{2 * number - 1}", f"ts{2 * number}"
            for slot, time_s in ((first, mark.start_s), (second, mark.end_s)):
                value = round(1000 * time_s)
                slots.append(f'        <TIME_SLOT TIME_SLOT_ID="{slot}" TIME_VALUE="{value}"/>')
            tiers.append(
                f'        <ANNOTATION><ALIGNABLE_ANNOTATION ANNOTATION_ID="a{number}" '
                f'TIME_SLOT_REF1="{first}" TIME_SLOT_REF2="{second}"><ANNOTATION_VALUE>'
                f"{_xml(mark.label)}</ANNOTATION_VALUE></ALIGNABLE_ANNOTATION></ANNOTATION>"
            )
        tiers.append("    </TIER>")
    return _lines(
        [
            '<?xml version="1.0" encoding="UTF-8"?>',
            f'<ANNOTATION_DOCUMENT AUTHOR="nnpm" DATE="{datetime.now(UTC).isoformat()}" '
            'FORMAT="3.0" VERSION="3.0" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" '
            'xsi:noNamespaceSchemaLocation="http://www.mpi.nl/tools/elan/EAFv3.0.xsd">',
            '    <HEADER MEDIA_FILE="" TIME_UNITS="milliseconds">',
            f'        <MEDIA_DESCRIPTOR MEDIA_URL="{media}" RELATIVE_MEDIA_URL="{media}" '
            'MIME_TYPE="audio/*"/>',
            "    </HEADER>",
            "    <TIME_ORDER>",
            *slots,
            "    </TIME_ORDER>",
            *tiers,
            '    <LINGUISTIC_TYPE GRAPHIC_REFERENCES="false" LINGUISTIC_TYPE_ID="emotion" '
            'TIME_ALIGNABLE="true"/>',
            "</ANNOTATION_DOCUMENT>",
        ]
    )


ANNOTATIONS = {
    "rttm": Annotation("text/x-rttm", ".rttm", rttm, holds_many=True),
    "vtt": Annotation("text/vtt", ".vtt", vtt),
    "srt": Annotation("application/x-subrip", ".srt", srt),
    "textgrid": Annotation("text/praat-textgrid", ".TextGrid", textgrid),
    "eaf": Annotation("text/x-eaf+xml", ".eaf", eaf),
    "audacity": Annotation("text/plain", ".txt", audacity),
}


def _tiers(answer: PredictAnswer) -> dict[str, list[_Mark]]:
    """The marks of each tier; those of a tier do not overlap, and there is at least one tier."""
    tiers: dict[str, list[_Mark]] = {}
    for mark in _marks(answer):
        tiers.setdefault(mark.tier, []).append(mark)
    return tiers or {"emotion": []}


def _marks(answer: PredictAnswer) -> list[_Mark]:
    """The entries of the timeline that are written, in order of start."""
    split = len(answer.per_channel) > 1 or any(entry.channel for entry in answer.timeline)
    ends: dict[str, float] = {}
    marks = []
    for entry in sorted(answer.timeline, key=lambda one: one.start_s):
        if entry.emotion is None and "no_speech" in entry.reasons:
            continue
        channel = f"channel {entry.channel}" if split else ""
        speaker = None if entry.speaker is None else printable(entry.speaker)
        tier = " ".join(filter(None, (channel, speaker))) or "emotion"
        # given turns of one speaker may overlap: the later one gives way
        start_s = max(entry.start_s, ends.get(tier, 0.0))
        end_s = min(entry.end_s, answer.audio.duration_s)
        if end_s - start_s >= _SHORTEST_S:
            ends[tier] = end_s
            label = entry.emotion or ABSTAINED
            marks.append(
                _Mark(start_s, end_s, entry.channel, speaker, tier, label, entry.confidence)
            )
    return marks


def _without_gaps(marks: Iterable[_Mark], end_s: float) -> Iterable[tuple[float, float, str]]:
    """The marks of a tier, and intervals without a label between them."""
    at_s = 0.0
    for mark in marks:
        if mark.start_s > at_s:
            yield at_s, mark.start_s, ""
        yield mark.start_s, mark.end_s, mark.label
        at_s = mark.end_s
    if end_s > at_s:
        yield at_s, end_s, ""


def _clock(time_s: float, point: str) -> str:
    """A time as hours, minutes, seconds and milliseconds."""
    seconds, milliseconds = divmod(round(1000 * time_s), 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{seconds:02}{point}{milliseconds:03}"


def _voice(mark: _Mark, marks: Iterable[_Mark]) -> str:
    several = len({one.tier for one in marks}) > 1
    return f"<v {html.escape(mark.tier, quote=False)}>" if several or mark.speaker else ""


def _number(time_s: float) -> str:
    """A time with at most four digits."""
    return f"{time_s:.4f}".rstrip("0").rstrip(".")


def _word(text: str) -> str:
    return re.sub(r"\s+", "_", text)


def _praat(text: str) -> str:
    return text.replace('"', '""')


def _xml(text: str) -> str:
    return html.escape(_NOT_IN_XML.sub("\ufffd", text))


def _lines(lines: Iterable[str]) -> str:
    return "".join(f"{line}\n" for line in lines)
