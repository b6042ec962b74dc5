"""Jobs, a stand-in for the process that adapts, and a worker that a test can kill."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from nnpm.service.jobs.job import Job

ROOT = Path(__file__).parents[2]

# Behaves like training/adaptation/job.py as seen from outside. It takes the lock, records its
# process id (so that a test sees a second one), and waits while hold-<stage> exists.
CHILD = """
import fcntl, json, os, pathlib, shutil, sys, time
folder = pathlib.Path(sys.argv[1])
top = folder.parent.parent
lock = os.open(folder / "child.lock", os.O_RDWR | os.O_CREAT)
fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
os.pwrite(lock, json.dumps({"pid": os.getpid(), "host": os.uname().nodename}).encode(), 0)
with (top / "children").open("a") as log:
    log.write(f"{os.getpid()}\\n")
asked = json.loads((folder / "request.json").read_text())
shutil.rmtree(asked["out"], ignore_errors=True)
for number, stage in enumerate(("adapting", "evaluating")):
    told = {"state": stage, "stage": stage, "done": 1, "total": 2, "progress": 0.3 + number / 3}
    (folder / "p.tmp").write_text(json.dumps(told))
    (folder / "p.tmp").rename(folder / "progress.json")
    (top / f"at-{stage}").touch()
    while (top / f"hold-{stage}").exists():
        time.sleep(0.01)
shutil.copytree(asked["bundle"], asked["out"])
report = {"clips": {"accepted": 20, "skipped": {}, "examples": {}}, "verdict": "improved",
          "reasons": [], "estimated_accuracy": None, "bundle": asked["out"]}
(folder / "r.tmp").write_text(json.dumps(report))
(folder / "r.tmp").rename(folder / "report.json")
"""

# A worker in a process of its own; it waits while hold-preparing or hold-publishing exists.
WORKER = """
import pathlib, sys, threading, time
from nnpm.service.jobs import worker as module
from nnpm.service.jobs.store import JobStore
from nnpm.service.registry.registry import Registry
from nnpm.service.settings import Settings
top, url, child, lease = pathlib.Path(sys.argv[1]), sys.argv[2], sys.argv[3], float(sys.argv[4])

def held(stage, call):
    def then(*args, **more):
        (top / f"at-{stage}").touch()
        while (top / f"hold-{stage}").exists():
            time.sleep(0.01)
        return call(*args, **more)
    return then

module.LOOK_S = 0.2
module.prepare = held("preparing", module.prepare)
Registry.publish = held("publishing", Registry.publish)
settings = Settings(models=top / "models", adapt_roots=(top / "audio",), database_url=url,
                    job_lease_s=lease, adapt_tries=5)
store, registry = JobStore(url), Registry(settings.models)
worker = module.Worker(store, registry, settings, command=(sys.executable, "-c", child))
worker.run(threading.Event())
"""


def job(**changes: object) -> Job:
    fields: dict[str, object] = {
        "owner": "ann", "name": "default", "language": "ur", "method": "nnpm", "source": "files",
    }  # fmt: skip
    return Job(**(fields | changes))  # type: ignore[arg-type]


class WorkerProcess:
    """A worker that a test may kill, freeze and thaw."""

    def __init__(self, top: Path, url: str, *, lease_s: float = 1.0) -> None:
        self._top = top
        self.process = subprocess.Popen(
            [sys.executable, "-c", WORKER, str(top), url, CHILD, str(lease_s)], cwd=ROOT
        )

    def kill(self) -> None:
        """SIGKILL, as the kernel sends it when memory runs out."""
        self.process.kill()
        self.process.wait()

    def signal(self, sign: signal.Signals) -> None:
        self.process.send_signal(sign)


def hold(top: Path, stage: str) -> Path:
    """Stop every process that reaches a stage, until the returned file is removed."""
    path = top / f"hold-{stage}"
    path.touch()
    return path


def children(top: Path) -> list[int]:
    """Process ids of all children that held the lock, in order."""
    log = top / "children"
    return [int(line) for line in log.read_text().split()] if log.exists() else []


def kill_children(top: Path) -> None:
    for pid in children(top):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def until(what: Callable[[], object], seconds: float = 60.0) -> None:
    """Wait until a condition holds that another process brings about."""
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)
