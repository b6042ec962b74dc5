import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

Server = tuple["subprocess.Popen[str]", str]


@pytest.fixture
def server(models: Path, tmp_path: Path) -> Iterator[Server]:
    """``nnpm serve`` as a process of its own, and its address; less patient at its end."""
    code = "import sys; from service.cli import main, serve; serve.SHUTDOWN_S = 1; sys.exit(main())"
    process = subprocess.Popen(
        [sys.executable, "-c", code, "serve", "--port", "0"],
        env={**os.environ, "NNPM_MODELS": str(models), "TMPDIR": str(tmp_path)},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    for line in process.stderr:
        if found := re.search(r"curl -F file=@clip.wav (http://\S+)/predict", line):
            break
    else:
        pytest.fail("it never said that it is ready")
    yield process, found[1]
    process.kill()
    process.wait()
    process.stderr.close()


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
