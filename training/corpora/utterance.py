"""One labelled recording."""

from dataclasses import dataclass
from pathlib import Path

from service.inference.labels import EMOTIONS


@dataclass(frozen=True, slots=True)
class Utterance:
    """One recording of one speaker in one emotion.

    Attributes:
        path: absolute path of the audio file.
        corpus: name of the corpus.
        speaker: unique within the corpus only, so group by ``(corpus, speaker)``. Empty when not
            known: all clips of a corpus without a speaker are one group, which a split must keep
            on one side (see ``manifest.py``).
        language: BCP-47 tag; ``und`` when not known.
        emotion: one of ``service.inference.labels.EMOTIONS``.
        raw_label: what the corpus wrote.
        gender: ``f``, ``m``, or empty when not known.
        sentence_id: the text spoken, comparable within the corpus only; empty when not known.
    """

    path: Path
    corpus: str
    speaker: str
    language: str
    emotion: str
    raw_label: str = ""
    gender: str = ""
    sentence_id: str = ""

    def __post_init__(self) -> None:
        assert self.path.is_absolute(), self.path
        assert self.emotion in EMOTIONS, self.emotion
        assert self.gender in {"f", "m", ""}, self.gender
