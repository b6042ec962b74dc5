from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from fastapi.testclient import TestClient

from tests.support.problems import problem


def test_a_language_is_answered_by_what_is_promoted_for_it(
    serve: Callable[..., TestClient], clip: bytes
) -> None:
    client = serve()

    def answers(language: str) -> dict[str, str]:
        answer = client.post("/predict", params={"language": language}, content=clip)
        assert answer.status_code == 200, answer.text
        model: dict[str, str] = answer.json()["model"]
        return model

    assert answers("ur") == {"name": "default", "version": "2", "language": "und"}
    done = client.post("/models/default/promote", json={"version": "1", "language": "urd"}).json()
    live = {"live": "1", "previous": None, "shadow": None}
    assert done == {"name": "default", "aliases": {"ur": live}}
    assert answers("ur-PK") == {"name": "default", "version": "1", "language": "ur"}
    assert answers("de")["version"] == "2"
    problem(client.delete("/models/default/1"), 409, "model_in_use")
    assert client.post("/models/default/rollback").json()["aliases"] == {}
    assert answers("ur")["version"] == "2"
    problem(client.post("/models/default/rollback"), 409, "nothing_to_roll_back")
    assert client.delete("/models/default/1").status_code == 204
    assert client.get("/models/default").json()["versions"] == ["2"]


def test_bad_promotions_change_nothing(serve: Callable[..., TestClient], models: Path) -> None:
    client = serve()
    post = client.post
    problem(post("/models/default/promote", json={"version": "9"}), 404, "unknown_model")
    problem(post("/models/x/promote", json={"version": "1"}), 404, "unknown_model")
    problem(post("/models/default/promote", json={}), 422, "bad_parameter")
    bad = {"version": "1", "language": "!"}
    problem(post("/models/default/promote", json=bad), 422, "bad_parameter")
    (models / "default/1/probe.npz").write_bytes(b"spoilt")
    problem(post("/models/default/promote", json={"version": "1"}), 503, "model_unavailable")
    assert client.get("/models/default").json()["aliases"] == {}


def test_swaps_lose_no_request(serve: Callable[..., TestClient], clip: bytes) -> None:
    client = serve(queue_limit=100)

    def ask(_: int) -> tuple[int, str]:
        answer = client.post("/predict", params={"language": "ur"}, content=clip)
        return answer.status_code, answer.json().get("model", {}).get("version", "")

    with ThreadPoolExecutor(16) as pool:
        asked = pool.map(ask, range(400))
        for number in range(20):
            choice = {"version": str(1 + number % 2), "language": "ur"}
            assert client.post("/models/default/promote", json=choice).status_code == 200
        found = list(asked)
    assert {status for status, _ in found} == {200}
    assert {version for _, version in found} <= {"1", "2"}
