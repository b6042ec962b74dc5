"""The nginx of docs/operate/security.md, with Debian's nginx: with and without a path."""

import re
import ssl
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

import nnpm
from nnpm.service.settings import Settings
from tests.support.nginx import OBSTACLE, Proxy, below, make_certificate, proxies, sample
from tests.support.servers import live
from tests.support.sounds import encode, speechlike

pytestmark = pytest.mark.skipif(OBSTACLE is not None, reason=str(OBSTACLE))


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certificate")
    make_certificate(folder)
    return folder


@pytest.fixture
def proxy(certificate: Path, tmp_path: Path) -> Iterator[Proxy]:
    with proxies(tmp_path, certificate) as start:
        yield start


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
