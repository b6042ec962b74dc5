"""Requests that schemathesis makes of the OpenAPI document, against a real server.

``SCHEMATHESIS_EXAMPLES`` sets how many are drawn for each operation; `make schemathesis` asks for
many. What is tried beside them, at the edges of every schema, does not depend on it.
"""

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
import schemathesis
import uvicorn
from hypothesis import strategies as st
from schemathesis.checks import CheckFunction
from schemathesis.specs.openapi.checks import (
    negative_data_rejection,
    positive_data_acceptance,
)

from nnpm.service.api.app import create_app
from nnpm.service.api.routes.predict import BODY as AUDIO_BODY
from nnpm.service.settings import Settings
from tests.support.hostile.seeds import seeds
from tests.support.tiny_bundle import write_tiny_bundle

EXAMPLES = int(os.environ.get("SCHEMATHESIS_EXAMPLES", "5"))

sounds = st.one_of(st.sampled_from(list(seeds().values())), st.binary(max_size=1000))
schemathesis.openapi.format("binary", sounds)
for media_type in AUDIO_BODY["content"]:
    if media_type != "multipart/form-data":
        schemathesis.openapi.media_type(media_type, sounds)

schema = schemathesis.openapi.from_dict(create_app(Settings(models=Path("/nowhere"))).openapi())


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A service of this module's own, which may be changed."""
    home = tmp_path_factory.mktemp("home")
    for version in ("1", "2"):
        write_tiny_bundle(home / "models" / "default" / version)
    settings = Settings(models=home / "models", adapt_workers=0, max_upload_bytes=1 << 20)
    server = uvicorn.Server(uvicorn.Config(create_app(settings), port=0, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not (server.started and server.servers[0].sockets):
        assert thread.is_alive()
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join()


@pytest.mark.slow
@schema.parametrize()
@hypothesis.settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(hypothesis.HealthCheck),
)
def test_every_answer_is_what_the_document_says(case: schemathesis.Case, address: str) -> None:
    case.call_and_validate(base_url=address, excluded_checks=excluded(case))


def excluded(case: schemathesis.Case) -> list[CheckFunction]:
    """The checks that do not hold of an operation, and why."""
    checks: list[CheckFunction] = []
    if case.operation.definition.raw.get("requestBody"):
        # A document cannot say which bytes are audio, which tags are languages, and which folders
        # are there: what fits the schema may be refused.
        checks.append(positive_data_acceptance)
    if case.media_type == "multipart/form-data":
        # Fields of a form are text: "0", "on" and "yes" are booleans there as well.
        checks.append(negative_data_rejection)
    return checks
