"""Take docs/screenshots/: the page with a service of its own, in Debian's Chromium.

With NNPM_TEST_DATA the recordings are clips of a corpus, of which the pictures show no more than a
waveform; else they are sounds made by code.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nnpm.service.inference.audio.decode import decode
from nnpm.service.settings import Settings
from tests.support.servers import live
from tests.support.sounds import encode, speechlike

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs/screenshots"
WIDTH, HEIGHT = 1100, 1500
NUM_PARTS, RATE_HZ = 8, 16_000


def parts() -> list[Any]:
    """Eight clips at 16 kHz: of RAVDESS, actor 1, if it is there, else made by code."""
    corpora = os.environ.get("NNPM_TEST_DATA")
    found = sorted(Path(corpora).glob("ravdess/01/*-01.*")) if corpora else []
    if len(found) < NUM_PARTS:
        return [speechlike(4.0, seed=number) for number in range(NUM_PARTS)]
    step = len(found) // NUM_PARTS
    return [np.asarray(decode(path).waveforms[0].samples) for path in found[::step][:NUM_PARTS]]


def recordings(folder: Path) -> list[Path]:
    """A call of two channels and two clips, in a folder."""
    made = parts()
    call = np.zeros((sum(map(len, made)) + NUM_PARTS * RATE_HZ // 2, 2), np.float32)
    at = 0
    for number, part in enumerate(made):
        call[at : at + len(part), number % 2] = part
        at += len(part) + RATE_HZ // 2
    call += 1e-4 * np.random.default_rng(0).standard_normal(call.shape)
    files = []
    for name, samples in (("call.wav", call), ("clip 1.wav", made[0]), ("clip 2.wav", made[3])):
        files.append(folder / name)
        files[-1].write_bytes(encode(samples, RATE_HZ, subtype="PCM_16"))
    return files


def take(browser: Any, address: str, files: list[Path]) -> None:
    """Take every picture."""
    size = {"width": WIDTH, "height": HEIGHT}
    page = browser.new_page(viewport=size, locale="en-GB", color_scheme="light")
    page.goto(address)
    page.locator("#panel-recognise input[type=file]").first.set_input_files(list(map(str, files)))
    page.get_by_text(f"{len(files)} / {len(files)}").wait_for()
    page.wait_for_timeout(1500)  # the waveform is drawn
    page.screenshot(path=FOLDER / "recognise.png")
    page.get_by_role("tab", name="Live").click()
    page.get_by_role("button", name="Start listening").click()
    page.wait_for_function("() => document.querySelectorAll('#panel-live .strip i').length > 4")
    page.screenshot(path=FOLDER / "live.png")
    page.get_by_role("button", name="Stop").click()
    page.locator("#panel-live article .outcome").wait_for()
    page.get_by_role("tab", name="Models").click()
    page.locator("#panel-models article").first.wait_for()
    page.screenshot(path=FOLDER / "models.png")
    page = browser.new_page(
        viewport={"width": 390, "height": 844}, locale="de-DE", color_scheme="dark"
    )
    page.goto(f"{address}#adapt")
    page.locator("#panel-adapt fieldset").wait_for()
    page.screenshot(path=FOLDER / "adapt-german.png")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a service and a browser, and take the pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--browser", default="/usr/bin/chromium", help="[/usr/bin/chromium]")
    options = parser.parse_args(arguments)
    if not Path(options.browser).exists():
        print(f"{options.browser} is not there (Debian: apt install chromium)", file=sys.stderr)
        return 2
    from playwright.sync_api import sync_playwright

    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as name, sync_playwright() as playwright:
        files = recordings(Path(name))
        settings = Settings(
            models=ROOT / "models", database_url=f"sqlite:///{name}/jobs.db", adapt_workers=0
        )
        browser = playwright.chromium.launch(
            executable_path=options.browser,
            args=[
                "--no-sandbox",
                "--use-fake-ui-for-media-stream",
                "--use-fake-device-for-media-stream",
                f"--use-file-for-fake-audio-capture={files[1]}",
            ],
        )
        with live(settings) as (address, _):
            take(browser, f"http://{address}/", files)
        browser.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
