"""The tab Recognise: files, a folder, the microphone; what is wrong with one, and downloads."""

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
