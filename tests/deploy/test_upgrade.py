"""What an older release left behind, under this one; and what a newer one left, under this one."""

import contextlib
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from nnpm.service.registry.opening import seed_registry
from nnpm.service.registry.registry import Registry
from tests.support.tiny_bundle import write_tiny_bundle

DATA = Path(__file__).with_name("data")


def database(path: Path, revision: str | None = None) -> None:
    """A database as ``data/`` has it."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.executescript((DATA / "database_0001.sql").read_text())
        if revision is not None:
            connection.execute("UPDATE alembic_version SET version_num = ?", [revision])
            connection.commit()


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """Registry and database of an older release: version 2 was adapted to Urdu and promoted."""
    models = tmp_path / "old/models"
    write_tiny_bundle(models / "default/1")
    write_tiny_bundle(models / "default/2", language="ur", parent="0")
    shutil.copy(DATA / "aliases_1.json", models / "default/aliases.json")
    database(tmp_path / "old/nnpm.db")
    return models


def version_of(client: TestClient, clip: bytes, query: str = "") -> str:
    answer = client.post(f"/predict{query}", content=clip, headers={"Content-Type": "audio/wav"})
    assert answer.status_code == 200, answer.text
    version: str = answer.json()["model"]["version"]
    return version


def test_an_older_state_starts(old: Path, serve: Callable[..., TestClient], clip: bytes) -> None:
    client = serve(models=old, adapt_workers=0)
    jobs = {job["id"][0]: job for job in client.get("/adapt").json()["jobs"]}
    assert [jobs[name]["state"] for name in "abc"] == ["succeeded", "failed", "queued"]
    assert (jobs["a"]["version"], jobs["a"]["clips"]["accepted"]) == ("2", 40)
    assert version_of(client, clip) == "1"
    assert version_of(client, clip, "?language=ur") == "2"
    assert client.delete(f"/adapt/{jobs['c']['id']}").json()["state"] == "cancelled"


def test_the_new_release_brings_its_model_and_it_can_be_put_back(
    old: Path, tmp_path: Path, serve: Callable[..., TestClient], clip: bytes
) -> None:
    shutil.copytree(old / "default/1", tmp_path / "bundled/default/1")
    write_tiny_bundle(tmp_path / "bundled/default/2", metrics={"release": 2})
    assert [model.version for model in seed_registry(Registry(old), tmp_path / "bundled")] == ["3"]
    client = serve(models=old, adapt_workers=0)
    assert version_of(client, clip) == "3"
    assert version_of(client, clip, "?language=ur") == "2"
    client.post("/models/default/promote", json={"version": "1", "language": "und"})
    assert version_of(client, clip) == "1"


def test_a_database_of_a_newer_release_stops_jobs_and_not_predictions(
    old: Path, serve: Callable[..., TestClient], clip: bytes
) -> None:
    (old.parent / "nnpm.db").unlink()
    database(old.parent / "nnpm.db", revision="9999")
    client = serve(models=old, adapt_workers=0)
    assert version_of(client, clip) == "1"
    refused = client.get("/adapt")
    assert refused.status_code == 503
    assert refused.json()["code"] == "store_unavailable"
    assert "nnpm_jobs_reachable 0.0" in client.get("/metrics").text
