"""docs/use/adapt.md's walk-through, typed into a shell against a real service."""

import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def service(tmp_path: Path) -> Iterator[str]:
    """The address of a service of the bundled model, in a process of its own."""
    shutil.copytree(ROOT / "models/default/2", tmp_path / "models/default/2")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    settings = {"NNPM_MODELS": str(tmp_path / "models"), "NNPM_PORT": str(port)}
    settings["NNPM_ADAPT_NICE"] = "0"  # other tests may want all cores
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", "from nnpm.service.cli import main; main(['serve'])"],
            env={**os.environ, **settings, "PYTHONPATH": str(ROOT)},
            stderr=log,
        )
    address = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 60
        while not _ready(address):
            assert process.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield address
    finally:
        process.terminate()
        assert process.wait(timeout=40) in (0, -15), (tmp_path / "log").read_text()


def _ready(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/health/ready", timeout=10) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, ConnectionError):
        return False


@pytest.mark.corpora
@pytest.mark.skipif(not all(map(shutil.which, ("bash", "curl"))), reason="needs bash and curl")
def test_the_walk_through(service: str, corpora: Path, tmp_path: Path) -> None:
    page = (ROOT / "docs/use/adapt.md").read_text(encoding="utf-8")
    (script,) = re.findall(r"<!-- walk-through -->\n```bash\n(.*?)```", page, re.DOTALL)
    clips = sorted((corpora / "urdu").rglob("*.opus"))[::2][:200]
    (tmp_path / "clips").mkdir()
    for clip in clips:
        shutil.copy(clip, tmp_path / "clips")
    reported = subprocess.run(
        ["bash", "-c", script],
        cwd=tmp_path,
        env={**os.environ, "NNPM": service, "CLIPS": "clips"},
        capture_output=True,
        text=True,
        timeout=600,
        check=True,
    )
    out = reported.stdout
    states = re.findall(r'"state":"(\w+)"', out)
    assert "adapting" in states, out + reported.stderr
    assert states[-1] == "succeeded", out + reported.stderr
    assert any(f"\n{verdict}\n" in out for verdict in ("improved", "no change"))
    before, after = map(int, re.search(r"2: (\d+) right, version 3: (\d+) right", out).groups())  # type: ignore[union-attr]
    assert after >= before + 5  # of 200
    assert '"aliases":{"ur":{"live":"3","previous":null,"shadow":null}}' in out
    assert re.findall(r'"version":"(\d)","language":"(\w+)"', out) == [("3", "ur"), ("2", "und")]
    assert '"aliases":{}' in out
    assert "<h1>Adaptation of default to ur</h1>" in (tmp_path / "report.html").read_text()
    sys.stdout.write(out)
