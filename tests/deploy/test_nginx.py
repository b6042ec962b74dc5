"""The nginx of docs/operate/security.md, with Debian's nginx: with and without a path."""

import re
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import pytest

import nnpm
from nnpm.service.settings import Settings
from tests.support.servers import live
from tests.support.sounds import encode, speechlike

ROOT = Path(__file__).parents[2]
NGINX = shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin:/sbin")

pytestmark = [
    pytest.mark.skipif(NGINX is None, reason="nginx is not installed (Debian: nginx-light)"),
    pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate"),
]


def sample() -> str:
    page = (ROOT / "docs/operate/security.md").read_text("utf-8")
    (found,) = re.findall(r"```nginx\n(.*?)```", page, re.DOTALL)
    return found


def below(server: str, prefix: str) -> str:
    """The sample with a path, as the page says it."""
    found = server.replace("location / {", f"location {prefix}/ {{")
    return found.replace("location = /metrics", f"location = {prefix}/metrics")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certificate")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
         "-keyout", "emotion.key", "-out", "emotion.pem"],
        cwd=folder, check=True, capture_output=True,
    )  # fmt: skip
    return folder


Proxy = Callable[[str, str], int]


@pytest.fixture
def proxy(certificate: Path, tmp_path: Path) -> Iterator[Proxy]:
    """Start nginx with a server block before a service; gives the port."""
    running: list[subprocess.Popen[bytes]] = []

    def start(server: str, address: str) -> int:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        server = server.replace("listen 443 ", f"listen 127.0.0.1:{port} ")
        server = server.replace("127.0.0.1:8000", address)
        server = server.replace("/var/log/nginx", str(tmp_path))
        for name in ("emotion.pem", "emotion.key"):
            server = server.replace(f"/etc/ssl/{name}", str(certificate / name))
        places = "".join(
            f"{name}_temp_path {tmp_path}/{name};\n"
            for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        (tmp_path / "nginx.conf").write_text(
            f"daemon off;\nmaster_process off;\npid {tmp_path}/pid;\nerror_log {tmp_path}/log;\n"
            f"events {{}}\nhttp {{\naccess_log off;\n{places}{server}}}\n"
        )
        assert NGINX is not None
        command = [NGINX, "-e", f"{tmp_path}/log", "-p", str(tmp_path), "-c", "nginx.conf"]
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
                assert time.monotonic() < deadline, (tmp_path / "log").read_text()
                time.sleep(0.02)

    yield start
    for process in running:
        process.terminate()
        process.wait(10)


@pytest.mark.parametrize(
    ("prefix", "taken_off"),
    [("", False), ("/emotion", False), ("/emotion", True), ("/models", False)],
    ids=["no path", "left on", "taken off", "like a route"],
)
def test_everything_passes(
    models: Path, tmp_path: Path, proxy: Proxy, certificate: Path, prefix: str, taken_off: bool
) -> None:
    (tmp_path / "audio").mkdir()
    (tmp_path / "audio/a.wav").write_bytes(encode(speechlike()))
    own = Settings(
        models=models, workers=1, root_path=prefix, adapt_roots=(tmp_path / "audio",),
        adapt_workers=0, max_upload_bytes=4_000_000,
    )  # fmt: skip
    trusted = ssl.create_default_context(cafile=str(certificate / "emotion.pem"))
    with live(own) as (address, _):
        server = below(sample(), prefix) if prefix else sample()
        if taken_off:
            server = server.replace("8000;", "8000/;")
        origin = f"https://localhost:{proxy(server, address)}"
        with nnpm.Client(f"{origin}{prefix}", verify=trusted) as client:
            assert client.ready()
            clip = speechlike(20.0)  # 1.3 MB: more than nginx keeps in memory, or passes by itself
            assert client.predict(clip, 16_000).audio.duration_s == 20
            with pytest.raises(nnpm.Error) as caught:
                client.predict(speechlike(70.0), 16_000)
            assert (caught.value.status, caught.value.code) == (413, "too_large")
            *segments, last = client.stream(clip, 16_000)
            assert segments
            assert isinstance(last, nnpm.Answer)
            job = client.adapt(folder_on_server=str(tmp_path / "audio"), language="ur")
            assert client.cancel(job.id).state == "cancelled"
        with httpx2.Client(base_url=origin, verify=trusted) as http:
            body = {"folder": str(tmp_path / "audio"), "language": "ur"}
            started = http.post(f"{prefix}/adapt", json=body)
            location = started.headers["location"]
            assert location == f"{prefix}/adapt/{started.json()['id']}"
            assert http.get(location).json()["id"] == started.json()["id"]
            assert http.get(f"{prefix}/predict/").status_code == 404  # and no redirect
            assert http.get(f"{prefix}/metrics").status_code == 403
            page = http.get(f"{prefix}/docs")
            parts = re.findall(r'(?:src|href)="(docs/[^"]+)"', page.text)
            assert len(parts) > 2
            assert {http.get(f"{prefix}/{part}").status_code for part in parts} == {200}
            document = http.get(f"{prefix}/openapi.json").json()
            assert document.get("servers", []) == ([{"url": prefix}] if prefix else [])
        # a probe asks the service itself, without the path
        assert httpx2.get(f"http://{address}/health/ready").status_code == 200
