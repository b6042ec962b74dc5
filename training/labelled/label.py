"""``nnpm label``: pick the clips worth a label, ask for them, and keep the answers in metadata.csv.

Label Studio may ask in our place: its tasks are written, and its answers read, as JSON.
"""

import csv
import io
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ...service import files
from ...service.inference.audio.formats import audio_files
from ...service.inference.errors import printable
from ...service.jobs.labels import MANIFEST
from ..errors import TrainingError
from .clips import Answerer, open_base, read_clips
from .label_studio import answers, label_config, tasks
from .pick import pick

COLUMNS = ("path", "emotion")

_PLAYERS = (
    ("ffplay", "-nodisp", "-autoexit", "-loglevel", "quiet"),
    ("afplay",),
    ("aplay", "-q"),
    ("paplay",),
)


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A clip that is worth a label.

    Attributes:
        path: relative to the folder.
        why: typical or uncertain.
        guess: the bundle's answer.
        confidence: of it.
    """

    path: str
    why: str
    guess: str
    confidence: float


class LabelFile:
    """A metadata.csv that grows label by label; other columns and rows stay as they are.

    Args:
        path: of the file; it need not exist.

    Raises:
        TrainingError: if it exists and is no such file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._columns: list[str] = list(COLUMNS)
        self._rows: dict[str, dict[str, str]] = {}
        try:
            text = path.read_text("utf-8-sig")
        except FileNotFoundError:
            return
        except (OSError, UnicodeDecodeError) as error:
            raise TrainingError(f"{path} cannot be read as CSV in UTF-8") from error
        try:
            reader = csv.DictReader(io.StringIO(text), restval="", strict=True)
            self._columns = [name for name in reader.fieldnames or () if name]
            rows = [{name: row[name] for name in self._columns} for row in reader]
        except csv.Error as error:
            raise TrainingError(f"{path} is not valid CSV: {error}") from None
        if not set(COLUMNS) <= set(self._columns):
            raise TrainingError(
                f"{path} has the columns {', '.join(self._columns) or 'none'}; it must have path "
                "and emotion: name another file with --out"
            )
        self._rows = {row["path"]: row for row in rows}

    def labelled(self) -> dict[str, str]:
        """Emotion by path, of the rows that have one."""
        return {path: row["emotion"] for path, row in self._rows.items() if row["emotion"]}

    def add(self, labels: Iterable[tuple[str, str]]) -> None:
        """Set emotions, and write the file whole; an empty emotion keeps one that is there.

        Raises:
            OSError: if it cannot be written.
        """
        for path, emotion in labels:
            row = self._rows.setdefault(path, dict.fromkeys(self._columns, "") | {"path": path})
            row["emotion"] = emotion or row["emotion"]
        out = io.StringIO()
        writer = csv.DictWriter(out, self._columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self._rows.values())
        files.replace(self._path, out.getvalue().encode())


def suggest(folder: Path, bundle: Path, labelled: Sequence[str], count: int) -> list[Suggestion]:
    """Pick the clips of a folder that are worth a label.

    Args:
        folder: searched recursively for audio.
        bundle: whose answers the labels are for.
        labelled: paths that have a label already.
        count: how many to pick.

    Raises:
        TrainingError: if there is no such folder, no clip is left, or none can be decoded.
        BundleError: if the bundle cannot be read.
    """
    base = open_base(bundle)
    if not folder.is_dir():
        raise TrainingError(f"there is no folder {folder}")
    names = [path.relative_to(folder).as_posix() for path in audio_files(folder).recordings]
    # a name that is not UTF-8 cannot stand in a CSV file
    names = [name for name in names if name not in set(labelled) and printable(name) == name]
    if not names:
        raise TrainingError(f"{folder} holds no recording without a label")
    with tqdm(total=len(names), desc="listen", unit="clip", disable=None) as bar:
        clips = read_clips(
            base,
            [folder / name for name in names],
            on_clip=lambda done, _: bar.update(done - bar.n),
        )
    return [
        Suggestion(names[one.clip], one.why, base.labels[one.guess], round(one.confidence, 4))
        for one in pick(Answerer(base), clips, base.card.decision, count)
    ]


