"""A temporary Postgres server for a check; it runs as another user than root."""

import contextlib
import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

USER = "nobody"
TOOLS = ("initdb", "pg_ctl", "pg_dump", "pg_restore", "createdb")


@dataclass(frozen=True)
class LocalPostgres:
    """A server on this machine's loopback."""

    port: int
    password: str

    def url(self, database: str) -> str:
        """The value for NNPM_DATABASE_URL."""
        return f"postgresql://nnpm:{self.password}@127.0.0.1:{self.port}/{database}"

    def move(self, source: str, target: str) -> None:
        """Dump a database and restore it as another, as docs/operate/backup.md does."""
        dump = self._client("pg_dump", "-Fc", source)
        self._client("createdb", target)
        self._client("pg_restore", "-d", target, "--clean", "--if-exists", given=dump)

    def _client(self, *command: str, given: bytes = b"") -> bytes:
        where = {"PGHOST": "127.0.0.1", "PGPORT": str(self.port), "PGUSER": "nnpm"}
        environment = {**os.environ, **where, "PGPASSWORD": self.password}
        done = subprocess.run(
            command, env=environment, input=given, stdout=subprocess.PIPE, check=True
        )
        return done.stdout


def available() -> bool:
    """Whether Postgres' programs are installed."""
    return all(shutil.which(tool) for tool in TOOLS)


@contextlib.contextmanager
def running(folder: Path, port: int) -> Iterator[LocalPostgres]:
    """Run a server in an existing folder until the block ends."""
    server = LocalPostgres(port, secrets.token_hex(12))
    shutil.chown(folder, USER)
    (folder / "password").write_text(server.password)
    shutil.chown(folder / "password", USER)
    data = folder / "data"

    def as_user(*command: str) -> None:
        subprocess.run(
            command, user=USER, group="nogroup", extra_groups=[], cwd=folder, check=True,
            stdout=subprocess.DEVNULL,
        )  # fmt: skip

    as_user(
        "initdb", "-D", str(data), "-U", "nnpm", "--auth=scram-sha-256",
        f"--pwfile={folder / 'password'}", "--no-sync",
    )  # fmt: skip
    options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off"
    as_user("pg_ctl", "-D", str(data), "-l", str(folder / "log"), "-o", options, "-w", "start")
    try:
        yield server
    finally:
        as_user("pg_ctl", "-D", str(data), "-m", "fast", "-w", "stop")
