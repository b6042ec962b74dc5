"""URDU: 400 clips of Urdu television talk shows, four emotions, 29 speakers.

Licence: "research purposes" only.

Layout: ``Angry/SM1_F10_A010.wav``: folder of the emotion; then S, gender and number of the
speaker, number of the speaker's file, letter and number of the file within the emotion. Folders
of speakers in between, of which the README speaks, are read too.

Labels: Angry, Happy, Neutral, Sad.

Traps: speaker and emotion are confounded (26 of 29 speakers have one emotion only), so neither
normalise by speaker nor believe a split; the README says 38 speakers, the names give 29; at least
eight pairs of clips of one speaker and emotion overlap. Texts are spontaneous: no sentence ids.
"""

from .corpus import Corpus
from .file_names import FileNames

NAMES = FileNames(
    corpus="urdu",
    language="ur",
    example="Angry/SM1_F10_A010.wav",
    pattern=r"(?P<label>Angry|Happy|Neutral|Sad)/(?:[^/]+/)?"
    r"(?P<speaker>S(?P<gender>[FM])\d+)_F\d+_[AHNS]\d+",
    emotions={"Angry": "angry", "Happy": "happy", "Neutral": "neutral", "Sad": "sad"},
)

URDU = Corpus(
    name=NAMES.corpus,
    language=NAMES.language,
    licence="research purposes only",
    citation="Latif, Qayyum, Usman & Qadir (2018), Cross lingual speech emotion recognition: Urdu "
    "vs. Western languages, arXiv:1812.10411",
    url="https://github.com/siddiquelatif/URDU-Dataset",
    read=NAMES.read,
)
