"""Start the service and a real Prometheus, and run every query of the dashboard and the alerts.

Prometheus comes from Debian's package of that name; without it the check is skipped.
"""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
COMPARISON = re.compile(r"\s(?:[<>]=?|==|!=)\s+[\d.e]+\s*$")
# Internal errors and refusals cannot be caused on demand.
QUIET = re.compile(r"code=\"internal\"|status=\"503\"")


def main() -> int:
    """Run the queries, and print those without an answer."""
    if shutil.which("prometheus") is None:
        print("monitoring-check: SKIPPED, prometheus is not installed.")
        return 0
    from tests.support.prometheus import questions
    from tests.support.sounds import encode, speechlike

    clip = encode(speechlike(), subtype="PCM_16")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        service, prometheus = free_port(), free_port()
        shutil.copytree(ROOT / "models", folder / "models")
        an_ended_job(f"sqlite:///{folder / 'nnpm.db'}")
        own = {"NNPM_MODELS": str(folder / "models"), "NNPM_PORT": str(service)}
        own["NNPM_SHADOW_SHARE"] = "1"
        code = "import sys; from nnpm.service.cli import main; sys.exit(main(['serve']))"
        stack.enter_context(process([sys.executable, "-c", code], own))
        wait(f"http://127.0.0.1:{service}/health/ready")
        configuration = yaml.safe_load((ROOT / "docker/prometheus/prometheus.yml").read_text())
        configuration["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
        configuration["rule_files"] = [str(ROOT / "docker/prometheus/alerts.yml")]
        scraped = configuration["scrape_configs"][0]
        scraped["static_configs"][0]["targets"] = [f"127.0.0.1:{service}"]
        configuration["scrape_configs"] = [scraped]
        (folder / "prometheus.yml").write_text(yaml.safe_dump(configuration))
        command = [
            "prometheus",
            f"--config.file={folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={folder / 'metrics'}",
            f"--web.listen-address=127.0.0.1:{prometheus}",
            "--log.level=warn",
        ]
        stack.enter_context(process(command, {}))
        wait(f"http://127.0.0.1:{prometheus}/-/ready")
        shadow = b'{"version": "2", "language": "und"}'
        post(f"http://127.0.0.1:{service}/models/default/shadow", shadow, "application/json")
        for _ in range(8):  # rates need figures that grow from one look to the next
            for query in ("", "?abstain=false"):
                post(f"http://127.0.0.1:{service}/predict{query}", clip)
            post(f"http://127.0.0.1:{service}/predict", b"no audio")
            time.sleep(1)
        asked = questions()
        silent = [q for q in asked if not answered(prometheus, q)]
    for question in silent:
        print(f"no answer: {question}")
    wrong = [question for question in silent if not QUIET.search(question)]
    print(f"monitoring-check: {len(asked) - len(silent)} of {len(asked)} queries have an answer.")
    return 1 if wrong else 0


def answered(port: int, question: str) -> bool:
    """Whether a query has an answer; for an alert, the left side of its comparison."""
    text = COMPARISON.sub("", question.replace("$__rate_interval", "30s"))
    query = urllib.parse.urlencode({"query": re.sub(r"\[\d+[mh]\]", "[30s]", text)})
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/query?{query}") as response:
        return bool(json.load(response)["data"]["result"])


def an_ended_job(url: str) -> None:
    """Put a job into the database that was started and has ended."""
    from nnpm.service.jobs.job import Job, State
    from nnpm.service.jobs.store import JobStore

    with closing(JobStore(url)) as store:
        store.create(Job(owner="a", name="default", language="ur", method="nnpm", source="files"))
        job = store.claim("here", 30)
        assert job is not None
        store.update(job.id, job.token, state=State.FAILED, error="for the monitoring check")


@contextmanager
def process(command: list[str], environment: dict[str, str]) -> Iterator[None]:
    """Run a command in the background."""
    started = subprocess.Popen(command, cwd=ROOT, env={**os.environ, **environment})
    try:
        yield
    finally:
        started.terminate()
        started.wait()


def wait(address: str, seconds: float = 30) -> None:
    """Wait until an address answers 200."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            with urllib.request.urlopen(address):
                return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def post(address: str, body: bytes, kind: str = "audio/wav") -> None:
    """Post a body; an error status is an answer too."""
    request = urllib.request.Request(address, body, {"Content-Type": kind})
    try:
        with urllib.request.urlopen(request):
            pass
    except urllib.error.HTTPError as error:
        error.close()


def free_port() -> int:
    """A free port."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


if __name__ == "__main__":
    sys.exit(main())
