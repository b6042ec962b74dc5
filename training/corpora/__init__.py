"""Corpora of emotional speech: one module each, and manifests for all others.

Readers read labels and speakers, not the audio: a damaged file is found when it is decoded.
"""

from pathlib import Path

from ..plugins import Plugins
from .ased import ASED
from .banglaser import BANGLASER
from .corpus import Corpus, CorpusError, Utterance
from .crema import CREMA
from .emodb import EMODB
from .emotiontts import EMOTIONTTS
from .emovo import EMOVO
from .file_names import absolute
from .iemocap import IEMOCAP
from .manifest import MANIFEST, VOTES, read_manifest, with_votes
from .nemo import NEMO
from .ravdess import RAVDESS
from .savee import SAVEE
from .shemo import SHEMO
from .subesco import SUBESCO
from .tess import TESS
from .urdu import URDU

__all__ = ["CORPORA", "PLUGINS", "Corpus", "CorpusError", "Utterance", "load", "load_folder"]

CORPORA: dict[str, Corpus] = {
    corpus.name: corpus
    for corpus in (
        ASED,
        BANGLASER,
        CREMA,
        EMODB,
        EMOTIONTTS,
        EMOVO,
        IEMOCAP,
        NEMO,
        RAVDESS,
        SAVEE,
        SHEMO,
        SUBESCO,
        TESS,
        URDU,
    )
}
"""All corpora whose published layout can be read, by name."""

PLUGINS = Plugins("nnpm.corpora", "corpus", CORPORA, lambda found: isinstance(found, Corpus))
"""These, and readers of installed packages."""


def load(name: str, data: Path) -> list[Utterance]:
    """Load a corpus by name.

    Args:
        name: a known corpus, or any folder with a manifest.
        data: the folder of corpora; ``data/name`` is read.

    Returns:
        The utterances, as from ``load_folder``.

    Raises:
        CorpusError: as from ``load_folder``.
    """
    return load_folder(data / name)


def load_folder(folder: Path) -> list[Utterance]:
    """Load the corpus in a folder: by its metadata.csv, else as a known corpus of that name.

    Args:
        folder: the folder of one corpus.

    Returns:
        At least one utterance, sorted by path.

    Raises:
        CorpusError: if there is neither, or it cannot be read.
    """
    folder = absolute(folder)
    if (manifest := folder / MANIFEST).is_file():
        found = read_manifest(manifest)
        if (votes := folder / VOTES).is_file():
            found = with_votes(found, votes)
        return sorted(found, key=lambda utterance: utterance.path)
    known = PLUGINS.names()
    if folder.name not in known:
        raise CorpusError(
            f"there is no {manifest}, and {folder.name!r} is none of the {len(known)} known "
            f"corpora ({', '.join(known)}): write the manifest, or rename the folder"
        )
    corpus = PLUGINS.find(folder.name)
    utterances = sorted(corpus.read(folder), key=lambda utterance: utterance.path)
    if not utterances:
        raise CorpusError(
            f"there is no {manifest}, and {folder} has 0 recordings named as in {corpus.name}; "
            f"at least 1 is required: unpack the corpus there as published ({corpus.url})"
        )
    return utterances
