"""Clients that generators make of the OpenAPI document: all of it, without a warning."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from fastapi.testclient import TestClient

from nnpm.service.api.openapi import examples
from scripts.examples import OPERATIONS, answers

ROOT = Path(__file__).parents[3]
# Types of content that openapi-python-client does not know: bytes.
BYTES = ("audio/*", "video/*", "audio/wav")


@pytest.fixture
def document(client: TestClient) -> dict[str, Any]:
    loaded: dict[str, Any] = client.get("/openapi.json").json()
    return loaded


def operations(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {
        operation["operationId"]: {**operation, "path": path}
        for path, methods in document["paths"].items()
        for operation in methods.values()
    }


def test_operations_have_names_of_their_own(document: dict[str, Any]) -> None:
    found = operations(document)
    assert len(found) == sum(len(methods) for methods in document["paths"].values())
    assert {"predict", "predict_batch", "adapt", "list_jobs", "show_report"} <= set(found)
    assert all(re.fullmatch(r"[a-z][a-z_]*", name) for name in found)
    known = {tag["name"] for tag in document["tags"]}
    assert {tag for one in found.values() for tag in one["tags"]} == known
    assert all(tag["description"] for tag in document["tags"])


def test_the_document_says_whose_it_is(document: dict[str, Any]) -> None:
    info = document["info"]
    assert info["license"] == {"name": "Apache License 2.0", "identifier": "Apache-2.0"}
    assert "`POST /predict`" in info["description"]
    assert info["summary"]


def test_parameters_exist_and_are_never_null(document: dict[str, Any]) -> None:
    for name, operation in operations(document).items():
        parameters = operation.get("parameters", [])
        in_path = {one["name"] for one in parameters if one["in"] == "path"}
        assert in_path == set(re.findall(r"{(\w+)}", operation["path"])), name
        assert all(one["required"] for one in parameters if one["in"] == "path"), name
        for one in parameters:
            assert {"type": "null"} not in one["schema"].get("anyOf", []), (name, one["name"])
        version = [one["in"] for one in parameters if one["name"] == "version"]
        assert version in ([], ["path"]), name


@pytest.mark.parametrize("name", OPERATIONS)
def test_examples_are_what_the_document_says(document: dict[str, Any], name: str) -> None:
    example = examples()[name]
    content = operations(document)[name]["responses"][str(example["status"])]["content"]
    assert content["application/json"]["example"] == example["body"]
    schema = content["application/json"]["schema"] | {"components": document["components"]}
    jsonschema.validate(example["body"], schema)


def test_examples_have_the_fields_of_today(
    client: TestClient, serve: Any, clip: bytes, tmp_path: Path
) -> None:
    """If not: make examples CLIP=clip.wav."""
    own = serve(adapt_roots=(tmp_path,), adapt_workers=0)
    today = answers(own, clip, ".wav", tmp_path)
    assert set(today) == set(examples()) == set(OPERATIONS)
    for name, answer in today.items():
        example = examples()[name]
        assert answer["status"] == example["status"], name
        assert set(answer["body"]) == set(example["body"]), name


@pytest.mark.slow  # some seconds each
def test_openapi_python_client_makes_all_of_it(document: dict[str, Any], tmp_path: Path) -> None:
    pytest.importorskip("openapi_python_client", reason="pip install openapi-python-client")
    (tmp_path / "openapi.json").write_text(json.dumps(document))
    config = {
        "content_type_overrides": dict.fromkeys(BYTES, "application/octet-stream"),
        "post_hooks": [],
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    done = subprocess.run(
        [sys.executable, "-m", "openapi_python_client", "generate", "--meta", "none",
         "--path", "openapi.json", "--output-path", "made", "--config", "config.json",
         "--fail-on-warning"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    made = {path.stem for path in (tmp_path / "made/api").glob("*/*.py")} - {"__init__"}
    assert made == set(operations(document))
    for path in (tmp_path / "made").rglob("*.py"):
        ast.parse(path.read_text("utf-8"))


def _openapi_typescript() -> list[str] | None:
    """The command, if it is at hand: on the path, or where NNPM_TEST_NODE has its modules."""
    folder = os.environ.get("NNPM_TEST_NODE")
    path = f"{folder}/node_modules/.bin" if folder else None
    found = shutil.which("openapi-typescript", path=path) or shutil.which("openapi-typescript")
    return [found] if found and shutil.which("node") else None


@pytest.mark.slow
def test_openapi_typescript_makes_all_of_it(document: dict[str, Any]) -> None:
    command = _openapi_typescript()
    if command is None:
        pytest.skip(
            "openapi-typescript is not installed: npm install openapi-typescript typescript in a "
            "folder that NNPM_TEST_NODE names"
        )
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "openapi.json").write_text(json.dumps(document))
        done = subprocess.run(
            [*command, "openapi.json", "-o", "api.d.ts"],
            cwd=folder, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        text = (Path(folder) / "api.d.ts").read_text("utf-8")
    for name in operations(document):
        assert f'operations["{name}"]' in text, name
