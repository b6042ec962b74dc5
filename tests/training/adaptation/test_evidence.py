from dataclasses import replace

import numpy as np
import pytest

from nnpm.service.inference.head import Head
from nnpm.training.adaptation import evidence
from nnpm.training.adaptation.config import StatisticsConfig
from nnpm.training.adaptation.evidence import collect_evidence, estimate, observe
from nnpm.training.adaptation.head import Source, Target
from nnpm.training.adaptation.methods.adabn import with_statistics
from nnpm.training.adaptation.methods.method import softmax
from nnpm.training.adaptation.report import Evidence

LABELS = ("angry", "happy", "neutral", "sad")
ALL = [0, 1, 2, 3]


class Case:
    """A head that knows four blobs, and a target not far from them."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)

        def normal(*shape: int) -> np.ndarray:
            return rng.standard_normal(shape).astype(np.float32)

        centres = 1.5 * normal(4, 12)
        emotion = np.arange(200) % 4
        pooled = centres[emotion] + normal(200, 12)
        shifted = centres[np.arange(60) % 4] + 0.8 + 1.2 * normal(60, 12)
        self.target = Target(shifted, shifted + 0.3 * normal(2, 60, 12))
        directions = (centres - centres.mean(0)) / pooled.std(0)
        self.head = Head(
            pooled.mean(0), pooled.std(0), np.eye(12, dtype=np.float32), np.zeros(12, np.float32),
            directions / np.linalg.norm(directions, axis=1, keepdims=True), np.float32(6.0),
        )  # fmt: skip
        self.source = Source(self.head.standardise(pooled), emotion, np.arange(200) % 7)

    def moved(self) -> Head:
        config = StatisticsConfig(mean_clips=0, deviation_clips=0)
        return with_statistics(self.head, self.target, config)

    def judge(self, adapted: Head) -> Evidence:
        return collect_evidence(
            self.head, adapted, self.source, self.target, LABELS, temperature=2.0
        )


@pytest.fixture
def case() -> Case:
    return Case()


def test_the_same_head_is_no_change(case) -> None:
    found = case.judge(case.head)
    assert found.verdict == "no change"
    assert found.reasons == ("The answer changes on 0.0% of the clips; at least 1% is required.",)
    figures = found.figures
    for name in [name for name in figures if name.endswith("_before")]:
        other = name.removesuffix("_before")
        if name != "estimated_accuracy_before":
            assert figures[name] == figures.get(f"{other}_after", figures.get(other)), name
    assert figures["source_accuracy_before"] > 0.9


def test_the_figures_are_those_of_plain_numbers(case) -> None:
    adapted = case.moved()
    found = case.judge(adapted).figures
    z = adapted.project(adapted.standardise(case.target.pooled))
    known = adapted.project(case.source.features)
    after = softmax(adapted.classify(z) / 2)
    before = case.head.classify(case.head.project(case.head.standardise(case.target.pooled)))
    answer = after.argmax(1)
    assert found["answers_changed"] == pytest.approx(np.mean(before.argmax(1) != answer))
    assert found["answers_changed"] > 0
    assert found["confidence_after"] == pytest.approx(after.max(1).mean(), rel=1e-4)
    by_class = [after.max(1)[answer == e].mean() for e in range(4)]
    assert found["class_confidence_after"] == pytest.approx(np.mean(by_class), rel=1e-4)
    assert found["largest_share_after"] == pytest.approx(np.bincount(answer).max() / 60)
    nuclear = np.linalg.norm(after, "nuc") / np.sqrt(4 * 60)
    assert found["nuclear_norm_after"] == pytest.approx(nuclear, rel=1e-4)
    mean = after.mean(0)
    assert found["effective_emotions_after"] == pytest.approx(
        np.exp(-(mean * np.log(mean)).sum()) / 4, rel=1e-4
    )
    votes = np.array(
        [
            [np.sort(row[case.source.emotion == e])[-20:].mean() for e in range(4)]
            for row in z @ known.T
        ]
    )
    agreed = np.mean((votes - votes.mean(0)).argmax(1) == answer)
    assert found["memory_agreement_after"] == pytest.approx(agreed)
    views = [adapted.classify(adapted.project(adapted.standardise(v))) for v in case.target.views]
    same = np.mean([view.argmax(1) == answer for view in views])
    assert found["view_agreement_after"] == pytest.approx(same)


def test_sure_and_even_answers_have_the_largest_nuclear_norm(case) -> None:
    sure = replace(case.head, scale=np.float32(1e4))
    _, figures = observe(sure, case.source, case.target, ALL, 1.0)
    assert 0.9 < figures["nuclear_norm"] <= 1.0001
    _, unsure = observe(replace(sure, scale=np.float32(0)), case.source, case.target, ALL, 1.0)
    assert unsure["nuclear_norm"] == pytest.approx(0.25, rel=1e-3)
    assert unsure["confidence"] == pytest.approx(0.25)


def test_the_distance_is_that_of_plain_numbers(case) -> None:
    slots = np.clip(case.source.features.astype(np.float64), -4, 4)
    clips = np.clip(case.head.standardise(case.target.pooled).astype(np.float64), -4, 4)

    def nearest(points, skip: int) -> float:
        lengths = np.sort([[np.linalg.norm(p - m) for m in slots] for p in points], axis=1)
        return float(np.median(lengths[:, skip : skip + 10].mean(1)))

    expected = nearest(clips, 0) / nearest(slots, 1)
    found = case.judge(case.head).figures["distance_to_memory"]
    assert found == pytest.approx(expected, rel=1e-3)


def test_one_emotion_for_all_is_rejected_with_its_share(case) -> None:
    constant = replace(case.head, weight=0 * case.head.weight, bias=case.head.classes[2])
    found = case.judge(constant)
    assert found.verdict == "reject"
    assert "100% of the clips get the same emotion; at most 90% is accepted." in found.reasons


def test_what_is_no_speech_is_rejected_with_its_distance_from_the_bases_statistics(case) -> None:
    assert case.judge(case.moved()).figures["distance_to_memory_before"] < 1.6
    case.target = Target(case.target.pooled * 10 + 50, case.target.views * 10 + 50)
    found = case.judge(case.moved())
    assert found.verdict == "reject"
    distance = found.figures["distance_to_memory_before"]
    assert f"{distance:.2f} times the distance within the memory" in found.reasons[0]
    assert found.figures["distance_to_memory"] < 1.6  # after standardisation all look near


def test_a_forgotten_source_is_rejected_with_both_accuracies(case) -> None:
    found = case.judge(replace(case.head, classes=np.roll(case.head.classes, 1, 0)))
    assert found.verdict == "reject"
    before, after = (found.figures[f"source_accuracy_{w}"] for w in ("before", "after"))
    assert after < 0.2 < 0.9 < before
    assert (
        f"Accuracy on the source falls from {before:.3f} to {after:.3f}; "
        f"at least {0.9 * before:.3f} is required."
    ) in found.reasons


@pytest.mark.parametrize(
    ("gain", "verdict"), [(0.1, "improved"), (-0.01, "no change"), (-0.05, "reject")]
)
def test_the_verdict_follows_the_estimated_gain(
    case, monkeypatch, gain: float, verdict: str
) -> None:
    monkeypatch.setitem(evidence._FITTED, "gain", {"": gain})
    monkeypatch.setitem(evidence._FITTED, "improved_from", 0.0)
    monkeypatch.setitem(evidence._FITTED, "reject_below", -0.03)
    found = case.judge(case.moved())
    assert found.verdict == verdict
    assert found.figures["estimated_gain"] == gain
    assert f"{gain:+.3f}" in found.reasons[0]


def test_the_estimate_is_on_the_fitted_line(case, monkeypatch) -> None:
    line = {"": 0.1, "confidence": 0.5}
    monkeypatch.setitem(evidence._FITTED, "accuracy", line)
    monkeypatch.setitem(evidence._FITTED, "gain", line)
    found = case.judge(case.moved())
    before, after = (found.figures[f"confidence_{w}"] for w in ("before", "after"))
    assert found.estimated_accuracy.value == pytest.approx(0.1 + 0.5 * after)
    assert found.figures["estimated_accuracy_before"] == pytest.approx(0.1 + 0.5 * before)
    assert found.figures["estimated_gain"] == pytest.approx(0.1 + 0.5 * (after - before))


LINE = {"": -0.632, "plain_confidence": 1.98, "largest_share": -0.227}


def test_the_estimate_reads_the_confidence_before_training(case, monkeypatch) -> None:
    monkeypatch.setitem(evidence._FITTED, "accuracy", LINE)
    moved = case.moved()
    sharper = replace(moved, scale=np.float32(60.0))  # as certain as training makes it
    found, plain = case.judge(sharper), case.judge(moved)
    assert found.figures["confidence_after"] > plain.figures["confidence_after"] + 0.1
    assert found.figures["plain_confidence_after"] == plain.figures["confidence_after"]
    assert found.estimated_accuracy == plain.estimated_accuracy
    figures = found.figures
    expected = -0.632 + 1.98 * figures["plain_confidence_after"]
    expected -= 0.227 * figures["largest_share_after"]
    assert found.estimated_accuracy.value == pytest.approx(min(1.0, expected))


def test_without_views_their_figure_is_missing(case) -> None:
    case.target = replace(case.target, views=case.target.views[:0])
    found = case.judge(case.moved())
    assert "view_agreement_after" not in found.figures
    assert found.estimated_accuracy is not None


def test_an_estimate_is_a_share_and_needs_its_figures(case, monkeypatch) -> None:
    monkeypatch.setitem(evidence._FITTED, "accuracy", LINE)
    _, figures = observe(case.head, case.source, case.target, ALL, 1.0)
    assert estimate(figures) is None
    assert estimate({"plain_confidence": 5.0, "largest_share": 0.3}).value == 1.0
    assert estimate({"plain_confidence": 0.2, "largest_share": 0.9}).value == 0.0


def test_known_emotions_are_the_columns(case) -> None:
    case.target = replace(case.target, occurs=(1, 3))
    found = case.judge(case.head).figures
    assert found["largest_share_after"] >= 0.5
    logits = case.head.classify(case.head.project(case.head.standardise(case.target.pooled)))
    expected = softmax(logits[:, [1, 3]] / 2).max(1).mean()
    assert found["confidence_after"] == pytest.approx(expected, rel=1e-4)
