import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from starlette.types import Message, Receive, Scope, Send

from nnpm.service.api.middleware.access import ANONYMOUS, RateLimit, _network
from nnpm.service.settings import SettingsError, load
from tests.support.keys import make_keys
from tests.support.problems import problem


def test_one_more_than_the_limit_is_told_when_to_come_back(
    serve: Callable[..., TestClient],
) -> None:
    client = serve(rate_limit="5/second")
    answers = [client.get("/nowhere") for _ in range(5)]
    assert [answer.status_code for answer in answers] == [404] * 5
    for _ in range(100):  # a busy machine may need more than a second for six
        if (refused := client.get("/nowhere")).status_code == 429:
            break
    detail = problem(refused, 429, "rate_limited")["detail"]
    assert "5 requests" in detail
    assert "at most 5 per second" in detail
    wait_s = int(refused.headers["retry-after"])
    assert 1 <= wait_s <= 2
    time.sleep(wait_s)
    assert client.get("/nowhere").status_code == 404


def test_health_and_metrics_are_asked_as_often_as_one_likes(
    serve: Callable[..., TestClient],
) -> None:
    client = serve(rate_limit="1/hour")
    assert client.get("/models").status_code == 200
    problem(client.get("/models"), 429, "rate_limited")
    for url in ("/health/live", "/health/ready", "/metrics") * 3:
        assert client.get(url).status_code == 200


def test_each_key_has_its_own_and_refused_ones_cost_nobody(
    serve: Callable[..., TestClient], tmp_path: Path
) -> None:
    keys = make_keys(tmp_path / "keys.json")
    client = serve(api_keys_file=tmp_path / "keys.json", rate_limit="2/hour")
    for _ in range(5):
        problem(client.get("/models"), 401, "key_missing")
    for name in ("predict", "admin"):
        codes = [client.get("/models", headers=keys[name]).status_code for _ in range(3)]
        assert codes == [200, 200, 429]
    refused = client.get("/models", headers=keys["predict"])
    assert "The key 'predict'" in problem(refused, 429, "rate_limited")["detail"]


def test_several_limits_hold_together(serve: Callable[..., TestClient]) -> None:
    client = serve(rate_limit="100/second;2/hour")
    assert [client.get("/models").status_code for _ in range(3)] == [200, 200, 429]


def test_an_upload_over_the_rate_is_not_read(serve: Callable[..., TestClient]) -> None:
    client = serve(rate_limit="1/hour", max_upload_bytes=10)
    client.get("/models")
    problem(client.post("/predict", content=bytes(1000)), 429, "rate_limited")  # and not 413


def test_without_a_limit_there_is_none(client: TestClient) -> None:
    assert {client.get("/models").status_code for _ in range(50)} == {200}


def test_many_addresses_make_no_request_dear_and_are_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None: ...

    async def send(_: Message) -> None: ...

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    limit = RateLimit(app, "1000/second")
    counters: Any = limit._limiter.storage

    async def call(number: int) -> None:
        client = (f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", 1)
        state = {"caller": ANONYMOUS}
        scope = {"type": "http", "path": "/", "client": client, "state": state}
        await limit(scope, receive, send)

    async def measure(numbers: range) -> float:
        started = time.process_time()
        for number in numbers:
            await call(number)
        return (time.process_time() - started) / len(numbers)

    few_s = asyncio.run(measure(range(300)))
    asyncio.run(measure(range(20_000)))
    assert asyncio.run(measure(range(300))) < 10 * few_s  # a look at all took a hundred times
    assert len(counters.storage) >= 10_000
    counters._next_sweep_s = 0.0
    later_s = time.time() + 5
    monkeypatch.setattr("time.time", lambda: later_s)
    asyncio.run(call(1))
    assert len(counters.storage) == len(counters.expirations) == 1


@pytest.mark.parametrize("value", ["many", "100", "100/fortnight", "/minute", "-1/minute"])
def test_what_is_no_rate(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("NNPM_RATE_LIMIT", value)
    with pytest.raises(SettingsError, match=r"NNPM_RATE_LIMIT is .* a rate such as 100/minute"):
        load()


@pytest.mark.parametrize(
    ("address", "counted"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::9", "2001:db8:1:2::/64"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("testclient", "testclient"),
    ],
)
def test_who_an_address_is(address: str, counted: str) -> None:
    assert _network(address) == counted
