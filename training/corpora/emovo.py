"""EMOVO: six Italian actors, 14 sentences, seven emotions, 588 clips.

Licence: none stated.

Layout: ``f1/dis-f1-b1.wav``: emotion, gender and number of the speaker, sentence.

Labels: dis disgusto -> disgust, gio gioia -> happy, neu neutro -> neutral, pau paura -> fear,
rab rabbia -> angry, sor sorpresa -> surprise, tri tristezza -> sad.

Traps: 48 kHz stereo. Every speaker says each sentence once in each emotion, so text tells nothing.
"""

from .corpus import Corpus
from .file_names import FileNames

NAMES = FileNames(
    corpus="emovo",
    language="it",
    example="f1/dis-f1-b1.wav",
    pattern=r"(?P<label>[a-z]{3})-(?P<speaker>(?P<gender>[fm])\d)-(?P<sentence>[a-z]\d)",
    emotions={
        "dis": "disgust",
        "gio": "happy",
        "neu": "neutral",
        "pau": "fear",
        "rab": "angry",
        "sor": "surprise",
        "tri": "sad",
    },
)

EMOVO = Corpus(
    name=NAMES.corpus,
    language=NAMES.language,
    licence="none stated",
    citation="Costantini, Iaderola, Paoloni & Todisco (2014), EMOVO corpus: an Italian emotional "
    "speech database, LREC, 3501-3504",
    url="http://voice.fub.it/activities/corpora/emovo/index.html",
    read=NAMES.read,
)
