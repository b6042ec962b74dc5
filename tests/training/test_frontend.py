import librosa
import numpy as np
import pytest
import torch

from nnpm.training.config import FrontEndConfig
from nnpm.training.network.frontend import FrontEnd, mel_filterbank


def test_filterbank_is_librosas() -> None:
    config = FrontEndConfig()
    expected = librosa.filters.mel(
        sr=16_000,
        n_fft=config.win_length,
        n_mels=config.n_mels,
        fmin=config.low_hz,
        fmax=config.high_hz,
        htk=True,
        norm=None,
    )
    found = mel_filterbank(257, config.n_mels, config.low_hz, config.high_hz, 16_000)
    np.testing.assert_allclose(found.numpy().T, expected, atol=1e-4)


def test_log_mel_is_that_of_scipys_fourier_transform(rng: np.random.Generator) -> None:
    config = FrontEndConfig(win_length=400, hop_length=200, n_mels=32)
    clip = rng.standard_normal(4_000).astype(np.float32)
    front_end = FrontEnd(config)
    found, mask = front_end.log_mel(torch.from_numpy(clip)[None], torch.tensor([4_000]))

    level = clip * (0.1 / np.sqrt(np.mean(clip**2)))
    frames = np.lib.stride_tricks.sliding_window_view(level, 400)[::200]
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)
    power = np.abs(np.fft.rfft(frames * hann)) ** 2
    expected = np.log(power @ front_end.filters.numpy() + config.log_floor)
    assert mask.sum() == len(frames) == 19
    np.testing.assert_allclose(found[0, 0].T.numpy(), expected, atol=2e-3)


def test_level_is_no_cue(rng: np.random.Generator) -> None:
    clip = torch.from_numpy(rng.standard_normal((1, 8_000)).astype(np.float32))
    front_end = FrontEnd(FrontEndConfig())
    loud, _ = front_end(0.5 * clip, torch.tensor([8_000]))
    quiet, _ = front_end(0.0005 * clip, torch.tensor([8_000]))
    torch.testing.assert_close(loud, quiet, atol=1e-4, rtol=0)


@pytest.mark.parametrize("samples", [512, 1_600, 16_001])
def test_silence_gives_finite_features(samples: int) -> None:
    features, _ = FrontEnd(FrontEndConfig())(torch.zeros(1, samples), torch.tensor([samples]))
    assert torch.isfinite(features).all()


def test_full_band_mean_removes_the_channel(rng: np.random.Generator) -> None:
    front_end = FrontEnd(FrontEndConfig(band_mean=1.0))
    features = torch.from_numpy(rng.standard_normal((1, 1, 64, 50)).astype(np.float32))
    mask = torch.ones(1, 1, 1, 50)
    coloured = features + torch.linspace(-1, 1, 64)[:, None]
    torch.testing.assert_close(
        front_end.normalise(features, mask), front_end.normalise(coloured, mask)
    )


def test_a_window_that_is_not_whole_hops_is_refused() -> None:
    with pytest.raises(ValueError, match="win_length is 500; it must be a multiple of hop_length"):
        FrontEndConfig(win_length=500)
