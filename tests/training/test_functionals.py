"""Functionals against plain loops over one clip, and alone against in company."""

import math

import numpy as np
import onnxruntime
import pytest
import torch
from torch.export import Dim

from nnpm.training.bundle.files import _export
from nnpm.training.config import FrontEndConfig
from nnpm.training.network.encoders.functionals import Functionals

RATES_HZ = (2, 3, 4, 6, 8, 12, 16, 24)


@pytest.fixture(scope="module")
def functionals() -> Functionals:
    return Functionals(FrontEndConfig()).eval()


def clip(frames: int, seed: int = 0) -> np.ndarray:
    """Log-mel power ``(64, frames)`` with a spectral tilt, syllables and noise."""
    rng = np.random.default_rng(seed)
    time, band = np.arange(frames) / 62.5, np.arange(64)[:, None]
    syllables = 2.0 * np.sin(2 * np.pi * (3.0 + seed) * time + 0.05 * band)
    return (syllables - 0.05 * band + rng.normal(0, 0.7, (64, frames))).astype(np.float32)


def whole(functionals: Functionals, log_mel: np.ndarray) -> np.ndarray:
    batch = torch.from_numpy(log_mel)[None, None]
    return functionals(batch, torch.ones(1, 1, 1, batch.shape[3]))[0].numpy()


def modulation_power(contour: np.ndarray, rate_hz: float) -> float:
    """Mean power of a contour after a cosine and a sine of one rate, frame by frame."""
    taps, power = range(-15, 16), 0.0
    window = [0.5 * (1 + math.cos(math.pi * k / 15)) for k in taps]
    angle = [2 * math.pi * rate_hz * k / 62.5 for k in taps]
    cosine = [w * math.cos(a) for w, a in zip(window, angle, strict=True)]
    mean = sum(cosine) / sum(window)
    cosine = [c - w * mean for c, w in zip(cosine, window, strict=True)]
    sine = [w * math.sin(a) for w, a in zip(window, angle, strict=True)]
    around = contour - contour.mean()
    for frame in range(len(around)):
        near = [around[t] if 0 <= t < len(around) else 0.0 for t in range(frame - 15, frame + 16)]
        power += np.dot(near, cosine) ** 2 + np.dot(near, sine) ** 2
    return power / len(around)


def by_loops(log_mel: np.ndarray) -> dict[str, list[float]]:
    bands = log_mel.astype(np.float64)
    n_mels, frames = bands.shape
    cepstra = np.zeros((20, frames))
    for order in range(20):
        for band in range(n_mels):
            weight = math.sqrt(2 / n_mels) * math.cos(math.pi / n_mels * (band + 0.5) * order)
            cepstra[order] += weight * bands[band]
    energy = [math.log(sum(math.exp(x) for x in bands[:, t]) + 1e-3) for t in range(frames)]
    loud = np.array([1 / (1 + math.exp(-2 * (e - max(energy) + 3.5))) for e in energy])
    loud /= loud.sum()
    deviation = [math.sqrt(np.mean((c - c.mean()) ** 2) + 1e-4) for c in cepstra]
    loud_mean = [sum(loud * c) for c in cepstra]
    loud_deviation = [
        math.sqrt(sum(loud * (c - mean) ** 2) + 1e-4)
        for c, mean in zip(cepstra, loud_mean, strict=True)
    ]
    speed = [np.mean([abs(c[t + 2] - c[t]) for t in range(frames - 2)]) for c in cepstra]
    level = (cepstra[0] - cepstra[0].mean()) / (deviation[0] + 0.1)
    wide = [bands[8 * group : 8 * group + 8].mean(0) for group in range(8)]
    wide_power = [[modulation_power(contour, rate) for rate in RATES_HZ] for contour in wide]
    return {
        "loud_deviation": loud_deviation,
        "deviation": deviation,
        "speed": speed,
        "log_speed": [math.log(s + 0.05) for s in speed],
        "band_speed": [np.mean(np.abs(np.diff(band))) for band in bands],
        "loud_skewness": [
            sum(loud * ((cepstra[k] - loud_mean[k]) / (loud_deviation[k] + 0.1)) ** 3)
            for k in range(12)
        ],
        "level": [np.mean(level**3), np.mean(level**4), math.log(frames * max(loud))],
        "band_modulation": [math.log(power + 0.01) for row in wide_power for power in row],
        "modulation": [math.log(power + 0.01) for power in np.mean(wide_power, axis=0)],
        "cepstral_modulation": [
            math.log(modulation_power(cepstra[k], rate) + 0.01)
            for k in range(12)
            for rate in RATES_HZ
        ],
        "correlation": [
            np.mean((cepstra[i] - cepstra[i].mean()) * (cepstra[j] - cepstra[j].mean()))
            / ((deviation[i] + 0.1) * (deviation[j] + 0.1))
            for i in range(13)
            for j in range(i + 1, 13)
        ],
    }


