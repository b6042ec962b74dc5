import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from nnpm.service.jobs.store import JobStore
from tests.support.postgres import Postgres


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database of the test's own."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'nnpm.db'}"
    server: Postgres = request.getfixturevalue("postgres")
    return server.database(f"t{uuid.uuid4().hex}")


@pytest.fixture
def store(url: str) -> Iterator[JobStore]:
    with closing(JobStore(url)) as store:
        yield store
