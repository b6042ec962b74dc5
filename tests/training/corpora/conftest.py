"""Small folders in the published layout of every corpus; no file is ever decoded."""

from collections.abc import Callable
from pathlib import Path

import pytest

# Path in the distribution -> (speaker, gender, emotion, raw label, sentence), or None where the
# file is there and is not to be read.
Expected = dict[str, tuple[str, str, str, str, str] | None]

PLAIN = "Dataset/SpeechCorpus/Emotional/plain-to-emotional"
WRITTEN = "Dataset/SpeechCorpus/Emotional/emotional-to-emotional"
IMPRO = "Session1/sentences/wav/Ses01F_impro01/Ses01F_impro01"
SCRIPT = "Session1/sentences/wav/Ses01M_script01_1b/Ses01M_script01_1b"

LAYOUTS: dict[str, Expected] = {
    "ravdess": {
        "Actor_01/03-01-01-01-02-01-01.wav": ("01", "m", "neutral", "neutral", "02"),
        "Actor_01/03-01-02-01-01-01-01.wav": ("01", "m", "calm", "calm", "01"),
        "Actor_02/03-01-06-02-01-02-02.wav": ("02", "f", "fear", "fearful", "01"),
        "Actor_02/03-01-08-01-01-01-02.wav": ("02", "f", "surprise", "surprised", "01"),
        "Actor_07/03-01-03-01-02-01-07.wav": ("07", "m", "happy", "happy", "02"),
        "Actor_07/03-01-03-01-02-02-07.wav": None,  # the same recording
        "Actor_07/03-02-03-01-02-01-07.wav": None,  # song
        "Actor_07/._03-01-03-01-02-01-07.wav": None,
    },
    "nemo": {
        "data.tsv": None,
        "samples/EB0_anger_1.wav": ("EB0", "f", "angry", "anger", "1"),
        "samples/KS0_happiness_90.wav": ("KS0", "m", "happy", "happiness", "90"),
    },
    "emodb": {
        "lablaut/03a01Fa.lablaut": None,
        "wav/03a01Fa.wav": ("03", "m", "happy", "F", "a01"),
        "wav/08b10Wd.wav": ("08", "f", "angry", "W", "b10"),
        "wav/16a02Ea.wav": ("16", "f", "disgust", "E", "a02"),
        "wav/16a02Ac.wav": ("16", "f", "fear", "A", "a02"),
        "wav/16a02Lb.wav": None,  # boredom
        "wav/16a02Tb.wav": ("16", "f", "sad", "T", "a02"),
    },
    "urdu": {
        "Angry/SM1_F10_A010.wav": ("SM1", "m", "angry", "Angry", ""),
        "Happy/SF6_F5_H029.wav": ("SF6", "f", "happy", "Happy", ""),
        "Dataset/Neutral/SM5_F1_N01.wav": ("SM5", "m", "neutral", "Neutral", ""),
        "Sad/SM24/SM24_F14_S026.wav": ("SM24", "m", "sad", "Sad", ""),
    },
    "ased": {
        "01Neutral/n1-01-01-01-01.wav": ("01", "f", "neutral", "n1", "n01"),
        "02Fearful/f2-06-02-01-01.wav": ("01", "f", "fear", "f2", "06"),
        "05Angry/a5-03-01-02-01.wav": ("01", "f", "angry", "a5", "a03"),  # one name says m
        "04Sad/S4-04-02-02-50.wav": ("50", "m", "sad", "s4", "s04"),
    },
    "emotiontts": {
        f"{PLAIN}/ema/wav/ema00001.wav": ("ema", "f", "neutral", "neutral", "plain001"),
        f"{PLAIN}/ema/wav/ema00100.wav": ("ema", "f", "neutral", "neutral", "plain100"),
        f"{PLAIN}/ema/wav/ema00101.wav": ("ema", "f", "happy", "happy", "plain001"),
        f"{PLAIN}/ema/script/ema00101.txt": None,
        f"{WRITTEN}/nek/wav/nek00201.wav": ("nek", "m", "sad", "angry", "emotional201"),
        f"{WRITTEN}/nek/wav/nek00400.wav": ("nek", "m", "angry", "sad", "emotional400"),
        "Dataset/SpeechCorpus/Main/lma/wav/lma00001.wav": None,
        "Dataset/CSD/Korean/wav/kr001a.wav": None,
    },
    "iemocap": {
        f"{IMPRO}_F000.wav": ("Ses01F", "f", "neutral", "neu", "impro01"),
        f"{IMPRO}_M003.wav": ("Ses01M", "m", "angry", "ang", "impro01"),
        f"{IMPRO}_M004.wav": None,  # excited
        f"{IMPRO}_M005.wav": None,  # no agreement
        f"{SCRIPT}_M012.wav": ("Ses01M", "m", "happy", "hap", "script01_1b"),
        "Session1/sentences/wav/Ses01F_impro01/._Ses01F_impro01_M005.wav": None,
        "Session1/dialog/wav/Ses01F_impro01.wav": None,
    },
    "crema": {
        "AudioWAV/1001_DFA_ANG_XX.wav": ("1001", "m", "angry", "ANG", "DFA"),
        "AudioWAV/1002_IEO_SAD_HI.wav": ("1002", "f", "sad", "SAD", "IEO"),
        "AudioWAV/1040_ITH_SAD_X.wav": ("1040", "", "sad", "SAD", "ITH"),
        "AudioWAV/1064_IEO_DIS_MD.wav": None,
        "AudioWAV/1076_MTI_SAD_XX.wav": None,
        "AudioMP3/1001_DFA_ANG_XX.mp3": None,
    },
    "banglaser": {
        "Actor 01/03-01-02-01-03-02-01.wav": ("01", "m", "sad", "02", "03"),
        "Actor 02/03-01-05-01-01-01-02.wav": ("02", "f", "neutral", "05", "01"),
        "Actor 34/03-01-04-02-02-01-34.wav": ("34", "f", "surprise", "04", "02"),
    },
    "shemo": {
        "female/F01F02.wav": ("F01", "f", "fear", "F", ""),
        "male/M01A01.wav": ("M01", "m", "angry", "A", ""),
        "male/M56W12.wav": ("M56", "m", "surprise", "W", ""),
    },
    "tess": {
        "OAF_angry/OAF_back_angry.wav": ("OAF", "f", "angry", "angry", "back"),
        "OAF_neutral/OA_bite_neutral.wav": ("OAF", "f", "neutral", "neutral", "bite"),
        "YAF_pleasant_surprised/YAF_young_ps.wav": ("YAF", "f", "surprise", "ps", "young"),
    },
    "savee": {
        "AudioData/DC/a01.wav": ("DC", "m", "angry", "a", "a01"),
        "AudioData/KL/su02.wav": ("KL", "m", "surprise", "su", "su02"),
        "ALL/JK_n30.wav": ("JK", "m", "neutral", "n", "n30"),  # as in the mirror
    },
    "emovo": {
        "f1/dis-f1-b1.wav": ("f1", "f", "disgust", "dis", "b1"),
        "m3/rab-m3-n5.wav": ("m3", "m", "angry", "rab", "n5"),
        "m3/tri-m3-d2.wav": ("m3", "m", "sad", "tri", "d2"),
    },
    "subesco": {
        "F_01_OISHI_S_1_ANGRY_1.wav": ("F_01", "f", "angry", "ANGRY", "1"),
        "F_01_OISHI_S_10_SURPRISE_5.wav": ("F_01", "f", "surprise", "SURPRISE", "10"),
        "M_01_AHMED_S_2_NEUTRAL_3.wav": ("M_01", "m", "neutral", "NEUTRAL", "2"),
    },
}

