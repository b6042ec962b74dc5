"""The types of a corpus: its facts and reader, one labelled recording, and the error of readers."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ...service.inference.card import EMOTIONS
from ...service.inference.errors import NnpmError


class CorpusError(NnpmError, ValueError):
    """A corpus that is missing, incomplete or not laid out as published.

    The message is one sentence: what was found, what is required, what to do. The command line
    prints it and exits with 2.
    """


@dataclass(frozen=True, slots=True)
class Utterance:
    """One recording of one speaker in one emotion.

    Attributes:
        path: absolute path of the audio file.
        corpus: name of the corpus.
        speaker: unique within the corpus only, so group by ``(corpus, speaker)``. Empty if unknown:
            all clips of a corpus without a speaker are one group, which a split must keep on one
            side (see ``manifest.py``).
        language: BCP-47 tag; ``und`` if unknown.
        emotion: one of :data:`nnpm.service.inference.card.EMOTIONS`.
        raw_label: the label of the corpus.
        gender: ``f``, ``m``, or empty if unknown.
        sentence_id: the text spoken, comparable within the corpus only; empty if unknown.
        heard: emotions that most listeners heard, all that share the first place; empty if unknown.
    """

    path: Path
    corpus: str
    speaker: str
    language: str
    emotion: str
    raw_label: str = ""
    gender: str = ""
    sentence_id: str = ""
    heard: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        assert self.path.is_absolute(), self.path
        assert self.emotion in EMOTIONS, self.emotion
        assert self.gender in {"f", "m", ""}, self.gender


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
