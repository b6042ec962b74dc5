"""POST /models/{name}/{version}/evaluate: figures, recalibration, and what is refused."""

import io
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from fastapi import Request
from fastapi.testclient import TestClient

from nnpm.service.api.middleware.access import Caller
from nnpm.service.api.routes import evaluate
from nnpm.service.inference import bundle as bundles
from tests.support.adaptation import ended, kept
from tests.support.problems import problem
from tests.support.sounds import encode, speechlike
from tests.support.tiny_bundle import LABELS, write_first_bundle

pytest.importorskip("autograd")


def archive(count: int, *, top: str = "", labels: str | None = None) -> bytes:
    """Labelled clips, and their metadata.csv unless it is given."""
    data = io.BytesIO()
    rows = [f"{number}.wav,{LABELS[number % len(LABELS)]}\n" for number in range(count)]
    with zipfile.ZipFile(data, "w") as packed:
        for number in range(count):
            packed.writestr(f"{top}{number}.wav", encode(speechlike(0.6, seed=number)))
        packed.writestr(f"{top}metadata.csv", labels or "path,emotion\n" + "".join(rows))
    return data.getvalue()


@pytest.fixture(scope="module")
def labelled() -> bytes:
    return archive(24)


@pytest.mark.smoke
def test_a_version_is_measured(
    serve: Callable[..., TestClient], labelled: bytes, tmp_path: Path
) -> None:
    client = serve()
    answer = client.post("/models/default/2/evaluate", files={"archive": ("x.zip", labelled)})
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert found["clips"]["accepted"] == 24
    for name in ("wa", "uar", "ece", "answered_share"):
        assert 0 <= found[name]["low"] <= found[name]["high"] <= 1
        assert 0 <= found["recalibrated"][name]["value"] <= 1
    assert (found["bundle"], found["undecodable"], found["reason"]) == (None, 0, "")
    assert {row["clips"] for row in found["per_class"].values()} == {6}
    assert client.get("/models/default").json()["versions"] == ["1", "2"]
    assert kept(tmp_path) == []
    assert client.get("/adapt").json() == {"jobs": []}


def test_a_recalibrated_version_is_published_and_not_promoted(
    serve: Callable[..., TestClient], labelled: bytes, models: Path, tmp_path: Path
) -> None:
    client = serve()
    files = {"archive": ("x.zip", labelled)}
    found = client.post("/models/default/1/evaluate", files=files, data={"apply": "true"}).json()
    assert found["bundle"] == "default/3"
    entry = client.get("/models/default").json()
    assert entry["versions"] == ["1", "2", "3"]
    assert client.post("/predict", content=encode(speechlike())).json()["model"]["version"] == "2"
    base, new = (bundles.load(models / "default" / version) for version in "13")
    assert new.card.calibrated
    assert new.card.decision != base.card.decision
    assert new.card.metrics["calibration"]["clips"] == 24
    answered = client.post("/predict?model=default/3", content=encode(speechlike())).json()
    assert (answered["calibrated"], answered["model"]["version"]) == (True, "3")
    assert kept(tmp_path) == []


def test_many_recordings_become_a_job(
    serve: Callable[..., TestClient], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluate, "MAX_CLIPS", 10)
    client = serve()
    files = {"archive": ("x.zip", archive(21, top="labelled/"))}
    answer = client.post("/models/default/1/evaluate?apply=true", files=files)
    assert answer.status_code == 202, answer.text
    job = answer.json()
    assert answer.headers["location"] == f"/adapt/{job['id']}"
    assert (job["kind"], job["base"], job["clips"]) == ("evaluate", "1", None)
    done = ended(client, job)
    assert (done["state"], done["version"], done["error"]) == ("succeeded", "3", None)
    assert done["clips"]["accepted"] == 21
    path = f"/adapt/{job['id']}/report"
    report = client.get(path, headers={"Accept": "application/json"}).json()
    assert report["bundle"] == "default/3"
    assert 0 <= report["wa"]["value"] <= 1
    page = client.get(path)
    assert page.status_code == 200
    assert "Evaluation of default/1" in page.text
    assert "Version 3 of default was published" in page.text
    assert not (tmp_path / "jobs" / job["id"] / "upload").exists()


