"""What an older release left behind, under this one; and what a newer one left, under this one."""

import contextlib
import hashlib
import logging
import shutil
import sqlite3
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import Boolean, MetaData, Table, create_engine, make_url

from nnpm.service.inference.bundle import CARD
from nnpm.service.jobs.migrations import upgrade
from nnpm.service.registry.opening import seed_registry
from nnpm.service.registry.registry import Registry
from tests.support.problems import problem
from tests.support.tiny_bundle import write_first_bundle, write_tiny_bundle

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
    base = write_first_bundle(models / "default/1")
    parent = hashlib.sha256((base.path / CARD).read_bytes()).hexdigest()
    write_first_bundle(models / "default/2", language="ur", parent=parent)
    shutil.copy(DATA / "aliases_1.json", models / "default/aliases.json")
    database(tmp_path / "old/nnpm.db")
    return models


def version_of(client: TestClient, clip: bytes, query: str = "") -> str:
    answer = client.post(f"/predict{query}", content=clip, headers={"Content-Type": "audio/wav"})
    assert answer.status_code == 200, answer.text
    version: str = answer.json()["model"]["version"]
    return version


def on_postgres(url: str, revision: str = "0001") -> None:
    """The same database in Postgres, made by the migrations of then."""
    with contextlib.closing(sqlite3.connect(":memory:")) as connection:
        connection.executescript((DATA / "database_0001.sql").read_text())
        connection.row_factory = sqlite3.Row
        rows = [dict(row) for row in connection.execute("SELECT * FROM jobs")]
    engine = create_engine(make_url(url).set(drivername="postgresql+psycopg"))
    with engine.begin() as connection:
        upgrade(connection, revision)
        table = Table("jobs", MetaData(), autoload_with=connection)
        for row in rows:
            flags = {k: bool(v) for k, v in row.items() if isinstance(table.c[k].type, Boolean)}
            connection.execute(table.insert(), row | flags)
    engine.dispose()


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(old: Path, request: pytest.FixtureRequest) -> str | None:
    """The database of the older release; None for the file beside the registry."""
    if request.param == "sqlite":
        return None
    url: str = request.getfixturevalue("postgres").database(f"t{uuid.uuid4().hex}")
    on_postgres(url)
    return url


def test_an_older_state_starts(
    old: Path, database_url: str | None, serve: Callable[..., TestClient], clip: bytes
) -> None:
    where = {} if database_url is None else {"database_url": database_url}
    client = serve(models=old, adapt_workers=0, **where)
    jobs = {job["id"][0]: job for job in client.get("/adapt").json()["jobs"]}
    assert [jobs[name]["state"] for name in "abc"] == ["succeeded", "failed", "queued"]
    assert (jobs["a"]["version"], jobs["a"]["clips"]["accepted"]) == ("2", 40)
    assert version_of(client, clip) == "1"
    assert version_of(client, clip, "?language=ur") == "2"
    assert client.get("/models/default").json().get("warnings", []) == []
    assert client.delete(f"/adapt/{jobs['c']['id']}").json()["state"] == "cancelled"


@pytest.fixture
def bundled(tmp_path: Path) -> Path:
    """The models folder of this release: version 1 has left it."""
    write_tiny_bundle(tmp_path / "bundled/default/2", metrics={"release": 2})
    return tmp_path / "bundled"


def test_the_new_release_brings_its_model_and_it_can_be_put_back(
    old: Path, bundled: Path, serve: Callable[..., TestClient], clip: bytes
) -> None:
    assert [model.version for model in seed_registry(Registry(old), bundled)] == ["3"]
    client = serve(models=old, adapt_workers=0)
    assert version_of(client, clip) == "3"
    assert version_of(client, clip, "?language=ur") == "2"
    client.post("/models/default/promote", json={"version": "1", "language": "und"})
    assert version_of(client, clip) == "1"


def test_a_language_of_an_older_base_answers_and_is_told_how_to_adapt_again(
    old: Path,
    bundled: Path,
    serve: Callable[..., TestClient],
    clip: bytes,
    caplog: pytest.LogCaptureFixture,
) -> None:
    seed_registry(Registry(old), bundled)
    with caplog.at_level(logging.WARNING, "nnpm"):
        client = serve(models=old, adapt_workers=0)
    (told,) = client.get("/models/default").json()["warnings"]
    assert told.startswith("default/2 answers for ur and was adapted from an older base")
    assert "nnpm adapt --bundle $NNPM_MODELS/default/3 --target DIR --language ur" in told
    assert told in [record.getMessage() for record in caplog.records]
    assert version_of(client, clip, "?language=ur") == "2"
    for base in ("1", "2"):
        asked = {"language": "ur", "base": base}
        answer = client.post("/adapt", data=asked, files=[("files", ("a.wav", clip))])
        refused = problem(answer, 409, "old_base")
        assert refused["detail"].endswith("take default/3 as the base.")
    taken = client.post("/adapt", data={"language": "ur"}, files=[("files", ("a.wav", clip))])
    assert taken.status_code == 202, taken.text


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
