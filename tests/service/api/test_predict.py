import numpy as np
import pytest
from fastapi.testclient import TestClient

from nnpm.service.inference.audio import ffmpeg
from tests.support.decoding import decode_in_process
from tests.support.media import encode_media
from tests.support.problems import problem
from tests.support.sounds import encode, speechlike
from tests.support.tiny_bundle import LABELS

FIELDS = {
    "emotion", "confidence", "calibrated", "scores", "abstained", "reasons", "out_of_domain",
    "segments", "timeline", "audio", "model", "request_id", "timing_ms",
}  # fmt: skip


@pytest.mark.smoke
def test_the_answer_has_the_fields_of_the_contract(client: TestClient, clip: bytes) -> None:
    response = client.post("/predict", files={"file": ("clip.wav", clip)})
    assert response.status_code == 200
    answer = response.json()
    assert set(answer) == FIELDS
    assert list(answer["scores"]) == list(LABELS)
    assert sum(answer["scores"].values()) == pytest.approx(1)
    assert answer["scores"][answer["emotion"]] == answer["confidence"]
    assert answer["calibrated"] is True
    (segment,) = answer["segments"]
    assert set(segment) == {
        "start_s", "end_s", "channel", "emotion", "confidence", "scores", "reasons"
    }  # fmt: skip
    assert 0.5 < answer["audio"].pop("speech_ratio") <= 1
    assert answer["audio"] == {
        "duration_s": 1.5, "sample_rate_hz": 16000, "channels": 1, "format": "WAV", "warnings": [],
    }  # fmt: skip
    assert answer["model"] == {"name": "default", "version": "2", "language": "und"}
    assert answer["request_id"] == response.headers["x-request-id"]
    assert set(answer["timing_ms"]) == {"queue", "decode", "inference", "total"}


@pytest.mark.smoke
@pytest.mark.parametrize(
    "content_type", ["audio/wav", "audio/x-whatever; rate=1", "application/octet-stream", None]
)
def test_a_raw_body_is_the_same(client: TestClient, clip: bytes, content_type: str | None) -> None:
    form = client.post("/predict", files={"file": clip}).json()
    headers = {"Content-Type": content_type} if content_type else {}
    raw = client.post("/predict", content=clip, headers=headers).json()
    for changing in ("request_id", "timing_ms"):
        del form[changing], raw[changing]
    assert raw == form


def test_a_chunked_body_is_the_same(client: TestClient, clip: bytes) -> None:
    chunks = (clip[start : start + 1_000] for start in range(0, len(clip), 1_000))
    response = client.post("/predict", content=chunks, headers={"Content-Type": "audio/wav"})
    assert response.json()["audio"]["duration_s"] == 1.5


def test_extras_come_when_asked_for(client: TestClient, clip: bytes) -> None:
    query = {"top_k": 2, "neighbours": 3}
    answer = client.post("/predict", params=query, files={"file": clip}).json()
    assert set(answer) == FIELDS | {"top", "neighbours"}
    best = sorted(answer["scores"].items(), key=lambda item: -item[1])[:2]
    assert [(one["emotion"], one["score"]) for one in answer["top"]] == best
    assert len(answer["neighbours"]) == 3
    assert set(answer["neighbours"][0]) == {"emotion", "similarity", "corpus", "language"}


@pytest.mark.parametrize("num_channels", [1, 2, 3])
def test_split_channels_have_one_verdict_each(client: TestClient, num_channels: int) -> None:
    samples = np.stack([speechlike()] * num_channels, axis=1)
    query = {"channels": "split", "top_k": 1}
    answer = client.post("/predict", params=query, files={"file": encode(samples)}).json()
    assert [one["channel"] for one in answer["per_channel"]] == list(range(num_channels))
    assert {segment["channel"] for segment in answer["segments"]} == set(range(num_channels))
    assert all(len(one["top"]) == 1 for one in answer["per_channel"])


@pytest.mark.parametrize(
    ("model", "version"), [("default", "2"), ("default/1", "1"), ("default/2", "2")]
)
def test_a_model_can_be_named(client: TestClient, clip: bytes, model: str, version: str) -> None:
    answer = client.post("/predict", params={"model": model}, files={"file": clip}).json()
    assert answer["model"]["version"] == version


