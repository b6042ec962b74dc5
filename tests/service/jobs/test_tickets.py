"""Tickets in a database that replicas share, SQLite and Postgres."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import timedelta

import pytest
from sqlalchemy import func, select

from nnpm.service.api.errors import TicketRefusedError
from nnpm.service.api.middleware.tickets import Tickets
from nnpm.service.jobs.database import now, tickets
from nnpm.service.jobs.store import JobStore

PAGE = "https://app.example.org"


@pytest.fixture
def here(store: JobStore) -> Tickets:
    return Tickets(store.database)


@pytest.fixture
def there(url: str) -> Iterator[Tickets]:
    """Another replica."""
    with closing(JobStore(url)) as other:
        yield Tickets(other.database)


def age(store: JobStore, seconds: float) -> None:
    with store.database.write() as connection:
        gone = now(connection) - timedelta(seconds=seconds)
        connection.execute(tickets.update().values(expires_at=gone))


def test_a_ticket_is_redeemed_once_wherever(here: Tickets, there: Tickets) -> None:
    text = here.issue("stream", "7f", PAGE)
    assert there.holder(text, "stream") == ("7f", PAGE)
    there.use(text, "/stream")
    for replica in (here, there):
        with pytest.raises(TicketRefusedError, match="was used; each opens one connection"):
            replica.use(text, "/stream")


def test_of_many_at_once_one_is_let_in(here: Tickets, there: Tickets) -> None:
    text = here.issue("events", "7f", "")

    def attempt(number: int) -> bool:
        try:
            (here, there)[number % 2].use(text, "/adapt/a/events")
        except TicketRefusedError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(attempt, range(16))) == 1


def test_a_report_is_read_again_and_no_other(here: Tickets, store: JobStore) -> None:
    text = here.issue("report", "7f", PAGE)
    for _ in range(3):
        here.use(text, "/adapt/a/report")
    with pytest.raises(TicketRefusedError, match="was used"):
        here.use(text, "/adapt/b/report")
    age(store, 1)
    with pytest.raises(TicketRefusedError, match="has expired"):
        here.use(text, "/adapt/a/report")


def test_a_ticket_expires_and_is_deleted_later(here: Tickets, store: JobStore) -> None:
    text = here.issue("stream", "7f", "")
    age(store, 1)
    with pytest.raises(TicketRefusedError, match=r"has expired; use it within 60 s"):
        here.use(text, "/stream")
    age(store, 4000)
    here.issue("stream", "7f", "")
    with store.database.read() as connection:
        assert connection.scalar(select(func.count()).select_from(tickets)) == 1
    with pytest.raises(TicketRefusedError, match="is unknown here"):
        here.holder(text, "stream")


def test_a_ticket_is_for_one_thing(here: Tickets) -> None:
    text = here.issue("events", "7f", "")
    with pytest.raises(TicketRefusedError, match=r"is for events; POST /tickets with the scope"):
        here.holder(text, "report")


@pytest.mark.parametrize("text", ["", "x", "\0", "\udce9", "x" * 5000, "' OR 1=1 --"])
def test_what_is_no_ticket_is_unknown(here: Tickets, text: str) -> None:
    with pytest.raises(TicketRefusedError, match=r"is unknown here; .* NNPM_DATABASE_URL"):
        here.holder(text, "stream")


def test_the_database_holds_no_ticket(here: Tickets, store: JobStore) -> None:
    text = here.issue("stream", "7f", "")
    with store.database.read() as connection:
        (row,) = connection.execute(select(tickets)).all()
    assert text not in str(row)
