"""Build both images and test them as people use them: predict, adapt, restart, compare.

Settings, as environment variables:
    NNPM_IMAGE_CHECK: all [the default], service (without the worker's image) or none.
    NNPM_IMAGE_BASE: base image in place of the Dockerfiles' own, such as one that is local.
    NNPM_IMAGE_BUILD_FLAGS: more flags for ``buildah bud``.
    NNPM_TEST_DATA: folder of corpora; urdu's clips are posted and adapted to.
"""

import contextlib
import io
import os
import shlex
import socket
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import local_postgres
from containers import CheckError, Container, Image, ask, image, obstacle, run, say, until

MAX_MB = {"service": 500, "worker": 720}
"""Largest sizes, unpacked; the worker's image also reads MP4 and WebM, and URLs."""
CLIPS, PREDICTED = 40, 6
CHANGING = ("request_id", "timing_ms")


def main() -> int:
    """Run the check, or print why it is skipped."""
    wanted = os.environ.get("NNPM_IMAGE_CHECK", "all")
    corpus = Path(os.environ.get("NNPM_TEST_DATA", "none")) / "urdu"
    missing = "NNPM_IMAGE_CHECK says none" if wanted == "none" else obstacle()
    if missing is None and not corpus.is_dir():
        missing = "NNPM_TEST_DATA names no folder with the corpus urdu"
    if missing is not None:
        say(f"image-check: SKIPPED, {missing}.")
        return 0
    flags = shlex.split(os.environ.get("NNPM_IMAGE_BUILD_FLAGS", ""))
    if base := os.environ.get("NNPM_IMAGE_BASE"):
        flags += ["--pull=never", "--build-arg", f"BASE_IMAGE={base}"]
    try:
        with contextlib.ExitStack() as stack:
            service = stack.enter_context(
                image("localhost/nnpm-service", "docker/service.Dockerfile", flags)
            )
            look("service", service)
            worker = None
            if wanted == "all":
                worker = stack.enter_context(
                    image("localhost/nnpm-worker", "docker/worker.Dockerfile", flags)
                )
                look("worker", worker)
            use(service, worker, sorted(corpus.rglob("*.opus"))[:CLIPS])
    except CheckError as error:
        say(f"image-check: FAILED: {error}")
        return 1
    say("image-check: passed" + ("" if worker else " (without the worker's image)"))
    return 0


def look(kind: str, image: Image) -> None:
    """Check the size, user, labels and packages of an image."""
    if (size := image.size_mb()) > MAX_MB[kind]:
        raise CheckError(f"the {kind}'s image is {size} MB; at most {MAX_MB[kind]} MB are allowed")
    config = image.config
    if not config["User"] or config["User"].startswith(("0", "root")):
        raise CheckError(f"its user is {config['User']!r}; it must not be root")
    labels = [name for name in config["Labels"] if name.startswith("org.opencontainers.image.")]
    if len(labels) < 5:
        raise CheckError(f"its labels are {labels}")
    packages = {path.name for path in image.root.glob("opt/nnpm/lib/*/site-packages/*")}
    if "torch" in packages:
        raise CheckError(f"torch is in the {kind}'s image")
    if not {"autograd", "onnx"} <= packages:
        raise CheckError(f"the {kind}'s image cannot adapt: autograd or onnx is missing")