@pytest.mark.parametrize("language", ["ur", "pt-BR", "und", "zh-Hant-TW"])
def test_a_language_without_a_version_gets_the_default(
    client: TestClient, clip: bytes, language: str
) -> None:
    answer = client.post("/predict", params={"language": language}, files={"file": clip}).json()
    assert answer["model"] == {"name": "default", "version": "2", "language": "und"}


@pytest.mark.smoke
@pytest.mark.parametrize(
    ("container", "subtype"),
    [
        ("WAV", "PCM_U8"), ("WAV", "PCM_16"), ("WAV", "PCM_24"), ("WAV", "PCM_32"),
        ("WAV", "FLOAT"), ("WAV", "ULAW"), ("FLAC", "PCM_16"), ("OGG", "OPUS"),
        ("OGG", "VORBIS"), ("MP3", "MPEG_LAYER_III"), ("AIFF", "PCM_16"),
    ],
)  # fmt: skip
@pytest.mark.parametrize(("rate", "num_channels"), [(8_000, 1), (48_000, 2)])
def test_formats_rates_and_channels(
    client: TestClient, container: str, subtype: str, rate: int, num_channels: int
) -> None:
    samples = np.stack([speechlike(1, rate)] * num_channels, axis=1)
    body = encode(samples, rate, container=container, subtype=subtype)
    answer = client.post("/predict", files={"file": body}).json()
    assert answer["audio"]["format"] == container
    assert answer["audio"]["sample_rate_hz"] == rate
    assert answer["audio"]["channels"] == num_channels
    assert answer["audio"]["duration_s"] == pytest.approx(1, abs=0.01)


@pytest.mark.smoke
@pytest.mark.parametrize(
    ("container", "codec", "name", "content_type"),
    [
        ("mp4", "aac", "MP4", "video/mp4"),
        ("ipod", "alac", "MP4", "audio/mp4"),
        ("webm", "libopus", "WEBM", "audio/webm;codecs=opus"),
    ],
)
def test_what_browsers_and_phones_record(
    client: TestClient, container: str, codec: str, name: str, content_type: str
) -> None:
    stereo = np.stack([speechlike(2, 48_000), np.zeros(96_000)], axis=1)
    body = encode_media(stereo, 48_000, container=container, codec=codec, video=name == "MP4")
    headers = {"Content-Type": content_type}
    raw = client.post("/predict", params={"channels": "split"}, content=body, headers=headers)
    assert raw.status_code == 200, raw.text
    answer = raw.json()
    assert (answer["audio"]["format"], answer["audio"]["channels"]) == (name, 2)
    left, right = answer["per_channel"]
    assert left["reasons"] == answer["reasons"] == []
    assert right["reasons"] == ["no_speech"]
    form = client.post("/predict?channels=split", files={"file": ("clip", body)}).json()
    assert form["scores"] == answer["scores"]


