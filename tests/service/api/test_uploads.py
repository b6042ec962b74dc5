"""What uploads may be wrapped in, and where they may not be put: fields, encodings, a full disk."""

import errno
import gzip
import io
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from tests.support.adaptation import kept, zipped
from tests.support.problems import problem
from tests.support.sounds import encode, speechlike

WAV = encode(speechlike(), subtype="PCM_16")
LONG = encode(speechlike(40), subtype="PCM_16")  # over the mebibyte that stays in memory
FORM = {"Content-Type": "multipart/form-data; boundary=x"}
Client = Callable[..., TestClient]


def part(headers: str, body: bytes) -> bytes:
    return f"--x\r\nContent-Disposition: form-data; {headers}\r\n\r\n".encode() + body + b"\r\n"


SENT: dict[str, Callable[[TestClient, bytes], Any]] = {
    "predict, form": lambda c, audio: c.post("/predict", files={"file": audio}),
    "predict, raw": lambda c, audio: c.post("/predict", content=audio),
    "batch": lambda c, audio: c.post("/predict/batch", files={"files": audio}),
    "adapt": lambda c, audio: c.post("/adapt", files={"files": audio}),
    "v2": lambda c, audio: c.post("/v2/models/default/infer", content=audio),
}


class Full(io.BytesIO):
    """A file on a full disk, also when it is closed."""

    def write(self, _: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def close(self) -> None:
        super().close()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("way", SENT)
def test_a_full_disk_is_503_and_leaves_nothing(
    start: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    client = start(adapt_workers=0)
    opened = Path.open
    monkeypatch.setattr("tempfile.TemporaryFile", lambda *_, **__: Full())
    monkeypatch.setattr("nnpm.service.api.routes.batch.TemporaryFile", lambda *_, **__: Full())
    monkeypatch.setattr(
        "pathlib.Path.open",
        lambda path, mode="r", **how: Full() if mode == "xb" else opened(path, mode, **how),
    )
    answer = SENT[way](client, LONG)
    assert "full" in problem(answer, 503, "storage_full")["detail"]
    assert int(answer.headers["retry-after"]) > 0
    assert kept(tmp_path) == []


@pytest.mark.parametrize("way", [way for way in SENT if way != "adapt"])
def test_no_folder_for_temporary_files_is_503(
    serve: Client, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    client = serve()
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere")
    problem(SENT[way](client, LONG), 503, "storage_full")


@pytest.mark.parametrize("way", SENT)
def test_a_compressed_body_is_named(start: Client, tmp_path: Path, way: str) -> None:
    client = start(adapt_workers=0)
    client.headers["Content-Encoding"] = "gzip"
    detail = problem(SENT[way](client, gzip.compress(WAV)), 415, "bad_content_encoding")["detail"]
    assert "Content-Encoding is 'gzip'" in detail
    client.headers["Content-Encoding"] = "identity"
    assert SENT[way](client, WAV).status_code in (200, 202, 422)
    assert len(kept(tmp_path)) == (way == "adapt")


@pytest.mark.parametrize("way", ["predict, form", "predict, raw"])
@pytest.mark.parametrize(
    ("name", "packed"), [("gzip", gzip.compress(WAV)), ("zstd", b"(\xb5/\xfd")]
)
def test_compressed_audio_is_named_without_the_header(
    client: TestClient, way: str, name: str, packed: bytes
) -> None:
    answer = problem(SENT[way](client, packed), 415, "bad_content_encoding")
    assert f"Content-Encoding: {name}" in answer["detail"]


def test_compressed_audio_in_a_batch_is_one_item(client: TestClient) -> None:
    files = [("files", ("a.gz", gzip.compress(WAV))), ("files", ("b.wav", WAV))]
    packed, plain = client.post("/predict/batch", files=files).json()["results"]
    assert packed["error"]["code"] == "bad_content_encoding"
    assert plain["answer"]


@pytest.mark.parametrize("path", ["/predict", "/predict/batch"])
def test_fields_of_the_form_are_parameters(client: TestClient, path: str) -> None:
    body = (
        part('name="top_k"', b"2") + part('name="emotions"', b"angry")
        + part(f'name="{"file" if path == "/predict" else "files"}"; filename="a"', WAV)
        + part('name="emotions"', b"sad") + part('name="language"', b"pt_br") + b"--x--\r\n"
    )  # fmt: skip
    answer = client.post(path, content=body, headers=FORM).json()
    if path == "/predict/batch":
        answer = answer["results"][0]["answer"]
    assert {one["emotion"] for one in answer["top"]} == {"angry", "sad"}


@pytest.mark.parametrize("path", ["/predict", "/predict/batch"])
@pytest.mark.parametrize(
    ("query", "fields", "wanted"),
    [
        ("channel=split", {}, "'channel' is not a known parameter; known are model, "),
        ("channel=split", {}, "Did you mean channels?"),
        ("", {"langauge": "ur"}, "'langauge' is not a known field of the form"),
        ("", {"langauge": "ur"}, "Did you mean language?"),
        ("x=1", {}, "'x' is not a known parameter"),
        ("language=ur", {"language": "de"}, "language is both 'ur' and 'de'; send it once."),
        ("top_k=1&top_k=2", {}, "top_k is both '1' and '2'; send it once."),
        ("", {"top_k": "9"}, "top_k is 9; it must be at most 8."),
        ("window_s=1", {"hop_s": "2"}, "hop_s is 2; it must be between 0.1 and window_s (1)."),
        ("", {"language": "urdu!"}, "language is 'urdu!'; it must be a BCP-47 tag"),
    ],
)  # fmt: skip
def test_what_is_no_parameter_is_422_by_name(
    client: TestClient, path: str, query: str, fields: dict[str, str], wanted: str
) -> None:
    files = {"file" if path == "/predict" else "files": WAV}
    answer = client.post(f"{path}?{query}", data=fields, files=files)
    assert wanted in problem(answer, 422, "bad_parameter")["detail"]


def test_the_same_value_twice_is_no_conflict(client: TestClient) -> None:
    answer = client.post("/predict?top_k=2", data={"top_k": "2"}, files={"file": WAV})
    assert len(answer.json()["top"]) == 2


@pytest.mark.parametrize("given", ["", "auto", "AUTO", " "])
def test_no_language_is_none(client: TestClient, given: str) -> None:
    answer = client.post("/predict", params={"language": given}, files={"file": WAV})
    assert answer.json()["model"]["language"] == "und"


def test_languages_are_written_in_their_canonical_form(start: Client) -> None:
    client = start(adapt_workers=0)
    promoted = client.post("/models/default/promote", json={"version": "1", "language": "zh_CN"})
    assert list(promoted.json()["aliases"]) == ["zh-CN"]
    for tag in ("zh_CN", "zh-cn", "zh-CN"):
        answer = client.post("/predict", params={"language": tag}, files={"file": WAV})
        assert answer.json()["model"]["language"] == "zh-CN"
    for given, read in {"ur_PK": "ur-PK", "auto": "und", "": "und"}.items():
        sent = {"language": given}
        assert client.post("/adapt", data=sent, files={"files": WAV}).json()["language"] == read


def test_adapt_names_unknown_fields_and_parameters(start: Client, tmp_path: Path) -> None:
    client = start(adapt_workers=0)
    answer = client.post("/adapt", data={"langauge": "ur"}, files={"files": WAV})
    assert "Did you mean language?" in problem(answer, 422, "bad_parameter")["detail"]
    answer = client.post("/adapt?language=ur", files={"files": WAV})
    assert "'language' is in the query" in problem(answer, 422, "bad_parameter")["detail"]
    answer = client.post("/adapt", json={"folder": "/x", "langauge": "ur"})
    assert "Did you mean language?" in problem(answer, 422, "bad_parameter")["detail"]
    assert kept(tmp_path) == []


@pytest.mark.parametrize("name", ["files", "file"])
def test_an_archive_in_the_wrong_part_is_named(start: Client, tmp_path: Path, name: str) -> None:
    sent = {name: ("clips.zip", zipped("a.wav"))}
    answer = start(adapt_workers=0).post("/adapt", files=sent)
    assert "'archive'" in problem(answer, 422, "bad_form")["detail"]
    assert kept(tmp_path) == []


def test_a_file_needs_no_name(start: Client) -> None:
    client = start(adapt_workers=0)
    for path, name in (("/predict", "file"), ("/predict/batch", "files"), ("/adapt", "files")):
        body = part(f'name="{name}"', WAV) + b"--x--\r\n"
        answer = client.post(path, content=body, headers=FORM)
        assert answer.status_code in (200, 202), answer.text
        if path == "/predict/batch":
            assert answer.json()["results"][0]["file"] == "recording 1"


@pytest.mark.parametrize("kind", ["application/ogg", "binary/octet-stream", "AUDIO/ogg; codecs=x"])
def test_types_that_audio_is_sent_with(client: TestClient, kind: str) -> None:
    ogg = encode(speechlike(), container="OGG")
    answer = client.post("/predict", content=ogg, headers={"Content-Type": kind})
    assert answer.json()["audio"]["format"] == "OGG"
