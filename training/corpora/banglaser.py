"""BanglaSER: 34 Bangla speakers, three sentences, five emotions, 1467 clips.

Licence: CC BY 4.0.

Layout: ``Actor 01/03-01-02-01-03-02-01.wav``, as RAVDESS: modality, statement's type, emotion,
intensity, statement, repetition, speaker (odd ones are men).

Labels: 01 happy, 02 sad, 03 angry, 04 surprise, 05 neutral.

Traps: recorded by laypeople with phones and laptops, some with room noise; sad and neutral are
close; 136 clips clip.
"""

from .corpus import Corpus
from .file_names import FileNames

NAMES = FileNames(
    corpus="banglaser",
    language="bn",
    example="Actor 01/03-01-02-01-03-02-01.wav",
    pattern=r"\d\d-\d\d-(?P<label>\d\d)-\d\d-(?P<sentence>\d\d)-\d\d-(?P<speaker>\d\d)",
    emotions={"01": "happy", "02": "sad", "03": "angry", "04": "surprise", "05": "neutral"},
    genders={f"{speaker:02d}": "m" if speaker % 2 else "f" for speaker in range(1, 35)},
)

BANGLASER = Corpus(
    name=NAMES.corpus,
    language=NAMES.language,
    licence="CC BY 4.0",
    citation="Das, Islam, Ahmed, Islam, Shatabda & Islam (2022), BanglaSER: A speech emotion "
    "recognition dataset for the Bangla language, Data in Brief 42, 108091",
    url="https://data.mendeley.com/datasets/t9h6p943xy",
    read=NAMES.read,
)
