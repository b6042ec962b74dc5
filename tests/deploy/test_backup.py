"""The backups of docs/operate/backup.md, made with its own commands while others write."""

import contextlib
import re
import shlex
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nnpm.service.inference import bundle
from nnpm.service.jobs.job import Job
from nnpm.service.jobs.store import JobStore
from nnpm.service.registry.registry import Registry
from tests.support.tiny_bundle import write_tiny_bundle

PAGE = (Path(__file__).parents[2] / "docs/operate/backup.md").read_text("utf-8")


@contextlib.contextmanager
def going_on(step: Callable[[], object]) -> Iterator[None]:
    """Repeat a step in the background; its error is the test's."""
    stop, begun, errors = threading.Event(), threading.Event(), []

    def run() -> None:
        try:
            while not stop.is_set():
                step()
                begun.set()
        except BaseException as error:
            errors.append(error)
        finally:
            begun.set()

    thread = threading.Thread(target=run)
    thread.start()
    assert begun.wait(20)
    yield
    stop.set()
    thread.join()
    assert errors == []


@pytest.mark.skipif(shutil.which("tar") is None, reason="no tar")
def test_a_registry_that_is_copied_while_it_changes_restores(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "data/models")
    write_tiny_bundle(tmp_path / "new", language="ur", parent="0")
    write_tiny_bundle(registry.root / "default/1")
    numbers = iter(range(10_000))

    def publish() -> None:
        version = registry.publish(tmp_path / "new", "default", key=str(next(numbers))).version
        registry.promote("default", version)
        if int(version) > 4:
            with contextlib.suppress(Exception):  # the roll-back's is in use
                registry.delete("default", str(int(version) - 3))

    (command,) = re.findall(r"service (tar -C /data -cf .*) > models\.tar", PAGE)
    copy = shlex.split(command.replace("/data", str(tmp_path / "data")))
    with going_on(publish):
        for number in range(3):
            done = subprocess.run(copy, capture_output=True, check=False)
            assert done.returncode in (0, 1), done.stderr.decode()
            (tmp_path / f"{number}").mkdir()
            subprocess.run(
                ["tar", "-C", tmp_path / f"{number}", "-xf", "-"], input=done.stdout, check=True
            )
    for number in range(3):
        restored = Registry(tmp_path / f"{number}/models")
        bundle.load(restored.live("default", "ur").path)
        bundle.load(restored.resolve("default", "1").path)
        hidden = [path for path in restored.root.glob("default/.*-*") if path.is_dir()]
        assert hidden == []
        last = restored.versions("default")[-1]
        new = restored.publish(tmp_path / "new", "default", key="after").version
        assert int(new) > int(last)


def test_a_sqlite_database_that_is_copied_while_it_changes_restores(tmp_path: Path) -> None:
    database, backup = tmp_path / "nnpm.db", tmp_path / "backup.db"
    (code,) = re.findall(r'single python -c "(.*)"', PAGE)
    code = code.replace("/data/jobs/nnpm.db", str(database)).replace("/data/jobs", str(tmp_path))
    job = {"owner": "a", "name": "default", "language": "ur", "method": "nnpm", "source": "files"}
    with contextlib.closing(JobStore(f"sqlite:///{database}")) as store:
        with going_on(lambda: store.create(Job(**job))):
            before = len(store.list())
            subprocess.run([sys.executable, "-c", code], check=True)
        after = len(store.list())
    with contextlib.closing(JobStore(f"sqlite:///{backup}")) as store:
        assert before <= len(store.list()) <= after
        store.create(Job(**job))
    with contextlib.closing(sqlite3.connect(backup)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
