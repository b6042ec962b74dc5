from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from nnpm.training.adaptation.config import AdaptConfig
from nnpm.training.adaptation.head import AdaptedHead, Source, Target
from nnpm.training.adaptation.methods.entropy import information_maximisation
from nnpm.training.adaptation.methods.nnpm import NNPM, _evenly
from nnpm.training.adaptation.pseudo_labels import confidence, prior, pseudo_labels
from nnpm.training.adaptation.train import adapt_head
from nnpm.training.config import HeadConfig
from nnpm.training.network.head import Head

ALONE = {"pseudo_label_weight": 0.0, "multilabel_weight": 0.0, "information_weight": 0.0}


def refreshed(problem, **section: object) -> NNPM:
    method = problem.method(NNPM, **section)
    with torch.no_grad():
        method.refresh(problem.head)
    return method


@pytest.mark.parametrize(("share", "consistency"), [(0.1, 0.25), (0.02, 0.1), (0.33, 0.5)])
def test_positives_are_similar_slots_of_the_emotion_to_which_the_clip_is_near(
    problem, share: float, consistency: float
) -> None:
    method = refreshed(problem, positive_share=share, consistency=consistency)
    clips = problem.head.project_target(problem.target.pooled).detach()
    similarities = (clips @ method.memory.slots.T).numpy().astype(np.float64)
    emotion = method.labels.argmax(1)
    positives, negatives = method.multilabel(torch.from_numpy(similarities).float(), emotion)
    of_slot = problem.source.emotion.tolist()
    most, nearest = max(1, round(share * 30)), max(1, round(consistency * 20))
    for clip, row in enumerate(similarities):
        own = [slot for slot in range(30) if of_slot[slot] == emotion[clip]]
        best = sorted(own, key=lambda slot: -row[slot])[:most]
        expected = [
            slot
            for slot in best
            if clip in sorted(range(20), key=lambda c: -similarities[c, slot])[:nearest]
        ]
        assert torch.nonzero(positives[clip])[:, 0].tolist() == sorted(expected)
        others = [slot for slot in range(30) if slot not in own]
        assert torch.nonzero(negatives[clip])[:, 0].tolist() == others


def test_without_consistency_every_clip_has_its_share(problem) -> None:
    method = refreshed(problem, consistency=0.0, positive_share=0.1)
    clips = problem.head.project_target(problem.target.pooled).detach()
    positives, _ = method.multilabel(clips @ method.memory.slots.T, method.labels.argmax(1))
    assert positives.sum(1).tolist() == [3] * 20


def test_the_memory_begins_with_the_projections_and_only_what_is_drawn_moves(problem) -> None:
    method = refreshed(problem, memory_momentum=0.25)
    first = problem.head.project_source(problem.source.pooled).detach()
    torch.testing.assert_close(method.memory.slots, first)
    batch = problem.batch()
    drawn = torch.tensor([3, 7, 3])
    seen = F.normalize(batch.source_projection[[9, 4, 12]] + 0.3, dim=1)
    method.loss(replace(batch, source_index=drawn, source_projection=seen), 0.5)
    expected = first.numpy().copy()
    for slot, rows in ((3, [0, 2]), (7, [1])):
        mean = seen.detach().numpy()[rows].sum(0)
        mixed = 0.25 * expected[slot] + 0.75 * mean / np.linalg.norm(mean)
        expected[slot] = mixed / np.linalg.norm(mixed)
    np.testing.assert_allclose(method.memory.slots, expected, atol=1e-6)


def test_a_large_memory_takes_part_by_an_even_comb_that_keeps_rare_emotions() -> None:
    emotion = torch.cat([torch.zeros(1000), torch.ones(500), torch.full((7,), 2.0)]).long()
    emotion = emotion[torch.randperm(1507, generator=torch.Generator().manual_seed(0))]
    chosen = _evenly(emotion, 107)
    assert chosen.equal(chosen.unique())
    assert emotion[chosen].bincount().tolist() == [50, 50, 7]
    places = [torch.nonzero(emotion == e)[:, 0].tolist() for e in (0, 1)]
    for own, count in zip(places, (1000, 500), strict=True):
        ranks = [own.index(place) for place in chosen.tolist() if place in set(own)]
        assert ranks[0] == 0
        assert ranks[-1] == count - 1
        assert max(np.diff(ranks)) - min(np.diff(ranks)) <= 1
    assert _evenly(emotion, 1507).equal(torch.arange(1507))


