import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

Server = tuple["subprocess.Popen[str]", str]


@pytest.fixture
def server(models: Path, tmp_path: Path) -> Iterator[Server]:
    """``nnpm serve`` as a process of its own, and its address."""
    code = "import sys; from service.cli import main; sys.exit(main())"
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
