"""CREMA-D: 91 American actors, twelve sentences, six emotions, 7442 clips.

Licence: ODbL 1.0 (database), DbCL 1.0 (contents).

Layout: ``AudioWAV/1001_DFA_ANG_XX.wav``: actor, sentence, emotion, intensity (LO, MD, HI, XX
unspecified; one name ends in X). ``VideoDemographics.csv`` gives the actors' sex; without it the
gender stays empty. ``AudioMP3`` holds the same clips again and is an extra.

Labels: ANG angry, DIS disgust, FEA fear, HAP happy, NEU neutral, SAD sad, as acted (listeners,
with sound alone, agree with 41 % of them).

Traps: 1076_MTI_SAD_XX has no sound and 1064_IEO_DIS_MD holds all emotions of its sentence: both
are left out. Without Git LFS a clone holds small text files in place of the audio.
"""

import csv
from dataclasses import replace
from pathlib import Path

from .corpus import Corpus, Utterance
from .file_names import FileNames

NAMES = FileNames(
    corpus="crema",
    language="en",
    example="AudioWAV/1001_DFA_ANG_XX.wav",
    pattern=r"(?P<speaker>1\d{3})_(?P<sentence>[A-Z]{3})_(?P<label>[A-Z]{3})_(?:LO|MD|HI|XX?)",
    emotions={
        "ANG": "angry",
        "DIS": "disgust",
        "FEA": "fear",
        "HAP": "happy",
        "NEU": "neutral",
        "SAD": "sad",
    },
    extras=r"(?:^|/)(?:AudioMP3/|1076_MTI_SAD_XX\.|1064_IEO_DIS_MD\.)",
)


def read(folder: Path) -> list[Utterance]:
    """Read the corpus, with the actors' gender where ``VideoDemographics.csv`` is there."""
    genders = _genders(folder / "VideoDemographics.csv")
    utterances = NAMES.read(folder)
    return [replace(each, gender=genders.get(each.speaker, "")) for each in utterances]


def _genders(demographics: Path) -> dict[str, str]:
    if not demographics.is_file():
        return {}
    with demographics.open(encoding="utf-8-sig", newline="") as file:
        sexes = {row.get("ActorID", ""): row.get("Sex", "") for row in csv.DictReader(file)}
    return {actor: {"Female": "f", "Male": "m"}.get(sex, "") for actor, sex in sexes.items()}


CREMA = Corpus(
    name=NAMES.corpus,
    language=NAMES.language,
    licence="ODbL 1.0, contents DbCL 1.0",
    citation="Cao, Cooper, Keutmann, Gur, Nenkova & Verma (2014), CREMA-D: Crowd-sourced emotional "
    "multimodal actors dataset, IEEE Transactions on Affective Computing 5(4), 377-390",
    url="https://github.com/CheyneyComputerScience/CREMA-D",
    read=read,
)
