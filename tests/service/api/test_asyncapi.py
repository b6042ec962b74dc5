"""The AsyncAPI document of WS /stream: valid, and true of what is sent."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from fastapi.testclient import TestClient

from tests.support.keys import make_keys
from tests.support.sounds import speechlike

SPECIFICATION = Path(__file__).with_name("data") / "asyncapi-3.0.0.json"


@pytest.fixture
def document(client: TestClient) -> dict[str, Any]:
    loaded: dict[str, Any] = client.get("/asyncapi.json").json()
    return loaded


def payload(document: dict[str, Any], name: str) -> Any:
    """A validator of one message."""
    message = document["components"]["messages"][name]["payload"]
    schema = {**message, "components": document["components"]}
    return jsonschema.Draft202012Validator(schema)


def test_it_is_valid(document: dict[str, Any]) -> None:
    specification = json.loads(SPECIFICATION.read_bytes())
    validator = jsonschema.validators.validator_for(specification)(specification)
    assert [error.message for error in validator.iter_errors(document)] == []
    for schema in document["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    def follow(value: Any) -> None:
        if isinstance(value, dict):
            if isinstance(target := value.get("$ref"), str):
                found: Any = document
                for part in target.removeprefix("#/").split("/"):
                    found = found[part]
            for inside in value.values():
                follow(inside)
        elif isinstance(value, list):
            for inside in value:
                follow(inside)

    follow(document)


def test_messages_are_as_it_says(client: TestClient, document: dict[str, Any]) -> None:
    hello = {"sample_rate_hz": 16_000, "channels": 1, "window_s": 1, "hop_s": 1}
    payload(document, "hello").validate(hello)
    payload(document, "hello_webm").validate({"format": "webm", "language": "ur"})
    payload(document, "end").validate({"end": True})
    with client.websocket_connect("/stream") as socket:
        socket.send_json(hello)
        socket.send_bytes((speechlike(3) * 32_767).astype("<i2").tobytes())
        socket.send_json({"end": True})
        told = [socket.receive_json()]
        while told[-1]["type"] == "segment":
            told.append(socket.receive_json())
    assert {one["type"] for one in told} == {"segment", "final"}
    with client.websocket_connect("/stream") as socket:
        socket.send_json({"sample_rate_hz": 1})
        told.append(socket.receive_json())
    for one in told:
        payload(document, one["type"]).validate(one)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("hello", {"sample_rate_hz": 16_000}),
        ("hello", {"sample_rate_hz": 1, "channels": 1}),
        ("hello", {"sample_rate_hz": 16_000, "channels": 1, "more": 1}),
        ("hello_webm", {"format": "ogg"}),
        ("end", {"end": False}),
        ("segment", {"type": "final"}),
    ],
)
def test_other_messages_are_not(document: dict[str, Any], name: str, message: Any) -> None:
    assert not payload(document, name).is_valid(message)


def test_it_needs_no_key(serve: Callable[..., TestClient], tmp_path: Path) -> None:
    make_keys(tmp_path / "keys.json")
    keyed = serve(api_keys_file=tmp_path / "keys.json")
    assert keyed.get("/asyncapi.json").json()["asyncapi"] == "3.0.0"
