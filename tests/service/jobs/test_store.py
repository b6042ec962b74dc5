import sqlite3
import subprocess
import sys
import threading
import uuid
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import select, text

from nnpm.service.jobs.database import Database, jobs, metadata
from nnpm.service.jobs.errors import (
    KeyTakenError,
    LostLeaseError,
    StoreConfigurationError,
    StoreUnavailableError,
    TransitionError,
    UnknownJobError,
)
from nnpm.service.jobs.job import ENDED, Change, Clips, Estimate, Job, State
from nnpm.service.jobs.migrations import upgrade
from nnpm.service.jobs.store import JobStore
from tests.support.jobs import job, until
from tests.support.postgres import Postgres

ROOT = Path(__file__).parents[3]
OVER = -1.0
"""Seconds of a lease, or of a delay, that is over as it begins: nobody has to wait for it."""


@pytest.mark.smoke
def test_a_job_comes_back_as_it_was(store: JobStore) -> None:
    made = store.create(
        job(
            seed=7, force=True, idempotency_key="k", body_digest="d", channels=1,
            emotions=("sad", "happy"), callback_url="https://hooks.example.org/",
        )
    )  # fmt: skip
    assert store.get(made.id) == made
    taken = store.claim("w", 30)
    assert taken is not None
    told = store.update(
        made.id, taken.token, clips=Clips(3, {"no_speech": 1}, {"no_speech": ("a\udce9.wav",)}),
        estimated_accuracy=Estimate(0.5, 0.1), error="NUL \0 and \udce9", progress=0.25,
    )  # fmt: skip
    assert store.get(made.id) == told
    assert told.clips == Clips(3, {"no_speech": 1}, {"no_speech": ("a\udce9.wav",)})
    assert told.error == "NUL \\0 and \\udce9"
    assert told.updated_at > made.created_at
    with pytest.raises(UnknownJobError, match="nobody"):
        store.get("nobody")


def test_owners_see_their_jobs_newest_first(store: JobStore) -> None:
    ids = [store.create(job(owner=owner)).id for owner in ("ann", "bob", "ann")]
    assert [one.id for one in store.list("ann")] == [ids[2], ids[0]]
    assert [one.id for one in store.list()] == ids[::-1]
    assert [one.id for one in store.list(limit=1)] == ids[2:]


def test_a_key_is_its_owners(store: JobStore) -> None:
    made = store.create(job(idempotency_key="k"))
    with pytest.raises(KeyTakenError, match="'k'"):
        store.create(job(idempotency_key="k"))
    other = store.create(job(owner="bob", idempotency_key="k"))
    assert store.find_idempotent("ann", "k") == made
    assert store.find_idempotent("bob", "k") == other
    assert store.find_idempotent("ann", "x") is None
    for _ in range(2):
        store.create(job())  # without a key there is no end to them


def test_the_oldest_is_taken_first_and_once(store: JobStore) -> None:
    ids = [store.create(job()).id for _ in range(3)]
    assert store.oldest_queued_s() > 0
    taken = [store.claim(f"w{n}", 30) for n in range(4)]
    assert [one and one.id for one in taken] == [*ids, None]
    assert store.oldest_queued_s() == 0
    first = taken[0]
    assert first is not None
    assert (first.state, first.worker, first.attempts) == (State.PREPARING, "w0", 1)


def test_a_lease_that_ran_out_is_anothers_and_the_token_fences(store: JobStore) -> None:
    made = store.create(job())
    slow = store.claim("slow", 30)
    assert slow is not None
    assert store.claim("quick", 30) is None
    store.heartbeat(made.id, slow.token, OVER)
    store.heartbeat(made.id, slow.token, OVER)  # late, but nobody has taken it
    quick = store.claim("quick", 30)
    assert quick is not None
    assert (quick.id, quick.attempts) == (made.id, 2)
    assert quick.token > slow.token
    for write in (
        lambda: store.heartbeat(made.id, slow.token, 30),
        lambda: store.update(made.id, slow.token, progress=0.9),
        lambda: store.update(made.id, slow.token, state=State.FAILED),
        lambda: store.give_back(made.id, slow.token),
    ):
        with pytest.raises(LostLeaseError):
            write()
    assert store.get(made.id) == quick


