"""Keys, scopes and tickets: asked for once, kept for the tab, and said in place where one lacks."""

import time
from pathlib import Path

import httpx2

from nnpm.service.keys import KeyFile
from tests.support.page import Open, Start, begin, enter, listen, require_access


def test_a_key_is_asked_for_once_and_kept_for_the_tab(
    start: Start, browse: Open, keys: dict[str, str], recordings: Path, tmp_path: Path
) -> None:
    page = browse(start(keys=True))
    page.get_by_role("dialog").get_by_text("needs an API key").wait_for()
    require_access(page)
    enter(page, keys["predict"])
    page.locator("#panel-recognise input[type=file]").first.set_input_files(
        str(recordings / "clip.wav")
    )
    page.locator(".outcome").wait_for()
    listen(page)  # with a ticket
    page.get_by_role("button", name="Stop").click()
    page.locator("#panel-live article .outcome").wait_for()
    # a scope that the key lacks
    page.get_by_role("tab", name="Adapt").click()
    page.locator("#panel-adapt").get_by_text("does not have the scope adapt").wait_for()
    page.get_by_role("tab", name="Models").click()
    panel = page.locator("#panel-models")
    panel.get_by_role("button", name="Promote 1").click()
    panel.get_by_text("does not have the scope admin").wait_for()
    # kept for this tab, and not elsewhere
    page.reload()
    page.locator("#panel-models").get_by_role("article").wait_for()
    assert page.get_by_role("dialog").count() == 0
    assert page.evaluate("() => [Object.keys(localStorage).join(), document.cookie].join()") == (
        "nnpm-language,"
    )
    other = page.context.new_page()
    other.goto(page.url)
    other.get_by_role("dialog").get_by_text("needs an API key").wait_for()


def test_a_revoked_key_is_asked_for_again_and_nothing_is_lost(
    start: Start, browse: Open, keys: dict[str, str], recordings: Path, tmp_path: Path
) -> None:
    address = start(keys=True)
    page = browse(address)
    enter(page, keys["predict"])
    page.locator("#panel-recognise .drop").wait_for()
    KeyFile(tmp_path / "keys.json").revoke("predict")
    bearer = {"Authorization": f"Bearer {keys['predict']}"}
    while httpx2.get(f"{address}models", headers=bearer).status_code == 200:
        time.sleep(0.05)  # the service looks at the file from time to time
    page.locator("#panel-recognise input[type=file]").first.set_input_files(
        str(recordings / "clip.wav")
    )
    page.get_by_role("dialog").get_by_text("was revoked").wait_for()
    enter(page, keys["admin"])
    page.locator(".outcome").wait_for()  # what was refused is sent again


def test_a_job_is_watched_and_read_with_a_key(
    start: Start, browse: Open, keys: dict[str, str], clips: list[Path]
) -> None:
    page = browse(start(keys=True))
    enter(page, keys["admin"])
    panel = begin(page, *clips)
    panel.get_by_text("Version 3 of default is there").wait_for()
    with page.expect_popup() as opened:
        panel.get_by_role("button", name="Open the whole report").click()
    opened.value.get_by_text("Adaptation of default to ur").first.wait_for()
    opened.value.reload()  # a ticket that opened it opens it again
    opened.value.get_by_text("Adaptation of default to ur").first.wait_for()
