"""EmotionTTS open DB: 15 Korean speakers, four emotions; 300 clips are public, 5 % of the whole.

Licence: CC BY-NC-SA 4.0, research only.

Layout: ``Dataset/SpeechCorpus/Emotional/plain-to-emotional/ema/wav/ema00001.wav``: speaker, number.
Each hundred of numbers is an emotion. Speakers em* read the same neutral texts in every emotion
(``plain001`` is one text in all four), speakers ne* texts written for the emotion
(``emotional001``). Genders are those of the README. The repository's other recordings (Main,
Personality, the singing of CSD, demonstrations of the code) carry no emotion and are extras.

Labels: 001-100 neutral and 101-200 happy, as the README says. **Corrected**: the README calls
201-300 angry and 301-400 sad; texts and voices say the opposite, so ``emotion`` is sad for the
first and angry for the second, while ``raw_label`` stays the README's word.

Traps: text and emotion are confounded for ne*. Small: a target or a test set only.
"""

import re

from .corpus import Corpus
from .file_names import FileNames

README_LABELS = ("neutral", "happy", "angry", "sad")
"""What the README calls the clips 1-100, 101-200, 201-300 and 301-400."""


def _fields(match: re.Match[str]) -> dict[str, str]:
    speaker, number = match["speaker"], int(match["number"])
    hundred, within = divmod(number - 1, 100)
    plain = speaker.startswith("em")
    return {
        "speaker": speaker,
        "label": README_LABELS[hundred] if 0 <= hundred < len(README_LABELS) else "",
        "sentence": f"plain{within + 1:03d}" if plain else f"emotional{number:03d}",
    }


NAMES = FileNames(
    corpus="emotiontts",
    language="ko",
    example="Dataset/SpeechCorpus/Emotional/plain-to-emotional/ema/wav/ema00001.wav",
    pattern=r"(?P<speaker>(?:em|ne)[a-o])(?P<number>\d{5})",
    emotions={"neutral": "neutral", "happy": "happy", "angry": "sad", "sad": "angry"},
    genders=dict.fromkeys(("ema", "emb", "nea", "neb", "nec", "ned", "nee"), "f")
    | dict.fromkeys(("emf", "emg", "emh", "nek", "nel", "nem", "nen", "neo"), "m"),
    extras=r"(?:^|/)(?:CSD|Main|Personality|Code[Ss]et)/",
    fields=_fields,
)

EMOTIONTTS = Corpus(
    name=NAMES.corpus,
    language=NAMES.language,
    licence="CC BY-NC-SA 4.0, research only",
    citation="Selvas AI & KAIST, emotiontts_open_db, Korean MOTIE project No. 10080667",
    url="https://github.com/emotiontts/emotiontts_open_db",
    read=NAMES.read,
)
