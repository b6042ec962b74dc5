import torch

from nnpm.training.config import HeadConfig
from nnpm.training.network.network import Network, pool
from tests.support.tiny_network import tiny_whisper


def test_pooling_is_mean_and_deviation_of_a_clips_own_frames() -> None:
    torch.manual_seed(0)
    frames, counts = torch.randn(3, 9, 5), [9, 4, 1]
    mask = torch.arange(9) < torch.tensor(counts)[:, None]
    pooled = pool(frames, mask)
    for row, clip, count in zip(pooled, frames, counts, strict=True):
        own = clip[:count]
        torch.testing.assert_close(row[:5], own.mean(0))
        expected = own.var(0, correction=0).clamp(min=1e-8).sqrt()
        torch.testing.assert_close(row[5:], expected, atol=1e-6, rtol=1e-5)


def test_one_frame_has_a_gradient() -> None:
    frames = torch.randn(1, 1, 3, requires_grad=True)
    pool(frames, torch.ones(1, 1, dtype=torch.bool)).sum().backward()
    assert frames.grad is not None
    assert frames.grad.isfinite().all()


@torch.no_grad()
def test_a_network_pools_its_encoders_frames() -> None:
    network = Network(tiny_whisper(), HeadConfig(projection=8), ("angry", "sad"), 2).eval()
    waveform, lengths = torch.randn(2, 9_000), torch.tensor([9_000, 5_000])
    pooled = network(waveform, lengths)
    assert pooled.shape == (2, 32)
    torch.testing.assert_close(pooled, pool(*network.encoder(waveform, lengths)))
    assert network.head.mean.shape == (2, 32)
