import json
import re
from collections.abc import Callable
from typing import Any

import jsonschema
import numpy as np
import pytest
from fastapi.testclient import TestClient

from nnpm.service.api.errors import all_kinds
from tests.support.sounds import encode, speechlike

WAV = encode(speechlike())
TENSORS = {
    "inputs": [
        {"name": "waveform", "datatype": "FP32", "shape": [1, 1600], "data": [0.1] * 1600},
        {"name": "lengths", "datatype": "INT64", "shape": [1], "data": [1600]},
    ]
}
STEREO = encode(np.stack([speechlike()] * 2, axis=1))


@pytest.fixture
def document(client: TestClient) -> dict[str, Any]:
    loaded: dict[str, Any] = client.get("/openapi.json").json()
    return loaded


@pytest.mark.smoke
def test_the_document_is_served_with_its_page(client: TestClient) -> None:
    assert client.get("/openapi.json").json()["info"]["title"] == "nnpm"
    assert "/openapi.json" in client.get("/docs").text


REQUESTS = [
    ("/predict", "post", {"files": {"file": WAV}}, 200),
    (
        "/predict",
        "post",
        {"params": {"channels": "split", "top_k": 3, "neighbours": 2}, "files": {"file": STEREO}},
        200,
    ),
    ("/predict", "post", {"content": b""}, 422),
    ("/predict", "post", {"content": b"text"}, 415),
    ("/predict", "post", {"params": {"top_k": 99}, "files": {"file": WAV}}, 422),
    ("/predict", "post", {"params": {"model": "x"}, "files": {"file": WAV}}, 404),
    ("/predict", "post", {"content": bytes(2_000_000)}, 413),
    ("/predict/batch", "post", {"files": [("files", WAV), ("files", b"text")]}, 200),
    ("/predict/batch", "post", {"params": {"model": "x"}, "files": {"files": WAV}}, 404),
    ("/predict/batch", "post", {"files": {"file": WAV}}, 422),
    ("/predict/batch", "post", {"content": b"text"}, 415),
    ("/v2", "get", {}, 200),
    ("/v2/health/live", "get", {}, 200),
    ("/v2/health/ready", "get", {}, 200),
    ("/v2/models/default", "get", {}, 200),
    ("/v2/models/default/versions/1", "get", {}, 200),
    ("/v2/models/default/ready", "get", {}, 200),
    ("/v2/models/nope", "get", {}, 404),
    ("/v2/models/default/infer", "post", {"json": TENSORS}, 200),
    ("/v2/models/default/versions/1/infer", "post", {"json": TENSORS}, 200),
    ("/v2/models/default/infer", "post", {"json": {"inputs": []}}, 422),
    ("/v2/models/default/infer", "post", {"content": bytes(2_000_000)}, 413),
    ("/models", "get", {}, 200),
    ("/models/default", "get", {}, 200),
    ("/models/default/1", "get", {}, 200),
    ("/models/nope", "get", {}, 404),
    ("/models/default/9", "get", {}, 404),
    ("/adapt", "get", {}, 200),
    ("/adapt", "post", {"json": {"folder": "/"}}, 422),
    ("/adapt/nope", "get", {}, 404),
    ("/adapt/nope", "delete", {}, 404),
    ("/", "get", {}, 200),
    ("/tickets", "post", {"json": {"scope": "stream"}}, 201),
    ("/tickets", "post", {"json": {}}, 422),
    ("/health/live", "get", {}, 200),
    ("/health/ready", "get", {}, 200),
]


@pytest.mark.smoke
@pytest.mark.parametrize(("path", "method", "request_", "status"), REQUESTS)
def test_answers_are_what_the_document_says(
    serve: Callable[..., TestClient], path: str, method: str, request_: Any, status: int
) -> None:
    client = serve(max_upload_bytes=1_000_000, adapt_workers=0)
    document = client.get("/openapi.json").json()
    response = client.request(method, path, **request_)
    assert response.status_code == status
    template = next(one for one in document["paths"] if matches(one, path))
    documented = document["paths"][template][method]["responses"][str(status)]["content"]
    schema = documented[response.headers["content-type"]]["schema"]
    jsonschema.validate(response.json(), schema | {"components": document["components"]})


def matches(template: str, path: str) -> bool:
    ours, theirs = template.split("/"), path.split("/")
    return len(ours) == len(theirs) and all(
        a == b or a.startswith("{") for a, b in zip(ours, theirs, strict=True)
    )


def test_every_error_is_documented_as_a_problem(document: dict[str, Any]) -> None:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            for status, response in operation["responses"].items():
                if int(status) >= 400:
                    assert list(response["content"]) == ["application/problem+json"], (path, method)
    assert "HTTPValidationError" not in document["components"]["schemas"]


def test_the_document_holds_all_that_it_refers_to(document: dict[str, Any]) -> None:
    names = set(re.findall(r'"#/components/schemas/([^"]+)"', json.dumps(document)))
    assert {"Problem", "InferenceProblem", "InferRequest", "InputTensor"} <= names
    assert names <= set(document["components"]["schemas"])


def test_predict_documents_both_bodies_and_all_its_errors(document: dict[str, Any]) -> None:
    operation = document["paths"]["/predict"]["post"]
    assert set(operation["requestBody"]["content"]) == {
        "multipart/form-data", "audio/*", "video/*", "application/octet-stream"
    }  # fmt: skip
    assert {parameter["name"] for parameter in operation["parameters"]} == {
        "model", "language", "channels", "window_s", "hop_s", "top_k", "neighbours", "abstain",
        "emotions", "digits", "format", "level", "segments", "turns", "peaks",
    }  # fmt: skip
    assert all(parameter["description"] for parameter in operation["parameters"])
    # 409 is of changes, 501 of adaptation, 401 of a service with keys, 499 of the log alone
    statuses = {kind.status for kind in all_kinds()} - {409, 501, 401, 499}
    assert {str(status) for status in statuses} <= set(operation["responses"])
    assert "Retry-After" in operation["responses"]["503"]["headers"]
