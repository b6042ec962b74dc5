"""nEMO: nine Polish actors, 90 sentences, six emotions, 4481 clips.

Licence: CC BY-NC-SA 4.0.

Layout: ``samples/EB0_anger_1.wav``: speaker, emotion, sentence; ``data.tsv`` repeats it with the
texts and the speakers' genders, which are written out here.

Labels: anger -> angry, fear, happiness -> happy, neutral, sadness -> sad, surprised -> surprise.

Traps: speakers recorded 256 to 540 clips each, and not every sentence in every emotion.
"""

from .corpus import Corpus
from .file_names import FileNames

NAMES = FileNames(
    corpus="nemo",
    language="pl",
    example="samples/EB0_anger_1.wav",
    pattern=r"(?P<speaker>[A-Z]{2}\d)_(?P<label>[a-z]+)_(?P<sentence>\d+)",
    emotions={
        "anger": "angry",
        "fear": "fear",
        "happiness": "happy",
        "neutral": "neutral",
        "sadness": "sad",
        "surprised": "surprise",
    },
    genders=dict.fromkeys(("EB0", "IC0", "KD0", "MK0"), "f")
    | dict.fromkeys(("KS0", "MP0", "SM0", "TP0", "WR0"), "m"),
)

NEMO = Corpus(
    name=NAMES.corpus,
    language=NAMES.language,
    licence="CC BY-NC-SA 4.0",
    citation="Christop (2024), nEMO: Dataset of emotional speech in Polish, LREC-COLING, "
    "12111-12116",
    url="https://github.com/amu-cai/nEMO",
    read=NAMES.read,
)
