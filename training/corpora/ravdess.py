"""RAVDESS, speech audio: 24 North American actors, two sentences, eight emotions, 1440 clips.

Licence: CC BY-NC-SA 4.0.

Layout: ``Actor_12/03-01-06-01-02-01-12.wav``: modality (03 audio only), channel (01 speech),
emotion, intensity (01 normal, 02 strong), statement, repetition, actor (odd ones are men).

Labels: 01 neutral, 02 calm, 03 happy, 04 sad, 05 angry, 06 fearful -> fear, 07 disgust,
08 surprised -> surprise. Calm is kept apart from neutral.

Traps: two sentences only; levels are low (13 clips peak below 0.01), so normalise them.
03-01-03-01-02-02-07 is the same recording as 03-01-03-01-02-01-07 and is left out here. The song
archive (channel 02) is not speech and is left out; the popular mirror on Kaggle holds every actor
twice, which is an error: remove its inner ``audio_speech_actors_01-24``.
"""

import re

from .corpus import Corpus
from .file_names import FileNames

WORDS = {
    "01": "neutral",
    "02": "calm",
    "03": "happy",
    "04": "sad",
    "05": "angry",
    "06": "fearful",
    "07": "disgust",
    "08": "surprised",
}
"""The corpus's own word for each code; this is the raw label."""


def _fields(match: re.Match[str]) -> dict[str, str]:
    return {**match.groupdict(), "label": WORDS.get(match["code"], "")}


NAMES = FileNames(
    corpus="ravdess",
    language="en",
    example="Actor_12/03-01-06-01-02-01-12.wav",
    pattern=r"03-01-(?P<code>\d\d)-0[12]-(?P<sentence>0[12])-0[12]-(?P<speaker>\d\d)",
    emotions={word: word for word in WORDS.values()} | {"fearful": "fear", "surprised": "surprise"},
    genders={f"{actor:02d}": "m" if actor % 2 else "f" for actor in range(1, 25)},
    extras=r"(?:^|/)(?:03-02-[\d-]+|03-01-03-01-02-02-07)\.\w+$",
    fields=_fields,
)

RAVDESS = Corpus(
    name=NAMES.corpus,
    language=NAMES.language,
    licence="CC BY-NC-SA 4.0",
    citation="Livingstone & Russo (2018), The Ryerson Audio-Visual Database of Emotional Speech "
    "and Song (RAVDESS), PLoS ONE 13(5): e0196391",
    url="https://zenodo.org/records/1188976",
    read=NAMES.read,
)
