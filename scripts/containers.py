"""Containers without an engine: built by buildah, run with the kernel's own tools; root on Linux.

``buildah run`` has no read-only root, and no process of it is number 1. ``unshare`` has both: a
mount namespace in which the image is read-only, and a process namespace. The network is this
machine's.
"""

import contextlib
import http.client
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

BUILDAH = ("buildah", "--storage-driver", "vfs")
_MOUNTS = """
set -e
mount --make-rprivate /
mount --bind "$ROOT" "$ROOT"
for pair in $VOLUMES; do mount --bind "${pair%%:*}" "$ROOT${pair#*:}"; done
mount -t tmpfs -o mode=1777 tmpfs "$ROOT/tmp"
mount -t proc proc "$ROOT/proc"
mount --rbind /dev "$ROOT/dev"
mount -o remount,bind,ro "$ROOT"
exec chroot --userspec="$WHO" "$ROOT" /usr/bin/env -i "$@"
"""


class CheckError(Exception):
    """A check that failed: what was found and what was expected."""


def run(*command: str, **more: Any) -> str:
    """Run a command and give its output.

    Raises:
        CheckError: if it fails, with the end of its output.
    """
    done = subprocess.run(command, capture_output=True, text=True, check=False, **more)
    if done.returncode:
        said = (done.stderr + done.stdout)[-3000:]
        raise CheckError(f"{shlex.join(command[:8])} … ended with {done.returncode}:\n{said}")
    return done.stdout.strip()


@dataclass(frozen=True)
class Image:
    """An image that was built, and its files."""

    name: str
    config: dict[str, Any]
    root: Path

    def size_mb(self) -> int:
        """How much its files take, unpacked."""
        return int(run("du", "-s", "--block-size=1000000", str(self.root)).split()[0])


@contextlib.contextmanager
def image(name: str, dockerfile: str, flags: list[str]) -> Iterator[Image]:
    """Build an image, and mount it.

    Without --layers, which may be among the flags: vfs copies the whole image for each of them.
    """
    old = subprocess.run([*BUILDAH, "images", "-q", name], capture_output=True, check=False).stdout
    started = time.monotonic()
    fixed = ("bud", "--format", "docker", "--isolation", "chroot")
    run(*BUILDAH, *fixed, *flags, "-f", dockerfile, "-t", name, ".")
    took_s = time.monotonic() - started
    for left in old.decode().split():  # what lost its name to the new one; gigabytes
        if left not in run(*BUILDAH, "images", "-q", name):
            subprocess.run([*BUILDAH, "rmi", left], capture_output=True, check=False)
    inspected = json.loads(run(*BUILDAH, "inspect", "--type", "image", name))
    container = run(*BUILDAH, "from", "--pull-never", name)
    try:
        root = Path(run(*BUILDAH, "mount", container))
        built = Image(name, inspected["Docker"]["config"], root)
        say(f"{name}: built in {took_s:.0f} s, {built.size_mb()} MB unpacked")
        yield built
    finally:
        run(*BUILDAH, "rm", container)


@dataclass
class Container:
    """A process of an image: as its user, on a read-only root, as number 1."""

    image: Image
    volumes: Mapping[Path, str]
    environment: Mapping[str, str]
    command: list[str] | None = None
    process: "subprocess.Popen[bytes]" = field(init=False)

    def __enter__(self) -> "Container":
        config = self.image.config
        known = dict(entry.split("=", 1) for entry in config["Env"])
        inside = {**known, **self.environment}
        argv = config["Entrypoint"] + (self.command or config["Cmd"])
        (self.image.root / "run/secrets").mkdir(exist_ok=True)
        self.process = subprocess.Popen(
            ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", _MOUNTS, "sh"]
            + [f"{name}={value}" for name, value in inside.items()]
            + argv,
            env={
                "PATH": os.environ["PATH"],
                "ROOT": str(self.image.root),
                "WHO": config["User"],
                "VOLUMES": " ".join(f"{here}:{there}" for here, there in self.volumes.items()),
            },
        )
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            # Process 1 takes all others with it. unshare's own --kill-child does not outlive the
            # change of the user.
            with contextlib.suppress(OSError, CheckError):
                if pid := self.pid():
                    os.kill(pid, signal.SIGKILL)
            self.process.kill()
        self.process.wait()

    def pid(self) -> int | None:
        """Number of its process 1, as this machine counts; None before it is there.

        Raises:
            CheckError: if it has ended.
        """
        if (code := self.process.poll()) is not None:
            raise CheckError(f"a container of {self.image.name} ended by itself with code {code}")
        own = self.process.pid
        found = Path(f"/proc/{own}/task/{own}/children").read_text().split()
        return int(found[0]) if found else None

    def healthy(self) -> bool:
        """Run the image's own health check inside."""
        if (pid := self.pid()) is None:
            return False
        kind, *command = self.image.config["Healthcheck"]["Test"]
        if kind != "CMD":
            raise CheckError(f"the health check is {kind}; it must be CMD, without a shell")
        user, group = self.image.config["User"].split(":")
        environment = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
        inside = ["nsenter", "-t", str(pid), "-m", "-p", "-r", "-G", group, "-S", user]
        command = [*inside, "env", "-i", *filter(None, environment), *command]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    def stop(self, within_s: float) -> float:
        """Send SIGTERM to process 1; it must end well.

        Returns:
            Seconds until it had ended.

        Raises:
            CheckError: if it goes on, or ends with an error.
        """
        started = time.monotonic()
        pid = until(self.pid, "the container begins", 30)
        os.kill(pid, signal.SIGTERM)
        try:
            code = self.process.wait(within_s)
        except subprocess.TimeoutExpired:
            raise CheckError(f"SIGTERM did not end it within {within_s:.0f} s") from None
        if code not in (0, 143):
            raise CheckError(f"SIGTERM ended it with code {code}; expected 0")
        return time.monotonic() - started


def until(found: Any, what: str, seconds: float) -> Any:
    """Call ``found`` until it gives something.

    Raises:
        CheckError: if that takes too long.
    """
    deadline = time.monotonic() + seconds
    while not (value := found()):
        if time.monotonic() > deadline:
            raise CheckError(f"{what}: not within {seconds:.0f} s")
        time.sleep(0.1)
    return value


def ask(
    port: int, method: str, path: str, body: bytes | None = None, **headers: str
) -> tuple[int, Any]:
    """Send one request to this machine; give status and JSON body, or None without an answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body, named)
        answer = connection.getresponse()
        data = answer.read()
        json_like = "json" in (answer.getheader("content-type") or "")
        return answer.status, json.loads(data) if json_like else data
    except OSError:
        return 0, None
    finally:
        connection.close()


def obstacle() -> str | None:
    """What of all this is missing here."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "it needs root on Linux"
    for tool in ("buildah", "unshare", "nsenter"):
        if shutil.which(tool) is None:
            return f"there is no {tool} here"
    if subprocess.run(["unshare", "--mount", "--pid", "--fork", "true"], check=False).returncode:
        return "this machine grants no namespaces"
    return None


def say(text: str) -> None:
    """Tell the user."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