@torch.no_grad()
@pytest.mark.parametrize("frames", [5, 20, 90])
def test_every_group_is_what_plain_loops_say(functionals: Functionals, frames: int) -> None:
    log_mel = clip(frames)
    found, start = whole(functionals, log_mel), 0
    expected = by_loops(log_mel)
    assert list(functionals.groups) == list(expected)
    for name, width in functionals.groups.items():
        assert len(expected[name]) == width
        np.testing.assert_allclose(
            found[start : start + width], expected[name], atol=2e-4, rtol=2e-4, err_msg=name
        )
        start += width
    assert start == functionals.width == len(found)


@torch.no_grad()
def test_neither_padding_nor_company_changes_a_clip(functionals: Functionals) -> None:
    clips = [clip(frames, seed) for seed, frames in enumerate((1, 2, 3, 40, 120))]
    batch, mask = torch.full((5, 1, 64, 150), 30.0), torch.zeros(5, 1, 1, 150)
    for row, log_mel in enumerate(clips):
        batch[row, 0, :, : log_mel.shape[1]] = torch.from_numpy(log_mel)
        mask[row, ..., : log_mel.shape[1]] = 1.0
    together = functionals(batch, mask)
    again = functionals(torch.where(mask == 0, -50.0, batch), mask)
    torch.testing.assert_close(together, again, atol=0, rtol=0)
    for row, log_mel in enumerate(clips):
        np.testing.assert_allclose(
            together[row].numpy(), whole(functionals, log_mel), atol=1e-5, rtol=1e-5
        )


@torch.no_grad()
@pytest.mark.parametrize("frames", [1, 2, 3])
@pytest.mark.parametrize("value", [None, math.log(1e-3), 8.0])
def test_the_shortest_and_the_flattest_clips_have_finite_numbers(
    functionals: Functionals, frames: int, value: float | None
) -> None:
    log_mel = clip(frames) if value is None else np.full((64, frames), value, np.float32)
    found = whole(functionals, log_mel)
    assert np.isfinite(found).all()
    assert np.abs(found).max() < 100  # and fit into a memory of float16


def test_nothing_in_them_is_stored_or_learnt(functionals: Functionals) -> None:
    assert not functionals.state_dict()
    assert not list(functionals.parameters())


@torch.no_grad()
def test_the_graph_says_the_same_of_every_length(functionals: Functionals) -> None:
    batch, frames = Dim("batch"), Dim("frames", min=8)
    graph = _export(
        functionals,
        (torch.randn(2, 1, 64, 50), torch.ones(2, 1, 1, 50)),
        {"log_mel": {0: batch, 3: frames}, "mask": {0: batch, 3: frames}},
        ["functionals"],
    )
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    for length in (1, 2, 3, 61, 400):
        log_mel = clip(length)
        inputs = {"log_mel": log_mel[None, None], "mask": np.ones((1, 1, 1, length), np.float32)}
        (found,) = session.run(None, inputs)
        np.testing.assert_allclose(found[0], whole(functionals, log_mel), atol=1e-4, rtol=1e-4)
