"""The Open Inference Protocol as written on the wire; test_triton.py asks a client of others."""

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from nnpm.service.predict.oip import MAX_BODY_BYTES
from tests.support.servers import Hook
from tests.support.sounds import speechlike
from tests.support.tiny_bundle import (
    LABELS,
    WIDTH,
    classify,
    embed,
    expected_probabilities,
    write_first_bundle,
)

INFER = "/v2/models/default/infer"
CLIPS = [speechlike(0.5), speechlike(0.8, seed=1)]
SAMPLES = max(map(len, CLIPS))
WAVEFORM = np.stack([np.pad(clip, (0, SAMPLES - len(clip))) for clip in CLIPS]).astype(np.float32)
LENGTHS = np.array([len(clip) for clip in CLIPS])


def document(**changes: Any) -> dict[str, Any]:
    """A good request; ``changes`` replace fields of its inputs, as ``waveform_shape=``."""
    waveform = {
        "name": "waveform", "datatype": "FP32", "shape": list(WAVEFORM.shape),
        "data": WAVEFORM.ravel().tolist(),
    }  # fmt: skip
    lengths = {
        "name": "lengths", "datatype": "INT64", "shape": [len(CLIPS)], "data": LENGTHS.tolist(),
    }  # fmt: skip
    for key, value in changes.items():
        name, _, field = key.partition("_")
        {"waveform": waveform, "lengths": lengths}[name][field] = value
    return {"inputs": [waveform, lengths]}


def binary(header: dict[str, Any] | None = None, tail: bytes | None = None) -> Any:
    """A good request with its tensors as bytes; body and headers."""
    inputs = document()["inputs"]
    tails = [WAVEFORM.astype("<f4").tobytes(), LENGTHS.astype("<i8").tobytes()]
    for tensor, data in zip(inputs, tails, strict=True):
        del tensor["data"]
        tensor["parameters"] = {"binary_data_size": len(data)}
    head = json.dumps({"inputs": inputs} | (header or {})).encode()
    body = head + (b"".join(tails) if tail is None else tail)
    return {"content": body, "headers": {"Inference-Header-Content-Length": str(len(head))}}


