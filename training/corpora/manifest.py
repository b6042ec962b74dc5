"""Reads a metadata.csv: any folder of labelled audio, without a parser of its own.

Columns: ``path`` (relative to the file) and ``emotion`` are needed; ``corpus`` (else the folder's
name), ``language`` (else ``und``), ``speaker``, ``gender`` (f or m), ``sentence_id`` and
``source_label`` (which becomes ``raw_label``) may be missing or empty; others are not read. UTF-8,
with or without a byte order mark. Emotions are those of the vocabulary, letter for letter: merging
or renaming labels is a decision, not something that a reader does by the way.

A clip without a speaker gets the speaker "", and all of them in a corpus count as one speaker.
Counting each as a speaker of its own would let the same voice into training and validation and
call the result speaker-independent; as one group they stay together, and a corpus that names no
speakers at all cannot be split, which is the truth about it.
"""

import csv
from collections.abc import Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath

from ...service.inference.card import EMOTIONS
from .corpus import CorpusError, Utterance
from .file_names import absolute

MANIFEST = "metadata.csv"
REQUIRED = ("path", "emotion")


def read_manifest(manifest: Path) -> list[Utterance]:
    """Read the utterances of a manifest.

    Args:
        manifest: the CSV file; its folder is what the paths are relative to.

    Returns:
        The utterances, in the order of the lines.

    Raises:
        CorpusError: if the file is missing, not a manifest, empty, or names an unknown emotion or
            gender, a file twice, a path outside of the folder, or audio that is not there.
    """
    manifest = absolute(manifest)
    lines: dict[Path, int] = {}
    utterances = []
    for line, cells in _read_lines(manifest):
        utterance = _utterance(manifest, line, cells)
        if (first := lines.setdefault(utterance.path, line)) != line:
            raise CorpusError(
                f"{manifest} names {cells['path']} in line {first} and in line {line}: keep 1"
            )
        utterances.append(utterance)
    if missing := [path for path in lines if not path.is_file()]:
        first_missing = missing[0].relative_to(manifest.parent).as_posix()
        raise CorpusError(
            f"{len(missing)} of {len(lines)} audio files of {manifest} are not there, the first "
            f"is {first_missing} in line {lines[missing[0]]}: add them or drop their lines"
        )
    return utterances


def _read_lines(manifest: Path) -> list[tuple[int, dict[str, str]]]:
    if not manifest.is_file():
        raise CorpusError(f"there is no file {manifest}: 1 manifest is wanted")
    try:
        with manifest.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, restval="", strict=True)
            columns = [column for column in reader.fieldnames or () if column]
            lines = [(reader.line_num, cells) for cells in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise CorpusError(f"{manifest} is not CSV in UTF-8 ({error}): save it as such") from error
    wanted = f"wanted are {' and '.join(REQUIRED)}"
    if not columns:
        raise CorpusError(f"{manifest} has no header: {wanted} in line 1")
    if missing := [column for column in REQUIRED if column not in columns]:
        raise CorpusError(
            f"{manifest} has no column {' and no column '.join(missing)} in its header "
            f"({', '.join(columns)}): {wanted}"
        )
    if not lines:
        raise CorpusError(f"{manifest} has a header and 0 clips: at least 1 is wanted")
    for line, cells in lines:
        if None in cells:
            raise CorpusError(
                f"line {line} of {manifest} has more cells than the {len(columns)} of the header: "
                "put cells with a comma into quotes"
            )
    return lines


def _utterance(manifest: Path, line: int, cells: Mapping[str, str]) -> Utterance:
    emotion, gender = cells["emotion"], cells.get("gender", "")
    if emotion not in EMOTIONS:
        raise CorpusError(
            f"line {line} of {manifest} has the unknown emotion {emotion!r}: "
            f"wanted is one of {', '.join(EMOTIONS)}"
        )
    if gender not in {"f", "m", ""}:
        raise CorpusError(
            f"line {line} of {manifest} has the gender {gender!r}: wanted is f, m or nothing"
        )
    return Utterance(
        path=manifest.parent / _relative_path(manifest, line, cells["path"]),
        corpus=cells.get("corpus") or manifest.parent.name,
        speaker=cells.get("speaker", ""),
        language=cells.get("language") or "und",
        emotion=emotion,
        raw_label=cells.get("source_label", ""),
        gender=gender,
        sentence_id=cells.get("sentence_id", ""),
    )


def _relative_path(manifest: Path, line: int, text: str) -> PurePosixPath:
    path = PurePosixPath(text)
    if not path.parts:
        raise CorpusError(f"line {line} of {manifest} has an empty path: a file is wanted")
    # A Windows drive or root is absolute too, wherever the manifest is read.
    windows = PureWindowsPath(text)
    if path.is_absolute() or windows.anchor or ".." in windows.parts:
        raise CorpusError(
            f"line {line} of {manifest} leads out of its folder with {text}: paths are relative to "
            "the manifest, without .."
        )
    return path