def test_states_follow_one_another(store: JobStore) -> None:
    made = store.create(job())
    taken = store.claim("w", 30)
    assert taken is not None
    with pytest.raises(TransitionError, match="succeeded cannot follow"):
        store.update(made.id, taken.token, state=State.SUCCEEDED)
    for state in (State.ADAPTING, State.EVALUATING, State.PUBLISHING, State.SUCCEEDED):
        told = store.update(made.id, taken.token, state=state)
    assert told.ended
    assert (told.worker, told.lease_until) == (None, None)
    assert told.ended_at is not None
    with pytest.raises(LostLeaseError):
        store.update(made.id, taken.token, progress=0.5)


def test_a_job_is_tried_so_often(store: JobStore) -> None:
    made = store.create(job())
    for _ in range(2):
        taken = store.claim("w", 30, tries=2)
        assert taken is not None
        store.give_back(made.id, taken.token, error="It died.", delay_s=OVER)
    assert store.claim("w", 30, tries=2) is None
    ended = store.get(made.id)
    assert (ended.state, ended.error) == (State.INTERRUPTED, "It died.")


def test_a_job_waits_before_it_is_tried_again(store: JobStore) -> None:
    made = store.create(job())
    taken = store.claim("w", 30)
    assert taken is not None
    store.give_back(made.id, taken.token, delay_s=60)
    assert store.claim("w", 30) is None
    assert store.get(made.id).state is State.QUEUED


def test_a_worker_that_is_stopped_costs_no_try(store: JobStore) -> None:
    made = store.create(job())
    for _ in range(5):
        taken = store.claim("w", 30, tries=2)
        assert taken is not None
        back = store.give_back(made.id, taken.token, counts=False)
    assert (back.state, back.attempts) == (State.QUEUED, 0)


def test_cancelling(store: JobStore) -> None:
    waiting, running = store.create(job()), store.create(job())
    assert store.request_cancel(waiting.id).state is State.CANCELLED
    taken = store.claim("w", 30)
    assert taken is not None
    assert taken.id == running.id
    asked = store.request_cancel(running.id)
    assert asked.cancel_requested
    assert asked.running
    assert store.heartbeat(running.id, taken.token, OVER).cancel_requested
    assert store.claim("other", 30) is None  # its worker died: nobody begins it again
    assert store.get(running.id).state is State.CANCELLED
    assert store.request_cancel(running.id).state is State.CANCELLED
    with pytest.raises(UnknownJobError):
        store.request_cancel("nobody")


def test_figures(store: JobStore) -> None:
    for _ in range(3):
        store.create(job())
    taken = store.claim("w", 30)
    assert taken is not None
    store.update(taken.id, taken.token, state=State.FAILED)
    counts = store.counts()
    assert set(counts) == set(State)
    assert {state: n for state, n in counts.items() if n} == {State.QUEUED: 2, State.FAILED: 1}
    durations = store.durations()
    assert set(durations) == {State.FAILED}
    assert durations[State.FAILED][0] == 1
    assert 0 <= durations[State.FAILED][1] < 60
    store.remove(taken.id)
    store.remove(taken.id)
    assert store.counts()[State.FAILED] == 0


def test_one_key_at_once_makes_one_job(store: JobStore) -> None:
    made: list[str] = []
    refused = []
    barrier = threading.Barrier(8)

    def create() -> None:
        barrier.wait()
        try:
            made.append(store.create(job(idempotency_key="k")).id)
        except KeyTakenError:
            refused.append(1)

    threads = [threading.Thread(target=create) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(made), len(refused)) == (1, 7)


CLAIMER = """
import sys
from contextlib import closing
from nnpm.service.jobs.store import JobStore
with closing(JobStore(sys.argv[1])) as store:
    sys.stdin.readline()
    while (job := store.claim(sys.argv[2], 60)) is not None:
        print(job.id, flush=True)
"""


def test_processes_never_take_one_job_twice(url: str, store: JobStore) -> None:
    ids = [store.create(job()).id for _ in range(60)]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", CLAIMER, url, f"w{n}"],
            cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )
        for n in range(4)
    ]  # fmt: skip
    outs = []
    for process in processes:  # all wait for a line, so that they begin at once
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        outs.append(process.communicate(timeout=60)[0].split())
        assert process.returncode == 0
    assert Counter(one for out in outs for one in out) == Counter(ids)


