"""Reads corpora that are described by their file names: a pattern, a map of labels, exceptions.

Patterns are matched at the end of the path, so that archives may be unpacked anywhere. Audio that
neither fits the pattern nor is a documented extra is an error, so that no clip is lost unnoticed;
so is a recording that is there twice.
"""

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from .corpus import CorpusError, Utterance

AUDIO_SUFFIXES = frozenset({".aif", ".aiff", ".flac", ".mp3", ".ogg", ".opus", ".wav"})


def absolute(folder: Path) -> Path:
    """Make a path absolute and take out its dots, without following links."""
    # Path.resolve() would follow a link, and with it lose the corpus's name.
    return Path(os.path.abspath(folder))  # noqa: PTH100


def audio_files(folder: Path) -> list[Path]:
    """List the audio files of a folder and its subfolders.

    Args:
        folder: any folder; links to folders are followed.

    Returns:
        Absolute paths, sorted, without the hidden files and ``__MACOSX`` folders of archives.
    """
    found = []
    for parent, folders, names in os.walk(absolute(folder), followlinks=True):
        folders[:] = [name for name in folders if not name.startswith((".", "__MACOSX"))]
        files = (Path(parent, name) for name in names if not name.startswith("."))
        found += [path for path in files if path.suffix.lower() in AUDIO_SUFFIXES]
    return sorted(found)


def named_groups(match: re.Match[str]) -> dict[str, str]:
    """Return the groups of a pattern that took part in the match."""
    return {name: text for name, text in match.groupdict().items() if text is not None}


@dataclass(frozen=True)
class FileNames:
    """A corpus described by its file names.

    Attributes:
        corpus: its name.
        language: BCP-47 tag of every clip.
        example: one path as published.
        pattern: regular expression of the end of a path, without its suffix, from the start of a
            file's or folder's name. Groups: ``speaker`` and ``label``; ``gender``, ``sentence``.
        emotions: raw label to emotion.
        left_out: raw labels without a counterpart in the vocabulary.
        genders: speaker to gender, if the file name does not contain it.
        extras: regular expression of audio in the distribution that is not meant to be read,
            searched in the path relative to the folder.
        fields: match to groups, if the groups of the pattern are not enough.
    """

    corpus: str
    language: str
    example: str
    pattern: str
    emotions: Mapping[str, str]
    left_out: frozenset[str] = frozenset()
    genders: Mapping[str, str] = field(default_factory=dict)
    extras: str | None = None
    fields: Callable[[re.Match[str]], Mapping[str, str]] = named_groups

    def read(self, folder: Path) -> list[Utterance]:
        """Read every recording under a folder.

        Args:
            folder: the corpus, as downloaded.

        Returns:
            The utterances, sorted by path.

        Raises:
            CorpusError: if audio is not named as published, or a recording is there twice.
        """
        root = absolute(folder)
        utterances: list[Utterance] = []
        seen: dict[str, str] = {}
        strays: list[str] = []
        for path in audio_files(root):
            relative = path.relative_to(root).as_posix()
            if self.extras is not None and re.search(self.extras, relative):
                continue
            stem = relative.removesuffix(path.suffix)
            match = re.search(rf"(?:^|/)(?P<name>{self.pattern})$", stem)
            fields = self.fields(match) if match else {}
            label = fields.get("label", "")
            if match is None or label not in {*self.emotions, *self.left_out}:
                strays.append(relative)
                continue
            if first := seen.get(match["name"]):
                raise CorpusError(
                    f"{self.corpus} has 2 files of one recording, {first} and {relative}, "
                    f"under {root}: keep 1 copy"
                )
            seen[match["name"]] = relative
            if label in self.emotions:
                utterances.append(self._utterance(path, fields))
        if strays:
            raise CorpusError(
                f"{len(strays)} of {len(strays) + len(seen)} audio files under {root} are not "
                f"named as in {self.corpus} (such as {self.example}); the first is {strays[0]}: "
                "move them out, or write a metadata.csv"
            )
        return utterances

    def _utterance(self, path: Path, fields: Mapping[str, str]) -> Utterance:
        speaker, label = fields["speaker"], fields["label"]
        return Utterance(
            path=path,
            corpus=self.corpus,
            speaker=speaker,
            language=self.language,
            emotion=self.emotions[label],
            raw_label=label,
            gender=(fields.get("gender") or self.genders.get(speaker, "")).lower(),
            sentence_id=fields.get("sentence", ""),
        )
