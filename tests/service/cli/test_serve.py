import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.service.cli.conftest import Process

Server = tuple["subprocess.Popen[str]", str]


@pytest.fixture
def server(start_server: Callable[..., Process]) -> Server:
    """``nnpm serve`` as a process of its own, and its address."""
    started = start_server()
    return started.process, started.address


def test_it_says_how_to_send_a_clip_serves_and_stops(server: Server, clip: bytes) -> None:
    process, address = server
    request = urllib.request.Request(
        f"{address}/predict", data=clip, headers={"Content-Type": "audio/wav"}
    )
    with urllib.request.urlopen(request, timeout=10) as response:
        assert json.load(response)["audio"]["duration_s"] == 1.5
    process.send_signal(signal.SIGINT)
    assert process.wait(10) in (0, 130)
    assert process.stderr is not None
    assert "Traceback" not in process.stderr.read()


def test_a_refusal_reaches_a_client_that_is_still_sending(server: Server) -> None:
    host = server[1].removeprefix("http://")
    for headers, status in (
        ({"Content-Type": "text/plain"}, 415),
        ({"Content-Type": "multipart/form-data; boundary=x"}, 422),
    ):
        connection = http.client.HTTPConnection(host, timeout=10)
        connection.request("POST", "/predict", body=bytes(20 << 20), headers=headers)
        response = connection.getresponse()
        assert response.status == status
        assert response.headers["content-type"] == "application/problem+json"
        connection.close()


def test_a_stalled_upload_does_not_keep_it_alive(server: Server) -> None:
    process, address = server
    host, port = address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as stalled:
        stalled.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 9000\r\n\r\nRIFF")
        time.sleep(0.2)
        process.send_signal(signal.SIGTERM)
        process.wait(10)


def test_a_taken_port_is_one_line(server: Server, models: Path) -> None:
    port = server[1].rpartition(":")[2]
    code = "import sys; from service.cli import main; sys.exit(main())"
    second = subprocess.run(
        [sys.executable, "-c", code, "serve", "--port", port],
        env={**os.environ, "NNPM_MODELS": str(models)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert second.returncode == 2
    assert second.stderr.count("\n") == 1
    assert f"port {port}" in second.stderr
