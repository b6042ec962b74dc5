"""SAVEE: four English men, seven emotions, 480 clips.

Licence: free for research, on registration.

Layout: ``AudioData/DC/a01.wav``: speaker's folder, emotion, number; a mirror has the same files
as ``ALL/DC_a01.wav``.

Labels: a anger -> angry, d disgust, f fear, h happiness -> happy, n neutral, sa sadness -> sad,
su surprise.

Traps: men only. Of the 15 texts of an emotion three are spoken in all emotions and two were
written for it; the neutral clips repeat the texts of the others. The file's number does not say
which, so ``sentence_id`` (``a01``) is comparable between speakers but not between emotions.
"""

from .corpus import Corpus
from .file_names import FileNames

NAMES = FileNames(
    corpus="savee",
    language="en",
    example="AudioData/DC/a01.wav",
    pattern=r"(?P<speaker>DC|JE|JK|KL)[/_](?P<sentence>(?P<label>[a-z]{1,2})\d\d)",
    emotions={
        "a": "angry",
        "d": "disgust",
        "f": "fear",
        "h": "happy",
        "n": "neutral",
        "sa": "sad",
        "su": "surprise",
    },
    genders=dict.fromkeys(("DC", "JE", "JK", "KL"), "m"),
)

SAVEE = Corpus(
    name=NAMES.corpus,
    language=NAMES.language,
    licence="free for research, on registration",
    citation="Haq & Jackson (2009), Speaker-dependent audio-visual emotion recognition, AVSP, "
    "53-58",
    url="http://kahlan.eps.surrey.ac.uk/savee/",
    read=NAMES.read,
)
