"""The tab Live: the microphone over /stream; a service that goes away loses no recording."""

import re
from pathlib import Path

import soundfile

from nnpm.service.settings import Settings
from tests.support.page import Open, Start, listen, require_access
from tests.support.servers import live


def test_emotion_is_shown_as_it_is_heard(start: Start, browse: Open) -> None:
    page = browse(start())
    listen(page)
    heard = page.locator("#panel-live .heard")
    assert heard.inner_text().strip() != "listening …"
    page.wait_for_function("() => document.querySelectorAll('#panel-live .strip i').length > 2")
    require_access(page)
    page.get_by_role("button", name="Stop").click()
    final = page.locator("#panel-live article")
    final.locator("table.shares").wait_for()
    page.locator("#panel-live").get_by_role("button", name="Recognise the recording").click()
    answered = page.locator("#panel-recognise article")
    answered.locator(".outcome").wait_for()
    assert re.match(r"live-.*\.wav", answered.locator("h3").inner_text())


def test_a_service_that_goes_away_loses_nothing(models: Path, browse: Open, start: Start) -> None:
    with live(Settings(models=models, workers=1)) as (address, _):
        page = browse(f"http://{address}/")
        listen(page)
    # it is gone: the page says so, and goes on recording
    alert = page.locator("#panel-live").get_by_role("alert")
    alert.get_by_text("The connection to the service was lost").wait_for()
    assert "Recording goes on" in alert.inner_text()
    page.locator("#panel-live .recording").wait_for()
    page.get_by_role("button", name="Stop").click()
    with page.expect_download() as saved:
        page.get_by_role("button", name="Save the recording").click()
    assert soundfile.info(saved.value.path()).duration > 1


def test_turns_and_a_language_that_is_none_are_said(start: Start, browse: Open) -> None:
    page = browse(start())
    page.get_by_role("tab", name="Live").click()
    panel = page.locator("#panel-live")
    panel.get_by_label("Language spoken").fill("Klingon, spoken twice!")
    panel.get_by_role("button", name="Start listening").click()
    panel.get_by_role("alert").wait_for()
    panel.get_by_role("button", name="Stop").click()
    panel.get_by_role("button", name="Save the recording").wait_for()
    panel.get_by_label("Language spoken").fill("Urdu")
    assert panel.locator("#live-language-hint code").inner_text() == "ur"
    panel.get_by_label("An answer").select_option("turns")
    panel.get_by_role("button", name="Start listening").click()
    page.get_by_role("timer").get_by_text("0:01").wait_for()
    panel.get_by_role("button", name="Stop").click()
    panel.locator("article .outcome").wait_for()
