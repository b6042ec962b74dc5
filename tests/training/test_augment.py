import numpy as np
import pytest
import torch

from nnpm.training.config import AugmentConfig, FrontEndConfig
from nnpm.training.data.augment import SpectralAugment, mixup
from nnpm.training.data.variants import make_variant

OFF = {
    "warp": 0.0, "stretch": 0.0, "equaliser_db": 0.0, "noise_p": 0.0, "telephone_p": 0.0,
    "frequency_masks": 0, "time_masks": 0,
}  # fmt: skip


def augment(**changes: float) -> SpectralAugment:
    return SpectralAugment(AugmentConfig(**(OFF | changes)), FrontEndConfig())


@pytest.fixture
def features() -> torch.Tensor:
    torch.manual_seed(0)
    return torch.randn(16, 1, 64, 100)


def test_everything_off_changes_nothing(features: torch.Tensor) -> None:
    torch.testing.assert_close(augment()(features), features, atol=1e-4, rtol=1e-4)


def test_warp_moves_a_band_by_at_most_its_share() -> None:
    torch.manual_seed(0)
    features = torch.zeros(200, 1, 64, 20)
    features[:, :, 40] = 1.0
    peaks = augment(warp=0.1)(features).mean(3).argmax(2).flatten().float() + 0.5
    assert peaks.min() >= 40.5 / 1.1 - 1
    assert peaks.max() <= 40.5 / 0.9 + 1
    assert peaks.std() > 1


def test_stretch_changes_tempo_and_keeps_the_start() -> None:
    torch.manual_seed(0)
    features = torch.zeros(200, 1, 64, 100)
    features[..., 50] = 1.0
    places = augment(stretch=0.2)(features).mean(2).argmax(2).flatten().float()
    assert places.min() >= 50 / 1.2 - 1.5
    assert places.max() <= 50 / 0.8 + 1.5
    assert places.std() > 2


def test_equaliser_has_the_deviation_asked_for_and_is_constant_over_time() -> None:
    torch.manual_seed(0)
    change = augment(equaliser_db=4.0)(torch.zeros(2000, 1, 64, 5))
    assert (change.std(3) < 1e-6).all()
    decibel = change * 10 / np.log(10)
    assert decibel.std() == pytest.approx(4.0, rel=0.15)


def test_noise_fills_the_quiet_and_leaves_the_loud(features: torch.Tensor) -> None:
    quiet = 3.0 * features
    quiet[..., 50:] = -18.0
    noisy = augment(noise_p=1.0)(quiet)
    assert (noisy >= quiet - 1e-3).all()
    assert (noisy[..., 50:] > -17.5).float().mean() > 0.9
    loudest = quiet.amax((2, 3))
    torch.testing.assert_close(noisy.amax((2, 3)), loudest, atol=0.5, rtol=0)


def test_telephone_keeps_its_band_only(features: torch.Tensor) -> None:
    narrow = augment(telephone_p=1.0)(features)
    kept = ((narrow - features).abs() < 1e-3).all(3).all(0)[0]
    assert 0 < kept.float().mean() < 0.8
    assert not kept[0]
    assert not kept[-1]
    inside = kept.nonzero().flatten()
    assert inside.tolist() == list(range(int(inside[0]), int(inside[-1]) + 1))


def test_masks_are_no_larger_than_asked(features: torch.Tensor) -> None:
    masked = augment(time_masks=1, time_mask_frames=20).mask(features + 10.0)
    gaps = (masked[:, 0, 0] == 0).sum(1)
    assert 0 < gaps.max() <= 20


def test_mixup_keeps_the_larger_share_and_labels_follow(features: torch.Tensor) -> None:
    target = torch.eye(16)
    mixed, labels = mixup(features, target, alpha=0.4)
    torch.testing.assert_close(labels.sum(1), torch.ones(16))
    share = labels.diagonal()
    assert (share >= 0.5).all()
    other = (labels - torch.diag(share)).argmax(1)
    for row in range(16):
        expected = share[row] * features[row] + (1 - share[row]) * features[other[row]]
        if other[row] != 0 or labels[row, 0] > 0:
            torch.testing.assert_close(mixed[row], expected)


def test_a_variant_is_repeatable_finite_and_another_clip(rng: np.random.Generator) -> None:
    clip = (0.01 * rng.standard_normal(16_000)).astype(np.float32)
    variants = [make_variant(clip, seed) for seed in range(20)]
    again = [make_variant(clip, seed) for seed in range(20)]
    for first, second in zip(variants, again, strict=True):
        assert np.array_equal(first, second)
        assert np.isfinite(first).all()
        assert 0.7 * 16_000 < len(first) < 1.4 * 16_000
    assert len({variant.tobytes() for variant in variants}) >= 15
