import numpy as np
import pytest
import torch

from nnpm.training.config import HeadConfig
from nnpm.training.network.head import Head, join

CONFIG = HeadConfig(projection=8)


def random_head(blocks: tuple[int, ...], seed: int) -> Head:
    """A head whose numbers are all its own, statistics and affine part included."""
    torch.manual_seed(seed)
    head = Head(CONFIG, blocks, 4).eval()
    norm = head.norm
    norm.running_mean, norm.running_var = torch.randn(sum(blocks)), torch.rand(sum(blocks)) + 0.5
    with torch.no_grad():
        for weight in head.parameters():
            weight += 0.3 * torch.randn(weight.shape)
    return head


def normalised(head: Head, pooled: torch.Tensor) -> np.ndarray:
    state = {name: value.numpy() for name, value in head.norm.state_dict().items()}
    standard = (pooled.numpy() - state["running_mean"]) / np.sqrt(state["running_var"] + 1e-5)
    return np.clip(standard * state["weight"] + state["bias"], -4, 4)


@torch.no_grad()
@pytest.mark.parametrize("blocks", [(6,), (6, 5), (2, 3, 4)])
def test_every_part_has_a_sphere_and_all_count_alike(blocks: tuple[int, ...]) -> None:
    head = random_head(blocks, seed=0)
    pooled = 3 * torch.randn(7, sum(blocks))
    logits, projection = head(pooled)
    features = normalised(head, pooled)
    assert (np.abs(features) == 4).any()  # some were clamped
    parts, start = [], 0
    for index, block in enumerate(blocks):
        weight = head.projection.weight[:, start : start + block].numpy()
        bias = head.projection.bias[8 * index : 8 * index + 8].numpy()
        part = features[:, start : start + block] @ weight.T + bias
        parts.append(part / np.linalg.norm(part, axis=1, keepdims=True) / np.sqrt(len(blocks)))
        start += block
    expected = np.concatenate(parts, axis=1)
    np.testing.assert_allclose(projection.numpy(), expected, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(expected, axis=1), 1.0, atol=1e-6)
    classes = head.classes.numpy() / np.linalg.norm(head.classes.numpy(), axis=1, keepdims=True)
    scale = np.exp(head.scale.item())
    np.testing.assert_allclose(logits.numpy(), scale * expected @ classes.T, atol=1e-4)


def test_one_part_is_drawn_as_a_linear_layer_is() -> None:
    torch.manual_seed(3)
    linear = torch.nn.Linear(6, 8)
    torch.manual_seed(3)
    head = Head(CONFIG, (6,), 4)
    assert torch.equal(head.projection.weight, linear.weight)
    assert torch.equal(head.projection.bias, linear.bias)
    assert set(head.state_dict()) == {
        "classes",
        "scale",
        "projection.weight",
        "projection.bias",
        *(f"norm.{name}" for name in ("weight", "bias", "running_mean", "running_var")),
        "norm.num_batches_tracked",
    }


@torch.no_grad()
@pytest.mark.parametrize("widths", [(6,), (6, 5), (3, 9, 4)])
def test_joined_heads_say_the_mean_of_what_each_says(widths: tuple[int, ...]) -> None:
    heads = [random_head((width,), seed) for seed, width in enumerate(widths)]
    assert len({round(head.scale.item(), 3) for head in heads}) == len(heads)
    pooled = [2 * torch.randn(9, width) for width in widths]
    joined = join(CONFIG, heads)
    logits, projection = joined(torch.cat(pooled, dim=1))
    each = [head(features) for head, features in zip(heads, pooled, strict=True)]
    torch.testing.assert_close(logits, torch.stack([said for said, _ in each]).mean(0))
    whole = torch.cat([z for _, z in each], dim=1) / len(heads) ** 0.5
    torch.testing.assert_close(projection, whole)
    assert not joined.training


def test_of_two_heads_the_scale_is_that_of_the_formula() -> None:
    heads = [random_head((6,), 0), random_head((5,), 1)]
    first, second = (head.scale.exp().item() for head in heads)
    expected = np.sqrt(2 * (first**2 + second**2)) / 2
    assert join(CONFIG, heads).scale.exp().item() == pytest.approx(expected, rel=1e-5)
