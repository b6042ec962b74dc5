"""What is known of a corpus before its files are seen."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from training.corpora.utterance import Utterance


@dataclass(frozen=True)
class Corpus:
    """A published corpus and the reader of its layout.

    Attributes:
        name: as in ``--corpora`` and as the folder is called.
        language: BCP-47 tag.
        licence: as its authors state it, or "none stated".
        citation: the publication to cite.
        url: where it is distributed.
        read: folder of the corpus, as downloaded, to utterances in any order; raises
            ``CorpusError`` for audio that is not named as published.
    """

    name: str
    language: str
    licence: str
    citation: str
    url: str
    read: Callable[[Path], list[Utterance]]
