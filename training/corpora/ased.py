"""ASED v1, the Amharic Speech Emotional Dataset: 65 speakers, five emotions, 2474 clips.

Licence: none stated.

Layout: one folder an emotion, in it ``n1-01-01-02-04.wav``: letter of the emotion and number of
its folder, sentence, repetition, gender (01 female, 02 male), speaker.

Labels: n1 neutral, f2 fearful -> fear, h3 happy, s4 sad, a5 angry. One name is written S4.

Traps: the published clips are zero-padded to lengths that give the emotion away: cut the digital
zeros at both ends. Sentences 01-05 are other texts in every emotion (``n01``, ``a01``); only 06
and 07 are spoken in all five. Four of the second repetitions are copies of the first. In five
speakers one name contradicts the gender of all the others: the majority is used.
"""

import re
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path

from .corpus import Corpus, Utterance
from .file_names import FileNames

SHARED_SENTENCES = frozenset({"06", "07"})


def _fields(match: re.Match[str]) -> dict[str, str]:
    label, sentence = match["label"].lower(), match["sentence"]
    return {
        "label": label,
        "sentence": sentence if sentence in SHARED_SENTENCES else label[0] + sentence,
        "gender": {"01": "f", "02": "m"}[match["gender"]],
        "speaker": match["speaker"],
    }


NAMES = FileNames(
    corpus="ased",
    language="am",
    example="01Neutral/n1-01-01-02-04.wav",
    pattern=r"(?P<label>[A-Za-z]\d)-(?P<sentence>0[1-7])-0[12]-(?P<gender>0[12])-(?P<speaker>\d\d)",
    emotions={"n1": "neutral", "f2": "fear", "h3": "happy", "s4": "sad", "a5": "angry"},
    fields=_fields,
)


def read(folder: Path) -> list[Utterance]:
    """Read the corpus; a speaker's gender is that of most of the speaker's file names."""
    utterances = NAMES.read(folder)
    votes: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for utterance in utterances:
        votes[utterance.speaker][utterance.gender] += 1
    genders = {speaker: vote.most_common(1)[0][0] for speaker, vote in votes.items()}
    return [replace(utterance, gender=genders[utterance.speaker]) for utterance in utterances]


ASED = Corpus(
    name=NAMES.corpus,
    language=NAMES.language,
    licence="none stated",
    citation="Retta, Almekhlafi, Sutcliffe, Mhamed, Ali & Feng (2022), A new Amharic speech "
    "emotion dataset and classification benchmark, ACM TALLIP, doi:10.1145/3529759",
    url="https://github.com/Ethio2021/ASED_V1",
    read=read,
)
