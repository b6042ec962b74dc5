"""What a real process writes into its log."""

import http.client
import io
import json
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import connect

from nnpm.service.settings import load
from tests.support.servers import Server, serving

pytestmark = pytest.mark.slow  # processes and clocks: the same with every Python

FAILING = (
    "from nnpm.service.inference.recognizer import Recognizer\n"
    "def fail(*args): raise RuntimeError('nobody foresaw this\\nsecond line')\n"
    "Recognizer.answer = fail"
)


def records(server: Server) -> list[dict[str, Any]]:
    return [json.loads(line) for line in server.log.read_text().splitlines()]


def send(server: Server, body: bytes, path: str = "/predict", **headers: str) -> tuple[int, str]:
    """Post a form; return the status and the request's id."""
    form = (
        b'--b\r\nContent-Disposition: form-data; name="file"; filename="patient-17.wav"\r\n\r\n'
        + body
        + b"\r\n--b--\r\n"
    )
    connection = http.client.HTTPConnection(server.host, server.port, timeout=10)
    headers = {"Content-Type": "multipart/form-data; boundary=b", **headers}
    connection.request("POST", path, form, headers)
    response = connection.getresponse()
    response.read()
    connection.close()
    return response.status, response.headers["X-Request-ID"]


def test_every_line_is_json_and_tells_no_secrets(models: Path, tmp_path: Path, clip: bytes) -> None:
    with serving(models, tmp_path) as server:
        _, fine = send(server, clip, "/predict?model=default", Authorization="Bearer key-17")
        _, refused = send(server, b"no audio", "/predict?token=query-17")
        _, nowhere = send(server, clip, "/path-17/x.wav?query-17")
        connection = http.client.HTTPConnection(server.host, server.port, timeout=10)
        connection.request("GET", "/health/live")
        assert connection.getresponse().status == 200
        connection.close()
    lines = {line["request_id"]: line for line in records(server) if "route" in line}
    assert lines.keys() == {fine, refused, nowhere}  # probes are not logged
    for secret in ("patient-17", "key-17", "query-17", "path-17"):
        assert secret not in server.log.read_text()
    line = lines[fine]
    assert (line["method"], line["route"], line["status"]) == ("POST", "/predict", 200)
    assert (line["model"], line["version"], line["audio_s"]) == ("default", "2", 1.5)
    assert line["level"] == "INFO"
    assert line["bytes_in"] > len(clip)
    assert line["duration_ms"] > 0
    assert not {"emotion", "confidence", "scores"} & line.keys()
    assert (lines[refused]["status"], lines[refused]["code"]) == (422, "bad_parameter")
    assert (lines[nowhere]["route"], lines[nowhere]["code"]) == ("unmatched", "not_found")


def test_a_websocket_s_query_is_in_no_line(models: Path, tmp_path: Path) -> None:
    with serving(models, tmp_path) as server:
        for query in ("ticket=query-17", "other=query-17"):
            with connect(f"ws://{server.host}:{server.port}/stream?{query}") as stream:
                stream.send("{}")
                assert json.loads(stream.recv())["code"] == "bad_parameter"
    assert "/stream" in server.log.read_text()
    assert "query-17" not in server.log.read_text()


def test_a_mistake_of_ours_is_one_line_under_the_id_of_its_request(
    models: Path, tmp_path: Path, clip: bytes
) -> None:
    with serving(models, tmp_path, FAILING) as server:
        status, request_id = send(server, clip, **{"X-Request-ID": "mine"})
    assert (status, request_id) == (500, "mine")
    (error,) = [line for line in records(server) if "stack" in line]
    assert (error["request_id"], error["level"]) == ("mine", "ERROR")
    assert "RuntimeError: nobody foresaw this\nsecond line" in error["stack"]
    (line,) = [line for line in records(server) if line.get("status") == 500]
    assert (line["request_id"], line["code"], line["level"]) == ("mine", "internal", "WARNING")


def test_probes_are_told_from_debug_on(models: Path, tmp_path: Path) -> None:
    with serving(models, tmp_path, NNPM_LOG_LEVEL="debug") as server:
        connection = http.client.HTTPConnection(server.host, server.port, timeout=10)
        connection.request("GET", "/metrics")
        connection.getresponse().read()
        connection.close()
    assert [line["route"] for line in records(server) if "route" in line] == ["/metrics"]


def test_text_is_a_setting(models: Path, tmp_path: Path, clip: bytes) -> None:
    with serving(models, tmp_path, NNPM_LOG_FORMAT="text") as server:
        send(server, clip)
    assert "INFO     POST /predict 200, " in server.log.read_text()


@pytest.mark.parametrize(("terminal", "style"), [(True, "text"), (False, "json")])
def test_the_format_is_for_whoever_reads(
    monkeypatch: pytest.MonkeyPatch, terminal: bool, style: str
) -> None:
    class Reader(io.StringIO):
        def isatty(self) -> bool:
            return terminal

    monkeypatch.setattr("sys.stderr", Reader())
    assert load().log_format == style


def test_debug_lines_of_libraries_stay_out(models: Path, tmp_path: Path, clip: bytes) -> None:
    with serving(models, tmp_path, NNPM_LOG_LEVEL="debug") as server:
        send(server, clip)
    assert {line["logger"] for line in records(server)} <= {"nnpm", "uvicorn.error"}
