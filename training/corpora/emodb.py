"""EMO-DB, the Berlin database: ten German actors, ten sentences, seven emotions, 535 clips.

Licence: none stated.

Layout: ``wav/03a01Fa.wav``: speaker, text, letter of the German word for the emotion, version.
Genders are those of the published list of speakers.

Labels: W Wut -> angry, E Ekel -> disgust, A Angst -> fear, F Freude -> happy, N -> neutral,
T Trauer -> sad. L Langeweile (boredom) has no counterpart and is left out.

Traps: length and edge silence give the emotion away (recall 0.38 and 0.43, chance 0.25).
"""

from .corpus import Corpus
from .file_names import FileNames

NAMES = FileNames(
    corpus="emodb",
    language="de",
    example="wav/03a01Fa.wav",
    pattern=r"(?P<speaker>\d\d)(?P<sentence>[ab]\d\d)(?P<label>[A-Z])[a-z]?",
    emotions={
        "W": "angry",
        "E": "disgust",
        "A": "fear",
        "F": "happy",
        "N": "neutral",
        "T": "sad",
    },
    left_out=frozenset({"L"}),
    genders=dict.fromkeys(("03", "10", "11", "12", "15"), "m")
    | dict.fromkeys(("08", "09", "13", "14", "16"), "f"),
)

EMODB = Corpus(
    name=NAMES.corpus,
    language=NAMES.language,
    licence="none stated",
    citation="Burkhardt, Paeschke, Rolfes, Sendlmeier & Weiss (2005), A database of German "
    "emotional speech, Interspeech, 1517-1520",
    url="http://emodb.bilderbar.info/",
    read=NAMES.read,
)