def test_with_few_labels_nothing_is_recalibrated(serve: Callable[..., TestClient]) -> None:
    files = {"archive": ("x.zip", archive(4))}
    found = serve().post("/models/default/1/evaluate?apply=true", files=files).json()
    assert (found["recalibrated"], found["bundle"]) == (None, None)
    assert found["reason"] == "4 labelled clips can be decoded; a calibration needs at least 20."


BAD: dict[str, tuple[bytes, int, str]] = {
    "no archive": (b"hello", 422, "archive"),
    "no manifest": (archive(1, top="a/b/"), 422, "There is no metadata.csv at the top"),
    "no header": (archive(1, labels="0.wav,sad\n"), 422, "no column path"),
    "unknown emotion": (archive(1, labels="path,emotion\n0.wav,bored\n"), 422, "'bored'"),
    "emotion of other models": (
        archive(1, labels="path,emotion\n0.wav,fear\n"), 422, "does not answer",
    ),
    "missing": (archive(1, labels="path,emotion\n1.wav,sad\n"), 422, "1 of the 1 labelled"),
    "outside": (archive(1, labels="path,emotion\n../1.wav,sad\n"), 422, "without .."),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_archives_leave_nothing(
    serve: Callable[..., TestClient], tmp_path: Path, case: str
) -> None:
    data, status, wanted = BAD[case]
    answer = serve().post("/models/default/1/evaluate", files={"archive": ("x", data)})
    assert wanted in problem(answer, status, answer.json()["code"])["detail"]
    assert kept(tmp_path) == []


def test_other_requests_are_refused(
    serve: Callable[..., TestClient], labelled: bytes, tmp_path: Path, models: Path
) -> None:
    write_first_bundle(models / "default/0")
    client = serve()
    files = {"archive": ("x.zip", labelled)}
    problem(client.post("/models/default/9/evaluate", files=files), 404, "unknown_model")
    told = problem(client.post("/models/default/0/evaluate", files=files), 422, "evaluation_failed")
    assert "first generation" in told["detail"]
    assert str(tmp_path) not in told["detail"]
    answer = client.post("/models/default/1/evaluate", files={"files": ("a.wav", b"RIFF")})
    assert "metadata.csv" in problem(answer, 422, "bad_form")["detail"]
    answer = client.post("/models/default/1/evaluate", files=files, data={"aply": "true"})
    assert "Did you mean apply" in problem(answer, 422, "bad_parameter")["detail"]
    answer = client.post("/models/default/1/evaluate", content=b"x")
    problem(answer, 415, "bad_content_type")
    assert kept(tmp_path) == []


def test_only_an_admin_applies(
    serve: Callable[..., TestClient],
    labelled: bytes,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def caller(request: Request) -> Caller:
        return Caller("ann", frozenset({"adapt"}))

    monkeypatch.setattr("nnpm.service.api.middleware.access.caller_of", caller)
    files = {"archive": ("x.zip", labelled)}
    answer = serve().post("/models/default/1/evaluate", files=files, data={"apply": "true"})
    problem(answer, 403, "scope_missing")
    assert kept(tmp_path) == []


def test_a_bomb_is_refused(serve: Callable[..., TestClient], tmp_path: Path) -> None:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as packed:
        about = tarfile.TarInfo("metadata.csv")
        about.size = 20 << 20
        packed.addfile(about, io.BytesIO(bytes(about.size)))
    answer = serve().post("/models/default/1/evaluate", files={"archive": ("x", data.getvalue())})
    assert "times as many" in problem(answer, 422, "bad_intake")["detail"]
    assert kept(tmp_path) == []
