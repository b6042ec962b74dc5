"""The nginx of docs/operate/security.md, running before a service of a test's."""

import contextlib
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
NGINX = shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin:/sbin")
OBSTACLE = next(
    (
        sentence
        for is_there, sentence in (
            (NGINX, "nginx is not installed (Debian: nginx-light)"),
            (shutil.which("openssl"), "openssl makes the certificate"),
        )
        if not is_there
    ),
    None,
)
"""Why there is no proxy here; None if there is."""

Proxy = Callable[[str, str], int]
"""Starts nginx with a server block before a service; gives the port."""


def sample() -> str:
    page = (ROOT / "docs/operate/security.md").read_text("utf-8")
    (found,) = re.findall(r"```nginx\n(.*?)```", page, re.DOTALL)
    return found


def below(server: str, prefix: str) -> str:
    """The sample with a path, as the page says it."""
    found = server.replace("location / {", f"location {prefix}/ {{")
    return found.replace("location = /metrics", f"location = {prefix}/metrics")


def make_certificate(folder: Path) -> None:
    """Write emotion.pem and emotion.key for localhost."""
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
         "-keyout", "emotion.key", "-out", "emotion.pem"],
        cwd=folder, check=True, capture_output=True,
    )  # fmt: skip


@contextlib.contextmanager
def proxies(folder: Path, certificate: Path) -> Iterator[Proxy]:
    """Let a test start nginx; it ends with the block."""
    running: list[subprocess.Popen[bytes]] = []

    def start(server: str, address: str) -> int:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        server = server.replace("listen 443 ", f"listen 127.0.0.1:{port} ")
        server = server.replace("127.0.0.1:8000", address)
        server = server.replace("/var/log/nginx", str(folder))
        for name in ("emotion.pem", "emotion.key"):
            server = server.replace(f"/etc/ssl/{name}", str(certificate / name))
        places = "".join(
            f"{name}_temp_path {folder}/{name};\n"
            for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        (folder / "nginx.conf").write_text(
            f"daemon off;\nmaster_process off;\npid {folder}/pid;\nerror_log {folder}/log;\n"
            f"events {{}}\nhttp {{\naccess_log off;\n{places}{server}}}\n"
        )
        assert NGINX is not None
        command = [NGINX, "-e", f"{folder}/log", "-p", str(folder), "-c", "nginx.conf"]
        checked = subprocess.run([*command, "-t"], capture_output=True, text=True, check=False)
        assert checked.returncode == 0, checked.stderr
        assert "[warn]" not in checked.stderr
        running.append(subprocess.Popen(command))
        deadline = time.monotonic() + 10
        while True:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                return port
            except OSError:
                assert time.monotonic() < deadline, (folder / "log").read_text()
                time.sleep(0.02)

    try:
        yield start
    finally:
        for process in running:
            process.terminate()
            process.wait(10)
