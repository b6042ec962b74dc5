"""The Dockerfiles, by a linter and by what both must have in common."""

import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest

from tests.support.servers import serving

ROOT = Path(__file__).parents[2]
KINDS = ("service", "worker")


def read(kind: str) -> str:
    return (ROOT / f"docker/{kind}.Dockerfile").read_text()


@pytest.mark.parametrize("kind", KINDS)
def test_the_linter_has_nothing_to_say(kind: str) -> None:
    linter = Path(sys.executable).with_name("hadolint")
    if not linter.exists():
        pytest.skip("hadolint has no package for this machine")
    done = subprocess.run(
        [linter, "--failure-threshold", "info", ROOT / f"docker/{kind}.Dockerfile"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "")


def test_both_run_as_one_user_on_one_base() -> None:
    for pattern in (r"^ARG BASE_IMAGE=.*$", r"^USER .*$", r"useradd .*", r"^ENTRYPOINT .*$"):
        service, worker = (re.findall(pattern, read(kind), re.MULTILINE) for kind in KINDS)
        assert service == worker != []
    assert re.findall(r"^USER (\d+):(\d+)$", read("service"), re.MULTILINE) == [("10001", "10001")]


@pytest.mark.parametrize("kind", KINDS)
def test_whatever_is_copied_exists_and_is_sent(kind: str) -> None:
    sent = re.findall(r"^!([^/\s]+)", (ROOT / ".dockerignore").read_text(), re.MULTILINE)
    lines = re.findall(r"^COPY (?!--from)(.+) \S+$", read(kind), re.MULTILINE)
    copied = [name.partition("/")[0] for line in lines for name in line.split()]
    assert {"nnpm", "service", "training", "models"} <= set(copied) <= set(sent)
    assert all((ROOT / name).exists() for name in copied)


@pytest.mark.parametrize("kind", KINDS)
def test_no_shell_stands_before_the_process(kind: str) -> None:
    starts = re.findall(r"^(?:ENTRYPOINT|CMD|HEALTHCHECK[^\[]*) ?(.)", read(kind), re.MULTILINE)
    assert starts[:2] == ["[", "["]
    assert re.search(r"^HEALTHCHECK [^\[]*\[", read(kind), re.MULTILINE)


def test_the_service_answers_where_the_container_is_published(models: Path, tmp_path: Path) -> None:
    """``docker run -p`` reaches the container's address, and not its loopback."""
    environment = dict(
        re.findall(r"^ +(NNPM_(?:HOST|INSECURE))=(\S+)", read("service"), re.MULTILINE)
    )
    assert environment == {"NNPM_HOST": "0.0.0.0", "NNPM_INSECURE": "1"}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as route:
        try:
            route.connect(("192.0.2.1", 9))  # sends nothing: it finds out our own address
        except OSError:
            pytest.skip("this machine has no network")
        address = route.getsockname()[0]
    with serving(models, tmp_path, **environment) as server:
        found = httpx2.get(f"http://{address}:{server.port}/health/ready")
        assert found.json()["status"] == "ready"
    assert "there are no keys" in server.log.read_text()


@pytest.mark.skipif(shutil.which("git") is None, reason="no git")
def test_the_images_get_the_models_that_are_committed() -> None:
    committed = re.findall(r"^!(/models/\S+?)/?$", (ROOT / ".gitignore").read_text(), re.MULTILINE)
    sent = re.findall(r"^!(models/\S+)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE)
    assert [f"/{name}" for name in sent] == committed
