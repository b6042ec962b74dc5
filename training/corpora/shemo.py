"""ShEMO, the Sharif Emotional Speech Database: 3000 clips of Persian radio plays, 87 speakers.

Licence: free of charge for academic purposes.

Layout: ``male/M01A01.wav``: gender and number of the speaker, letter of the emotion, number.

Labels: A anger -> angry, F fear, H happiness -> happy, N neutral, S sadness -> sad, W surprise.
The first letter of a name is the gender, so F stands for female there and for fear further on.

Traps: very unequal classes: anger and neutral make up two thirds, fear has 38 clips. Texts are
those of the plays: no sentence ids.
"""

from .corpus import Corpus
from .file_names import FileNames

NAMES = FileNames(
    corpus="shemo",
    language="fa",
    example="male/M01A01.wav",
    pattern=r"(?P<speaker>(?P<gender>[FM])\d\d)(?P<label>[A-Z])\d+",
    emotions={
        "A": "angry",
        "F": "fear",
        "H": "happy",
        "N": "neutral",
        "S": "sad",
        "W": "surprise",
    },
)

SHEMO = Corpus(
    name=NAMES.corpus,
    language=NAMES.language,
    licence="free of charge for academic purposes",
    citation="Mohamad Nezami, Jamshid Lou & Karami (2019), ShEMO: a large-scale validated database "
    "for Persian speech emotion detection, Language Resources and Evaluation 53(1), 1-16",
    url="https://github.com/pariajm/sharif-emotional-speech-dataset",
    read=NAMES.read,
)
