"""SUBESCO: 20 Bangla actors, ten sentences, seven emotions, 7000 clips.

Licence: CC BY 4.0.

Layout: ``F_01_OISHI_S_1_ANGRY_1.wav``: gender, number and name of the speaker, S and number of the
sentence, emotion, take. Numbers are counted for women and men apart, so F_01 is the speaker.

Labels: ANGRY, DISGUST, FEAR, HAPPY, NEUTRAL, SAD, SURPRISE.

Traps: five takes of everything, much alike: never split them between training and test.
"""

from .corpus import Corpus
from .file_names import FileNames

NAMES = FileNames(
    corpus="subesco",
    language="bn",
    example="F_01_OISHI_S_1_ANGRY_1.wav",
    pattern=r"(?P<speaker>(?P<gender>[FM])_\d+)_[A-Za-z]+_S_(?P<sentence>\d+)_(?P<label>[A-Z]+)_\d+",
    emotions={
        "ANGRY": "angry",
        "DISGUST": "disgust",
        "FEAR": "fear",
        "HAPPY": "happy",
        "NEUTRAL": "neutral",
        "SAD": "sad",
        "SURPRISE": "surprise",
    },
)

SUBESCO = Corpus(
    name=NAMES.corpus,
    language=NAMES.language,
    licence="CC BY 4.0",
    citation="Sultana, Rahman, Selim & Iqbal (2021), SUST Bangla Emotional Speech Corpus "
    "(SUBESCO), PLoS ONE 16(4): e0250173",
    url="https://doi.org/10.5281/zenodo.4526477",
    read=NAMES.read,
)