def test_the_migrations_make_what_the_tables_say(url: str) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    with closing(Database(url)) as database, database.write() as connection:
        upgrade(connection)  # again: nothing is to do
        context = MigrationContext.configure(connection)
        assert compare_metadata(context, metadata) == []


def test_a_database_of_the_first_release_keeps_its_jobs(url: str) -> None:
    with closing(Database(url)) as old:
        old._migrated = True  # by hand, as far as that release went
        with old.write() as connection:
            upgrade(connection, "0001")
            connection.execute(
                text(
                    "INSERT INTO jobs (id, owner, name, language, method, source, seed, "
                    "auto_promote, force, state, progress, attempts, created_at, updated_at, "
                    "token, cancel_requested) "
                    "VALUES ('a', 'ann', 'default', 'ur', 'nnpm', 'files', 7, "
                    "true, false, 'queued', 0.0, 0, 1.0, 1.0, 0, false)"
                )
            )
    with closing(JobStore(url)) as store:
        found = store.get("a")
        assert (found.seed, found.emotions, found.channels, found.kind) == (7, (), "mix", "adapt")
        assert (found.answered_share, found.callback_url, found.callback_tries) == (None, None, 0)
        assert store.claim_callback((60,)) is None
        taken = store.claim("w", 30)
        assert taken is not None
        share = Change(0.9, 0.8)
        told = store.update("a", taken.token, answered_share=share)
        assert told.answered_share == share


def test_many_processes_may_be_the_first(url: str) -> None:
    code = CLAIMER.replace("sys.stdin.readline()", "pass")
    processes = [
        subprocess.Popen([sys.executable, "-c", code, url, "w"], cwd=ROOT) for _ in range(4)
    ]
    assert [process.wait(timeout=60) for process in processes] == [0] * 4


def test_a_worker_that_froze_amid_a_transaction_does_not_keep_its_job(
    postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nnpm.service.jobs.database._WAIT_S", 1)
    url = postgres.database(f"t{uuid.uuid4().hex}")
    with closing(JobStore(url)) as store, closing(Database(url)) as frozen:
        made = store.create(job())
        with pytest.raises(StoreUnavailableError), frozen.write() as connection:  # noqa: PT012 - at its end
            connection.execute(select(jobs).where(jobs.c.id == made.id).with_for_update())
            assert store.claim("w", 30) is None
            until(lambda: store.claim("w", 30))


def test_a_writer_does_not_keep_others_from_the_log(tmp_path: Path) -> None:
    database = tmp_path / "nnpm.db"  # not yet with a write-ahead log
    with closing(sqlite3.connect(database, isolation_level=None)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        found: list[int] = []

        def count() -> None:
            with closing(JobStore(f"sqlite:///{database}")) as store:
                found.append(sum(store.counts().values()))

        thread = threading.Thread(target=count)
        thread.start()
        thread.join(0.3)
        assert thread.is_alive()
        writer.execute("ROLLBACK")
        thread.join()
    assert found == [0]


@pytest.mark.parametrize(
    ("bad", "wanted"),
    [
        ("nonsense", "not a URL"),
        ("mysql://a/b", "names a mysql database"),
        ("sqlite://", "names no file"),
        ("sqlite:///:memory:", "names no file"),
    ],
)
def test_urls_that_cannot_be(bad: str, wanted: str) -> None:
    with pytest.raises(StoreConfigurationError, match=wanted):
        JobStore(bad)


def test_a_database_that_is_away_says_so_without_its_password() -> None:
    url = "postgresql://nnpm:secret@127.0.0.1:1/x"
    pytest.importorskip("psycopg")
    with closing(JobStore(url)) as store:
        with pytest.raises(StoreUnavailableError, match="cannot be used now") as caught:
            store.counts()
        assert "secret" not in str(caught.value)


def test_states_that_end_lead_nowhere() -> None:
    from nnpm.service.jobs.job import NEXT

    assert set(NEXT) == set(State)
    assert all(not NEXT[state] for state in ENDED)


def test_the_table_has_a_column_for_each_field_of_a_job() -> None:
    assert set(jobs.c.keys()) == set(Job.model_fields)
