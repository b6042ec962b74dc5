"""TESS: two Canadian actresses, 200 words, seven emotions, 2800 clips.

Licence: CC BY-NC-ND 4.0.

Layout: ``OAF_angry/OAF_back_angry.wav``: actress (OAF is 64 years old, YAF 26), word, emotion.
Folders are spelt in several ways, so the file's name alone is read.

Labels: angry, disgust, fear, happy, neutral, ps (pleasant surprise) -> surprise, sad.

Traps: two speakers, both women: held-out speakers mean half of the corpus. One file of OAF is
called ``OA_bite_neutral.wav``. Every clip begins with "Say the word". The popular mirror on Kaggle
holds the whole corpus twice, which is an error here: remove one copy.
"""

import re

from .corpus import Corpus
from .file_names import FileNames


def _fields(match: re.Match[str]) -> dict[str, str]:
    return {**match.groupdict(), "speaker": match["actress"] + "AF"}


NAMES = FileNames(
    corpus="tess",
    language="en",
    example="OAF_angry/OAF_back_angry.wav",
    pattern=r"(?P<actress>[OY])AF?_(?P<sentence>[A-Za-z-]+)_(?P<label>[a-z]+)",
    emotions={
        "angry": "angry",
        "disgust": "disgust",
        "fear": "fear",
        "happy": "happy",
        "neutral": "neutral",
        "ps": "surprise",
        "sad": "sad",
    },
    genders={"OAF": "f", "YAF": "f"},
    fields=_fields,
)

TESS = Corpus(
    name=NAMES.corpus,
    language=NAMES.language,
    licence="CC BY-NC-ND 4.0",
    citation="Pichora-Fuller & Dupuis (2020), Toronto emotional speech set (TESS), Scholars Portal "
    "Dataverse, doi:10.5683/SP2/E8H2MF",
    url="https://doi.org/10.5683/SP2/E8H2MF",
    read=NAMES.read,
)
