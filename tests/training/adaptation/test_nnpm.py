from dataclasses import replace

import numpy as np
import pytest
import torch

from nnpm.service.inference.head import Head
from nnpm.training.adaptation.config import AdaptConfig
from nnpm.training.adaptation.head import Source, Target
from nnpm.training.adaptation.methods.method import softmax
from nnpm.training.adaptation.methods.nnpm import NNPM
from nnpm.training.adaptation.methods.prior import estimate_prior
from nnpm.training.adaptation.train import adapt_head

ALONE = {"pseudo_label_weight": 0.0, "multilabel_weight": 0.0}
WEIGHTS = {"pseudo_label_weight": 0.4, "multilabel_weight": 0.3}


def refreshed(problem, **section: object) -> NNPM:
    method = problem.method(NNPM, **section)
    method.refresh(problem.head)
    return method


def of_slots(method: NNPM, weights: np.ndarray) -> np.ndarray:
    """Columns in the order of the memory again."""
    back = np.empty_like(weights)
    back[:, method.order] = weights
    return back


@pytest.mark.parametrize(("positives", "negatives"), [(3, 6), (1, 30), (30, 1)])
@pytest.mark.parametrize("consistency", [0.0, 0.25])
def test_positives_and_negatives_are_those_of_loops(
    problem, positives: int, negatives: int, consistency: float
) -> None:
    method = refreshed(
        problem, positives=positives, negatives=negatives, consistency=consistency,
        reliable_share=0.0,
    )  # fmt: skip
    clips = problem.batch().target_projection
    known = problem.head.project(problem.source.features)
    similarities = clips @ known.T
    emotion = method.labels.argmax(1)
    pull, push = method.multilabel(clips @ method.slots.T, emotion)
    pull, push = of_slots(method, pull), of_slots(method, push)
    each, nearest = -(-negatives // 3), round(consistency * 20)
    for clip, row in enumerate(similarities):
        near = np.flatnonzero(pull[clip])
        own = [s for s in range(30) if problem.source.emotion[s] == emotion[clip]]
        best = sorted(own, key=lambda slot: -row[slot])[:positives]
        if consistency:
            best = [
                slot
                for slot in best
                if clip in sorted(range(20), key=lambda c: -similarities[c, slot])[:nearest]
            ]
        assert near.tolist() == sorted(best)
        far = []
        for other in set(range(4)) - {emotion[clip]}:
            slots = [s for s in range(30) if problem.source.emotion[s] == other]
            far += sorted(slots, key=lambda slot: -row[slot])[:each]
        assert np.flatnonzero(push[clip]).tolist() == sorted(far)
        np.testing.assert_allclose(pull[clip][near], 1 / max(1, len(near)), rtol=1e-5)
        np.testing.assert_allclose(push[clip][far], 1 / len(far), rtol=1e-5)


def test_unreliable_slots_do_not_attract_and_an_emotion_of_such_keeps_all(problem) -> None:
    known = problem.head.project(problem.source.features)
    emotion, speaker = problem.source.emotion, problem.source.speaker
    method = refreshed(problem, reliable_share=0.5, reliable_neighbours=4, consistency=0.0)
    expected = []
    for i in range(30):
        others = [j for j in range(30) if speaker[j] != speaker[i]]
        others.sort(key=lambda j: -float(known[i] @ known[j]))
        expected.append(np.mean([emotion[j] == emotion[i] for j in others[:4]]) >= 0.5)
    expected = np.array(expected)
    for one in range(4):
        if not expected[emotion == one].any():
            expected[emotion == one] = True
    found = np.empty(30, bool)
    found[method.order] = method.reliable
    assert found.tolist() == expected.tolist()
    assert 0 < found.sum() < 30
    pull, push = method.multilabel(
        problem.batch().target_projection @ method.slots.T, method.labels.argmax(1)
    )
    assert (of_slots(method, pull)[:, ~found] == 0).all()
    assert (of_slots(method, push)[:, ~found] > 0).any()  # they repel all the same


def in_torch(problem, method: NNPM) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """Both parts again and the gradient of their weighted sum, clip by clip in torch."""
    w = {n: torch.from_numpy(v.copy()).requires_grad_() for n, v in problem.weights().items()}
    x = torch.from_numpy(problem.head.standardise(problem.target.pooled))
    z = torch.nn.functional.normalize(x @ w["weight"].T + w["bias"], dim=1)
    logits = 8.0 * z @ torch.nn.functional.normalize(w["classes"], dim=1).T
    slots = torch.from_numpy(method.slots)
    pull, push = method.multilabel((z @ slots.T).detach().numpy(), method.labels.argmax(1))
    soft, multi = [], []
    for clip, sure in enumerate(method.weight.tolist()):
        answer = logits[clip].log_softmax(0)
        soft.append(-sure * (torch.from_numpy(method.labels[clip]) * answer).sum())
        near, far = np.flatnonzero(pull[clip]), np.flatnonzero(push[clip])
        if len(near):
            similar = z[clip] @ slots.T
            cost = (1 - similar[near]).square().mean() + (1 + similar[far]).square().mean()
            multi.append(sure * cost)
    parts = {
        "pseudo_label_weight": torch.stack(soft).mean(),
        "multilabel_weight": torch.stack(multi).sum() / 20,
    }
    sum(getattr(method.config.nnpm, name) * value for name, value in parts.items()).backward()
    return {n: v.item() for n, v in parts.items()}, {n: v.grad.numpy() for n, v in w.items()}


@pytest.mark.parametrize("weighed", [True, False])
def test_the_loss_is_the_sum_of_its_parts_with_torchs_gradients(problem, weighed: bool) -> None:
    section = {**WEIGHTS, "confidence_weights": weighed}
    method = refreshed(problem, **section)
    found, gradients = in_torch(problem, method)
    assert all(abs(value) > 1e-3 for value in found.values())
    for name, value in found.items():
        alone = refreshed(problem, **{**section, **ALONE, name: 0.7})
        assert problem.loss(alone) == pytest.approx(0.7 * value, rel=1e-3), name
    loss, slope = problem.slope(method)
    expected = sum(WEIGHTS[name] * value for name, value in found.items())
    assert loss == pytest.approx(expected, rel=1e-3)
    for name, gradient in gradients.items():
        np.testing.assert_allclose(slope[name], gradient, rtol=2e-3, atol=2e-5)
    assert problem.loss(refreshed(problem, **ALONE)) == 0.0


def test_a_clip_without_positives_waits(problem) -> None:
    method = refreshed(problem, **{**ALONE, "multilabel_weight": 1.0})
    assert problem.loss(method) > 0
    method.reach[:] = 2.0  # no clip is near enough
    assert problem.loss(method) == 0.0


@pytest.mark.parametrize("part", ["pseudo_label_weight", "multilabel_weight"])
def test_steps_pull_clips_to_their_pseudo_labels(problem, part: str) -> None:
    method = refreshed(problem, **{**ALONE, part: 1.0, "consistency": 0.0})
    losses = problem.descend(method, steps=10)
    assert losses[-1] < losses[0] - 0.01


def test_without_the_mixture_labels_are_answers_corrected_by_the_shares(problem) -> None:
    found = refreshed(problem, mixture=False)
    logits = found.logits(
        problem.head, problem.head.project(problem.head.standardise(problem.target.pooled))
    )
    rng = np.random.default_rng(0)
    shares = estimate_prior(logits, found.config.prior, found.open, rng)
    expected = softmax(logits + np.log(np.maximum(shares, 1e-9)))
    np.testing.assert_allclose(found.labels, expected, atol=0.02)
    config = {"prior": {"estimate": False}, "nnpm": {"mixture": False}}
    even = NNPM(
        AdaptConfig.model_validate(config), problem.source, problem.target, problem.head, rng
    )
    even.refresh(problem.head)
    np.testing.assert_allclose(even.labels, softmax(logits), atol=1e-5)
    assert not np.allclose(found.labels, refreshed(problem).labels, atol=0.05)


def test_given_labels_are_pseudo_labels(problem) -> None:
    problem.target = replace(problem.target, labelled=np.array([3, 5]), emotion=np.array([2, 0]))
    method = refreshed(problem)
    np.testing.assert_array_equal(method.labels[[3, 5]], np.eye(4)[[2, 0]])
    np.testing.assert_allclose(method.weight[[3, 5]], 1.0)


def test_voices_are_clustered_where_the_mixture_knows_them(problem) -> None:
    assert refreshed(problem).voice is not None
    assert refreshed(problem, mixture=False).voice is None
    config = AdaptConfig.model_validate({"mixture": {"voices": 1}})
    rng = np.random.default_rng(0)
    alone = NNPM(config, problem.source, problem.target, problem.head, rng)
    assert alone.voice is None


def test_a_refresh_projects_the_memory_with_the_head_of_now(problem) -> None:
    method = refreshed(problem)
    turned = replace(problem.head, weight=problem.head.weight[::-1].copy())
    method.refresh(turned)
    expected = turned.project(problem.source.features[method.order])
    np.testing.assert_allclose(method.slots, expected, rtol=1e-5)


@pytest.fixture(scope="module")
def blobs() -> tuple[Head, Source, Target, np.ndarray]:
    """Four overlapping blobs; the target is turned, moved, and unevenly filled."""
    rng = np.random.default_rng(2)

    def normal(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(np.float32)

    centres = normal(4, 16)
    emotion = np.arange(400) % 4
    source = Source(centres[emotion] + normal(400, 16), emotion, np.arange(400) % 9)
    truth = np.repeat(np.arange(4), [120, 80, 60, 40])
    turn = np.linalg.qr(np.eye(16) + 0.25 * normal(16, 16))[0]
    turn = (turn * np.sign(np.diag(turn))).astype(np.float32)
    clips = (centres[truth] + normal(300, 16)) @ turn + 2.0 * normal(16)
    # the best linear head for such blobs: classes at their centres
    directions = centres - centres.mean(0)
    unit = directions / np.linalg.norm(directions, axis=1, keepdims=True)
    head = Head(
        source.features.mean(0), source.features.std(0), np.eye(16, dtype=np.float32),
        np.zeros(16, np.float32), unit, np.float32(6.0),
    )  # fmt: skip
    source = replace(source, features=head.standardise(source.features))
    return head, source, Target(clips, clips[None] + 0.2 * normal(2, 300, 16)), truth


def recall(blobs, method: str, **changes: object) -> float:
    head, source, target, truth = blobs
    config = AdaptConfig.model_validate({"steps": 100, "learning_rate": 3e-3} | changes)
    found = adapt_head(head, source, target, method, config, 0)
    answer = softmax(found.classify(found.project(found.standardise(target.pooled)))).argmax(1)
    return float(np.mean([(answer[truth == e] == e).mean() for e in range(4)]))


def test_nnpm_learns_a_target_that_was_moved_and_turned(blobs) -> None:
    statistics = recall(blobs, "adabn")
    assert statistics >= recall(blobs, "source_only")
    assert recall(blobs, "nnpm") > statistics + 0.01
