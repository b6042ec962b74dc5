"""deploy/consumers: recordings from a real Redis to a real service."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nnpm.service.settings import Settings
from tests.support.jobs import until
from tests.support.servers import live
from tests.support.sounds import encode, speechlike

redis = pytest.importorskip("redis")

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "deploy/consumers/redis_stream.py"

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Any]:
    server = shutil.which("redis-server")
    if server is None:
        pytest.skip("no redis-server (Debian: redis-server)")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [server, "--port", str(port), "--save", "", "--dir", str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    client = redis.Redis(port=port, decode_responses=True)

    def answers() -> bool:
        try:
            return bool(client.ping())
        except redis.ConnectionError:
            return False

    until(answers)
    yield client
    client.close()
    process.terminate()
    process.wait()


def consumer(store: Any, address: str) -> "subprocess.Popen[bytes]":
    port = store.connection_pool.connection_kwargs["port"]
    where = [f"redis://127.0.0.1:{port}/0", "recordings", f"http://{address}"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(SCRIPT), *where, "--claim-ms", "500"]
    return subprocess.Popen(command, env=environment)


@pytest.mark.slow  # processes that are killed and waited for
def test_every_entry_is_answered_also_of_a_consumer_that_dies(
    store: Any, models: Path, tmp_path: Path
) -> None:
    (tmp_path / "a b.wav").write_bytes(encode(speechlike(1)))
    (tmp_path / "broken.wav").write_bytes(b"damaged")
    good, broken = f"file://{tmp_path}/a b.wav", f"file://{tmp_path}/broken.wav"
    sent = [
        store.xadd("recordings", fields)
        for fields in (
            {"url": good}, {"url": broken}, {"url": "file:///nowhere.wav"}, {"event": "{"},
        )
    ]  # fmt: skip
    # one that a consumer took before it died
    store.xgroup_create("recordings", "nnpm", id="0")
    store.xreadgroup("nnpm", "dead", {"recordings": ">"}, count=1)
    time.sleep(0.6)
    with live(Settings(models=models, workers=1)) as (address, _):
        process = consumer(store, address)
        try:
            until(lambda: store.xlen("recordings:answers") == len(sent))
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0
        finally:
            process.kill()
    found = {
        fields["id"]: json.loads(fields["answer"])
        for _, fields in store.xrange("recordings:answers")
    }
    assert found[sent[0]]["answer"]["model"]["version"] == "2"
    errors = [found[one]["error"]["code"] for one in sent[1:]]
    assert errors == ["not_audio", "unreadable", "unreadable"]
    assert store.xpending("recordings", "nnpm")["pending"] == 0


def test_events_name_recordings() -> None:
    import importlib.util

    spec = importlib.util.spec_from_file_location("consumer", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    record = {"s3": {"bucket": {"name": "calls"}, "object": {"key": "2026/a+b%C3%A9.wav"}}}
    wanted = ["s3://calls/2026/a bé.wav"]
    assert module._urls({"event": json.dumps({"Records": [record]})}) == wanted
    # as MinIO's Redis target writes it: [[time, [records]]]
    assert module._urls({"event": json.dumps([["now", [record]]])}) == wanted
    assert module._urls({"event": "[]"}) == module._urls({}) == [""]
