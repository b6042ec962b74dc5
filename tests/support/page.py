"""What tests of the page do in it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Open = Callable[..., Any]
"""Opens an address in a browser; gives the page."""

Start = Callable[..., str]
"""Starts a service; gives its address."""

NUM_CLIPS = 22
"""Recordings of an adaptation: a few more than the least."""


def begin(page: Any, *paths: Path, language: str = "Urdu") -> Any:
    """Drop recordings in the tab and start; gives the tab."""
    page.get_by_role("tab", name="Adapt").click()
    panel = page.locator("#panel-adapt")
    panel.locator("input[type=file]").first.set_input_files([str(path) for path in paths])
    panel.get_by_label("Language spoken").fill(language)
    panel.get_by_role("button", name="Adapt", exact=True).click()
    return panel


def listen(page: Any) -> None:
    page.get_by_role("tab", name="Live").click()
    page.get_by_role("button", name="Start listening").click()
    page.locator("#panel-live .strip i").first.wait_for(state="attached")


def enter(page: Any, key: str) -> None:
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Key").fill(key)
    dialog.get_by_role("button", name="Use key").click()
    dialog.wait_for(state="detached")


def require_access(page: Any) -> None:
    """See that axe finds no violation, and that the page is not wider than its window."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="no axe here")
    found = axe.Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
    assert page.evaluate("() => document.documentElement.scrollWidth - innerWidth") <= 0
