"""Names of the service, pages of elsewhere, heads that are too large, headers of every answer."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from nnpm.service.api.middleware.origin import MAX_HEADERS, MAX_TARGET_BYTES
from nnpm.service.settings import SettingsError, load
from tests.support.keys import make_keys
from tests.support.problems import problem

OURS = ["testserver", "testserver:8000", "TESTSERVER", "testserver."]
ALWAYS = [
    "localhost", "localhost:8000", "a.localhost", "127.0.0.1", "127.0.0.1:8000", "[::1]:8000",
    "[::1]", "192.168.1.7", "10.0.0.5:80",
]  # fmt: skip
STRANGE = [
    "evil.example", "evil.example:8000", "localhost.evil.example", "127.0.0.1.evil.example",
    "testserver.evil.example", "xtestserver", "", ":8000", "[", "localhost@evil.example",
    "[::1", "[::1]x", "[evil.example]", f"{'a' * 9000}.localhost",
]  # fmt: skip


@pytest.mark.parametrize("host", OURS + ALWAYS)
def test_names_of_this_service(client: TestClient, host: str) -> None:
    assert client.get("/health/live", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("host", STRANGE)
def test_a_strange_name_is_refused_whatever_is_asked(client: TestClient, host: str) -> None:
    for method, url in (("POST", "/predict"), ("GET", "/health/live"), ("GET", "/docs")):
        answer = client.request(method, url, headers={"Host": host})
        assert "NNPM_ALLOWED_HOSTS" in problem(answer, 421, "wrong_host")["detail"]


def test_names_may_be_listed_with_all_below_them(serve: Callable[..., TestClient]) -> None:
    client = serve(allowed_hosts="testserver, Emotion.example.org,*.example.net")
    for host, status in (
        ("emotion.example.org", 200),
        ("a.emotion.example.org", 421),
        ("a.example.net", 200),
        ("a.b.example.net:443", 200),
        ("example.net", 421),
    ):
        assert client.get("/health/live", headers={"Host": host}).status_code == status, host


def test_without_keys_only_its_own_name_goes_and_with_keys_any(
    serve: Callable[..., TestClient], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("NNPM_ALLOWED_HOSTS")
    assert load().names == ("127.0.0.1",)
    assert load(host="box.lan", insecure=True).names == ("box.lan",)
    listed = load(host="box.lan", insecure=True, allowed_hosts="example.org").names
    assert listed == ("example.org", "box.lan")  # the health check calls it so
    make_keys(tmp_path / "keys.json")
    assert load(api_keys_file=tmp_path / "keys.json").names == ("*",)
    client = serve(api_keys_file=tmp_path / "keys.json")
    assert client.get("/health/live", headers={"Host": "any.example"}).status_code == 200


OWN_ORIGINS = [
    ("http://testserver", "testserver"),
    ("https://testserver", "testserver"),  # a proxy speaks TLS
    ("http://localhost:8000", "localhost:8000"),
    ("https://testserver", "testserver:443"),
    ("http://[::1]:8000", "[::1]:8000"),
]
FOREIGN_ORIGINS = [
    ("https://evil.example", "testserver"),
    ("http://localhost:3000", "localhost:8000"),  # another program on this machine
    ("http://localhost", "localhost:8000"),
    ("http://127.0.0.1:8000", "localhost:8000"),
    ("null", "testserver"),  # a file, or a sandbox
    ("", "testserver"),
    ("testserver", "testserver"),
    ("https://testserver.evil.example", "testserver"),
    (f"https://testserver{'r' * 9000}", "testserver"),
]


@pytest.mark.parametrize(("origin", "host"), OWN_ORIGINS)
def test_our_own_pages_may_call(client: TestClient, clip: bytes, origin: str, host: str) -> None:
    headers = {"Origin": origin, "Host": host, "Sec-Fetch-Site": "same-origin"}
    assert client.post("/predict", content=clip, headers=headers).status_code == 200


@pytest.mark.parametrize(("origin", "host"), FOREIGN_ORIGINS)
def test_pages_of_elsewhere_may_not(
    client: TestClient, clip: bytes, origin: str, host: str
) -> None:
    """Among them the simple POST, for which a browser asks no leave."""
    headers = {"Origin": origin, "Host": host, "Content-Type": "text/plain"}
    for method, url in (
        ("POST", "/predict"), ("POST", "/adapt"), ("GET", "/models"), ("OPTIONS", "/predict")
    ):  # fmt: skip
        answer = client.request(method, url, content=clip, headers=headers)
        assert "NNPM_ALLOWED_ORIGINS" in problem(answer, 403, "foreign_origin")["detail"]
        assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_what_a_browser_sends_for_another_page_without_an_origin(
    client: TestClient, site: str
) -> None:
    image = {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": "no-cors"}
    problem(client.get("/models", headers=image), 403, "foreign_origin")
    link = {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": "navigate"}
    assert client.get("/docs", headers=link).status_code == 200
    problem(client.post("/predict", headers=link), 403, "foreign_origin")
    for own in ("same-origin", "none"):
        assert client.get("/models", headers={"Sec-Fetch-Site": own}).status_code == 200


def test_pages_that_were_named_get_cors(serve: Callable[..., TestClient], clip: bytes) -> None:
    client = serve(allowed_origins="https://app.example.org, http://localhost:3000/")
    origin = {"Origin": "https://app.example.org", "Sec-Fetch-Site": "cross-site"}
    leave = client.options(
        "/predict",
        headers={
            **origin,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization,content-type",
        },
    )
    assert leave.status_code == 200
    assert leave.headers["access-control-allow-origin"] == "https://app.example.org"
    assert "authorization" in leave.headers["access-control-allow-headers"]
    assert "access-control-allow-credentials" not in leave.headers
    for answer in (
        client.post("/predict", content=clip, headers=origin),
        client.post("/predict", content=b"x", headers=origin),  # an error can be read as well
    ):
        assert answer.headers["access-control-allow-origin"] == "https://app.example.org"
    assert client.get("/models", headers={"Origin": "http://localhost:3000"}).status_code == 200
    problem(
        client.get("/models", headers={"Origin": "https://app.example.org.evil.example"}),
        403,
        "foreign_origin",
    )


def test_cors_says_why_a_key_does_not_open(
    serve: Callable[..., TestClient], tmp_path: Path
) -> None:
    make_keys(tmp_path / "keys.json")
    client = serve(api_keys_file=tmp_path / "keys.json", allowed_origins="https://app.example.org")
    answer = client.get("/models", headers={"Origin": "https://app.example.org"})
    problem(answer, 401, "key_missing")
    assert answer.headers["access-control-allow-origin"] == "https://app.example.org"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("allowed_hosts", "https://example.org"),
        ("allowed_hosts", "example.org:8000"),
        ("allowed_hosts", "exa*mple.org"),
        ("allowed_origins", "app.example.org"),
        ("allowed_origins", "https://app.example.org/page"),
        ("allowed_origins", "*"),
    ],
)
def test_settings_that_name_nothing(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(f"NNPM_{name.upper()}", value)
    with pytest.raises(SettingsError, match=f"^NNPM_{name.upper()} is {re.escape(value)}; it must"):
        load()


def test_heads_have_bounds(client: TestClient) -> None:
    few = {f"h{n}": "v" for n in range(MAX_HEADERS - 10)}
    assert client.get("/health/live", headers=few).status_code == 200
    many = {f"h{n}": "v" for n in range(MAX_HEADERS + 1)}
    assert str(MAX_HEADERS) in problem(
        client.get("/health/live", headers=many), 431, "head_too_large"
    )["detail"]  # fmt: skip
    long = client.get("/health/live", params={"a": "x" * MAX_TARGET_BYTES})
    assert str(MAX_TARGET_BYTES) in problem(long, 414, "target_too_long")["detail"]


HEADERS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}


def test_every_answer_carries_the_same_headers(client: TestClient, clip: bytes) -> None:
    answers: list[Any] = [
        client.post("/predict", content=clip),
        client.post("/predict", content=b"x"),
        client.get("/nowhere"),
        client.get("/models"),
        client.get("/metrics"),
        client.get("/docs"),
        client.get("/health/live", headers={"Host": "evil.example"}),
    ]
    for answer in answers:
        assert {name: answer.headers.get(name) for name in HEADERS} == HEADERS, answer.url
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert not {"server", "x-powered-by", "via"} & set(answer.headers)
        assert "access-control-allow-origin" not in answer.headers
        for name in answer.headers:
            assert len(answer.headers.get_list(name)) == 1


def test_small_documents_have_a_small_limit(client: TestClient) -> None:
    """FastAPI keeps a JSON body in memory: half a gigabyte of it must not come so far."""
    answer = client.post("/models/default/promote", json={"version": "1" * 70_000})
    assert "65536" in problem(answer, 413, "too_large")["detail"]
