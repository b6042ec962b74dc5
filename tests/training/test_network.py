import pytest
import torch
from torch import nn

from nnpm.training.config import Config, EncoderConfig, FunctionalsConfig
from nnpm.training.data.batches import pad
from nnpm.training.network.encoders.cnn import MixStyle
from nnpm.training.network.network import Network

LABELS = ("angry", "happy", "neutral", "sad")


@pytest.fixture(scope="module")
def network() -> Network:
    """Random weights and statistics, so that nothing is zero by luck."""
    torch.manual_seed(0)
    network = Network(Config(), LABELS)
    for module in network.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.3)
    return network.eval()


@torch.no_grad()
def test_neither_padding_nor_company_changes_an_answer(network: Network) -> None:
    generator = torch.Generator().manual_seed(0)
    clips = [torch.randn(n, generator=generator).numpy() for n in (512, 1_600, 8_001, 20_000, 33)]
    waveform, lengths = pad(clips)
    waveform[0, lengths[0] :] = 9.0  # values in the padding have no effect either
    together, pooled = network(waveform, lengths)
    for row, clip in enumerate(clips[:4]):
        alone, pooled_alone = network(torch.from_numpy(clip)[None], torch.tensor([len(clip)]))
        torch.testing.assert_close(together[row], alone[0], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(pooled[row], pooled_alone[0], atol=1e-4, rtol=1e-3)


@torch.no_grad()
def test_a_full_mask_is_no_mask(network: Network) -> None:
    features = torch.randn(2, 1, 64, 40)
    torch.testing.assert_close(
        network.encoder(features, torch.ones(2, 1, 1, 40)), network.encoder(features, None)
    )


def test_stages_without_blocks_are_allowed() -> None:
    config = Config(encoder=EncoderConfig(channels=(8, 16, 24), depths=(0, 2, 1)))
    logits, pooled = Network(config, LABELS).eval()(torch.randn(1, 8_000), torch.tensor([8_000]))
    assert logits.shape == (1, 4)
    assert pooled.shape == (1, 256 + 405)


@torch.no_grad()
def test_h_is_what_the_encoder_pools_and_the_functionals(network: Network) -> None:
    waveform, lengths = torch.randn(2, 9_000), torch.tensor([9_000, 5_000])
    log_mel, mask = network.front_end.log_mel(waveform, lengths)
    features = network.front_end.normalise(log_mel, mask)
    _, pooled = network(waveform, lengths)
    torch.testing.assert_close(pooled[:, :256], network.encoder(features, mask))
    assert network.functionals is not None
    torch.testing.assert_close(pooled[:, 256:], network.functionals(log_mel, mask))
    whole = network.pool(log_mel[:1], features[:1], None)
    torch.testing.assert_close(whole, pooled[:1])


def test_a_recipe_may_do_without_functionals() -> None:
    network = Network(Config(functionals=FunctionalsConfig(enabled=False)), LABELS).eval()
    _, pooled = network(torch.randn(1, 8_000), torch.tensor([8_000]))
    assert pooled.shape == (1, 256)


def test_mixstyle_changes_statistics_in_training_only() -> None:
    torch.manual_seed(0)
    mix = MixStyle(p=1.0, alpha=0.2)
    features = torch.randn(8, 4, 6, 10) * torch.arange(1, 9)[:, None, None, None]
    assert torch.equal(mix.eval()(features), features)
    mixed = mix.train()(features)
    assert not torch.equal(mixed, features)
    # only mean and deviation move: the standardised clip stays
    standard = lambda x: (x - x.mean((2, 3), keepdim=True)) / x.std((2, 3), keepdim=True)  # noqa: E731
    torch.testing.assert_close(standard(mixed), standard(features), atol=1e-3, rtol=1e-3)
