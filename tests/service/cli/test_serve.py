import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from tests.support.servers import Server, serving


@pytest.mark.smoke
def test_it_says_how_to_send_a_clip_serves_and_stops(server: Server, clip: bytes) -> None:
    request = urllib.request.Request(
        f"{server.address}/predict", data=clip, headers={"Content-Type": "audio/wav"}
    )
    with urllib.request.urlopen(request, timeout=10) as response:
        assert json.load(response)["audio"]["duration_s"] == 1.5
    server.process.send_signal(signal.SIGINT)
    assert server.process.wait(10) in (0, 130)
    assert "Traceback" not in server.log.read_text()


def test_a_refusal_reaches_a_client_that_is_still_sending(server: Server) -> None:
    for headers, status in (
        ({"Content-Type": "text/plain"}, 415),
        ({"Content-Type": "multipart/form-data; boundary=x"}, 422),
    ):
        connection = http.client.HTTPConnection(server.host, server.port, timeout=10)
        connection.request("POST", "/predict", body=bytes(20 << 20), headers=headers)
        response = connection.getresponse()
        assert response.status == status
        assert response.headers["content-type"] == "application/problem+json"
        connection.close()


def test_a_stalled_upload_does_not_keep_it_alive(server: Server) -> None:
    with socket.create_connection((server.host, server.port)) as stalled:
        stalled.sendall(
            b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9000\r\n\r\nRIFF"
        )
        time.sleep(0.2)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(10) == 0


def test_it_finishes_what_it_took(models: Path, tmp_path: Path, clip: bytes) -> None:
    """SIGTERM while one client uploads and another's recording is being scored."""
    slow = (
        "import time\n"
        "from nnpm.service.inference.recognizer import Recognizer as R\n"
        "answer = R.answer\n"
        "R.answer = lambda *args: (time.sleep(1.5), answer(*args))[1]"
    )
    head = (
        b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: audio/wav\r\n"
        b"Content-Length: %d\r\n\r\n" % len(clip)
    )
    with serving(models, tmp_path, slow) as server:
        place = (server.host, server.port)
        with socket.create_connection(place) as scored, socket.create_connection(place) as sending:
            scored.sendall(head + clip)
            sending.sendall(head + clip[:1000])
            time.sleep(0.3)
            server.process.send_signal(signal.SIGTERM)
            while True:
                try:
                    socket.create_connection(place).close()
                except ConnectionRefusedError:
                    break
                time.sleep(0.02)
            assert server.process.poll() is None
            sending.sendall(clip[1000:])
            for connection in (scored, sending):
                response = http.client.HTTPResponse(connection)
                response.begin()
                assert response.status == 200
                assert json.load(response)["audio"]["duration_s"] == 1.5
        assert server.process.wait(10) == 0


def test_a_taken_port_is_one_line(server: Server, models: Path) -> None:
    code = "import sys; from nnpm.service.cli import main; sys.exit(main())"
    second = subprocess.run(
        [sys.executable, "-c", code, "serve", "--port", str(server.port)],
        env={**os.environ, "NNPM_MODELS": str(models)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert second.returncode == 2
    assert second.stderr.count("\n") == 1
    assert f"port {server.port}" in second.stderr
