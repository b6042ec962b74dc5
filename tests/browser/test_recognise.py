"""The tab Recognise: files, a folder, the microphone; what is wrong with one, and downloads."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.page import Open, Start
from tests.support.sounds import encode, speechlike

FILES = "input[type=file]:not([webkitdirectory])"


def add(page: Any, *paths: Path) -> None:
    page.locator(f"#panel-recognise {FILES}").set_input_files([str(path) for path in paths])


def test_many_files_are_a_table_and_each_is_shown(
    start: Start, browse: Open, recordings: Path
) -> None:
    page = browse(start())
    add(page, *(recordings / name for name in ("call.wav", "clip.wav", "notes.wav")))
    table = page.locator("table.files")
    table.get_by_text("3 / 3").wait_for()
    assert "This is not audio" in table.inner_text()
    call = page.get_by_role("article", name="call.wav")
    assert call.locator("table.shares").count() == 3  # of the whole, and of each channel
    shares = call.locator("table.shares").first.locator("td.number").all_inner_texts()
    assert sum(float(share.split()[0]) for share in shares) == pytest.approx(100, abs=0.3)
    segments = call.locator("table.segments tbody tr")
    assert segments.count() > 2
    channels = set(segments.locator("td:nth-child(3)").all_inner_texts())
    assert channels == {"1", "2"}
    # the waveform: a row for each channel, a region for each segment, one plays when clicked
    wave = call.locator(".waveform [role=img]")
    page.wait_for_function(
        "([box, count]) => box.firstElementChild?.shadowRoot.querySelectorAll("
        "'[part~=region]').length === count",
        arg=[wave.element_handle(), segments.count()],
    )
    region = page.evaluate_handle(
        "box => box.firstElementChild.shadowRoot.querySelector('[part~=region]')",
        wave.element_handle(),
    )
    region.as_element().click()
    call.locator("table.segments tr.current").wait_for()
    # an error keeps its place, its words and a way on
    table.get_by_role("button", name="notes.wav", exact=True).click()
    notes = page.get_by_role("article", name="notes.wav")
    assert notes.get_by_role("alert").get_by_role("button", name="Try again").is_visible()


def test_a_recording_is_answered_and_kept(start: Start, browse: Open) -> None:
    page = browse(start())
    page.get_by_role("button", name="Record", exact=True).click()
    page.get_by_role("timer").get_by_text("0:01").wait_for()
    page.get_by_role("button", name="Stop").click()
    page.locator(".outcome").wait_for()
    with page.expect_download() as saved:
        page.locator("article .downloads summary").click()
        page.locator("article").get_by_role("button", name="JSON", exact=True).click()
    answer = json.loads(Path(saved.value.path()).read_text())
    assert answer["audio"]["duration_s"] > 0.5
    assert answer["audio"]["format"] == "WAV"
    assert saved.value.suggested_filename.startswith("recording-")


def test_answers_are_saved_in_every_format(start: Start, browse: Open, recordings: Path) -> None:
    page = browse(start())
    add(page, recordings / "call.wav")
    page.locator(".outcome").wait_for()
    downloads = page.locator("article .downloads")
    downloads.locator("summary").click()
    found = {}
    rows = downloads.locator("p.row")
    for row in range(rows.count()):
        for button in rows.nth(row).get_by_role("button").all():
            with page.expect_download() as saved:
                button.click()
            name = f"{row} {saved.value.suggested_filename}"
            found[name] = Path(saved.value.path()).read_bytes()
            page.wait_for_function("button => !button.disabled", arg=button.element_handle())
    tables = {"call.csv", "call.xlsx", "call.parquet", "call.jsonl"}
    assert {f"0 {name}" for name in tables | {"call.json", "call.rttm"}} <= set(found)
    assert {f"1 {name}" for name in tables} <= set(found)
    timelines = {"call.TextGrid", "call.eaf", "call.txt", "call.srt", "call.vtt"}
    assert {f"2 {name}" for name in timelines} <= set(found)
    assert found["0 call.csv"].startswith(b"file,emotion,")
    assert found["1 call.csv"].count(b"\n") > 3
    assert found["0 call.parquet"].startswith(b"PAR1")
    assert b"IntervalTier" in found["2 call.TextGrid"]


def test_what_is_too_large_or_not_reached_says_so_and_goes_on(
    start: Start, browse: Open, recordings: Path, tmp_path: Path
) -> None:
    page = browse(start(max_upload_bytes=200_000))
    (tmp_path / "long.wav").write_bytes(encode(speechlike(20.0), subtype="PCM_16"))
    add(page, tmp_path / "long.wav")
    alert = page.get_by_role("alert")
    alert.get_by_text("too large").first.wait_for()
    page.route("**/predict?*", lambda route: route.abort())
    add(page, recordings / "clip.wav")
    page.get_by_role("article", name="clip.wav").get_by_text("cannot be reached").wait_for()
    page.unroute("**/predict?*")
    page.get_by_role("article").get_by_role("button", name="Try again").click()
    page.get_by_role("article", name="clip.wav").locator(".outcome").wait_for()


def test_a_refused_microphone_is_a_sentence(start: Start, browse: Open) -> None:
    page = browse(start())
    page.evaluate(
        "() => { navigator.mediaDevices.getUserMedia = () =>"
        " Promise.reject(new DOMException('', 'NotAllowedError')); }"
    )
    page.get_by_role("button", name="Record", exact=True).click()
    page.get_by_role("alert").get_by_text("The microphone was refused").wait_for()
    assert page.get_by_role("button", name="Record", exact=True).is_enabled()


def test_plain_http_from_another_host_gives_no_microphone(start: Start, browse: Open) -> None:
    address = start(allowed_hosts=("emotion.test",))
    page = browse(address.replace("127.0.0.1", "emotion.test"))
    page.get_by_role("button", name="Record", exact=True).click()
    page.get_by_role("alert").get_by_text("over https").wait_for()


def test_files_are_dropped(start: Start, browse: Open, recordings: Path) -> None:
    page = browse(start())
    transfer = page.evaluate_handle(
        """encoded => {
          const bytes = Uint8Array.from(atob(encoded), (c) => c.charCodeAt(0));
          const transfer = new DataTransfer();
          transfer.items.add(new File([bytes], "dropped.wav"));
          return transfer;
        }""",
        base64.b64encode((recordings / "clip.wav").read_bytes()).decode(),
    )
    page.locator("#panel-recognise .drop").dispatch_event("drop", {"dataTransfer": transfer})
    page.get_by_role("article", name="dropped.wav").locator(".outcome").wait_for()


def test_what_the_browser_cannot_play_is_drawn_all_the_same(
    start: Start, browse: Open, tmp_path: Path
) -> None:
    (tmp_path / "clip.aiff").write_bytes(encode(speechlike(2.0), container="AIFF"))
    page = browse(start())
    add(page, tmp_path / "clip.aiff")
    page.get_by_text("cannot play this format").wait_for()
    drawn = "box => box.firstElementChild.shadowRoot.querySelectorAll('canvas').length"
    assert page.locator(".waveform [role=img]").evaluate(drawn) > 0


def test_an_hour_of_stereo_does_not_freeze_the_page(
    start: Start, browse: Open, recordings: Path
) -> None:
    """Its table begins with some rows, and only what is in sight of its waveform is drawn."""
    page = browse(start())
    scores = {"angry": 0.25, "sad": 0.75}
    verdict = {"emotion": "sad", "confidence": 0.75, "calibrated": True, "scores": scores,
               "abstained": False, "reasons": [], "out_of_domain": 0.1}  # fmt: skip
    segments = [
        {"start_s": 3.0 * n, "end_s": 3.0 * n + 2.5, "channel": n % 2, "emotion": "sad",
         "confidence": 0.75, "scores": scores, "reasons": []}
        for n in range(1200)
    ]  # fmt: skip
    answer = {
        **verdict, "segments": segments, "timeline": [],
        "audio": {"duration_s": 3600.0, "sample_rate_hz": 8000, "channels": 2, "format": "WAV",
                  "speech_ratio": 0.8, "warnings": []},
        "model": {"name": "default", "version": "2", "language": "und"}, "request_id": "1",
        "per_channel": [{**verdict, "channel": n} for n in range(2)],
        "peaks": [[[-0.25, 0.5]] * 2000] * 2,
    }  # fmt: skip
    page.route("**/predict?*", lambda route: route.fulfill(json=answer))
    page.evaluate(
        """() => {
          window.longest = 0;
          let last = performance.now();
          const tick = () => {
            const now = performance.now();
            window.longest = Math.max(window.longest, now - last);
            last = now;
            setTimeout(tick, 10);
          };
          tick();
        }"""
    )
    add(page, recordings / "call.wav")
    page.get_by_role("button", name="Show all 1200").wait_for()
    assert page.locator("table.segments tbody tr").count() == 200
    page.wait_for_function(
        "() => document.querySelector('.waveform [role=img]')?.firstElementChild"
        "?.shadowRoot.querySelector('[part~=region]')"
    )
    page.get_by_label("Zoom").fill("100")
    # A page that decoded the hour, or drew all of it, would stand still for many seconds.
    longest = page.evaluate("() => window.longest")
    assert longest < 5_000