SCORES = "[2.5000, 2.5000, 2.5000]"
TEXTS = {
    "iemocap": {
        "Session1/dialog/EmoEvaluation/Ses01F_impro01.txt": (
            "% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]\n\n"
            f"[6.2901 - 8.2357]\tSes01F_impro01_F000\tneu\t{SCORES}\nC-E2:\tNeutral;\t()\n"
            f"[10.0100 - 11.3925]\tSes01F_impro01_M003\tang\t{SCORES}\n"
            f"[12.0100 - 13.3925]\tSes01F_impro01_M004\texc\t{SCORES}\n"
            f"[14.0100 - 15.3925]\tSes01F_impro01_M005\txxx\t{SCORES}\n"
        ),
        "Session1/dialog/EmoEvaluation/Ses01M_script01_1b.txt": (
            f"[1.0000 - 2.0000]\tSes01M_script01_1b_M012\thap\t{SCORES}\n"
        ),
        "Session1/dialog/EmoEvaluation/._Ses01F_impro01.txt": "\x00\x05\x16\x07",
    },
    "crema": {
        "VideoDemographics.csv": '"ActorID","Age","Sex"\n1001,51,"Male"\n1002,21,"Female"\n',
    },
}


@pytest.fixture(params=sorted(LAYOUTS))
def corpus_name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def corpora_with_layouts() -> set[str]:
    return set(LAYOUTS)


@pytest.fixture
def published(tmp_path: Path) -> Callable[[str], Path]:
    """Build the small folder of a corpus, and return the folder that holds it."""

    def build(name: str) -> Path:
        for path, text in (dict.fromkeys(LAYOUTS[name], "") | TEXTS.get(name, {})).items():
            file = tmp_path / name / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, "utf-8")
        return tmp_path

    return build


@pytest.fixture
def expected(corpus_name: str) -> Expected:
    return LAYOUTS[corpus_name]
