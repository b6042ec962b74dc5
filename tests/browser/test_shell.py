"""What holds for the whole page: its weight, its first paint, who can use it, its languages."""

import hashlib
import re
from pathlib import Path
from typing import Any

import pytest

from nnpm.service.api.routes.system import STATIC
from tests.support.page import Open, Start, require_access

MAX_BYTES = 600_000
FIRST_PAINT_MS = 300
TABS = ("Recognise", "Live", "Adapt", "Models")


def test_it_weighs_little() -> None:
    assert sum(path.stat().st_size for path in STATIC.rglob("*") if path.is_file()) <= MAX_BYTES


def test_kept_libraries_are_as_their_packages_have_them() -> None:
    vendor = STATIC / "vendor"
    listed = re.findall(r"^  ([0-9a-f]{64})  (\S+)$", (vendor / "LICENSES.txt").read_text(), re.M)
    found = {(hashlib.sha256(path.read_bytes()).hexdigest(), path.name)
             for path in vendor.iterdir() if path.name != "LICENSES.txt"}  # fmt: skip
    assert set(listed) == found


def test_every_text_is_there_in_every_language() -> None:
    texts = (STATIC / "messages.js").read_text("utf-8")
    code = "".join(
        path.read_text("utf-8") for path in STATIC.glob("*.js") if path.name != "nnpm.js"
    )
    defined = set(re.findall(r'^  "?([\w. ]+)"?: \[', texts, re.M))
    used = set(re.findall(r'\bt\(\s*"([^"]+)"', code)) | set(
        re.findall(r'\bt\([^()"]*\? "([^"]+)" : "[^"]+"', code)
    )
    assert used <= defined
    empty = re.findall(r'^  "?[\w. ]+"?: \[[^\]]*""', texts, re.M)
    assert empty == []


def test_it_paints_at_once_and_calls_nobody_else(
    chromium: Any, start: Start, recordings: Path
) -> None:
    """The smallest of three: a busy machine delays any one of them."""
    address, asked, paints = start(), [], []
    for _ in range(3):
        page = chromium.new_page()
        page.on("request", lambda request: asked.append(request.url))
        page.goto(address)
        page.get_by_role("tablist").wait_for()
        paint = "() => performance.getEntriesByName('first-contentful-paint')[0]?.startTime"
        page.wait_for_function(paint)
        paints.append(page.evaluate(paint))
        page.close()
    assert min(paints) <= FIRST_PAINT_MS
    assert all(url.startswith(address) for url in asked)


@pytest.mark.parametrize(
    ("language", "scheme", "width"),
    [("en", "light", 1280), ("de", "dark", 360), ("ur", "light", 360)],
)
def test_axe_finds_nothing_in_any_tab(
    start: Start, browse: Open, recordings: Path, language: str, scheme: str, width: int
) -> None:
    page = browse(start(), color_scheme=scheme, viewport={"width": width, "height": 800})
    page.get_by_role("combobox").first.select_option(language)
    page.wait_for_function("tag => document.documentElement.lang === tag", arg=language)
    page.locator("#panel-recognise input[type=file]").first.set_input_files(
        [str(recordings / "clip.wav"), str(recordings / "notes.wav")]
    )
    page.locator(".outcome").wait_for()
    for number in range(len(TABS)):
        page.get_by_role("tab").nth(number).click()
        panel = page.get_by_role("tabpanel")
        panel.locator(":scope > :nth-child(2)").first.wait_for()
        require_access(page)


def test_keys_alone_lead_everywhere(start: Start, browse: Open) -> None:
    page = browse(start())
    page.get_by_role("tab", name="Recognise").focus()
    for name in (*TABS[1:], TABS[0]):
        page.keyboard.press("ArrowRight")
        assert page.get_by_role("tab", name=name).get_attribute("aria-selected") == "true"
        assert page.evaluate("document.activeElement.textContent").strip() == name
    page.keyboard.press("End")
    page.get_by_role("tabpanel").get_by_role("article").first.wait_for()
    assert page.url.endswith("#models")
    page.reload()  # the tab is in the address
    page.get_by_role("tab", name="Models", selected=True).wait_for()


def test_languages_change_words_and_direction(start: Start, browse: Open) -> None:
    page = browse(start(), locale="ur-PK")
    assert page.evaluate("document.dir + document.documentElement.lang") == "rtlur"
    page.get_by_role("tab", name="پہچان").wait_for()
    page.get_by_role("tab").first.focus()
    page.keyboard.press("ArrowLeft")  # the second tab lies to the left
    assert page.get_by_role("tab").nth(1).get_attribute("aria-selected") == "true"
    page.get_by_role("combobox").first.select_option("de")
    page.get_by_role("tab", name="Erkennen").wait_for()
    assert "Artikel 50" in page.get_by_role("contentinfo").inner_text()
    page.reload()
    page.get_by_role("tab", name="Erkennen").wait_for()
    assert page.evaluate("document.dir") == "ltr"


def test_without_scripts_it_says_so(chromium: Any, start: Start) -> None:
    context = chromium.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(start())
    assert "needs scripts" in page.locator("body").inner_text()
    context.close()
