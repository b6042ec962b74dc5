"""Traces, as an exporter sees them."""

import http.server
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from nnpm.service.api.app import create_app
from nnpm.service.api.tracing import Tracing
from nnpm.service.settings import Settings
from tests.support.servers import serving, wait_until_ready

CALLER = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def traced(models: Path, exporter: InMemorySpanExporter) -> Iterator[TestClient]:
    provider = TracerProvider()
    app = create_app(Settings(models=models), tracing=Tracing(provider))
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    with TestClient(app, raise_server_exceptions=False) as client:
        wait_until_ready(client)
        yield client


def by_name(exporter: InMemorySpanExporter) -> dict[str, ReadableSpan]:
    return {span.name: span for span in exporter.get_finished_spans()}


def test_a_request_and_its_stages_are_spans_of_its_callers_trace(
    traced: TestClient, exporter: InMemorySpanExporter, clip: bytes
) -> None:
    response = traced.post(
        "/predict",
        files={"file": ("patient-17.wav", clip)},
        headers={"traceparent": f"00-{CALLER}-{PARENT}-01"},
    )
    timing_ms = response.json()["timing_ms"]
    spans = by_name(exporter)
    assert spans.keys() == {"POST /predict", "queue", "decode", "inference"}  # no probes
    request = spans.pop("POST /predict")
    assert request.parent is not None
    assert f"{request.parent.span_id:016x}" == PARENT
    assert {f"{span.context.trace_id:032x}" for span in (request, *spans.values())} == {CALLER}
    assert request.attributes is not None
    assert request.attributes["http.response.status_code"] == 200
    assert request.attributes["nnpm.audio_s"] == 1.5
    for name, span in spans.items():
        assert span.parent is not None
        assert span.parent.span_id == request.context.span_id
        assert span.attributes == {"nnpm.model": "default", "nnpm.version": "2"}
        assert span.start_time is not None
        assert span.end_time is not None
        assert (span.end_time - span.start_time) / 1e6 == pytest.approx(timing_ms[name], abs=1e-3)


def test_no_span_tells_what_a_client_wrote(
    traced: TestClient, exporter: InMemorySpanExporter, clip: bytes
) -> None:
    traced.post("/predict?model=default&secret-17", files={"file": ("secret-17.wav", clip)})
    traced.get("/secret-17.wav")
    traced.post("/predict", content=clip, headers={"Authorization": "Bearer secret-17"})
    told = "".join(span.to_json() for span in exporter.get_finished_spans())
    assert "/predict" in told
    assert "secret-17" not in told


def test_an_error_of_ours_fails_its_span_without_its_text(
    traced: TestClient, exporter: InMemorySpanExporter, clip: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("secret-17")

    monkeypatch.setattr("nnpm.service.inference.recognizer.Recognizer.answer", fail)
    assert traced.post("/predict", content=clip).status_code == 500
    (span,) = exporter.get_finished_spans()
    assert not span.status.is_ok
    assert "secret-17" not in span.to_json()


def test_a_process_sends_spans_where_the_environment_says(
    models: Path, tmp_path: Path, clip: bytes
) -> None:
    received: list[bytes] = []

    class Collector(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append(self.rfile.read(int(self.headers["Content-Length"])))
            assert self.path == "/v1/traces"
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    collector = http.server.HTTPServer(("127.0.0.1", 0), Collector)
    threading.Thread(target=collector.serve_forever, daemon=True).start()
    settings = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector.server_port}",
        "OTEL_EXPORTER_OTLP_COMPRESSION": "none",
    }
    with serving(models, tmp_path, **settings) as server:
        request = urllib.request.Request(f"{server.address}/predict", clip)
        request.add_header("Content-Type", "audio/wav")
        urllib.request.urlopen(request).close()
    collector.shutdown()
    collector.server_close()
    sent = [ExportTraceServiceRequest.FromString(body) for body in received]
    (resource,) = [one for request in sent for one in request.resource_spans]
    named = {one.key: one.value.string_value for one in resource.resource.attributes}
    assert named["service.name"] == "nnpm"
    spans = [span for scope in resource.scope_spans for span in scope.spans]
    assert {span.name for span in spans} == {"POST /predict", "queue", "decode", "inference"}
    (trace_id,) = {span.trace_id.hex() for span in spans}
    assert f'"trace_id": "{trace_id}"' in server.log.read_text()


def test_without_an_endpoint_nothing_of_the_extra_is_imported() -> None:
    code = (
        "import sys\n"
        "from nnpm.service.api.app import create_app\n"
        "from nnpm.service.settings import load\n"
        "create_app(load())\n"
        "print([name for name in sys.modules if name.startswith('opentelemetry.') "
        "and name.split('.')[1] in ('sdk', 'exporter')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_without_the_extra_a_line_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318")
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    assert Tracing.from_environment().telemetry["tracing"] is False
    assert "pip install '.[otel]'" in caplog.text
