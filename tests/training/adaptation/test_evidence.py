import numpy as np
import pytest
import torch
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from nnpm.training.adaptation.evidence import agreement, collect_evidence, estimate
from nnpm.training.adaptation.head import AdaptedHead, Source, Target
from nnpm.training.adaptation.report import Evidence
from nnpm.training.config import HeadConfig
from nnpm.training.network.head import Head

LABELS = ("angry", "happy", "neutral", "sad")


class Case:
    """A head of two parts that has learnt four blobs, and a target not far from them."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        centres = 1.5 * torch.randn(4, 12, generator=generator)
        emotion = torch.arange(200) % 4
        pooled = centres[emotion] + torch.randn(200, 12, generator=generator)
        self.source = Source(pooled, emotion)
        noise = 1.2 * torch.randn(60, 12, generator=generator)
        shifted = centres[torch.arange(60) % 4] + 0.8 + noise
        self.target = Target(shifted, shifted + 0.3 * torch.randn(2, 60, 12, generator=generator))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            head = Head(HeadConfig(projection=6, dropout=0.0), blocks=(7, 5), num_emotions=4)
            optimizer = torch.optim.AdamW(head.parameters(), lr=1e-2)
            for _ in range(60):
                optimizer.zero_grad()
                F.cross_entropy(head(pooled)[0], emotion).backward()
                optimizer.step()
        self.head = head.eval().requires_grad_(False)

    def adapted(self, *, target_statistics: float = 0.0) -> AdaptedHead:
        head = AdaptedHead(self.head, self.target, target_statistics=target_statistics)
        return head.eval().requires_grad_(False)

    def judge(self, adapted: AdaptedHead) -> Evidence:
        return collect_evidence(self.head, adapted, self.source, self.target, LABELS)


@pytest.fixture
def case() -> Case:
    return Case()


def test_the_same_head_is_no_change(case) -> None:
    found = case.judge(case.adapted())
    assert found.verdict == "no change"
    assert found.reasons == ("The answer changes on 0.0% of the clips; at least 1% is required.",)
    figures = found.figures
    assert figures["answers_changed"] == 0.0
    for name in [name for name in figures if name.endswith("_before")]:
        if name != "estimated_accuracy_before":
            assert figures[name] == figures[name.replace("_before", "_after")], name
    assert found.estimated_accuracy.value == figures["estimated_accuracy_before"]
    assert figures["source_accuracy_before"] > 0.9


def test_the_figures_are_those_of_plain_numbers(case) -> None:
    adapted = case.adapted(target_statistics=1.0)
    found = case.judge(adapted).figures
    with torch.no_grad():
        before = case.head(case.target.pooled)[0].softmax(1).numpy()
        pooled, known = (
            adapted.project_target(case.target.pooled),
            adapted.project_source(case.source.pooled),
        )
        after = adapted.classify(pooled).softmax(1).numpy()
        similar = (pooled @ known.T).numpy()
    answer = after.argmax(1)
    assert found["answers_changed"] == pytest.approx(np.mean(before.argmax(1) != answer))
    assert found["answers_changed"] > 0
    assert found["mean_confidence_before"] == pytest.approx(before.max(1).mean(), rel=1e-5)
    assert found["mean_confidence_after"] == pytest.approx(after.max(1).mean(), rel=1e-5)
    assert found["largest_emotion_share"] == pytest.approx(np.bincount(answer).max() / 60)
    emotion = case.source.emotion.numpy()
    votes = [[np.sort(row[emotion == e])[-20:].mean() for e in range(4)] for row in similar]
    agreed = np.mean(np.argmax(votes, axis=1) == answer)
    assert found["classifier_memory_agreement"] == pytest.approx(agreed)
    for name, value in agreement(adapted, case.target, [0, 1, 2, 3]).items():
        assert found[f"{name}_after"] == value


def test_the_distance_is_that_of_plain_numbers(case) -> None:
    memory, pooled = (
        case.source.pooled.double().numpy(),
        case.target.pooled.double().numpy(),
    )
    centre, spread = memory.mean(0), memory.std(0)
    memory, pooled = (np.clip((x - centre) / spread, -4, 4) for x in (memory, pooled))

    def nearest(clips, skip: int) -> list[float]:
        lengths = np.sort([[np.linalg.norm(c - m) for m in memory] for c in clips], axis=1)
        return sorted(lengths[:, skip : skip + 10].mean(1).tolist())

    def middle(values: list[float]) -> float:
        return values[(len(values) - 1) // 2]

    expected = middle(nearest(pooled, 0)) / middle(nearest(memory, 1))
    found = case.judge(case.adapted()).figures["distance_to_memory"]
    assert found == pytest.approx(expected, rel=1e-3)


def test_one_emotion_for_all_is_rejected_with_its_share(case) -> None:
    adapted = case.adapted()
    adapted.head.projection.weight.zero_()
    adapted.head.projection.bias.copy_(adapted.head.classes[2])
    found = case.judge(adapted)
    assert found.verdict == "reject"
    expected = "100% of the clips get the same emotion; at most 90% is accepted."
    assert expected in found.reasons
    assert found.figures["largest_emotion_share"] == 1.0


def test_what_is_no_speech_is_rejected_with_its_distance(case) -> None:
    near = case.judge(case.adapted(target_statistics=1.0)).figures["distance_to_memory"]
    assert 0.8 < near < 1.5
    case.target = Target(case.target.pooled * 10 + 50, case.target.views * 10 + 50)
    found = case.judge(case.adapted(target_statistics=1.0))
    assert found.verdict == "reject"
    distance = found.figures["distance_to_memory"]
    assert distance > 2
    assert f"{distance:.2f} times the distance within the memory" in found.reasons[0]
    assert "at most 1.6 is accepted" in found.reasons[0]


def test_a_forgotten_source_is_rejected_with_both_accuracies(case) -> None:
    adapted = case.adapted()
    adapted.head.classes.copy_(adapted.head.classes.roll(1, 0))
    found = case.judge(adapted)
    assert found.verdict == "reject"
    before, after = (found.figures[f"source_accuracy_{w}"] for w in ("before", "after"))
    assert after < 0.2 < 0.9 < before
    expected = (
        f"Accuracy on the source falls from {before:.3f} to {after:.3f}; "
        f"at least {0.9 * before:.3f} is required."
    )
    assert expected in found.reasons


def moved_until(case, fall: tuple[float, float]) -> AdaptedHead:
    """A head that has turned by chance, whose estimate falls by so much."""
    for seed in range(400):
        adapted = case.adapted()
        generator = torch.Generator().manual_seed(seed)
        weight = adapted.head.projection.weight
        weight += 0.05 * torch.randn(weight.shape, generator=generator)
        ends = [
            estimate(agreement(head, case.target, [0, 1, 2, 3])).value
            for head in (case.adapted(), adapted)
        ]
        found = case.judge(adapted).figures
        kept = found["source_accuracy_after"] > 0.9 * found["source_accuracy_before"]
        if fall[0] < ends[0] - ends[1] < fall[1] and kept and found["answers_changed"] > 0.01:
            return adapted
    raise AssertionError(f"none of 400 falls by {fall}")


def test_the_estimate_decides_about_a_head_that_is_otherwise_sound(case) -> None:
    pooled = case.target.pooled
    noise = torch.randn(2, 60, 12, generator=torch.Generator().manual_seed(1))
    case.target = Target(pooled, pooled + 1.2 * noise)  # so that the estimate is below 1
    worse = case.judge(moved_until(case, (0.031, 0.2)))
    assert worse.verdict == "reject"
    fall = worse.figures["estimated_accuracy_before"] - worse.estimated_accuracy.value
    assert worse.reasons == (
        f"The estimated accuracy falls by {fall:.3f}; at most 0.03 is accepted.",
    )
    alike = case.judge(moved_until(case, (0.001, 0.03)))
    assert alike.verdict == "no change"
    assert "So small a change is within the error of the estimate." in alike.reasons[0]
    better = case.judge(moved_until(case, (-0.3, -0.01)))
    assert better.verdict == "improved"
    gain = better.estimated_accuracy.value - better.figures["estimated_accuracy_before"]
    assert better.reasons[0].startswith(f"The estimated accuracy changes by {gain:+.3f}. ")


def test_one_slot_of_each_emotion_is_enough(case) -> None:
    case.source = Source(case.source.pooled[:4], case.source.emotion[:4])
    figures = case.judge(case.adapted(target_statistics=1.0)).figures
    assert np.isfinite(list(figures.values())).all()


def test_a_memory_of_one_slot_and_one_of_equal_slots_are_finite(case) -> None:
    for places in ([0], [0, 0, 0, 0]):
        source = Source(case.source.pooled[places], case.source.emotion[places])
        found = collect_evidence(case.head, case.adapted(), source, case.target, LABELS)
        assert np.isfinite(list(found.figures.values())).all()


def test_without_views_there_is_no_estimate_and_still_a_verdict(case) -> None:
    case.target = Target(case.target.pooled, case.target.views[:0])
    found = case.judge(case.adapted(target_statistics=1.0))
    assert found.estimated_accuracy is None
    assert "estimated_accuracy_before" not in found.figures
    assert found.verdict == "improved"
    assert found.reasons[0].startswith("Accuracy on the source is")


def test_a_head_of_one_part_has_no_estimate(problem) -> None:
    base = problem.head.export()
    found = collect_evidence(base, problem.head, problem.source, problem.target, LABELS)
    assert found.estimated_accuracy is None
    assert found.figures["answers_changed"] == 0.0


def test_labels_without_the_core_are_looked_at_as_they_are(case) -> None:
    found = collect_evidence(
        case.head, case.adapted(), case.source, case.target, ("angry", "calm", "fear", "sad")
    )
    assert found.figures["largest_share_after"] == found.figures["largest_emotion_share"]
