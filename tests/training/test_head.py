import numpy as np
import pytest
import torch

from nnpm.training.config import HeadConfig
from nnpm.training.network.network import Head

CONFIG = HeadConfig(projection=8, dropout=0.0, momentum=0.25)


@pytest.fixture
def head() -> Head:
    torch.manual_seed(0)
    return Head(CONFIG, num_features=6, num_emotions=4, num_corpora=3)


def test_a_batch_is_standardised_half_by_itself_and_half_by_what_was_seen(head: Head) -> None:
    """Two batches of two corpora, beside the formula in numpy, corpus by corpus."""
    rng = np.random.default_rng(0)
    corpus = np.array([0, 2, 0, 2, 2, 0, 0, 2])
    mean, deviation = {}, {}
    for _ in range(2):
        pooled = (3 * rng.standard_normal((8, 6)) + 1).astype(np.float32)
        found = head.standardise(torch.from_numpy(pooled), torch.from_numpy(corpus)).numpy()
        for name in (0, 2):
            own = pooled[corpus == name]
            m, d = own.mean(0), np.sqrt(own.var(0) + 1e-5)
            mean[name] = 0.75 * mean[name] + 0.25 * m if name in mean else m
            deviation[name] = 0.75 * deviation[name] + 0.25 * d if name in deviation else d
            expected = (own - (m + mean[name]) / 2) / ((d + deviation[name]) / 2)
            np.testing.assert_allclose(found[corpus == name], expected, atol=1e-5)
    for name in (0, 2):
        np.testing.assert_allclose(head.mean[name].numpy(), mean[name], atol=1e-5)
        np.testing.assert_allclose(head.deviation[name].numpy(), deviation[name], atol=1e-5)
    assert head.seen.tolist() == [True, False, True]
    assert (head.mean[1] == 0).all()


def test_one_clip_of_a_corpus_is_finite(head: Head) -> None:
    found = head.standardise(torch.full((1, 6), 3.0), torch.tensor([0]))
    assert (found == 0).all()


def test_logits_are_scaled_cosines(head: Head) -> None:
    standard = torch.randn(5, 6)
    logits, projection = head(standard)
    z = (standard @ head.projection.weight.T + head.projection.bias).detach().numpy()
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    classes = head.classes.detach().numpy()
    classes = classes / np.linalg.norm(classes, axis=1, keepdims=True)
    np.testing.assert_allclose(projection.detach().numpy(), z, atol=1e-5)
    np.testing.assert_allclose(logits.detach().numpy(), 10 * z @ classes.T, atol=1e-4)


@pytest.mark.parametrize(("scale", "expected"), [(10.0, 10.0), (90.0, 30.0)])
@torch.no_grad()
def test_the_bundles_head_computes_the_same(head: Head, scale: float, expected: float) -> None:
    head.scale.fill_(np.log(scale))
    head.mean.copy_(torch.randn(3, 6))
    head.deviation.copy_(torch.rand(3, 6) + 0.5)
    exported = head.export()
    assert exported.scale == pytest.approx(expected, rel=1e-5)
    np.testing.assert_allclose(exported.mean, head.mean.numpy().mean(0), atol=1e-6)
    geometric = np.prod(head.deviation.numpy(), axis=0) ** (1 / 3)
    np.testing.assert_allclose(exported.deviation, geometric, rtol=1e-5)
    x = torch.randn(5, 6)
    logits, projection = head.eval()(x)
    z = exported.project(x.numpy())
    np.testing.assert_allclose(z, projection.numpy(), atol=1e-5)
    np.testing.assert_allclose(exported.classify(z), logits.numpy(), atol=1e-4)
    head.projection.weight.zero_()  # the export is a copy
    assert exported.weight.any()
