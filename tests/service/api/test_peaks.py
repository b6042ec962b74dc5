"""POST /predict with peaks: what a page draws of a recording that it never decodes itself."""

from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from nnpm.service.inference.audio.decode import Peaks, decode
from tests.support.problems import problem
from tests.support.sounds import encode, speechlike


def drawn(samples: np.ndarray, num_parts: int, blocks: list[int]) -> np.ndarray:
    peaks = Peaks(num_parts, samples.shape[1])
    for block in np.split(samples, np.cumsum(blocks)[:-1]):
        peaks.add(block)
    found = peaks.finish()
    assert found.shape == (samples.shape[1], num_parts, 2)
    return found


@pytest.mark.parametrize(
    ("num_frames", "num_channels", "num_parts"),
    [(1, 1, 5), (7, 2, 3), (12, 1, 12), (4_000, 3, 7), (100_001, 2, 50), (1_000, 1, 10_000)],
)
def test_a_part_has_the_extremes_of_its_samples(
    num_frames: int, num_channels: int, num_parts: int
) -> None:
    rng = np.random.default_rng(num_frames)
    samples = rng.uniform(-1, 1, (num_frames, num_channels)).astype(np.float32)
    blocks = [1] * min(num_frames, 5)
    while (left := num_frames - sum(blocks)) > 0:
        blocks.append(min(left, int(rng.integers(1, 5_000))))
    found = drawn(samples, num_parts, blocks)
    edges = np.arange(num_parts + 1) * num_frames / num_parts
    reach = num_frames / num_parts / 8  # into the neighbours: a cell
    for part in range(num_parts):
        start, end = int(edges[part]), max(int(edges[part]) + 1, int(np.ceil(edges[part + 1])))
        wide = samples[max(0, int(start - reach)) : int(np.ceil(end + reach))]
        least, greatest = samples[start:end].min(axis=0), samples[start:end].max(axis=0)
        assert (found[:, part, 0] <= least).all()
        assert (found[:, part, 1] >= greatest).all()
        assert (found[:, part, 0] >= wide.min(axis=0)).all()
        assert (found[:, part, 1] <= wide.max(axis=0)).all()


def test_memory_does_not_grow_with_the_recording() -> None:
    peaks, block = Peaks(100, 2), np.zeros((65_536, 2), np.float32)
    for _ in range(50):
        peaks.add(block)
    held = sum(value.nbytes for value in vars(peaks).values() if isinstance(value, np.ndarray))
    assert held < 200_000


def test_channels_are_drawn_as_they_were_sent(client: TestClient) -> None:
    loud, quiet = speechlike(2), 0.25 * speechlike(2)
    stereo = encode(np.stack([loud, quiet], axis=1))
    for channels in ("mix", "split"):
        answer = client.post(f"/predict?peaks=40&channels={channels}", content=stereo).json()
        found = np.array(answer["peaks"])
        assert found.shape == (2, 40, 2)
        assert found[0, :, 1].max() == pytest.approx(loud.max(), abs=2e-3)
        assert found[1, :, 0].min() == pytest.approx(quiet.min(), abs=2e-3)
        assert (np.round(found, 3) == found).all()


def test_a_form_asks_for_them_too_and_nobody_else_gets_them(
    client: TestClient, clip: bytes
) -> None:
    form: Any = {"files": {"file": clip}, "data": {"peaks": "3"}}
    assert np.shape(client.post("/predict", **form).json()["peaks"]) == (1, 3, 2)
    assert "peaks" not in client.post("/predict", content=clip).json()
    assert "peaks" not in client.post("/predict?peaks=0", content=clip).json()
    assert decode(clip).peaks is None


@pytest.mark.parametrize("number", ["-1", "10001", "1e9", "many", "1.5", ""])
def test_numbers_out_of_range_are_refused(client: TestClient, clip: bytes, number: str) -> None:
    answer = client.post(f"/predict?peaks={number}", content=clip)
    assert "peaks" in problem(answer, 422, "bad_parameter")["detail"]


def test_a_batch_is_not_drawn(client: TestClient, clip: bytes) -> None:
    answer = client.post("/predict/batch?peaks=10", files={"files": clip})
    assert "send it to /predict" in problem(answer, 422, "bad_parameter")["detail"]


def test_a_damaged_recording_is_an_error_as_ever(client: TestClient, clip: bytes) -> None:
    problem(client.post("/predict?peaks=10", content=b"RIFF"), 415, "not_audio")
    problem(client.post("/predict?peaks=10", content=clip[:44]), 422, "too_short")
