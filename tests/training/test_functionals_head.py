"""The second stage of source learning, on made-up log-mel power."""

from pathlib import Path

import numpy as np
import pytest
import torch

from nnpm.training.config import AugmentConfig, Config, EncoderConfig, FunctionalsConfig
from nnpm.training.corpora import Utterance
from nnpm.training.data.augment import SpectralAugment
from nnpm.training.data.clips import Ragged, cached
from nnpm.training.network.encoders.functionals import Functionals
from nnpm.training.network.network import Network
from nnpm.training.source import functionals_head
from nnpm.training.source.functionals_head import add_functionals

LABELS = ("angry", "sad")
ENCODER = EncoderConfig(channels=(8,), depths=(0,), pooled_channels=8, mixstyle_stages=())
CONFIG = Config(
    encoder=ENCODER,
    augment=AugmentConfig(variants=1),
    functionals=FunctionalsConfig(steps=60, batch_size=32, views=1),
)


@pytest.fixture(scope="module")
def utterances() -> list[Utterance]:
    return [
        Utterance(Path(f"/{speaker}/{take}/{emotion}.wav"), "one", f"s{speaker}", "en", emotion)
        for speaker in range(3)
        for take in range(6)
        for emotion in LABELS
    ]


@pytest.fixture(scope="module")
def versions(utterances: list[Utterance], tmp_path_factory: pytest.TempPathFactory) -> list[Ragged]:
    """Log-mel power in which angry clips go up and down faster than sad ones; and once louder."""
    rng, rows = np.random.default_rng(0), []
    for utterance in utterances:
        frames = int(rng.integers(20, 90))
        rate = 6.0 if utterance.emotion == "angry" else 2.5
        loudness = np.sin(2 * np.pi * rate * np.arange(frames) / 62.5 + rng.uniform(0, 6))
        rows.append(2 * loudness[:, None] + rng.normal(0, 1, (frames, 64)))
    folder = tmp_path_factory.mktemp("features")
    louder = [row + 1.0 for row in rows]
    return [cached(folder / "a", lambda: rows), cached(folder / "b", lambda: louder)]


@pytest.fixture
def trained() -> Network:
    """What the first stage leaves."""
    torch.manual_seed(0)
    alone = CONFIG.model_copy(update={"functionals": FunctionalsConfig(enabled=False)})
    return Network(alone, LABELS).eval()


def test_half_of_the_answer_is_the_encoders(trained, utterances, versions) -> None:
    network = add_functionals(trained, CONFIG, utterances, versions, seed=0)
    assert network.config == CONFIG
    assert not network.training
    waveform, lengths = torch.randn(2, 16_000), torch.tensor([16_000, 9_000])
    with torch.no_grad():
        pooled, pooled_alone = network(waveform, lengths)[1], trained(waveform, lengths)[1]
        torch.testing.assert_close(pooled[:, :16], pooled_alone)
        other = torch.cat([torch.randn(2, 16), pooled[:, 16:]], dim=1)
        change = network.head(other)[0] - network.head(pooled)[0]
        alone = trained.head(other[:, :16])[0] - trained.head(pooled_alone)[0]
    torch.testing.assert_close(change, alone / 2, atol=1e-5, rtol=1e-4)
    assert (network.head.norm.weight[16:] == 1).all()
    assert (network.head.norm.bias[16:] == 0).all()


def test_it_learns_what_the_functionals_tell(trained, utterances, versions) -> None:
    network = add_functionals(trained, CONFIG, utterances, versions, seed=0)
    functionals = functionals_head._compute(network.functionals, versions[0], None)
    # the encoder, which was not trained, says the same of all clips
    pooled = torch.cat([torch.zeros(len(functionals), 16), functionals], dim=1)
    with torch.no_grad():
        logits = network.head(pooled)[0]
    truth = torch.tensor([LABELS.index(u.emotion) for u in utterances])
    centred = logits - logits.mean(0)
    assert (centred.argmax(1) == truth).float().mean() > 0.9


def test_it_is_the_same_for_a_seed_and_leaves_chance_alone(trained, utterances, versions) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    before = {name: value.clone() for name, value in trained.state_dict().items()}
    first = add_functionals(trained, CONFIG, utterances, versions, seed=0).state_dict()
    assert torch.equal(torch.rand(3), expected)
    again = add_functionals(trained, CONFIG, utterances, versions, seed=0).state_dict()
    other = add_functionals(trained, CONFIG, utterances, versions, seed=1).state_dict()
    assert all(torch.equal(value, again[name]) for name, value in first.items())
    assert not torch.equal(first["head.projection.weight"], other["head.projection.weight"])
    assert all(torch.equal(value, before[name]) for name, value in trained.state_dict().items())


def test_a_recipe_without_functionals_has_no_second_stage(trained, utterances) -> None:
    assert add_functionals(trained, trained.config, utterances, [], seed=0) is trained


def test_every_clip_has_a_row_per_version_and_per_view(versions) -> None:
    functionals = Functionals(CONFIG.front_end)
    torch.manual_seed(0)
    bank = functionals_head._compute_versions(functionals, CONFIG, versions)
    assert bank.shape == (4, len(versions[0]), functionals.width)  # two versions and a view of each
    for place in (0, 7):
        row = torch.from_numpy(versions[1][place].T)[None, None]
        alone = functionals(row, torch.ones(1, 1, 1, row.shape[3]))[0]
        torch.testing.assert_close(bank[2, place], alone, atol=1e-5, rtol=1e-4)
        assert not torch.allclose(bank[3, place], alone, atol=1e-2)


def test_a_padded_clip_is_augmented_as_it_would_be_alone(versions) -> None:
    """Its end is mirrored either way; noise and telephone find the same extremes, or nearly."""
    config = AugmentConfig(warp=0.15, stretch=0.15, telephone_p=0.0, noise_p=0.0)
    telephone = AugmentConfig(telephone_p=1.0, noise_p=0.0)
    order = np.argsort(versions[0].ends - versions[0].starts)[[0, -1]]  # shortest and longest
    ((places, log_mel, mask),) = functionals_head._padded(versions[0], order)
    frames = int(mask[0].sum())
    assert frames < log_mel.shape[3]
    assert np.array_equal(log_mel[0, 0, :, :frames].numpy(), versions[0][int(places[0])].T)
    for seed in range(6):
        torch.manual_seed(seed)
        alone = SpectralAugment(config, CONFIG.front_end)(log_mel[:1, ..., :frames])
        torch.manual_seed(seed)
        padded = SpectralAugment(config, CONFIG.front_end)(log_mel[:1])
        torch.testing.assert_close(padded[..., :frames], alone, atol=1e-4, rtol=1e-4)
        torch.manual_seed(seed)
        alone = SpectralAugment(telephone, CONFIG.front_end)(log_mel[:1, ..., :frames])
        torch.manual_seed(seed)
        padded = SpectralAugment(telephone, CONFIG.front_end)(log_mel[:1])
        torch.testing.assert_close(padded[..., :frames], alone, atol=0.5, rtol=0.0)


def test_long_clips_are_heard_for_ten_seconds(tmp_path: Path) -> None:
    rows = [np.zeros((700, 64), np.float32), np.zeros((30, 64), np.float32)]
    ((_, log_mel, mask),) = functionals_head._padded(
        cached(tmp_path / "a", lambda: rows), np.array([1, 0])
    )
    assert log_mel.shape == (2, 1, 64, 625)
    assert mask.sum((1, 2, 3)).tolist() == [30, 625]