def test_media_that_cannot_be_heard_is_a_problem_not_an_answer(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    mute = client.post("/predict", files={"file": encode_media(codec=None, video=True)})
    assert problem(mute, 415, "not_audio")["detail"].startswith("The MP4 holds no audio")
    body = encode_media(movflags="+faststart")
    cut = client.post("/predict", files={"file": body[: len(body) // 2]})
    assert "stopped after" in problem(cut, 422, "damaged_audio")["detail"]
    decode_in_process(monkeypatch)
    monkeypatch.setattr(ffmpeg, "load_av", lambda: None)
    bare = client.post("/predict", files={"file": body})
    assert "pip install 'nnpm[media]'" in problem(bare, 415, "not_audio")["detail"]


@pytest.mark.parametrize("sent", ["abc-123_x.y", "a" * 128])
def test_a_sane_request_id_is_kept(client: TestClient, sent: str) -> None:
    assert (
        client.get("/health/live", headers={"X-Request-ID": sent}).headers["x-request-id"] == sent
    )


@pytest.mark.parametrize("sent", ["", "a" * 129, "a b", "<script>", "a/b", "ä".encode()])
def test_another_request_id_is_replaced(client: TestClient, sent: str | bytes) -> None:
    got = client.get("/health/live", headers={"X-Request-ID": sent}).headers["x-request-id"]
    assert got != sent
    assert len(got) == 36


ABSTAINED = {
    "silence": (np.zeros(16_000), "no_speech"),
    "white noise": (0.1 * np.random.default_rng(0).standard_normal(16_000), "no_speech"),
    "a tone": (0.3 * np.sin(np.arange(16_000) * 0.4), "no_speech"),
    "a fifth of a second": (speechlike(0.2), "too_short"),
    "mostly clipped": (np.clip(20 * speechlike(), -1, 1), "clipped"),
}


@pytest.mark.parametrize("name", ABSTAINED)
def test_it_abstains_with_a_reason_unless_forced(client: TestClient, name: str) -> None:
    samples, reason = ABSTAINED[name]
    files = {"file": encode(samples)}
    response = client.post("/predict", files=files)
    assert response.status_code == 200
    answer = response.json()
    assert answer["emotion"] is None
    assert answer["abstained"] is True
    assert reason in answer["reasons"]
    assert sum(answer["scores"].values()) == pytest.approx(1)
    forced = client.post("/predict", params={"abstain": "false"}, files=files).json()
    assert forced["emotion"] is not None
    assert forced["abstained"] is False
    assert forced["scores"] == answer["scores"]


def test_long_audio_is_a_timeline(client: TestClient) -> None:
    query = {"window_s": 2, "hop_s": 1}
    segments = client.post("/predict", params=query, content=encode(speechlike(10))).json()[
        "segments"
    ]
    starts = [segment["start_s"] for segment in segments]
    assert len(segments) >= 9
    assert starts == sorted(starts)
    assert all(one["end_s"] - one["start_s"] == pytest.approx(2) for one in segments)
    assert segments[-1]["end_s"] <= 10


def test_only_the_emotions_that_occur_are_answered(client: TestClient, clip: bytes) -> None:
    whole = client.post("/predict?abstain=false", content=clip).json()
    least = sorted(whole["scores"], key=whole["scores"].get)[:2]
    query = {"abstain": "false", "emotions": least}
    answer = client.post("/predict", params=query, content=clip).json()
    assert answer["emotion"] == least[1]
    assert sum(answer["scores"][name] for name in least) == pytest.approx(1)
    assert set(answer["scores"]) == set(whole["scores"])
    told = problem(client.post("/predict?emotions=joy", content=clip), 422, "bad_parameter")
    assert "joy" in told["detail"]


TURNS = '[{"start_s": 1, "end_s": 2.5, "speaker": "Ada"}, {"start_s": 3, "end_s": 5}]'
RTTM = "SPEAKER call 1 1.0 1.5 <NA> <NA> Ada <NA> <NA>\nSPEAKER call 1 3 2 <NA> <NA> B <NA> <NA>"


@pytest.mark.parametrize("how", ["query", "field", "file"])
def test_given_turns_are_scored_and_nothing_else(client: TestClient, how: str) -> None:
    files: dict[str, object] = {"file": ("call.wav", encode(speechlike(6)))}
    if how == "file":
        files["turns"] = ("call.rttm", RTTM)
    answer = client.post(
        "/predict",
        params={"turns": TURNS} if how == "query" else None,
        data={"turns": TURNS} if how == "field" else None,
        files=files,
    )
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert [(one["start_s"], one["end_s"]) for one in body["segments"]] == [(1, 2.5), (3, 5)]
    assert body["segments"][0]["speaker"] == body["timeline"][0]["speaker"] == "Ada"
    assert [one["speaker"] for one in body["per_speaker"]] == (
        ["Ada", "B"] if how == "file" else ["Ada"]
    )


@pytest.mark.parametrize(
    ("query", "code", "detail"),
    [
        ({"turns": '[{"start_s": 1, "end_s": 9}]'}, "bad_turns", "within the 6.00 s"),
        (
            {"turns": '[{"start_s": 1, "end_s": 2, "channel": 3}]'},
            "bad_turns",
            "the recording has 1",
        ),
        ({"turns": "hello"}, "bad_parameter", "neither RTTM nor JSON"),
        ({"segments": "words"}, "bad_parameter", "segments"),
        ({"segments": "turns", "hop_s": "1"}, "bad_parameter", "hop_s is given"),
    ],
)
def test_turns_that_do_not_fit_are_named(
    client: TestClient, query: dict[str, str], code: str, detail: str
) -> None:
    answer = client.post("/predict", params=query, files={"file": encode(speechlike(6))})
    assert answer.status_code == 422
    assert answer.json()["code"] == code
    assert detail in answer.json()["detail"]
