"""A real browser with a fake microphone, and services for it to open."""

import shutil
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from nnpm.service.settings import Settings
from tests.support.keys import make_keys
from tests.support.page import NUM_CLIPS, Open, Start
from tests.support.servers import live
from tests.support.sounds import encode, speechlike

# A browser that a person installed; Playwright's own are downloads of hundreds of megabytes.
CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
WITHOUT = "no browser is installed (Debian: chromium)"
MICROPHONE_S = 3.0

CHILD = (Path(__file__).parent / "child.py").read_text()
"""A stand-in for the process that adapts."""


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A browser whose microphone plays speech-like sound again and again."""
    playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    if CHROMIUM is None:
        pytest.skip(WITHOUT)
    spoken = tmp_path_factory.mktemp("microphone") / "spoken.wav"
    spoken.write_bytes(encode(speechlike(MICROPHONE_S, 48_000), 48_000, subtype="PCM_16"))
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(
            executable_path=CHROMIUM,
            args=[
                "--no-sandbox",  # as root, in a container
                "--use-fake-ui-for-media-stream",
                "--use-fake-device-for-media-stream",
                f"--use-file-for-fake-audio-capture={spoken}",
                "--autoplay-policy=no-user-gesture-required",
                "--host-resolver-rules=MAP emotion.test 127.0.0.1",
            ],
        )
        yield browser
        browser.close()


def _fault(logged: str) -> list[str]:
    return [logged] if "Content Security Policy" in logged or "Uncaught" in logged else []


@pytest.fixture
def browse(chromium: Any) -> Iterator[Open]:
    """Open a page in a context of its own; nothing may fail in it that a test does not expect."""
    with ExitStack() as opened:
        faults: list[str] = []

        def start(url: str, **options: Any) -> Any:
            options.setdefault("locale", "en-GB")
            context = chromium.new_context(ignore_https_errors=True, **options)
            opened.callback(context.close)
            page = context.new_page()
            page.set_default_timeout(20_000)
            page.on("pageerror", lambda error: faults.append(str(error)))
            page.on("console", lambda message: faults.extend(_fault(message.text)))
            page.goto(url)
            page.get_by_role("tablist").wait_for()
            return page

        yield start
        assert faults == [], faults[0]


@pytest.fixture
def start(models: Path, tmp_path: Path) -> Iterator[Start]:
    """Start a service; gives its address. ``keys=True`` makes a file of keys."""
    with ExitStack() as running:

        def started(*, keys: bool = False, **settings: Any) -> str:
            (tmp_path / "audio").mkdir(exist_ok=True)
            fields = {"models": models, "workers": 2, **settings}
            if keys:
                fields["api_keys_file"] = tmp_path / "keys.json"
            own = Settings.model_validate(fields)
            command = (sys.executable, "-c", CHILD)
            address, _ = running.enter_context(live(own, adapt_command=command))
            return f"http://{address}/"

        yield started


@pytest.fixture
def keys(tmp_path: Path) -> dict[str, str]:
    """One key per scope, for a service that is started with ``keys=True``."""
    made = make_keys(tmp_path / "keys.json")
    return {name: headers["Authorization"].split()[1] for name, headers in made.items()}


@pytest.fixture(scope="session")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a mono clip, a stereo call and a file that is no audio."""
    import numpy as np

    folder = tmp_path_factory.mktemp("recordings")
    (folder / "clip.wav").write_bytes(encode(speechlike(2.0), subtype="PCM_16"))
    call = np.stack([speechlike(24.0), speechlike(24.0, seed=1)], axis=1)
    (folder / "call.wav").write_bytes(encode(call, subtype="PCM_16"))
    (folder / "notes.wav").write_bytes(b"This is no audio.")
    return folder


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("urdu")
    for number in range(NUM_CLIPS):
        path = folder / f"clip-{number:02}.wav"
        path.write_bytes(encode(speechlike(0.6, seed=number), subtype="PCM_16"))
    return sorted(folder.iterdir())
