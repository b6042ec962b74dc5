import numpy as np
import torch
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from nnpm.training.network.memory import multilabel_loss, smooth_one_hot, soft_cross_entropy


def brute_force(similarities, positives, weight, share, own=None) -> list[float]:
    """The loss again, clip by clip and slot by slot."""
    losses = []
    for row, expected in zip(similarities.tolist(), positives.tolist(), strict=True):
        skip = None if own is None else own[len(losses)]
        near = [
            (1 - s) ** 2
            for k, (s, p) in enumerate(zip(row, expected, strict=True))
            if p and k != skip
        ]
        far = sorted((s for s, p in zip(row, expected, strict=True) if not p), reverse=True)
        hardest = far[: max(1, int(np.ceil(np.float32(len(far)) * np.float32(share))))]
        losses.append(
            weight * (sum(near) / max(1, len(near)))
            + sum((1 + s) ** 2 for s in hardest) / len(hardest)
        )
    return losses


def test_multilabel_loss_is_the_brute_force_one() -> None:
    torch.manual_seed(0)
    similarities = torch.rand(6, 50) * 2 - 1
    positives = torch.rand(6, 50) < torch.tensor([0.1, 0.2, 0.5, 0.8, 0.3, 0.02])[:, None]
    own = positives.float().argmax(1)
    for share in (0.01, 0.1, 1.0):
        for slots in (None, own):
            found = multilabel_loss(similarities, positives, 5.0, share, own=slots)
            expected = brute_force(
                similarities, positives, 5.0, share, None if slots is None else slots.tolist()
            )
            np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5)


def test_a_perfect_clip_costs_nothing_and_a_clip_without_positives_only_repels() -> None:
    similarities = torch.tensor([[1.0, 1.0, -1.0, -1.0]])
    positives = torch.tensor([[True, True, False, False]])
    assert multilabel_loss(similarities, positives, 5.0, 0.5).item() == 0.0
    nothing = torch.zeros(1, 4, dtype=torch.bool)
    assert multilabel_loss(similarities, nothing, 5.0, 0.25).item() == 4.0


def test_slots_that_are_neither_positive_nor_negative_do_nothing() -> None:
    torch.manual_seed(1)
    similarities = (torch.rand(5, 30) * 2 - 1).requires_grad_()
    positives = torch.rand(5, 30) < 0.2
    negatives = ~positives & (torch.rand(5, 30) < 0.4)
    found = multilabel_loss(similarities, positives, 2.0, 0.3, negatives=negatives)
    for clip, row in enumerate(similarities.detach()):
        kept = positives[clip] | negatives[clip]
        expected = brute_force(row[kept][None], positives[clip][kept][None], 2.0, 0.3)
        np.testing.assert_allclose(found[clip].item(), expected[0], rtol=1e-5)
    found.sum().backward()
    assert (similarities.grad[~positives & ~negatives] == 0).all()


def test_only_the_hardest_negatives_have_a_gradient() -> None:
    similarities = torch.tensor([[0.9, 0.5, -0.2, -0.9, 0.1]], requires_grad=True)
    positives = torch.tensor([[True, False, False, False, False]])
    multilabel_loss(similarities, positives, 1.0, 0.5).sum().backward()
    assert (similarities.grad[0, [1, 4]] > 0).all()  # the two hardest of four
    assert (similarities.grad[0, [2, 3]] == 0).all()
    assert similarities.grad[0, 0] < 0


def test_soft_cross_entropy_is_torchs() -> None:
    torch.manual_seed(0)
    logits, truth = torch.randn(5, 4), torch.tensor([0, 1, 2, 3, 0])
    found = soft_cross_entropy(logits, smooth_one_hot(truth, 4, 0.1))
    expected = F.cross_entropy(logits, truth, label_smoothing=0.1, reduction="none")
    torch.testing.assert_close(found, expected)
