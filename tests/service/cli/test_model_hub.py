"""``nnpm models pull`` and ``push``, next to a stand-in of a model hub's HTTP interface."""

import base64
import hashlib
import json
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

from nnpm.service.cli import main
from nnpm.service.inference import bundle as bundles
from tests.support.tiny_bundle import write_signed, write_tiny_bundle

pytest.importorskip("huggingface_hub")
TOKEN = "hf_of_the_test"
Captured = pytest.CaptureFixture[str]


@dataclass
class Hub:
    """Repositories in memory: per name its files, and how often they were replaced.

    Attributes:
        address: of the server.
        broken: answers every request with this status, unless it is 0.
    """

    address: str = ""
    repositories: dict[str, dict[str, bytes]] = field(default_factory=dict)
    commits: dict[str, int] = field(default_factory=dict)
    private: list[str] = field(default_factory=list)
    broken: int = 0

    def sha(self, repository: str) -> str:
        text = f"{repository} {self.commits.get(repository, 0)}"
        return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """What huggingface_hub asks for a snapshot, and for a folder to be uploaded."""

    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *_: Any) -> None:
        pass

    def _send(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _json(self, answer: Any, status: int = 200, **headers: str) -> None:
        self._send(status, json.dumps(answer).encode(), **headers, Content_Type="application/json")

    def _missing(self, code: str) -> None:
        self._json({"error": code}, 404, X_Error_Code=code)

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        if self.hub.broken:
            return self._json({}, self.hub.broken)
        parts = unquote(urlsplit(self.path).path).strip("/").split("/")
        if parts[:2] == ["api", "whoami-v2"]:
            return self._json({"name": "me", "type": "user"})
        api = parts[:2] == ["api", "models"]
        owner, name, action, *rest = parts[2:] if api else parts
        repository = f"{owner}/{name}"
        files = self.hub.repositories.get(repository)
        if files is None:
            return self._missing("RepoNotFound")
        sha = self.hub.sha(repository)
        if rest[0] not in ("main", sha):
            return self._missing("RevisionNotFound")
        if action == "revision":
            return self._json({"id": repository, "sha": sha, "siblings": [], "tags": []})
        if action == "tree":
            oid = "0" * 40
            entries = [
                {"type": "file", "path": path, "size": len(data), "oid": oid}
                for path, data in files.items()
            ]
            return self._json(entries)
        data = files["/".join(rest[1:])]
        etag = hashlib.sha1(data, usedforsecurity=False).hexdigest()
        return self._send(200, data, ETag=f'"{etag}"', X_Repo_Commit=sha)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/api/validate-yaml":
            return self._json({"errors": [], "warnings": []})
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self._json({"error": "Invalid username or password."}, 401)
        if self.hub.broken:
            return self._json({}, self.hub.broken)
        if self.path == "/api/repos/create":
            asked = json.loads(body)
            repository = f"{asked.get('organization') or 'me'}/{asked['name']}"
            address = f"{self.hub.address}/{repository}"
            if repository in self.hub.repositories:
                return self._json({"url": address}, 409)
            self.hub.repositories[repository] = {".gitattributes": b""}
            if asked.get("private") or asked.get("visibility") == "private":
                self.hub.private.append(repository)
            return self._json({"url": address, "name": repository})
        owner, name, action = unquote(self.path).split("/")[3:6]
        if action == "preupload":
            files = json.loads(body)["files"]
            answer = [
                {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in files
            ]
            return self._json({"files": answer})
        repository = f"{owner}/{name}"
        for line in map(json.loads, body.splitlines()):
            if line["key"] == "file":
                content = base64.b64decode(line["value"]["content"])
                self.hub.repositories[repository][line["value"]["path"]] = content
        self.hub.commits[repository] = self.hub.commits.get(repository, 0) + 1
        sha = self.hub.sha(repository)
        address = f"{self.hub.address}/{repository}/commit/{sha}"
        return self._json({"commitUrl": address, "commitOid": sha})


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    hub = Hub()
    handler = type("Bound", (Handler,), {"hub": hub})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        hub.address = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setenv("HF_ENDPOINT", hub.address)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield hub
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def _models(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NNPM_MODELS", str(models))


def offer(hub: Hub, folder: Path, repository: str = "us/tiny") -> None:
    """Put the files of a folder into a repository."""
    hub.repositories[repository] = {f.name: f.read_bytes() for f in folder.iterdir()}


def fails(capsys: Captured, *arguments: str) -> str:
    capsys.readouterr()
    assert main(["models", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1, captured.err
    return captured.err


def test_a_version_goes_to_the_hub_and_comes_back(hub: Hub, models: Path, capsys: Captured) -> None:
    (models / "default/1/notes.txt").write_text("not part of the bundle")
    assert main(["models", "push", "default/1", "us/tiny", "--private"]) == 0
    assert capsys.readouterr().out == f"default/1 is at {hub.address}/us/tiny\n"
    pushed = hub.repositories["us/tiny"]
    expected = {bundles.CARD, bundles.SEAL, *bundles.FILES[2]}
    assert set(pushed) == {".gitattributes", *expected}
    assert all((models / "default/1" / name).read_bytes() == pushed[name] for name in expected)
    assert hub.private == ["us/tiny"]

    assert main(["models", "pull", "us/tiny"]) == 0
    assert capsys.readouterr().out.startswith("tiny/1 is published; ")
    assert {f.name for f in (models / "tiny/1").iterdir()} == expected
    assert bundles.load(models / "tiny/1").card == bundles.load(models / "default/1").card


def test_the_same_commit_is_one_version_and_the_next_another(hub: Hub, models: Path) -> None:
    offer(hub, models / "default/1")
    for _ in range(2):
        assert main(["models", "pull", "us/tiny", "--name", "default"]) == 0
    assert sorted(f.name for f in (models / "default").iterdir() if f.is_dir()) == ["1", "2", "3"]
    assert main(["models", "push", "default/2", "us/tiny"]) == 0  # it is there already
    assert main(["models", "pull", "us/tiny", "--name", "default", "--revision", "main"]) == 0
    assert (models / "default/4").is_dir()
    assert bundles.load(models / "default/4").card.metrics == {"version": "2"}


def test_what_is_no_sound_bundle_is_not_published(
    hub: Hub, models: Path, tmp_path: Path, capsys: Captured
) -> None:
    hub.repositories["us/tiny"] = {"README.md": b"# Something else\n"}
    assert "us/tiny holds no bundle: it has no bundle.json" in fails(capsys, "pull", "us/tiny")
    offer(hub, models / "default/1")
    hub.repositories["us/tiny"]["model.onnx"] += b" "
    line = fails(capsys, "pull", "us/tiny")
    assert "us/tiny holds no sound bundle: model.onnx is damaged" in line
    del hub.repositories["us/tiny"]["NOTICE"]
    assert "us/tiny holds no sound bundle: " in fails(capsys, "pull", "us/tiny")
    foreign = write_tiny_bundle(tmp_path / "foreign").path
    write_signed(foreign, "probe.npz", b"spoilt")
    offer(hub, foreign)
    line = fails(capsys, "pull", "us/tiny")
    assert "us/tiny holds no sound bundle: probe.npz cannot be read" in line
    assert not (models / "tiny").exists()


def test_what_the_hub_does_not_give_is_one_line(
    hub: Hub, models: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "must be OWNER/NAME" in fails(capsys, "pull", "tiny")
    assert "must be OWNER/NAME" in fails(capsys, "pull", "us/..")
    line = fails(capsys, "pull", "us/none")
    assert f"the model hub at {hub.address} shows no repository us/none" in line
    assert "set HF_TOKEN" in line
    offer(hub, models / "default/1")
    assert "us/tiny has no such revision" in fails(capsys, "pull", "us/tiny", "--revision", "v9")
    assert "no version '9'" in fails(capsys, "push", "default/9", "us/tiny")
    hub.broken = 403
    line = fails(capsys, "push", "default/1", "us/tiny")
    assert "refuses with status 403; the token in HF_TOKEN may not do this" in line
    with socket.create_server(("127.0.0.1", 0)) as listener:
        free = listener.getsockname()[1]
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{free}")
    for command in (("pull", "us/tiny"), ("push", "default/1", "us/tiny")):
        assert f"the model hub at http://127.0.0.1:{free} cannot be" in fails(capsys, *command)


def test_a_push_needs_a_token(
    hub: Hub, models: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    line = fails(capsys, "push", "default/1", "us/tiny")
    assert "push needs a token of the model hub: set HF_TOKEN" in line
    assert not hub.repositories


def test_without_the_extra_it_says_what_to_install(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    line = fails(capsys, "pull", "us/tiny")
    assert "which is not installed; install the extra hub: pip install 'nnpm[hub]'" in line
