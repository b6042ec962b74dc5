"""The page behind nginx under a path, over https: as docs/operate/security.md sets it up."""

from pathlib import Path

import pytest

from tests.support.nginx import OBSTACLE, below, make_certificate, proxies, sample
from tests.support.page import Open, Start, begin, enter, listen

pytestmark = pytest.mark.skipif(OBSTACLE is not None, reason=str(OBSTACLE))


def test_every_tab_works_under_a_path(
    start: Start,
    browse: Open,
    tmp_path: Path,
    keys: dict[str, str],
    recordings: Path,
    clips: list[Path],
) -> None:
    address = start(keys=True, root_path="/emotion").removeprefix("http://").rstrip("/")
    make_certificate(tmp_path)
    with proxies(tmp_path, tmp_path) as proxy:
        port = proxy(below(sample(), "/emotion"), address)
        page = browse(f"https://localhost:{port}/emotion/")
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        enter(page, keys["admin"])
        page.locator("#panel-recognise input[type=file]").first.set_input_files(
            str(recordings / "clip.wav")
        )
        page.locator(".outcome").wait_for()
        listen(page)
        page.get_by_role("button", name="Stop").click()
        page.locator("#panel-live article .outcome").wait_for()
        panel = begin(page, *clips)
        panel.get_by_text("Version 3 of default is there").wait_for()
        with page.expect_popup() as opened:
            panel.get_by_role("button", name="Open the whole report").click()
        opened.value.get_by_text("Adaptation of default to ur").first.wait_for()
        page.get_by_role("tab", name="Models").click()
        page.locator("#panel-models").get_by_role("button", name="3", exact=True).click()
        page.locator("#panel-models").get_by_text("default/3").wait_for()
        home = f"https://localhost:{port}/emotion/"
        assert [url for url in asked if not url.startswith((home, "blob:"))] == []