def ask(
    folder: Path,
    suggestions: Sequence[Suggestion],
    emotions: Sequence[str],
    answered: Callable[[str, str], None],
    *,
    play: bool,
) -> None:
    """Ask for the emotion of each clip on the terminal; an empty line skips, ``q`` ends.

    Args:
        folder: of the clips.
        suggestions: the clips.
        emotions: that may be named.
        answered: called with path and emotion at once, so that nothing is lost.
        play: play each clip.
    """
    choices = "  ".join(f"{number} {name}" for number, name in enumerate(emotions, 1))
    sys.stderr.write(f"{choices}\nr plays again, Enter skips, q ends\n")
    for number, one in enumerate(suggestions, 1):
        if play:
            _play(folder / one.path)
        while True:
            sys.stderr.write(f"{number}/{len(suggestions)} {one.path} ({one.why}): ")
            sys.stderr.flush()
            text = sys.stdin.readline()
            word = text.strip().lower()
            if not text or word == "q":
                return
            if word == "r":
                _play(folder / one.path)
            elif not word:
                break
            elif found := _meant(word, emotions):
                answered(one.path, found)
                break
            else:
                sys.stderr.write(f"{printable(word[:64])!r} is none of: {choices}\n")


def _meant(word: str, emotions: Sequence[str]) -> str | None:
    """The emotion of a number, a name, or the beginning of one name."""
    if word.isascii() and word.isdecimal():
        return emotions[int(word) - 1] if 1 <= int(word[:9]) <= len(emotions) else None
    fits = [name for name in emotions if name.startswith(word)]
    return word if word in emotions else fits[0] if len(fits) == 1 else None


def _play(path: Path) -> None:
    for command in _PLAYERS:
        if shutil.which(command[0]):
            subprocess.run([*command, str(path)], check=False)  # noqa: S603 - a player of ours
            return
    raise TrainingError(
        f"there is no player here ({', '.join(command[0] for command in _PLAYERS)}): leave --play "
        "out, and open the files yourself"
    )


@dataclass(frozen=True, slots=True)
class Request:
    """What ``nnpm label`` is to do.

    Attributes:
        folder: of the recordings.
        bundle: whose answers the labels are for; not needed to read answers.
        out: the file of labels; by default the folder's metadata.csv.
        count: how many clips to pick.
        play: play them.
        export: file for tasks of Label Studio.
        answers: file with answers from Label Studio.
    """

    folder: Path
    bundle: Path | None
    out: Path | None = None
    count: int = 30
    play: bool = False
    export: Path | None = None
    answers: Path | None = None


def label(request: Request, *, interactive: bool) -> tuple[dict[str, Any], str]:
    """Carry out ``nnpm label``.

    Args:
        request: what to do.
        interactive: ask on the terminal.

    Returns:
        What was done: as a document, and as text.

    Raises:
        TrainingError: if a file or the folder cannot be used, or the bundle is missing.
        BundleError: if the bundle cannot be read.
        OSError: if a file cannot be written.
    """
    folder = request.folder
    place = request.out or folder / MANIFEST
    table = LabelFile(place)
    if request.answers is not None:
        found = answers(request.answers, folder)
        table.add(found)
        return {"labels": len(found), "file": str(place)}, f"{len(found)} labels in {place}"
    if request.bundle is None:
        raise TrainingError("--bundle is missing: it names the model whose answers are labelled")
    emotions = open_base(request.bundle).card.answers
    suggestions = suggest(folder, request.bundle, list(table.labelled()), request.count)
    document: dict[str, Any] = {"clips": [asdict(one) for one in suggestions]}
    if request.export is not None:
        interface = request.export.with_suffix(".xml")
        text = json.dumps(tasks([(one.path, one.why) for one in suggestions]), indent=2)
        files.replace(request.export, f"{text}\n".encode())
        files.replace(interface, label_config(emotions).encode())
        told = (
            f"{len(suggestions)} tasks in {request.export}; the labelling interface in {interface}"
        )
        return {**document, "file": str(request.export)}, told
    if interactive:
        before = len(table.labelled())
        ask(folder, suggestions, emotions, lambda *one: table.add([one]), play=request.play)
        return {}, f"{len(table.labelled()) - before} new labels in {place}"
    table.add((one.path, "") for one in suggestions)
    told = "\n".join(f"{one.path}\t{one.why}" for one in suggestions)
    return {**document, "file": str(place)}, f"{told}\n\nwrite their emotions into {place}"
