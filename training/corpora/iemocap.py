"""IEMOCAP: ten American actors in five dyadic sessions, improvised and scripted, 10039 turns.

Licence: for research, on signing the licence of USC's SAIL group.

Layout: ``Session1/dialog/EmoEvaluation/Ses01F_impro01.txt`` has a line for every turn, such as
``[6.2901 - 8.2357]<tab>Ses01F_impro01_F000<tab>neu<tab>[2.5000, 2.5000, 2.5000]``; the turn is in
``Session1/sentences/wav/Ses01F_impro01/Ses01F_impro01_F000.wav``. Recordings of whole dialogues
(``dialog/wav``) are not read.

Labels: ang angry, dis disgust, fea fear, hap happy, neu neutral, sad, sur surprise. Left out: exc
(excited), fru (frustrated), oth (other), xxx (no agreement). Much published work counts exc as
happy: that is ``read(folder, excited_is_happy=True)``, a choice to be stated, never the default.

Traps: ``Ses01F_impro01_M003`` is spoken by the man, in a dialogue named after the woman (who wore
the markers), so the speaker is the session and the turn's letter: ``Ses01M``. Turns of a dialogue
share its scenario, which stands as ``sentence_id`` (impro01, script01_1) so that a split by text
can keep it together.
"""

import re
from pathlib import Path

from .corpus import Corpus, CorpusError, Utterance
from .file_names import absolute, audio_files

EMOTIONS = {
    "ang": "angry",
    "dis": "disgust",
    "fea": "fear",
    "hap": "happy",
    "neu": "neutral",
    "sad": "sad",
    "sur": "surprise",
}
LEFT_OUT = frozenset({"exc", "fru", "oth", "xxx"})

LINE = re.compile(r"^\[[\d.]+ - [\d.]+\]\t(?P<turn>\w+)\t(?P<label>\w+)\t", re.MULTILINE)
TURN = re.compile(r"(?P<session>Ses\d\d)[FM]_(?P<scenario>\w+)_(?P<letter>[FM])[X\d]{3}")


def read(folder: Path, excited_is_happy: bool = False) -> list[Utterance]:
    """Read the sessions in a folder, or one folder below it.

    Args:
        folder: holds ``Session1`` to ``Session5``, or ``IEMOCAP_full_release`` with them.
        excited_is_happy: read the label exc as happy instead of leaving it out.

    Returns:
        The utterances of all sessions.

    Raises:
        CorpusError: if a label is unknown, or turns and recordings do not match one to one.
    """
    root = absolute(folder)
    emotions = EMOTIONS | ({"exc": "happy"} if excited_is_happy else {})
    utterances = []
    for session in sorted([*root.glob("Session?"), *root.glob("*/Session?")]):
        labels = _labels(session / "dialog" / "EmoEvaluation")
        recordings = {path.stem: path for path in audio_files(session / "sentences" / "wav")}
        if odd := sorted(labels.keys() ^ recordings.keys()):
            raise CorpusError(
                f"{session} has {len(labels)} evaluated turns and {len(recordings)} recordings, "
                f"of which {len(odd)} have no counterpart; the first is {odd[0]}: "
                "unpack the session again"
            )
        for turn, label in labels.items():
            match = TURN.fullmatch(turn)
            if match is None or label not in EMOTIONS.keys() | LEFT_OUT:
                raise CorpusError(
                    f"turn {turn!r} with label {label!r} in {session} is not of IEMOCAP, whose "
                    f"labels are {', '.join(sorted(EMOTIONS.keys() | LEFT_OUT))}: "
                    "unpack the session again"
                )
            if label not in emotions:
                continue
            utterances.append(
                Utterance(
                    path=recordings[turn],
                    corpus=IEMOCAP.name,
                    speaker=match["session"] + match["letter"],
                    language=IEMOCAP.language,
                    emotion=emotions[label],
                    raw_label=label,
                    gender=match["letter"].lower(),
                    sentence_id=match["scenario"],
                )
            )
    return utterances


def _labels(evaluations: Path) -> dict[str, str]:
    # "Ses*" passes by the ._Ses*.txt that the archive carries along.
    texts = [path.read_text("latin-1") for path in sorted(evaluations.glob("Ses*.txt"))]
    return {match["turn"]: match["label"] for text in texts for match in LINE.finditer(text)}


IEMOCAP = Corpus(
    name="iemocap",
    language="en",
    licence="research only, signed licence of USC SAIL",
    citation="Busso, Bulut, Lee, Kazemzadeh, Mower, Kim, Chang, Lee & Narayanan (2008), IEMOCAP: "
    "interactive emotional dyadic motion capture database, Language Resources and Evaluation "
    "42(4), 335-359",
    url="https://sail.usc.edu/iemocap/",
    read=read,
)
