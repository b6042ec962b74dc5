import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from nnpm.service.inference.answer import Answer
from nnpm.service.predict.pool import WorkerPool
from nnpm.service.predict.traffic import WINDOW, Traffic
from tests.support.servers import Hook
from tests.support.sounds import encode


def answer(best: str = "angry", **changes: object) -> Answer:
    scores = {"angry": 0.1, "sad": 0.1} | {best: 0.9}
    fields: dict[str, Any] = {
        "emotion": best, "confidence": 0.9, "scores": scores, "abstained": False, "reasons": (),
        "out_of_domain": 0.2, "speech_ratio": 1.0, "segments": (), "neighbours": (),
    }  # fmt: skip
    return Answer(**fields | changes)


def figures(client: TestClient, name: str = "default") -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = client.get(f"/models/{name}").json()["figures"]
    return found


def until_heard(client: TestClient, count: int, role: str = "shadow") -> dict[str, Any]:
    deadline = time.monotonic() + 10
    while True:
        for one in figures(client):
            if one["role"] == role and one["heard"] == count:
                return one
        assert time.monotonic() < deadline, figures(client)
        time.sleep(0.01)


def test_a_shadow_hears_what_its_language_is_asked(
    serve: Callable[..., TestClient], clip: bytes
) -> None:
    client = serve(shadow_share=1)
    client.post("/models/default/promote", json={"version": "2", "language": "ur"})
    client.post("/models/default/shadow", json={"version": "1", "language": "ur"})
    for _ in range(5):
        told = client.post("/predict?language=ur&digits=0", content=clip).json()
        assert told["model"]["version"] == "2"
        time.sleep(0.05)  # a shadow hears only while no request wants the cores
    client.post("/predict?language=de", content=clip)
    client.post("/predict?language=ur", content=encode(np.zeros(16_000)))  # silence says nothing
    shadow = until_heard(client, 5)
    assert (shadow["version"], shadow["language"]) == ("1", "ur")
    assert shadow["agreement"] == 1.0  # the same weights
    live = until_heard(client, 5, "live")
    for key in ("mean_confidence", "abstained", "out_of_domain", "drift"):
        assert live[key] == pytest.approx(shadow[key])
    assert live["mean_confidence"] == pytest.approx(told["confidence"])
    assert live["agreement"] is None
    text = client.get("/metrics").text
    labels = '{language="ur",model="default",version="1"}'
    assert f"nnpm_shadow_answers_total{labels} 5.0" in text
    assert f"nnpm_shadow_agreement{labels} 1.0" in text
    for alias, version in {"live": "2", "shadow": "1"}.items():
        told_by = f'alias="{alias}",language="ur",name="default",version="{version}"'
        assert f"nnpm_model_info{{{told_by}}} 1.0" in text
    client.post("/models/default/shadow", json={"version": None, "language": "ur"})
    client.post("/predict?language=ur", content=clip)
    assert until_heard(client, 5)["heard"] == 5


def test_no_share_no_shadow(serve: Callable[..., TestClient], clip: bytes) -> None:
    client = serve(shadow_share=0)
    client.post("/models/default/shadow", json={"version": "1", "language": "und"})
    client.post("/predict", content=clip)
    until_heard(client, 1, "live")
    assert [one["role"] for one in figures(client)] == ["live"]


def test_a_shadow_that_fails_harms_nobody(
    serve: Callable[..., TestClient], clip: bytes, hook: Hook
) -> None:
    client = serve(shadow_share=1)
    client.post("/models/default/shadow", json={"version": "1", "language": "und"})
    calls = []

    def fail_second(_: object) -> None:
        calls.append(1)
        if len(calls) == 2:
            raise ZeroDivisionError

    hook.before = fail_second
    assert client.post("/predict", content=clip).status_code == 200
    while len(calls) < 2:
        time.sleep(0.01)
    hook.before = lambda _: None
    assert client.post("/predict", content=clip).status_code == 200
    assert until_heard(client, 1)["heard"] == 1


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.mark.anyio
async def test_spare_work_waits_for_nobody() -> None:
    pool = WorkerPool(1, 1)
    gate, done = threading.Event(), []
    running = asyncio.create_task(pool.run(lambda _: gate.wait(5)))
    await asyncio.sleep(0)
    assert not pool.run_if_idle(lambda: done.append(1))
    gate.set()
    await running
    await asyncio.sleep(0.05)
    assert pool.run_if_idle(lambda: done.append(2))
    while not done:
        await asyncio.sleep(0.01)
    assert done == [2]
    pool.close()


def test_figures_are_of_the_last_recordings() -> None:
    traffic = Traffic()
    for number in range(WINDOW + 10):
        old = number < 10
        beyond = answer(out_of_domain=1.0 if old else 0.2)
        traffic.count_live("m", "1", "ur", beyond, 0.5)
    (found,) = traffic.figures("m")
    assert (found.heard, found.recent, found.drift) == (WINDOW + 10, WINDOW, 0.0)
    assert found.out_of_domain == pytest.approx(0.2)
    assert traffic.figures("other") == []


@pytest.mark.parametrize(
    ("beyond", "count", "hint"),
    [
        (49, 49, "few recordings yet"),
        (0, 50, "as expected"),
        (18, 50, "as expected"),  # 0.36 of 50 may be 0.24
        (20, 50, "adapt again"),
        (60, 200, "as expected"),
        (66, 200, "adapt again"),
    ],
)
def test_drift_is_told_when_it_is_sure(beyond: int, count: int, hint: str) -> None:
    traffic = Traffic()
    for number in range(count):
        traffic.count_live("m", "1", "ur", answer(out_of_domain=float(number < beyond)), 0.5)
    (found,) = traffic.figures("m")
    assert found.drift == pytest.approx(beyond / count)
    assert found.hint == hint


def test_agreement_is_of_the_most_probable_emotion() -> None:
    traffic = Traffic()
    for own, told in (("angry", "angry"), ("sad", "angry"), ("sad", "sad"), ("sad", "sad")):
        abstains = answer(own, emotion=None, abstained=True)
        traffic.count_shadow("m", "2", "ur", abstains, 0.5, answer(told))
    (found,) = traffic.figures("m")
    assert (found.agreement, found.abstained, found.role) == (0.75, 1.0, "shadow")
