"""A Postgres server of the tests' own, from Debian's package."""

import os
import pwd
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path


def binaries() -> Path | None:
    """The folder of initdb and postgres; None where Postgres is not installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if found:
        return found[-1].parent
    on_path = shutil.which("initdb")
    return Path(on_path).resolve().parent if on_path else None


class Postgres:
    """One server on a socket in a folder; it listens to no network, and keeps nothing safe.

    Args:
        folder: short, for a socket's name has an end; gets data and socket.
        bin_folder: of the server's programs.
    """

    def __init__(self, folder: Path, bin_folder: Path) -> None:
        self._folder = folder
        self._bin = bin_folder
        self._data = folder / "data"
        self._user = _other_user()
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(exist_ok=True)
        if self._user is not None:
            os.chown(folder, self._user.pw_uid, self._user.pw_gid)
        self._run("initdb", "-D", str(self._data), "-U", "nnpm", "--auth=trust", "--no-sync")

    def start(self) -> None:
        """Start it, and wait until it answers."""
        settings = ("fsync=off", "listen_addresses=", f"unix_socket_directories={self._folder}")
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [str(self._bin / "postgres"), "-D", str(self._data),
                 *(word for setting in settings for word in ("-c", setting))],
                stdout=log, stderr=log, preexec_fn=self._demote(),
            )  # fmt: skip
        deadline = time.monotonic() + 30
        while subprocess.run(
            [str(self._bin / "pg_isready"), "-q", "-h", str(self._folder)], check=False
        ).returncode:
            assert time.monotonic() < deadline, (self._folder / "log").read_text()
            time.sleep(0.05)

    def stop(self) -> None:
        """Stop it as fast as it can without a loss."""
        if self._process is not None:
            self._process.send_signal(2)  # SIGINT: "fast"
            self._process.wait(timeout=30)
            self._process = None

    def database(self, name: str) -> str:
        """Make a database and give its URL."""
        self._run("createdb", "-h", str(self._folder), "-U", "nnpm", name)
        return f"postgresql://nnpm@/{name}?host={self._folder}"

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [str(self._bin / program), *arguments], capture_output=True, text=True, check=False,
            preexec_fn=self._demote(), cwd=self._folder,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr

    def _demote(self) -> Callable[[], None] | None:
        user = self._user
        if user is None:
            return None

        def change() -> None:
            os.setgid(user.pw_gid)
            os.setuid(user.pw_uid)

        return change


def _other_user() -> pwd.struct_passwd | None:
    """Postgres refuses to run as root."""
    if os.geteuid() != 0:
        return None
    try:
        return pwd.getpwnam("postgres")
    except KeyError:
        return pwd.getpwnam("nobody")
