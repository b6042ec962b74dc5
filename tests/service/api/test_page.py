"""GET /, /nnpm.js and /static: the page for browsers, a document for programs, nothing else."""

import gzip
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from nnpm.service.api.routes.system import STATIC
from tests.support.keys import make_keys
from tests.support.problems import problem

BROWSER = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}
FILES = sorted(path.relative_to(STATIC).as_posix() for path in STATIC.rglob("*") if path.is_file())


@pytest.mark.smoke
def test_a_browser_gets_the_page(client: TestClient) -> None:
    page = client.get("/", headers=BROWSER)
    assert page.status_code == 200
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.headers["vary"] == "Accept, Accept-Encoding"
    policy = dict(
        part.strip().partition(" ")[::2]
        for part in page.headers["content-security-policy"].split(";")
    )
    assert policy["default-src"] == policy["script-src"] == "'self'"
    assert policy["object-src"] == policy["base-uri"] == "'none'"
    assert page.headers["referrer-policy"] == "no-referrer"
    assert page.headers["permissions-policy"].startswith("microphone=(self)")


def test_the_page_loads_only_what_is_there_and_runs_no_inline_script(client: TestClient) -> None:
    page = client.get("/", headers=BROWSER).text
    for attributes, inline in re.findall(r"<script([^>]*)>(.*?)</script>", page, re.DOTALL):
        assert "src=" in attributes
        assert not inline.strip()
    assert not re.search(r"\son[a-z]+=|javascript:", page)
    for url in re.findall(r'(?:src|href)="([^"#]+)"', page):
        assert not re.match(r"/|[a-z]+:", url), "behind a prefix it would lead elsewhere"
        assert client.get(f"/{url}").status_code == 200, url


@pytest.mark.parametrize("accept", ["*/*", "application/json", ""])
def test_a_program_gets_links_and_what_is_off(client: TestClient, accept: str) -> None:
    answer = client.get("/", headers={"Accept": accept})
    assert answer.headers["vary"] == "Accept"
    home = answer.json()
    assert (home["name"], home["ready"], home["obstacle"]) == ("nnpm", True, None)
    assert home["keys"] is False
    folders = "adaptation from folders of the server"
    assert {one["what"]: one["how"] for one in home["off"]}[folders].startswith("NNPM_ADAPT_ROOTS=")
    for name, path in home["links"].items():
        if name not in ("predict", "stream"):
            assert client.get(f"/{path}").status_code == 200, path
    assert client.get("/health/ready").json()["off"] == home["off"]


def test_what_is_on_is_not_listed(start: Callable[..., TestClient]) -> None:
    off = {one["what"] for one in start().get("/").json()["off"]}
    assert not {one for one in off if one.startswith("adaptation")}


@pytest.mark.parametrize("name", FILES)
def test_every_file_is_served_with_its_type(client: TestClient, name: str) -> None:
    answer = client.get(f"/static/{name}")
    assert answer.content == (STATIC / name).read_bytes()
    assert answer.headers["content-type"] != "application/octet-stream"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-cache"


@pytest.mark.parametrize("url", ["/nnpm.js", "/static/nnpm.js", "/static/index.html", "/"])
def test_a_copy_that_is_current_is_not_sent_again(client: TestClient, url: str) -> None:
    first = client.get(url, headers=BROWSER)
    etag = first.headers["etag"]
    for known in (etag, f'"other", {etag}', f"W/{etag}", "*"):
        again = client.get(url, headers={**BROWSER, "If-None-Match": known})
        assert again.status_code == 304, known
        assert again.content == b""
        for name in ("etag", "content-security-policy", "cache-control", "vary"):
            assert again.headers[name] == first.headers[name]
    assert client.get(url, headers={**BROWSER, "If-None-Match": '"other"'}).status_code == 200


def test_the_module_is_javascript_and_compressed_where_wanted(client: TestClient) -> None:
    plain = client.get("/nnpm.js", headers={"Accept-Encoding": "identity"})
    assert plain.headers["content-type"].startswith("text/javascript")
    assert "content-encoding" not in plain.headers
    with client.stream("GET", "/nnpm.js", headers={"Accept-Encoding": "gzip"}) as packed:
        body = b"".join(packed.iter_raw())
    assert gzip.decompress(body) == plain.content == (STATIC / "nnpm.js").read_bytes()
    assert packed.headers["etag"] != plain.headers["etag"]
    head = client.head("/nnpm.js", headers={"Accept-Encoding": "identity"})
    assert head.headers["content-length"] == plain.headers["content-length"]
    assert head.content == b""


@pytest.mark.parametrize(
    "path",
    [
        *("", "%2e", "%2e%2e", "..%2fapp", "%2e%2e/openapi.json", "nothing.js", "%00", "x" * 300),
        *("%2fetc/passwd", "..%5capp", "vendor/%2e%2e/%2e%2e/__init__", "%c3%28"),
    ],
)
def test_there_are_no_other_files(client: TestClient, path: str) -> None:
    problem(client.get(f"/static/{path}"), 404, "not_found")


def test_methods_are_refused_by_name(client: TestClient) -> None:
    for url in ("/", "/nnpm.js", "/static/index.html"):
        problem(client.post(url), 405, "method_not_allowed")


def test_the_page_needs_no_key_and_says_that_calls_do(
    serve: Callable[..., TestClient], tmp_path: Path
) -> None:
    make_keys(tmp_path / "keys.json")
    keyed = serve(api_keys_file=tmp_path / "keys.json")
    for url in ("/", "/nnpm.js", "/static/index.html"):
        assert keyed.get(url, headers=BROWSER).status_code == 200
    home = keyed.get("/").json()
    assert home["keys"] is True
    problem(keyed.get("/models"), 401, "key_missing")
    problem(keyed.get("/staticx"), 401, "key_missing")


def test_behind_a_prefix_the_page_has_its_slash(serve: Callable[..., TestClient]) -> None:
    client = serve(root_path="/emotion")
    answer = client.get("/emotion", headers=BROWSER, follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (307, "/emotion/")
    assert client.get("/emotion/", headers=BROWSER).status_code == 200
    assert client.get("/emotion/nnpm.js").status_code == 200
    assert client.get("/", headers=BROWSER).status_code == 200  # taken off by the proxy