def test_slots_that_take_no_part_are_not_updated(problem) -> None:
    method = refreshed(problem, most_slots=8)
    chosen = _evenly(problem.source.emotion, 8)
    assert method.memory.emotion.tolist() == problem.source.emotion[chosen].tolist()
    first = problem.head.project_source(problem.source.pooled[chosen]).detach()
    torch.testing.assert_close(method.memory.slots, first)
    method.loss(problem.batch(), 0.5)  # draws all 30, each as it is
    torch.testing.assert_close(method.memory.slots, first)


def parts(problem, method: NNPM, batch) -> dict[str, float]:
    """The three parts again, clip by clip, without their weights."""
    nnpm = method.config.nnpm
    with torch.no_grad():
        z = problem.head.project_target(problem.target.pooled)
        known = problem.head.project_source(problem.source.pooled)
        logits = problem.head.classify(z)
        labels = pseudo_labels(nnpm, logits, z, known, problem.source.emotion)
    weight = confidence(labels) if nnpm.confidence_weights else torch.ones(20)
    answer = batch.target_logits.log_softmax(1).detach()
    soft = [
        -float(w) * sum(float(p) * float(a) for p, a in zip(row, clip, strict=True))
        for w, row, clip in zip(weight, labels, answer, strict=True)
    ]
    similarities = (batch.target_projection @ known.T).detach()
    positives, negatives = method.multilabel(similarities, labels.argmax(1))
    multi = []
    for w, row, near, far in zip(weight, similarities, positives, negatives, strict=True):
        if not near.any():
            multi.append(0.0)
            continue
        hardest = row[far].sort(descending=True).values
        hardest = hardest[: int(np.ceil(len(hardest) * nnpm.hard_negative_share))]
        cost = (1 - row[near]).square().mean() + (1 + hardest).square().mean()
        multi.append(float(w * cost))
    information = information_maximisation(
        batch.target_logits.detach(), prior(logits.softmax(1), nnpm.balance)
    )
    return {
        "pseudo_label_weight": float(np.mean(soft)),
        "multilabel_weight": float(np.mean(multi)),
        "information_weight": float(information),
    }


@pytest.mark.parametrize("weighed", [True, False])
def test_the_loss_is_the_sum_of_its_parts_and_a_weight_of_0_leaves_one_out(
    problem, weighed: bool
) -> None:
    method = refreshed(problem, confidence_weights=weighed)
    found = parts(problem, method, problem.batch())
    assert all(abs(value) > 1e-3 for value in found.values())
    for name, value in found.items():
        section = {**ALONE, "confidence_weights": weighed, name: 0.7}
        loss = refreshed(problem, **section).loss(problem.batch(), 0.5)
        assert loss.item() == pytest.approx(0.7 * value, rel=1e-4), name
    nnpm = method.config.nnpm
    expected = sum(getattr(nnpm, name) * value for name, value in found.items())
    assert method.loss(problem.batch(), 0.5).item() == pytest.approx(expected, rel=1e-4)
    assert refreshed(problem, **ALONE).loss(problem.batch(), 0.5).item() == 0.0


def test_a_clip_without_positives_costs_nothing_in_the_multilabel_part(problem) -> None:
    method = refreshed(problem, **{**ALONE, "multilabel_weight": 1.0})
    batch = problem.batch()
    batch.target_projection.retain_grad()
    similarities = (batch.target_projection @ method.memory.slots.T).detach()
    positives, _ = method.multilabel(similarities, method.labels.argmax(1))
    waiting = ~positives.any(1)
    assert 0 < waiting.sum() < 20
    method.loss(batch, 0.5).backward()
    moved = batch.target_projection.grad.abs().amax(1) > 0
    assert moved.equal(~waiting)
    method.reach[:] = 2.0  # nobody is near enough
    assert method.loss(problem.batch(), 0.5).item() == 0.0


@pytest.mark.parametrize("part", ["pseudo_label_weight", "multilabel_weight"])
def test_steps_pull_clips_to_their_pseudo_labels(problem, part: str) -> None:
    method = refreshed(problem, **{**ALONE, part: 1.0, "memory_momentum": 1.0, "consistency": 0.0})
    own = method.labels.argmax(1)

    @torch.no_grad()
    def reported() -> float:
        batch = problem.batch()
        if part == "pseudo_label_weight":
            return float((method.labels * batch.target_logits.log_softmax(1)).sum(1).mean())
        similar = batch.target_projection @ method.memory.slots.T
        same = method.memory.emotion == own[:, None]
        return float(similar[same].mean() - similar[~same].mean())

    before, weight = reported(), problem.head.head.projection.weight
    for _ in range(10):
        problem.head.zero_grad()
        method.loss(problem.batch(), 0.5).backward()
        with torch.no_grad():
            weight -= 0.1 * weight.grad
    assert reported() > before + 0.01


