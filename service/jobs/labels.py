"""A few labels of recordings: CSV with the columns path and emotion, read strictly.

Training imports this module too: a file of labels is the same over HTTP and on a command line.
"""

import csv
import io
from collections.abc import Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath

from ..inference.card import EMOTIONS
from ..inference.errors import ParameterError

MANIFEST = "metadata.csv"
"""File in a folder or archive that labels its recordings."""

MAX_LABELS_BYTES = 1 << 20
"""Largest file of a few labels; 20 to 100 clips are some kilobytes."""

MAX_MANIFEST_BYTES = 16 << 20
"""Largest :data:`MANIFEST`: some 100,000 recordings."""

_LABEL_COLUMNS = ("path", "emotion")


def parse_labels(text: str) -> dict[str, str]:
    r"""Read a few labels: CSV with the columns path and emotion; others are not read.

    A row without an emotion is not labelled yet, and left out.

    Args:
        text: contents of the file, with or without a byte order mark.

    Returns:
        Emotion by path, in the order of the lines; at least one.

    Raises:
        ParameterError: if it is no such CSV, names a path twice or outside its folder, or an
            emotion that is not in the vocabulary.

    Examples:
        >>> parse_labels("path,emotion\na/1.wav,sad\n")
        {'a/1.wav': 'sad'}
        >>> parse_labels("path,emotion\na/1.wav, Sad\n")  # as a spreadsheet may have it
        {'a/1.wav': 'sad'}
    """
    if "\ufffd" in text or "\0" in text:
        raise ParameterError("The labels are not text in UTF-8; save the CSV file so.")
    try:
        reader = csv.DictReader(io.StringIO(text.removeprefix("\ufeff")), restval="", strict=True)
        columns = tuple(column for column in reader.fieldnames or () if column)
        if missing := [column for column in _LABEL_COLUMNS if column not in columns]:
            raise ParameterError(
                f"The labels have no column {' and no column '.join(missing)}; their first row "
                "must be a header with path and emotion, separated by a comma."
            )
        found: dict[str, str] = {}
        for row in reader:
            _add_label(found, reader.line_num, row)
    except csv.Error as error:
        raise ParameterError(f"The labels are not valid CSV: {error}.") from None
    if not found:
        raise ParameterError("The labels name 0 clips with an emotion; at least 1 is required.")
    return found


def read_labels(path: Path, folder: Path, *, max_bytes: int = MAX_LABELS_BYTES) -> dict[str, str]:
    """Read a file of labels, and check that each labelled recording is in the folder.

    Raises:
        ParameterError: as from :func:`parse_labels` and :func:`require_labelled`, or if the file
            cannot be read.
    """
    try:
        size = path.stat().st_size
        if size > max_bytes:
            raise ParameterError(f"{path.name} has {size} bytes; labels have at most {max_bytes}.")
        found = parse_labels(path.read_bytes().decode("utf-8", "replace"))
    except OSError as error:
        raise ParameterError(f"The labels {path.name} cannot be read: {error.strerror}.") from None
    require_labelled(found, folder)
    return found


def _add_label(found: dict[str, str], line: int, row: Mapping[str, str]) -> None:
    path, emotion = row["path"], row["emotion"].strip().lower()
    windows = PureWindowsPath(path)
    if not path or path.startswith("/") or windows.anchor or ".." in windows.parts:
        raise ParameterError(
            f"Row {line} of the labels has the path {path[:64]!r}; it must be relative to the "
            "recordings, without .."
        )
    if not emotion:
        return
    if emotion not in EMOTIONS:
        raise ParameterError(
            f"Row {line} of the labels has the emotion {row['emotion'][:64]!r}; it must be one of "
            f"{', '.join(EMOTIONS)}."
        )
    name = PurePosixPath(path).as_posix()
    if name in found:
        raise ParameterError(f"Row {line} of the labels names {name[:64]!r} again; remove it.")
    found[name] = emotion


def labelled_folder(folder: Path) -> Path:
    """The folder with :data:`MANIFEST`: this one, or the only one in it, as archives often have it.

    Raises:
        ParameterError: if there is none.
    """
    inside = [path for path in folder.iterdir() if path.is_dir()] if folder.is_dir() else []
    places: list[Path] = [folder, *inside] if len(inside) == 1 else [folder]
    for place in places:
        if (place / MANIFEST).is_file():
            return place
    raise ParameterError(
        f"There is no {MANIFEST} at the top; it must have the columns path and emotion."
    )


def require_labelled(labels: Mapping[str, str], folder: Path) -> None:
    """Check that each labelled recording is there.

    Raises:
        ParameterError: if one is missing.
    """
    missing = [path for path in labels if not (folder / path).is_file()]
    if missing:
        raise ParameterError(
            f"{len(missing)} of the {len(labels)} labelled recordings are missing; the first is "
            f"{missing[0][:64]!r}. A path must be relative to the folder of recordings, as in the "
            "upload."
        )
