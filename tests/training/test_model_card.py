from pathlib import Path

import pytest

from nnpm.training.bundle import model_card
from nnpm.training.corpora import Utterance
from nnpm.training.data.splits import Split
from nnpm.training.evaluation import Verdict, report
from tests.support.tiny_bundle import LABELS, tiny_card


def clip(corpus: str, speaker: str, emotion: str, gender: str) -> Utterance:
    return Utterance(Path(f"/{speaker}/{emotion}.wav"), corpus, speaker, "en", emotion, "", gender)


@pytest.fixture(scope="module")
def text() -> str:
    people = [("one", "anna", "f"), ("one", "bert", "m"), ("two", "anna", "")]
    clips = [clip(c, s, emotion, g) for c, s, g in people for emotion in LABELS]
    # women always get the right answer, men never, the third in half of the clips
    answers = {"f": LABELS, "m": LABELS[1:] + LABELS[:1], "": LABELS[:2] + LABELS[:2]}
    held_out = [
        Verdict(u, answers[u.gender][LABELS.index(u.emotion)], 0.5, {}, abstained=number == 0)
        for number, u in enumerate(clips)
    ]
    speakers = {"train": ["x", "y"], "validation": ["v"], "test": ["anna", "bert"]}
    known = {
        "name": "one", "language": "en", "licence": "CC0", "citation": "A (2020), B",
        "url": "https://one.example", "clips": 7, "speakers": speakers,
    }  # fmt: skip
    own = known | {"name": "two", "licence": "as its owner says", "citation": "", "url": ""}
    card = tiny_card(
        licence="CC0",
        training={"corpora": [known, own], "command": "nnpm train …"},
        metrics={"held_out_source": report(held_out, LABELS)},
    )
    return model_card.write(card, Split(clips[:8], clips[4:8], clips), held_out)


def test_it_says_what_it_was_made_of(text: str) -> None:
    assert "- **one** (en): trained on 7 clips of 2 speakers. Licence: CC0. A (2020), B" in text
    assert "<https://one.example>" in text
    assert "Licence: as its owner says.\n" in text
    assert "<>" not in text
    assert "1 speakers (4 clips) to calibrate, 3 speakers (12 clips) to test" in text
    assert "nnpm train …" in text


def test_recall_is_told_by_gender_and_by_corpus(text: str) -> None:
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    for row in (
        "| one | 8 | 0.500 | 0.500 |",
        "| two | 4 | 0.500 | 0.500 |",
        "| women | 4 | 1.000 | 1.000 |",
        "| men | 4 | 0.000 | 0.000 |",
        "| gender unknown | 4 | 0.500 | 0.500 |",
        "| angry | 3 | 0.667 |",
        "| sad | 3 | 0.333 |",
    ):
        assert row in rows
    assert "WA 0.500, UAR 0.500" in text
    assert "answers 92% of the clips" in text


def test_it_names_the_law_and_the_limits(text: str) -> None:
    for topic in ("2024/1689", "Article 5(1)(f)", "workplace", "education", "Annex III"):
        assert topic in text
    for word in ("acted speech of the source", "None", "nan"):
        assert word not in text
