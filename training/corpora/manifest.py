"""Reads a metadata.csv: any folder of labelled audio, without a parser of its own.

Columns: ``path`` (relative to the file) and ``emotion`` are required; ``corpus`` (else the folder's
name), ``language`` (else ``und``), ``speaker``, ``gender`` (f or m), ``sentence_id`` and
``source_label`` (which becomes ``raw_label``) may be missing or empty; others are not read. UTF-8,
with or without a byte order mark.

Emotions are those of the vocabulary, letter for letter: merging or renaming labels is a decision
that a reader must not make. Clips of other emotions are left out, and a warning counts and names
them.

A clip without a speaker gets the speaker "", and all of them in a corpus count as one speaker.
If each counted as a speaker of its own, one voice could be in training and in validation, and the
result would be called speaker-independent. As one group they stay together, and a corpus that names
no speakers cannot be split.
"""

import csv
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath, PureWindowsPath

from ...service.inference.card import EMOTIONS
from .corpus import CorpusError, Utterance
from .file_names import absolute

MANIFEST = "metadata.csv"
VOTES = "voice_votes.csv"
"""Beside a manifest, if listeners judged the clips: columns ``path`` and ``voice_vote``, the
emotion that most heard in the voice alone (``happy|neutral`` for two with as many votes)."""
REQUIRED = ("path", "emotion")

_LISTED = 10  # labels in one message

log = logging.getLogger(__name__)


def read_manifest(manifest: Path) -> list[Utterance]:
    """Read the utterances of a manifest.

    Args:
        manifest: the CSV file; paths are relative to its folder.

    Returns:
        The utterances of known emotions, in the order of the lines. A warning is logged if there
        are others.

    Raises:
        CorpusError: if the file is missing, is not a manifest, is empty, has no known emotion or an
            unknown gender, names a file twice, a path outside its folder, or a missing file.
    """
    manifest = absolute(manifest)
    rows = _read_lines(manifest, REQUIRED)
    unknown = Counter(cells["emotion"] for _, cells in rows if cells["emotion"] not in EMOTIONS)
    if unknown.total() == len(rows):
        raise CorpusError(
            f"{manifest} has {len(rows)} clips and no emotion that nnpm knows: its emotions are "
            f"{_counted(unknown)}; use {', '.join(EMOTIONS)}"
        )
    if unknown:
        log.warning(
            "%s: %d of %d clips left out, of emotions nnpm does not know: %s",
            manifest.parent.name,
            unknown.total(),
            len(rows),
            _counted(unknown),
        )
    lines: dict[Path, int] = {}
    utterances = []
    for line, cells in rows:
        if cells["emotion"] in unknown:
            continue
        utterance = _utterance(manifest, line, cells)
        if (first := lines.setdefault(utterance.path, line)) != line:
            raise CorpusError(
                f"{manifest} names {cells['path']} in line {first} and in line {line}: remove one"
            )
        utterances.append(utterance)
    if missing := [path for path in lines if not path.is_file()]:
        first_missing = missing[0].relative_to(manifest.parent).as_posix()
        raise CorpusError(
            f"{len(missing)} of {len(lines)} audio files of {manifest} are missing; the first is "
            f"{first_missing} in line {lines[missing[0]]}: add them or remove their lines"
        )
    return utterances


def _counted(labels: Counter[str]) -> str:
    """Labels with their counts, the most frequent first: ``boredom (81), other (3)``.

    Examples:
        >>> _counted(Counter({"other": 3, "boredom": 81, "": 1}))
        "boredom (81), other (3), '' (1)"
    """
    ordered = sorted(labels.items(), key=lambda item: (-item[1], item[0]))
    shown = [
        f"{label if label and label.isprintable() else repr(label)} ({count})"
        for label, count in ordered[:_LISTED]
    ]
    more = [f"{len(ordered) - _LISTED} other labels"] if len(ordered) > _LISTED else []
    return ", ".join([*shown, *more])


def _read_lines(manifest: Path, needed: Sequence[str]) -> list[tuple[int, dict[str, str]]]:
    """The lines of a CSV file by their numbers, each with all columns of the header."""
    if not manifest.is_file():
        raise CorpusError(f"there is no file {manifest}: write the manifest there")
    try:
        with manifest.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, restval="", strict=True)
            columns = [column for column in reader.fieldnames or () if column]
            lines = [(reader.line_num, cells) for cells in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise CorpusError(f"{manifest} is not a CSV file in UTF-8: save it as one") from error
    required = f"the columns {' and '.join(needed)} are required"
    if not columns:
        raise CorpusError(f"{manifest} has no header: {required} in line 1")
    if missing := [column for column in needed if column not in columns]:
        raise CorpusError(
            f"{manifest} has no column {' and no column '.join(missing)} in its header "
            f"({', '.join(columns)}): {required}"
        )
    if not lines:
        raise CorpusError(f"{manifest} has a header and 0 clips: at least 1 is required")
    for line, cells in lines:
        if None in cells:
            raise CorpusError(
                f"line {line} of {manifest} has more cells than the {len(columns)} of the header: "
                "put cells with a comma into quotes"
            )
    return lines


def _utterance(manifest: Path, line: int, cells: Mapping[str, str]) -> Utterance:
    gender = cells.get("gender", "")
    if gender not in {"f", "m", ""}:
        raise CorpusError(
            f"line {line} of {manifest} has the gender {gender!r}: it must be f, m or empty"
        )
    return Utterance(
        path=manifest.parent / _relative_path(manifest, line, cells["path"]),
        corpus=cells.get("corpus") or manifest.parent.name,
        speaker=cells.get("speaker", ""),
        language=cells.get("language") or "und",
        emotion=cells["emotion"],
        raw_label=cells.get("source_label", ""),
        gender=gender,
        sentence_id=cells.get("sentence_id", ""),
    )


def _relative_path(manifest: Path, line: int, text: str) -> PurePosixPath:
    path = PurePosixPath(text)
    if not path.parts:
        raise CorpusError(f"line {line} of {manifest} has an empty path: name a file")
    # A Windows drive or root is absolute too, wherever the manifest is read.
    windows = PureWindowsPath(text)
    if path.is_absolute() or windows.anchor or ".." in windows.parts:
        raise CorpusError(
            f"line {line} of {manifest} has the path {text}, outside its folder: paths are "
            "relative to the manifest, without .."
        )
    return path


def with_votes(utterances: Sequence[Utterance], votes: Path) -> list[Utterance]:
    """Add the emotions that listeners recognised, from the file :data:`VOTES`.

    Args:
        utterances: of the manifest beside it.
        votes: the CSV file; clips that it does not name stay as they are.

    Raises:
        CorpusError: if it cannot be read, has other columns, or has no clips.
    """
    heard = {
        votes.parent / cells["path"]: tuple(
            emotion for emotion in cells["voice_vote"].split("|") if emotion in EMOTIONS
        )
        for _, cells in _read_lines(votes, ("path", "voice_vote"))
    }
    return [replace(u, heard=heard.get(u.path, ())) for u in utterances]