def use(service: Image, worker: Image | None, clips: list[Path]) -> None:
    """Predict, adapt, restart, compare; both containers share only volumes and database."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.chmod(0o755)
        port = free_port()
        volumes = {}
        for name, where in {"models": "/data/models", "jobs": "/data/jobs"}.items():
            (here := folder / name).mkdir()
            run("chown", service.config["User"], str(here))  # as a named volume gets it
            volumes[here] = where
        (secrets := folder / "secrets").mkdir()
        volumes[secrets] = "/run/secrets"
        url = secrets / "nnpm_database_url"
        database = None
        if local_postgres.available():
            (home := folder / "postgres").mkdir()
            database = stack.enter_context(local_postgres.running(home, free_port()))
        say(f"jobs are kept by {'Postgres' if database else 'SQLite'}")
        url.write_text(database.url("postgres") if database else "sqlite:////data/jobs/nnpm.db")
        settings = {"NNPM_PORT": str(port), "NNPM_ADAPT_WORKERS": "0"}

        with Container(service, volumes, settings) as first:
            ready(first, port)
            before = answers(port, clips)
            adapted = None
            if worker is not None:
                job = send(port, clips)
                # no service competes for the cores: the worker need not yield
                busy = {"NNPM_ADAPT_NICE": "0"}
                with Container(worker, volumes, busy) as one:
                    until(one.healthy, "the worker is healthy", 120)
                    until(lambda: state(port, job)["state"] == "adapting", "it adapts", 120)
                    say(f"worker: ended {one.stop(10):.1f} s after SIGTERM, in the midst of a job")
                if state(port, job)["state"] != "queued":
                    raise CheckError(f"the job of a worker that was stopped is {state(port, job)}")
                with Container(worker, volumes, busy) as other:
                    adapted = see_through(port, job)
                    other.stop(10)
                if answers(port, clips) != before:
                    raise CheckError("the default model's answers have changed")
                then = answers(port, clips, "?language=ur")
                if then == before:
                    raise CheckError("the promoted version answers as the default does")
            say(f"service: ended {first.stop(10):.1f} s after SIGTERM")

        if database and worker:  # from a backup, as if on another machine
            database.move("postgres", "restored")
            url.write_text(database.url("restored"))
        with Container(service, volumes, settings) as second:
            ready(second, port)
            if answers(port, clips) != before:
                raise CheckError("the restarted service's answers have changed")
            if adapted is not None:
                if answers(port, clips, "?language=ur") != then:
                    raise CheckError("the restarted service has another version for ur")
                if (job := state(port, adapted)) != adapted:
                    raise CheckError(f"the job was {adapted}, and is {job} after the restart")
            second.stop(10)
        say(f"{len(before)} clips: the same answers before and after the restart")


def free_port() -> int:
    """A free port."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


def ready(container: Container, port: int) -> None:
    """Wait until the service and its image's own health check say so."""
    until(lambda: ask(port, "GET", "/health/ready")[0] == 200, "the service is ready", 120)
    if not container.healthy():
        raise CheckError("the image's health check fails although the service is ready")


def answers(port: int, clips: list[Path], query: str = "") -> list[dict[str, Any]]:
    """Post some clips; fields that differ between equal requests are left out."""
    found = []
    for clip in clips[:PREDICTED]:
        sent = ask(port, "POST", f"/predict{query}", clip.read_bytes(), Content_Type="audio/ogg")
        answer = expect(200, sent)
        found.append({key: value for key, value in answer.items() if key not in CHANGING})
    return found


def send(port: int, clips: list[Path]) -> Any:
    """Ask for an adaptation to the clips."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for clip in clips:
            archive.add(clip, clip.name)
    boundary = "nnpm-image-check"
    parts = {
        "language": b"ur",
        "force": b"true",
        'archive"; filename="clips.tar': packed.getvalue(),
    }
    body = b"".join(
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n'.encode()
        + value
        + b"\r\n"
        for name, value in parts.items()
    )
    kind = f"multipart/form-data; boundary={boundary}"
    sent = ask(port, "POST", "/adapt", body + f"--{boundary}--\r\n".encode(), Content_Type=kind)
    return expect(202, sent)


def state(port: int, job: Any) -> Any:
    """The job as it is now."""
    return expect(200, ask(port, "GET", f"/adapt/{job['id']}"))


def see_through(port: int, job: Any) -> Any:
    """Wait until a job ends, and promote its version."""

    def ended() -> Any:
        now = state(port, job)
        return now if now["state"] in ("succeeded", "failed", "rejected", "interrupted") else None

    job = until(ended, "the job ends", 600)
    if job["state"] != "succeeded" or job["version"] == job["base"]:
        raise CheckError(f"the job ended as {job['state']}: {job['error']}")
    say(f"worker: {job['clips']['accepted']} clips to version {job['version']}, {job['verdict']}")
    wish = f'{{"version": "{job["version"]}"}}'.encode()
    promoted = ask(port, "POST", "/models/default/promote", wish, Content_Type="application/json")
    expect(200, promoted)
    return job


def expect(status: int, answer: tuple[int, Any]) -> Any:
    """The body of an answer with this status.

    Raises:
        CheckError: if it has another.
    """
    if answer[0] != status:
        raise CheckError(f"status {answer[0]}; expected {status}: {answer[1]!r:.500}")
    return answer[1]


if __name__ == "__main__":
    sys.exit(main())
