import re
from html.parser import HTMLParser

from fastapi.testclient import TestClient

from tests.support.problems import problem


class _Loads(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.urls: list[str] = []
        self.inline = ""
        self._in_script = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._in_script = tag == "script"
        self.urls += [value for name, value in attrs if name in ("src", "href") and value]

    def handle_data(self, data: str) -> None:
        if self._in_script:
            self.inline += data.strip()


def test_the_page_needs_nothing_from_elsewhere(client: TestClient) -> None:
    page = client.get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    loads = _Loads()
    loads.feed(page.text)
    assert loads.inline == ""  # its policy would not let it run
    assert "docs/swagger-ui-bundle.js" in loads.urls
    for url in loads.urls:
        assert not re.match(r"[a-z]*:?//", url)
        answer = client.get(f"/{url}")
        assert answer.status_code == 200, url
        assert answer.content
    assert "script-src 'self';" in page.headers["content-security-policy"]
    start = client.get("/docs/start.js").text
    assert 'url: "openapi.json"' in start
    assert "SwaggerUIBundle" in client.get("/docs/swagger-ui-bundle.js").text


def test_the_page_has_no_other_files(client: TestClient) -> None:
    for name in ("main.py", "..%2Fmain.py", "__init__.py", "%2e%2e/main.py"):
        assert client.get(f"/docs/{name}").status_code == 404
    problem(client.get("/redoc"), 404, "not_found")
