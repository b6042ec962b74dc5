"""The repository's own model over HTTP, on real clips in many formats."""

import io
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
from fastapi.testclient import TestClient

from nnpm.service.api.app import create_app
from nnpm.service.settings import Settings

MODELS = Path(__file__).parents[3] / "models"

pytestmark = pytest.mark.corpora


@pytest.fixture(scope="module")
def served(corpora: Path) -> Iterator[TestClient]:
    with TestClient(create_app(Settings(models=MODELS))) as client:
        deadline = time.monotonic() + 20
        while client.get("/health/ready").status_code != 200:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        yield client


def urdu_clips(corpora: Path, count: int) -> list[Path]:
    return sorted((corpora / "urdu").glob("*/*.opus"))[:: 400 // count][:count]


def test_every_field_of_an_answer_has_a_real_figure(served: TestClient, corpora: Path) -> None:
    for path in urdu_clips(corpora, 8):
        answer = served.post("/predict?top_k=3&neighbours=5", files={"file": path.read_bytes()})
        assert answer.status_code == 200
        body = answer.json()
        assert sum(body["scores"].values()) == pytest.approx(1, abs=1e-5)
        assert body["confidence"] == pytest.approx(max(body["scores"].values()), abs=1e-5)
        assert body["calibrated"] is True
        assert 0 < body["audio"]["speech_ratio"] <= 1
        assert 1.9 < body["audio"]["duration_s"] < 3.1
        assert body["audio"]["format"] == "OGG"
        assert body["model"] == {"name": "default", "version": "2", "language": "und"}
        assert 0 <= body["out_of_domain"] <= 1
        assert body["timing_ms"]["total"] >= body["timing_ms"]["inference"] > 0
        assert len(body["segments"]) == 1
        assert len(body["top"]) == 3
        assert {n["corpus"] for n in body["neighbours"]} <= {
            "banglaser",
            "crema",
            "nemo",
            "ravdess",
        }


@pytest.mark.parametrize(
    ("container", "subtype", "rate", "channels", "tolerance"),
    [
        ("WAV", "PCM_16", 16_000, 1, 0.02),
        ("WAV", "PCM_24", 48_000, 2, 0.03),
        ("FLAC", "PCM_16", 44_100, 2, 0.03),
        ("OGG", "VORBIS", 44_100, 1, 0.15),
        ("MP3", "MPEG_LAYER_III", 44_100, 2, 0.15),
    ],
)
def test_a_recording_sounds_alike_in_every_format(
    served: TestClient, corpora: Path, container, subtype, rate, channels, tolerance
) -> None:
    differences = []
    for path in urdu_clips(corpora, 8):
        samples, original = soundfile.read(path, dtype="float32")
        samples = np.clip(soxr.resample(samples, original, rate) * 0.7, -1, 1)
        file = io.BytesIO()
        stereo = np.repeat(samples[:, None], channels, axis=1)
        soundfile.write(file, stereo, rate, format=container, subtype=subtype)
        one = served.post("/predict", files={"file": path.read_bytes()}).json()["scores"]
        other = served.post("/predict", files={"file": file.getvalue()}).json()["scores"]
        differences.append(max(abs(one[name] - other[name]) for name in one))
    assert np.median(differences) <= tolerance


def test_the_command_line_gives_the_same_numbers(served: TestClient, corpora: Path) -> None:
    path = urdu_clips(corpora, 1)[0]
    start = "import sys; from nnpm.service.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", start, "predict", str(path), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=MODELS.parent, check=True)
    mine = json.loads(done.stdout)
    other = served.post("/predict", files={"file": path.read_bytes()}).json()
    assert mine["scores"] == other["scores"]
    assert mine["segments"] == other["segments"]
    assert mine["model"] == other["model"]


@pytest.mark.parametrize(("segments", "tolerance"), [("windows", 0.01), ("turns", 0.06)])
def test_a_stream_is_answered_like_the_recording(
    served: TestClient, corpora: Path, segments: str, tolerance: float
) -> None:
    """Clips with pauses between, as a microphone sends them; the difference is by the edges."""
    draw = np.random.default_rng(0)
    clips = urdu_clips(corpora, 20)
    differences = []
    for first in range(0, 20, 5):
        parts = [np.zeros(16_000)]
        for path in clips[first : first + 5]:
            samples, rate = soundfile.read(path, dtype="float32")
            parts.append(soxr.resample(samples, rate, 16_000))
            parts.append(1e-4 * draw.standard_normal(round(16_000 * draw.uniform(0.2, 2))))
        pcm = np.round(np.clip(np.concatenate(parts), -1, 1) * 32767).astype("<i2")
        with served.websocket_connect("/stream") as socket:
            socket.send_json({"sample_rate_hz": 16_000, "channels": 1, "segments": segments})
            for start in range(0, len(pcm), 3200):
                socket.send_bytes(pcm[start : start + 3200].tobytes())
            socket.send_json({"end": True})
            while (final := socket.receive_json())["type"] == "segment":
                pass
        file = io.BytesIO()
        soundfile.write(file, pcm, 16_000, format="WAV", subtype="PCM_16")
        whole = served.post(f"/predict?segments={segments}", files={"file": file.getvalue()}).json()
        differences.append(
            max(abs(final["scores"][emotion] - score) for emotion, score in whole["scores"].items())
        )
        assert final["model"] == whole["model"]
        assert final["audio"]["duration_s"] == whole["audio"]["duration_s"]
    assert np.median(differences) < tolerance
    assert max(differences) < (0.08 if segments == "windows" else 0.25)
