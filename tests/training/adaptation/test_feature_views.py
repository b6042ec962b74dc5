import numpy as np
import pytest
import torch

from nnpm.service.inference.graphs import Model
from nnpm.training.adaptation.features import FeatureViews
from nnpm.training.bundle.files import voice
from nnpm.training.network.network import Network
from tests.support.tiny_network import WIDTH, tiny_network


@pytest.fixture(scope="module")
def network() -> Network:
    return tiny_network()


def test_the_clip_as_recorded_is_what_the_service_hears(network, base) -> None:
    views, model = FeatureViews(network, num_views=2, seed=0), Model(base)
    for samples in (voice(200.0, 0.7, seed=1), voice(120.0, 0.31, seed=2)):
        _, embedding = model.run(samples[None], np.array([len(samples)]))
        np.testing.assert_allclose(views(samples)[0].numpy(), embedding[0], atol=1e-5)


def test_views_differ_from_the_clip_and_among_themselves(network) -> None:
    rows = FeatureViews(network, num_views=3, seed=0)(voice(200.0, 0.7, seed=1))
    assert rows.shape == (4, WIDTH)
    assert len({tuple(row.tolist()) for row in rows}) == 4


def test_views_are_drawn_by_clip_and_seed_and_from_nothing_else(network) -> None:
    one, other = voice(200.0, 0.7, seed=1), voice(200.0, 0.7, seed=2)
    views = FeatureViews(network, num_views=3, seed=0)
    torch.manual_seed(0)
    expected = torch.rand(2)
    torch.manual_seed(0)
    first = views(one)
    views(other)
    assert torch.equal(first, views(one))
    assert torch.equal(torch.rand(2), expected)
    again = FeatureViews(network, num_views=3, seed=1)(one)
    assert torch.allclose(again[0], first[0], atol=1e-6)
    assert not torch.allclose(again[1:], first[1:], atol=1e-3)


def test_no_views_and_a_clip_shorter_than_a_window(network) -> None:
    rows = FeatureViews(network, num_views=0, seed=0)(np.full(100, 0.1, np.float32))
    assert rows.shape == (1, WIDTH)
    assert rows.isfinite().all()


def test_the_masks_are_for_the_encoder_and_not_for_the_functionals(network) -> None:
    """With nothing but masks, a view has the clip's functionals and other pooled numbers."""
    only_masks = network.config.augment.model_copy(
        update=dict.fromkeys(("warp", "stretch", "equaliser_db", "noise_p", "telephone_p"), 0.0)
    )
    masked = tiny_network()
    masked.config = network.config.model_copy(update={"augment": only_masks})
    clip, view = FeatureViews(masked, num_views=1, seed=0)(voice(200.0, 0.7, seed=1))
    torch.testing.assert_close(view[32:], clip[32:], atol=1e-3, rtol=1e-3)
    assert not torch.allclose(view[:32], clip[:32], atol=1e-2)
    changed = FeatureViews(network, num_views=1, seed=0)(voice(200.0, 0.7, seed=1))[1]
    assert not torch.allclose(changed[32:], clip[32:], atol=1e-2)
