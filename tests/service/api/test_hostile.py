"""A sample of the hostile corpus, through the whole service."""

import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from tests.support.hostile.bending import bent, repeated, truncated
from tests.support.hostile.bombs import bombs
from tests.support.hostile.seeds import seeds
from tests.support.hostile.watch import resident_mib
from tests.support.problems import problem

REFUSALS = {
    413: {"too_long"},
    415: {"not_audio"},
    422: {"damaged_audio", "too_short", "costly_audio"},
}


def check(client: TestClient, data: bytes, *, as_form: bool) -> int:
    if as_form:
        response = client.post("/predict", files={"file": ("clip", data)})
    else:
        response = client.post("/predict", content=data, headers={"Content-Type": "audio/wav"})
    if response.status_code != 200:
        assert response.status_code in REFUSALS, response.text
        code = response.json()["code"]
        assert code in REFUSALS[response.status_code]
        problem(response, response.status_code, code)
    return response.status_code


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.mark.parametrize("name", seeds())
def test_bent_files_are_answered_or_refused(client: TestClient, temporary: Path, name: str) -> None:
    clip = seeds()[name]
    made = [data for kind in (bent, truncated, repeated) for _, data in kind(clip)]
    for number, data in enumerate(made[:: max(1, len(made) // 8)]):
        check(client, data, as_form=number % 2 == 0)
    assert check(client, seeds()["WAV PCM_16"], as_form=True) == 200
    assert list(temporary.iterdir()) == []


@pytest.mark.slow
def test_bombs_are_answered_or_refused(serve: Callable[..., TestClient], temporary: Path) -> None:
    client = serve(max_duration_s=60)
    before_mib = resident_mib()
    statuses = set()
    for make in bombs().values():
        data = make()
        if len(data) < 15_000_000:  # the test's own copies of larger ones take longer than they do
            statuses.add(check(client, data, as_form=True))
    assert statuses == {200, 413, 415, 422}
    assert resident_mib() - before_mib < 150
    assert list(temporary.iterdir()) == []