def refused(response: Any, status: int = 422, code: str = "bad_inference_request") -> str:
    """Check that it is a problem, and an error of the protocol too."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    body = response.json()
    assert set(body) == {"type", "title", "status", "detail", "code", "request_id", "error"}
    assert body["code"] == code
    assert body["error"] == body["detail"]
    return str(body["error"])


@pytest.mark.smoke
def test_json_in_and_out(client: TestClient) -> None:
    response = client.post(INFER, json=document() | {"id": "mine"})
    assert response.headers["content-type"] == "application/json"
    answer = response.json()
    assert set(answer) == {"model_name", "model_version", "id", "outputs"}
    assert (answer["model_name"], answer["model_version"], answer["id"]) == ("default", "2", "mine")
    outputs = {output["name"]: output for output in answer["outputs"]}
    expected = np.stack([embed(clip.astype(np.float32)) for clip in CLIPS])
    tell = {
        "embedding": expected,
        "logits": np.stack([classify(clip.astype(np.float32)) for clip in CLIPS]),
    }
    for name, values in tell.items():
        assert outputs[name]["datatype"] == "FP32"
        assert outputs[name]["shape"] == list(values.shape)
        assert outputs[name]["data"] == pytest.approx(values.ravel(), abs=1e-4)
    assert list(outputs) == ["probabilities", "out_of_domain", "embedding", "logits", "scores"]
    assert outputs["out_of_domain"]["shape"] == [2]
    assert outputs["scores"] == outputs["probabilities"] | {"name": "scores"}
    scores = np.reshape(outputs["scores"]["data"], outputs["scores"]["shape"])
    assert scores.sum(axis=1) == pytest.approx([1, 1], abs=1e-5)
    by_classifier = np.stack([expected_probabilities(clip.astype(np.float32)) for clip in CLIPS])
    assert (np.abs(scores - by_classifier) < 0.3).all()  # the vote has 0.3 of the say


@pytest.mark.parametrize("asked", [{"binary_data_output": True}, {"binary_data_output": False}])
def test_bytes_in_and_out_say_the_same(client: TestClient, asked: dict[str, Any]) -> None:
    plain = client.post(INFER, json=document()).json()["outputs"]
    response = client.post(INFER, **binary({"parameters": asked}))
    if not asked["binary_data_output"]:
        assert response.json()["outputs"] == plain
        return
    assert response.headers["content-type"] == "application/octet-stream"
    length = int(response.headers["inference-header-content-length"])
    outputs, rest = json.loads(response.content[:length])["outputs"], response.content[length:]
    for output, other in zip(outputs, plain, strict=True):
        assert "data" not in output
        size = output["parameters"]["binary_data_size"]
        values, rest = np.frombuffer(rest[:size], "<f4"), rest[size:]
        assert values.tolist() == other["data"]
        assert output["shape"] == other["shape"]
    assert rest == b""


def test_the_outputs_that_are_asked_for_in_their_order(client: TestClient) -> None:
    outputs = [{"name": "scores"}, {"name": "logits", "parameters": {"binary_data": True}}]
    response = client.post(INFER, json=document() | {"outputs": outputs})
    length = int(response.headers["inference-header-content-length"])
    answer = json.loads(response.content[:length])
    assert [output["name"] for output in answer["outputs"]] == ["scores", "logits"]
    assert len(response.content) - length == 4 * len(CLIPS) * len(LABELS)
    for asked, said in (
        ([{"name": "nope"}], "'nope'"),
        ([{"name": "scores"}, {"name": "scores"}], "twice"),
        ([{"name": "scores", "parameters": {"classification": 2}}], "classification"),
        ([{"name": "scores", "parameters": {"shared_memory_region": "x"}}], "shared_memory"),
    ):
        told = refused(client.post(INFER, json=document() | {"outputs": asked}))
        assert said in told


def test_neither_padding_nor_the_batch_change_an_answer(client: TestClient) -> None:
    def scores(rows: np.ndarray, lengths: list[int]) -> list[float]:
        request = document(
            waveform_shape=list(rows.shape), waveform_data=rows.ravel().tolist(),
            lengths_shape=[len(lengths)], lengths_data=lengths,
        ) | {"outputs": [{"name": "scores"}]}  # fmt: skip
        found: list[float] = client.post(INFER, json=request).json()["outputs"][0]["data"]
        return found

    alone = scores(WAVEFORM[:1, : LENGTHS[0]], [int(LENGTHS[0])])
    noisy = WAVEFORM.copy()
    noisy[0, LENGTHS[0] :] = 0.5
    assert scores(noisy, LENGTHS.tolist())[: len(LABELS)] == pytest.approx(alone, abs=1e-6)


def test_nested_data_is_the_same_as_flat(client: TestClient) -> None:
    flat = client.post(INFER, json=document()).json()
    assert client.post(INFER, json=document(waveform_data=WAVEFORM.tolist())).json() == flat


HUGE = 10**30
BAD = {
    "another datatype": (document(waveform_datatype="FP64"), "it must be FP32"),
    "another datatype of lengths": (document(lengths_datatype="INT32"), "it must be INT64"),
    "one axis": (document(waveform_shape=[WAVEFORM.size]), "it must be [rows, samples]"),
    "three axes": (document(waveform_shape=[1, 1, 1]), "it must be [rows, samples]"),
    "no axis": (document(lengths_shape=[]), "it must be [rows]"),
    "no rows": (document(waveform_shape=[0, 8000]), "1 or more"),
    "negative": (document(waveform_shape=[-1, 8000]), "1 or more"),
    "a huge shape": (document(waveform_shape=[1, HUGE]), "960000"),
    "huge lengths": (document(lengths_shape=[HUGE]), "at most 64"),
    "many rows": (document(waveform_shape=[65, 8000]), "at most 64"),
    "long rows": (document(waveform_shape=[1, 960_001]), "at most 960000"),
    "too much in all": (document(waveform_shape=[8, 240_001]), "at most 240000"),
    "a shape that lies": (document(waveform_shape=[2, 9_000]), "18000 numbers"),
    "a shape of floats": (document(waveform_shape=[2.5, 1]), "shape"),
    "a shape of booleans": (document(waveform_shape=[True, 1]), "shape"),
    "a shape with a long tail": (document(waveform_shape=[1] * 99), "shape"),
    "ragged": (document(waveform_data=[[0.0], [0.0, 1.0]]), "must be 25600 numbers"),
    "strings": (document(waveform_data=["0.5"] * WAVEFORM.size), "must be numbers only"),
    "nothing": (document(waveform_data=[None] * WAVEFORM.size), "must be numbers only"),
    "booleans": (document(lengths_data=[True, False]), "must be integers only"),
    "fractions": (document(lengths_data=[8000.5, 9000]), "must be integers only"),
    "no list": (document(waveform_data="0.5"), "send a list 'data'"),
    "no data": (document(waveform_data=None), "send a list 'data'"),
    "not finite": (document(waveform_data=[1e39] * WAVEFORM.size), "magnitude inf"),
    "integers": (document(waveform_data=[9000] * WAVEFORM.size), "divide 16-bit integers"),
    "length 0": (document(lengths_data=[0, 8000]), "is 0; it must be between 1600 (0.1 s"),
    "a length beyond the row": (document(lengths_data=[8000, 12_801]), "lengths[1] is 12801"),
    "a length that wraps": (document(lengths_data=[2**63] * 2), "lengths[0] is -9223372036854"),
    "too large for a number": (document(lengths_data=[8000, 2**70]), "must be integers only"),
    "fewer lengths": (document(lengths_shape=[1], lengths_data=[8000]), "lengths has 1 rows"),
    "another input": ({"inputs": [{**document()["inputs"][0], "name": "x"}]}, "'x'"),
    "the same twice": ({"inputs": document()["inputs"][:1] * 2}, "twice"),
    "one missing": ({"inputs": document()["inputs"][:1]}, "'lengths' is missing"),
    "no inputs": ({}, "inputs is missing"),
    "no document": ([], "The JSON document"),
    "shared memory": (
        document(waveform_parameters={"shared_memory_region": "x"}), "shared memory"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_tensors_that_lie_are_refused_with_the_numbers(client: TestClient, name: str) -> None:
    request, said = BAD[name]
    assert said in refused(client.post(INFER, json=request))


@pytest.mark.parametrize("literal", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_numbers_that_json_does_not_know(client: TestClient, literal: str) -> None:
    text = json.dumps(document(waveform_data=["X", *WAVEFORM.ravel().tolist()[1:]]))
    told = refused(client.post(INFER, content=text.replace('"X"', literal)))
    assert "waveform[0] has a sample of magnitude" in told


def test_not_a_number_as_bytes(client: TestClient) -> None:
    tail = np.where(np.arange(WAVEFORM.size) == 9000, np.nan, 0.1).astype("<f4").tobytes()
    tail += LENGTHS.astype("<i8").tobytes()
    told = refused(client.post(INFER, **binary(tail=tail)))
    assert "magnitude nan" in told


@pytest.mark.parametrize("length", ["-1", "x", "99999999", "1e3", "", "²", "0" * 40])
def test_a_header_length_that_cannot_be(client: TestClient, length: str) -> None:
    request = binary()
    request["headers"] = {"Inference-Header-Content-Length": length.encode()}
    refused(client.post(INFER, **request))


def test_bytes_that_are_missing_or_left_over(client: TestClient) -> None:
    tail = WAVEFORM.tobytes() + struct.pack("<qq", *LENGTHS)
    assert "8 bytes are left in the body for lengths, which has 16" in refused(
        client.post(INFER, **binary(tail=tail[:-8]))
    )
    assert "1 bytes follow" in refused(client.post(INFER, **binary(tail=tail + b"x")))
    for size in (0, 4, -4, True, "64", 1e9, [1], WAVEFORM.nbytes + 4):
        request = document(waveform_parameters={"binary_data_size": size}, waveform_data=None)
        assert f"it must be {WAVEFORM.nbytes} for the shape" in refused(
            client.post(INFER, json=request)
        )
    both = document(waveform_parameters={"binary_data_size": WAVEFORM.nbytes})
    assert "both" in refused(client.post(INFER, json=both))


@pytest.mark.parametrize("body", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b"null", b'{"inputs":1}'])
def test_bodies_that_are_no_document(client: TestClient, body: bytes) -> None:
    refused(client.post(INFER, content=body))


def test_a_body_over_the_limit_is_cut_off(client: TestClient) -> None:
    response = client.post(INFER, content=bytes(MAX_BODY_BYTES + 1))
    assert str(MAX_BODY_BYTES) in refused(response, 413, "too_large")


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_compressed_bodies_are_refused(client: TestClient, encoding: str) -> None:
    response = client.post(INFER, json=document(), headers={"Content-Encoding": encoding})
    assert encoding in refused(response, 415, "bad_content_encoding")


def test_versions_and_unknown_ones(client: TestClient) -> None:
    response = client.post("/v2/models/default/versions/1/infer", json=document())
    assert response.json()["model_version"] == "1"
    for path in ("default/versions/9", "nope", "nope/versions/1"):
        refused(client.get(f"/v2/models/{path}"), 404, "unknown_model")
        refused(client.get(f"/v2/models/{path}/ready"), 404, "unknown_model")
        refused(client.post(f"/v2/models/{path}/infer", json=document()), 404, "unknown_model")
    refused(client.get("/v2/nowhere"), 404, "not_found")
    refused(client.get(INFER), 405, "method_not_allowed")


def test_metadata(client: TestClient) -> None:
    assert client.get("/v2").json()["extensions"] == ["binary_tensor_data"]
    assert client.get("/v2/health/live").json() == {"live": True}
    assert client.get("/v2/health/ready").json() == {"ready": True}
    assert client.get("/v2/models/default/ready").json() == {"name": "default", "ready": True}
    found = client.get("/v2/models/default").json()
    assert found["versions"] == ["1", "2"]
    assert found["parameters"]["labels"] == list(LABELS)
    shapes = {tensor["name"]: tensor["shape"] for tensor in found["inputs"] + found["outputs"]}
    assert shapes == {
        "waveform": [-1, -1], "lengths": [-1], "logits": [-1, len(LABELS)],
        "embedding": [-1, WIDTH], "scores": [-1, len(LABELS)],
        "probabilities": [-1, len(LABELS)], "out_of_domain": [-1],
    }  # fmt: skip
    assert client.get("/v2/models/default/versions/1").json()["versions"] == ["1"]


def test_a_graph_that_answers_no_numbers_is_an_error(
    serve: Callable[..., TestClient], hook: Hook, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = serve()
    recognizer = client.app.state.services.serving.choose().recognizer
    good = recognizer.model.run(WAVEFORM, LENGTHS)
    nothing = good._replace(logits=np.full_like(good.logits, np.nan))
    monkeypatch.setattr(recognizer.model, "run", lambda waveform, lengths: nothing)
    assert "not finite" in refused(client.post(INFER, json=document()))


def test_what_is_heard_is_counted(serve: Callable[..., TestClient]) -> None:
    client = serve()
    client.post(INFER, json=document())
    text = client.get("/metrics").text
    assert f"nnpm_audio_seconds_total {LENGTHS.sum() / 16_000}" in text
    assert 'nnpm_requests_total{route="/v2/models/{name}/infer",status="200"} 1.0' in text


def test_a_version_of_the_first_generation_keeps_its_three_outputs(
    models: Path, serve: Callable[..., TestClient]
) -> None:
    write_first_bundle(models / "default/3")
    client = serve()
    found = client.get("/v2/models/default/versions/3").json()["outputs"]
    assert [output["name"] for output in found] == ["logits", "embedding", "scores"]
    answer = client.post("/v2/models/default/versions/3/infer", json=document())
    outputs = {output["name"]: output["data"] for output in answer.json()["outputs"]}
    assert list(outputs) == ["logits", "embedding", "scores"]
    assert np.reshape(outputs["scores"], (2, 4)).sum(axis=1) == pytest.approx([1, 1], abs=1e-5)
    asked = document() | {"outputs": [{"name": "probabilities"}]}
    refused(client.post("/v2/models/default/versions/3/infer", json=asked))
