"""Scoring, on the tiny bundle of the service's tests: no torch, no training."""

import csv
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest

from nnpm.service.inference.recognizer import Recognizer
from nnpm.training.corpora import Utterance, load_folder
from nnpm.training.errors import TrainingError
from nnpm.training.evaluation import Verdict, judge, report, write_predictions
from tests.support.sounds import encode, speechlike
from tests.support.tiny_bundle import LABELS, tiny_card, write_tiny_bundle


@pytest.fixture(scope="module")
def recognizer(tmp_path_factory: pytest.TempPathFactory) -> Recognizer:
    """Abstains from the less sure half of all clips."""
    decision = tiny_card().decision.model_copy(update={"low_confidence": 0.464})
    path = tmp_path_factory.mktemp("models") / "bundle"
    return Recognizer(write_tiny_bundle(path, decision=decision))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight clips of four speakers; one cannot be decoded."""
    folder = tmp_path_factory.mktemp("data") / "small"
    folder.mkdir()
    rows = ["path,emotion,speaker"]
    for number in range(8):
        sound = encode(speechlike(0.5 + 0.05 * number, seed=number))
        (folder / f"{number}.wav").write_bytes(b"RIFF" if number == 5 else sound)
        rows.append(f"{number}.wav,{LABELS[number % 4]},s{number // 2}")
    (folder / "metadata.csv").write_text("\n".join(rows))
    return folder


def test_the_bundles_own_set_is_answered_unless_others_are_named(
    corpus: Path, tmp_path: Path
) -> None:
    own = Recognizer(write_tiny_bundle(tmp_path / "bundle", emotions=("calm", "sad")))
    judged = judge(own, load_folder(corpus))
    assert len(judged) == 8
    assert {v.prediction for v in judged} - {None} <= {"calm", "sad"}
    assert report(judged, own.bundle.labels)["per_class"]["angry"]["recall"] == 0
    named = judge(own, load_folder(corpus), ("angry", "happy"))
    assert {v.prediction for v in named} - {None} <= {"angry", "happy"}


def verdicts(rng: np.random.Generator, count: int = 200) -> list[Verdict]:
    found = []
    for number in range(count):
        truth, speaker = rng.choice(LABELS, p=[0.5, 0.3, 0.15, 0.05]), f"s{number % 7}"
        prediction = None if number % 50 == 0 else str(rng.choice(LABELS))
        spoken = Utterance(Path(f"/c/{number}.wav"), "c", speaker, "en", str(truth))
        sure = float(rng.uniform(0.25, 1.0))
        abstained = prediction is None or sure < 0.4
        found.append(Verdict(spoken, prediction, sure, {}, abstained))
    return found


def test_the_report_is_counted_by_hand(rng: np.random.Generator) -> None:
    judged = verdicts(rng)
    figures = report(judged, LABELS)
    pairs = [(v.utterance.emotion, v.prediction) for v in judged]
    right = [truth == prediction for truth, prediction in pairs]
    assert figures["clips"] == 200
    assert figures["undecodable"] == 4
    assert figures["wa"] == pytest.approx(sum(right) / 200)

    counts = Counter(pairs)
    assert figures["confusion"] == [[counts[row, column] for column in LABELS] for row in LABELS]
    recalls, f1 = {}, {}
    for label in LABELS:
        hits = counts[label, label]
        said = sum(prediction == label for _, prediction in pairs)
        there = sum(truth == label for truth, _ in pairs)
        recalls[label], f1[label] = hits / there, 2 * hits / (said + there)
        assert figures["per_class"][label] == {
            "clips": there,
            "recall": pytest.approx(recalls[label]),
        }
    assert figures["uar"] == pytest.approx(sum(recalls.values()) / 4)
    assert figures["macro_f1"] == pytest.approx(sum(f1.values()) / 4)

    bins = defaultdict(list)
    for verdict, hit in zip(judged, right, strict=True):
        bins[int(verdict.confidence * 15)].append((hit, verdict.confidence))
    gaps = [abs(sum(hit - sure for hit, sure in members)) for members in bins.values()]
    assert figures["ece"] == pytest.approx(sum(gaps) / 200)

    answered = [hit for verdict, hit in zip(judged, right, strict=True) if not verdict.abstained]
    assert figures["coverage"] == pytest.approx(len(answered) / 200)
    assert figures["wa_answered"] == pytest.approx(sum(answered) / len(answered))
    ours = [
        hit for verdict, hit in zip(judged, right, strict=True) if verdict.utterance.speaker == "s3"
    ]
    assert figures["per_speaker"]["s3"] == {"clips": len(ours), "wa": pytest.approx(np.mean(ours))}


def test_nothing_decoded_has_no_accuracy_of_the_answered_and_an_empty_confusion() -> None:
    spoken = Utterance(Path("/c/1.wav"), "c", "s", "en", "sad")
    figures = report([Verdict(spoken, None, 0.25, {}, abstained=True)], LABELS)
    assert (figures["wa"], figures["coverage"], figures["wa_answered"]) == (0.0, 0.0, None)
    assert figures["ece"] == pytest.approx(0.25)
    assert figures["undecodable"] == 1
    assert figures["confusion"] == [[0] * 4] * 4


def test_the_same_name_in_two_corpora_is_two_speakers() -> None:
    clips = [Utterance(Path(f"/{c}/1.wav"), c, "01", "en", "sad") for c in ("one", "two")]
    figures = report([Verdict(clip, "sad", 1.0, {}, abstained=False) for clip in clips], LABELS)
    assert set(figures["per_speaker"]) == {"one/01", "two/01"}


def test_an_answer_is_forced_and_abstention_stands_beside_it(
    recognizer: Recognizer, corpus: Path
) -> None:
    judged = judge(recognizer, load_folder(corpus))
    assert [v.prediction is None for v in judged] == [number == 5 for number in range(8)]
    broken = judged.pop(5)
    assert broken.abstained
    assert broken.confidence == 0.25
    assert {v.abstained for v in judged} == {True, False}
    for verdict in judged:
        assert verdict.prediction == max(verdict.scores, key=verdict.scores.__getitem__)
        assert verdict.confidence == pytest.approx(max(verdict.scores.values()))
        assert verdict.abstained == (verdict.confidence < 0.464)


def test_emotions_restrict_the_clips_and_the_answers(recognizer: Recognizer, corpus: Path) -> None:
    judged = judge(recognizer, load_folder(corpus), ["happy", "sad", "happy"])
    assert {v.utterance.emotion for v in judged} == {"happy", "sad"}
    assert all(v.prediction in ("happy", "sad") for v in judged)
    for verdict in judged:
        assert verdict.scores["happy"] + verdict.scores["sad"] == pytest.approx(1.0)
    assert report(judged, ["happy", "sad", "happy"])["labels"] == ["happy", "sad"]
    with pytest.raises(TrainingError, match="0 of the 6 clips have the emotion calm"):
        judge(recognizer, [u for u in load_folder(corpus) if u.emotion != "calm"], ["calm"])


def test_predictions_are_written_whole_for_a_linked_folder(
    recognizer: Recognizer, corpus: Path, tmp_path: Path
) -> None:
    (tmp_path / "link").symlink_to(corpus)
    judged = judge(recognizer, load_folder(tmp_path / "link"))
    table = tmp_path / "new" / "table.csv"
    write_predictions(judged, tmp_path / "link", table)
    with table.open() as file:
        rows = list(csv.DictReader(file))
    assert [row["path"] for row in rows] == [f"{number}.wav" for number in range(8)]
    assert [row["truth"] for row in rows] == [LABELS[number % 4] for number in range(8)]
    assert rows[5]["prediction"] == ""
    assert list(rows[0]) == ["path", "truth", "prediction", *sorted(LABELS)]
    assert [path.name for path in table.parent.iterdir()] == ["table.csv"]
