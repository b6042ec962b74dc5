from pathlib import Path
from typing import Any

import pytest
import yaml

from nnpm.service.inference.card import Card
from nnpm.training.bundle import model_card
from nnpm.training.corpora import CORPORA, Utterance
from nnpm.training.data.splits import Split
from nnpm.training.evaluation import Verdict, report
from tests.support.tiny_bundle import LABELS, tiny_card


def clip(corpus: str, speaker: str, emotion: str, gender: str) -> Utterance:
    return Utterance(Path(f"/{speaker}/{emotion}.wav"), corpus, speaker, "en", emotion, "", gender)


PEOPLE = [("one", "anna", "f"), ("one", "bert", "m"), ("two", "anna", "")]
CLIPS = [clip(c, s, emotion, g) for c, s, g in PEOPLE for emotion in LABELS]
# women always get the right answer, men never, the third in half of the clips
ANSWERS = {"f": LABELS, "m": LABELS[1:] + LABELS[:1], "": LABELS[:2] + LABELS[:2]}
HELD_OUT = [
    Verdict(u, ANSWERS[u.gender][LABELS.index(u.emotion)], 0.5, {}, abstained=number == 0)
    for number, u in enumerate(CLIPS)
]


def card(*licences: str, family: str = "whisper", source: str = "openai/whisper-base") -> Card:
    """A card of corpora with these licences; the last one is known to nobody."""
    speakers = {"train": ["x", "y"], "held_out": ["anna", "bert"]}
    corpora: list[dict[str, Any]] = [
        {
            "name": name, "language": "en", "licence": licence, "citation": f"{name} (2020), B",
            "url": f"https://{name}.example", "clips": 7, "speakers": speakers,
        }
        for name, licence in zip(("one", "three", "four", "five"), licences, strict=False)
    ]  # fmt: skip
    own = {"name": "two", "licence": "as its owner says", "citation": "", "url": ""}
    return tiny_card(
        licence=" and ".join(licences),
        training={
            "corpora": [*corpora, corpora[0] | own],
            "encoder": {"family": family, "source": source},
            "precision": "int8",
            "command": "nnpm train …",
        },
        metrics={"held_out_source": report(HELD_OUT, LABELS)},
    )


@pytest.fixture(scope="module")
def text() -> str:
    return model_card.write(card("CC0"), Split(CLIPS[:8], CLIPS), HELD_OUT)


def test_it_says_what_it_was_made_of(text: str) -> None:
    assert "- **one** (en): trained on 7 clips of 2 speakers. Licence: CC0. one (2020), B" in text
    assert "<https://one.example>" in text
    assert "Licence: as its owner says.\n" in text
    assert "<>" not in text
    assert "an encoder from openai/whisper-base" in text
    assert "Held out: 3 speakers (12 clips). They\ncalibrate it" in text
    assert "each by a calibration on other speakers." in text
    assert "nnpm train …" in text


def test_one_speaker_cannot_be_calibrated_on_others() -> None:
    text = model_card.write(card("CC0"), Split(CLIPS[:8], CLIPS[:1]), HELD_OUT)
    assert "Held out: 1 speaker (1 clip). They\n" in text
    assert "each by a calibration on this very speaker." in text


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
    for word in ("None", "nan"):
        assert word not in text


def test_model_hubs_can_read_its_front_matter(text: str) -> None:
    assert text.startswith("---\n")
    fields = yaml.safe_load(text.split("---\n")[1])
    assert fields["license"] == "other"
    assert fields["license_name"] == "CC0"
    assert fields["license_link"] == "NOTICE"
    assert fields["language"] == ["en", "pl"]
    assert fields["datasets"] == ["one", "two"]
    assert fields["metrics"] == ["accuracy", "recall", "f1", "ece"]
    hub = pytest.importorskip("huggingface_hub")
    results = {r.metric_name: r for r in hub.ModelCard(text).data.eval_results}
    assert results["UAR"].metric_value == 0.5
    assert results["WA"].metric_type == "accuracy"
    assert results["ECE"].dataset_name == "held-out speakers, one, two"


def test_the_notice_of_open_licences_has_each_licence_and_no_restriction() -> None:
    crema, banglaser = CORPORA["crema"].licence, CORPORA["banglaser"].licence
    text = model_card.notice(card(crema, banglaser))
    assert "Copyright (c) 2022 OpenAI" in text
    assert 'THE SOFTWARE IS PROVIDED "AS IS"' in text
    assert "was made from openai/whisper-base (whisper)" in text
    assert f"- one: {crema}. one (2020), B https://one.example\n" in text
    assert f"- three: {banglaser}. three (2020), B https://three.example\n" in text
    assert "- two: as its owner says.\n" in text
    assert "Open Database License 1.0" in text
    assert "NC-SA" not in text


def test_the_notice_of_a_mixture_says_how_the_licences_meet() -> None:
    licences = [CORPORA[name].licence for name in ("ravdess", "crema", "nemo", "banglaser")]
    text = model_card.notice(card(*licences))
    assert "The bundle as a whole is under CC BY-NC-SA 4.0" in text
    assert "stays under the ODbL" in text
    without = model_card.notice(card("CC BY-NC-SA 4.0"))
    assert "ODbL" not in without
    assert "The bundle as a whole" not in without


def test_the_notice_of_somebodys_encoder_points_to_its_licence() -> None:
    text = model_card.notice(card("CC0", family="onnx", source="theirs.onnx"))
    assert "Its licence is that of theirs.onnx." in text
    assert "OpenAI" not in text
