import os
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from nnpm.service.cli import main


class _Answer(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(self.server.status if self.path == "/health/ready" else 404)  # type: ignore[attr-defined]
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.parametrize(("status", "code"), [(200, 0), (503, 2)])
def test_a_service_is_asked(
    status: int, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with HTTPServer(("127.0.0.1", 0), _Answer) as server:
        server.status = status  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        monkeypatch.setenv("NNPM_PORT", str(server.server_port))
        monkeypatch.setenv("NNPM_HOST", "0.0.0.0")
        monkeypatch.setenv("NNPM_INSECURE", "1")
        assert main(["health"]) == code
        thread.join()
    assert (str(status) in capsys.readouterr().err) is (code != 0)


def test_no_service_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    monkeypatch.setenv("NNPM_PORT", str(port))
    assert main(["health"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_heartbeat_is_fresh_stale_or_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    beat = tmp_path / "beat"
    command = ["health", "--heartbeat", str(beat)]
    assert main(command) == 2
    beat.touch()
    assert main(command) == 0
    minute_ago = time.time() - 60
    os.utime(beat, (minute_ago, minute_ago))
    assert main(command) == 2
    assert "60 s old" in capsys.readouterr().err
