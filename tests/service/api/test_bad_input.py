import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from tests.support.problems import problem
from tests.support.sounds import encode, long_flac, speechlike, with_flac_length

WAV = encode(speechlike(), subtype="PCM_16")
FLAC = encode(speechlike(4), container="FLAC")
NOT_A_NUMBER = np.where(np.arange(16_000) == 77, np.nan, 0.1)

BAD_BODIES = {
    "empty": (b"", 422, "too_short"),
    "no frames": (encode(np.zeros(0)), 422, "too_short"),
    "one sample": (encode(np.zeros(1)), 422, "too_short"),
    "99 ms": (encode(np.zeros(1_584)), 422, "too_short"),
    "text": (b"this is no audio at all\n" * 50, 415, "not_audio"),
    "zeros": (bytes(50_000), 415, "not_audio"),
    "wav magic only": (b"RIFF\x00\x00\x00\x00WAVE", 415, "not_audio"),
    "flac magic only": (b"fLaC" + bytes(99), 415, "not_audio"),
    "truncated flac": (FLAC[: len(FLAC) // 2], 422, "damaged_audio"),
    "truncated ogg": (encode(speechlike(), container="OGG")[:200], 415, "not_audio"),
    "not a number": (encode(NOT_A_NUMBER, subtype="FLOAT"), 422, "damaged_audio"),
    "1 Hz": (encode(speechlike(), 1), 415, "not_audio"),
    "10 MHz": (encode(speechlike(), 10_000_000), 415, "not_audio"),
    "64 channels": (encode(speechlike(1).reshape(-1, 64)), 415, "not_audio"),
    "lying header, long": (with_flac_length(FLAC, (1 << 36) - 1), 413, "too_long"),
    "lying header, short": (with_flac_length(FLAC, 160_000), 422, "damaged_audio"),
}


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder for temporary files; empty before and after."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    assert list(folder.iterdir()) == []


def is_unharmed(client: TestClient) -> bool:
    return client.post("/predict", files={"file": WAV}).status_code == 200


@pytest.mark.parametrize("as_form", [True, False], ids=["form", "raw"])
@pytest.mark.parametrize("name", BAD_BODIES)
def test_bad_audio_is_a_problem_and_nothing_more(
    client: TestClient, temporary: Path, name: str, as_form: bool
) -> None:
    body, status, code = BAD_BODIES[name]
    if as_form:
        response = client.post("/predict", files={"file": ("clip.wav", body)})
    else:
        response = client.post("/predict", content=body, headers={"Content-Type": "audio/wav"})
    problem(response, status, code)
    assert is_unharmed(client)


def test_ten_hours_of_silence_are_refused_fast_and_small(client: TestClient) -> None:
    body = long_flac(36_000, rate=2_000)
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.perf_counter()
    details = problem(client.post("/predict", content=body), 413, "too_long")
    assert time.perf_counter() - started < 1
    assert "36000.0 s" in details["detail"]
    assert "7200 s" in details["detail"]
    grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib
    assert grown_kib < 50 * 1024


def test_ten_hours_that_hide_their_length_are_counted(
    serve: Callable[..., TestClient],
) -> None:
    client = serve(max_duration_s=60)
    body = with_flac_length(long_flac(36_000, rate=2_000), 0)
    assert "60 s" in problem(client.post("/predict", content=body), 413, "too_long")["detail"]


BAD_QUERIES = [
    ({"top_k": 0}, "top_k"),
    ({"top_k": 9}, "top_k is 9; it must be at most 8."),
    ({"top_k": "many"}, "top_k is many; it must be a whole number."),
    ({"neighbours": -1}, "neighbours"),
    ({"neighbours": 101}, "100"),
    ({"window_s": 0.4}, "0.5"),
    ({"window_s": 10.1}, "10"),
    ({"window_s": "nan"}, "window_s"),
    ({"hop_s": 0.05}, "0.1"),
    ({"hop_s": 2, "window_s": 1}, "hop_s is 2; it must be between 0.1 and window_s (1)."),
    ({"channels": "left"}, "channels is left; it must be mix or split."),
    ({"abstain": "perhaps"}, "abstain"),
    ({"language": "not a language!"}, "a BCP-47 tag such as ur"),
]


@pytest.mark.parametrize(("query", "said"), BAD_QUERIES)
def test_bad_parameters_say_what_is_wanted(
    client: TestClient, query: dict[str, Any], said: str
) -> None:
    response = client.post("/predict", params=query, files={"file": WAV})
    assert said in problem(response, 422, "bad_parameter")["detail"]


@pytest.mark.parametrize(
    "model",
    ["nope", "default/9", "default/", "/", "../default", "..", "a/b/c", "\0", "x" * 256, "\n", "é"],
)
def test_an_unknown_model_is_404(client: TestClient, model: str) -> None:
    response = client.post("/predict", params={"model": model}, files={"file": WAV})
    assert "there is" in problem(response, 404, "unknown_model")["detail"]


def test_forms_without_a_file(client: TestClient) -> None:
    for files in ({"audio": WAV}, {"file2": ("a.wav", WAV)}):
        detail = problem(client.post("/predict", files=files), 422, "bad_form")["detail"]
        assert "no file named 'file'" in detail
    boundary = {"Content-Type": "multipart/form-data; boundary=x"}
    for body in (b"", b"garbage", b"--x\r\n", b"--x--\r\n"):
        problem(client.post("/predict", content=body, headers=boundary), 422, "bad_form")
    field = b'--x\r\nContent-Disposition: form-data; name="file"\r\n\r\ntext\r\n--x--\r\n'
    response = client.post("/predict", content=field, headers=boundary)
    assert "'file' is text" in problem(response, 422, "bad_form")["detail"]
    assert "-F file=@clip.wav" in response.json()["detail"]
    for charset in ("undefined", "utf-16"):
        headers = {"Content-Type": f"multipart/form-data; boundary=x; charset={charset}"}
        problem(client.post("/predict", content=field, headers=headers), 422, "bad_form")
    no_boundary = {"Content-Type": "multipart/form-data"}
    problem(client.post("/predict", content=WAV, headers=no_boundary), 422, "bad_form")


def test_two_files_are_one_too_many(client: TestClient) -> None:
    files = [("file", ("a.wav", WAV)), ("file", ("b.wav", WAV))]
    assert (
        "more than one file"
        in problem(client.post("/predict", files=files), 422, "bad_form")["detail"]
    )


def test_nothing_at_all_is_422(client: TestClient) -> None:
    problem(client.post("/predict"), 422, "too_short")


@pytest.mark.parametrize("content_type", ["text/plain", "application/json", "image/png"])
def test_a_body_of_another_type_is_415(client: TestClient, content_type: str) -> None:
    response = client.post("/predict", content=WAV, headers={"Content-Type": content_type})
    assert content_type in problem(response, 415, "bad_content_type")["detail"]


@pytest.mark.parametrize("as_form", [True, False], ids=["form", "raw"])
@pytest.mark.parametrize("chunked", [True, False], ids=["chunked", "announced"])
def test_an_upload_over_the_limit_is_cut_off(
    serve: Callable[..., TestClient], temporary: Path, as_form: bool, chunked: bool
) -> None:
    client = serve(max_upload_bytes=3_000_000)
    sent = 0

    def pieces() -> Iterator[bytes]:
        nonlocal sent
        head = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
        yield head if as_form else b"RIFF"
        for _ in range(100):
            sent += 100_000
            yield bytes(100_000)

    content_type = "multipart/form-data; boundary=x" if as_form else "audio/wav"
    response = client.post(
        "/predict",
        content=pieces() if chunked else b"".join(pieces()),
        headers={"Content-Type": content_type},
    )
    detail = problem(response, 413, "too_large")["detail"]
    assert "3000000" in detail
    small = client.post("/predict", files={"file": WAV})
    assert small.status_code == 200


def test_what_is_not_there_is_a_problem_too(client: TestClient) -> None:
    assert "/nowhere" in problem(client.get("/nowhere"), 404, "not_found")["detail"]
    response = client.get("/predict")
    assert "POST" in problem(response, 405, "method_not_allowed")["detail"]
    assert response.headers["allow"] == "POST"


def test_large_uploads_leave_nothing_on_disk(client: TestClient, temporary: Path) -> None:
    body = encode(speechlike(60), subtype="DOUBLE")
    assert len(body) > 5 << 20
    assert client.post("/predict", files={"file": body}).status_code == 200
    assert client.post("/predict", content=body).status_code == 200