def test_labels_belong_to_clips_whatever_the_batch(problem) -> None:
    section = {**ALONE, "pseudo_label_weight": 1.0}
    batch, clips = problem.batch(), torch.tensor([7, 3])
    method = refreshed(problem, **section)
    part = replace(
        batch,
        target_index=clips,
        target_projection=batch.target_projection[clips],
        target_logits=batch.target_logits[clips],
    )
    costs = -(method.labels * batch.target_logits.log_softmax(1)).sum(1) * method.weight
    torch.testing.assert_close(method.loss(part, 0.5), costs[clips].mean())


@pytest.fixture(scope="module")
def blobs() -> tuple[Head, Source, Target, torch.Tensor]:
    """Four overlapping blobs in two blocks; the target is turned, moved, and unevenly filled."""
    generator = torch.Generator().manual_seed(2)
    centres = 1.0 * torch.randn(4, 16, generator=generator)
    emotion = torch.arange(400) % 4
    source = Source(centres[emotion] + torch.randn(400, 16, generator=generator), emotion)
    truth = torch.repeat_interleave(torch.arange(4), torch.tensor([120, 80, 60, 40]))
    turn = torch.linalg.qr(torch.eye(16) + 0.3 * torch.randn(16, 16, generator=generator)).Q
    turn = turn * torch.linalg.diagonal(turn).sign()
    target_features = (centres[truth] + torch.randn(300, 16, generator=generator)) @ turn
    target_features = target_features + 2.0 * torch.randn(16, generator=generator)
    views = target_features + 0.2 * torch.randn(2, 300, 16, generator=generator)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        head = Head(HeadConfig(projection=8, dropout=0.0), blocks=(9, 7), num_emotions=4)
        optimizer = torch.optim.AdamW(head.parameters(), lr=1e-2)
        for _ in range(100):
            optimizer.zero_grad()
            F.cross_entropy(head(source.pooled)[0], emotion).backward()
            optimizer.step()
    return head.eval(), source, Target(target_features, views), truth


def adapted(blobs, method: str, **changes: object) -> tuple[AdaptedHead, float]:
    head, source, target, truth = blobs
    config = AdaptConfig(steps=150, ramp_steps=30, learning_rate=1e-3).model_copy(update=changes)
    found = adapt_head(head, source, target, method, config, 0)
    answer = found.classify(found.project_target(target.pooled)).argmax(1)
    recall = [(answer[truth == e] == e).float().mean() for e in range(4)]
    return found, float(torch.stack(recall).mean())


def test_nnpm_learns_a_target_that_was_moved_and_turned(blobs) -> None:
    before = adapted(blobs, "source_only")[1]
    statistics = adapted(blobs, "adabn")[1]
    after = adapted(blobs, "nnpm")[1]
    assert after > before + 0.2
    assert after > statistics + 0.01


def test_anchored_blocks_hold_still_bit_by_bit(blobs) -> None:
    base = AdaptedHead(blobs[0], blobs[2], target_statistics=1.0).head
    for anchor in (True, False):
        head = adapted(blobs, "nnpm", anchor=anchor, steps=20)[0].head
        pairs = [
            (head.projection.weight, base.projection.weight, 9),
            (head.projection.bias, base.projection.bias, 8),
            (head.classes, base.classes, 8),
        ]
        for new, old, first in pairs:
            assert not torch.equal(new[..., :first], old[..., :first])
            assert torch.equal(new[..., first:], old[..., first:]) is anchor


def test_anchored_blocks_have_no_gradient(blobs) -> None:
    for anchored in (True, False):
        head = AdaptedHead(blobs[0], blobs[2], target_statistics=1.0, anchored=anchored)
        head.classify(head.project_target(blobs[2].pooled)).square().sum().backward()
        grads = [head.head.projection.weight.grad[:, 9:], head.head.classes.grad[:, 8:]]
        grads.append(head.head.projection.bias.grad[8:])
        assert all(bool((grad == 0).all()) is anchored for grad in grads)
        assert (head.head.projection.weight.grad[:, :9] != 0).all()
