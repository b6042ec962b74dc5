"""The tab Adapt: recordings in, stages as they come, a report with sound, and what follows it."""

import io
import json
import shutil
import urllib.request
import zipfile
from pathlib import Path
from typing import Any

from tests.support.page import NUM_CLIPS, Open, Start, begin, require_access


def fetch(url: str, method: str = "GET") -> Any:
    request = urllib.request.Request(url, method=method)
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


def test_from_recordings_to_a_version_that_answers(
    start: Start, browse: Open, clips: list[Path], tmp_path: Path
) -> None:
    address = start()
    hold = tmp_path / "hold-adapting"
    hold.touch()
    page = browse(address)
    panel = begin(page, *clips)
    panel.locator("[aria-current=step]").get_by_text("adapting").wait_for()
    hold.unlink()
    panel.get_by_text("Version 3 of default is there").wait_for()
    # the chart, and the same as a table
    panel.locator(".chart canvas").wait_for()
    panel.get_by_text("As a table").click()
    panel.get_by_role("row", name="angry 25.0 % 50.0 %").wait_for()
    require_access(page)
    # a clip whose answer changed plays from this tab
    panel.get_by_role("button", name="Play clip-00.wav").click()
    page.wait_for_function("() => document.querySelector('#panel-adapt audio').currentTime > 0")
    # the versions
    for button, told in (
        ("Shadow", "is the shadow for Urdu"),
        ("Promote", "answers for Urdu now"),
        ("Roll back", "was undone"),
    ):
        panel.get_by_role("button", name=button, exact=True).click()
        panel.get_by_text(told).wait_for()
    with page.expect_popup() as opened:
        panel.get_by_role("button", name="Open the whole report").click()
    opened.value.get_by_text("Adaptation of default to ur").first.wait_for()


def test_what_goes_wrong_has_a_way_on(
    start: Start, browse: Open, clips: list[Path], tmp_path: Path
) -> None:
    address = start(adapt_tries=1)
    page = browse(address)
    panel = begin(page, *clips, language="no language at all!")
    panel.get_by_role("alert").get_by_role("button", name="Try again").wait_for()
    # the upload is cut: another try sends the same request, which makes one job
    page.route("**/adapt", lambda route: route.abort())
    panel.get_by_label("Language spoken").fill("Urdu")
    panel.get_by_role("button", name="Adapt", exact=True).click()
    panel.get_by_role("alert").get_by_text("cannot be reached").wait_for()
    page.unroute("**/adapt")
    (tmp_path / "hold-adapting").touch()
    panel.get_by_role("alert").get_by_role("button", name="Try again").click()
    panel.locator("[aria-current=step]").get_by_text("adapting").wait_for()
    (job,) = fetch(f"{address}adapt")["jobs"]
    # cancelled elsewhere
    fetch(f"{address}adapt/{job['id']}", "DELETE")
    panel.get_by_text("here before or elsewhere").wait_for()
    (tmp_path / "hold-adapting").unlink()
    # and one whose process dies
    (tmp_path / "fail").touch()
    begin(page, *clips)
    panel.get_by_role("alert").get_by_text("interrupted").wait_for()


def test_a_zip_plays_and_labels_are_given_by_keys(
    start: Start, browse: Open, clips: list[Path], tmp_path: Path
) -> None:
    path = tmp_path / "urdu.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for clip in clips:
            archive.write(clip, f"speakers/{clip.name}")
    page = browse(start())
    panel = begin(page, path)
    panel.get_by_text("Version 3 of default is there").wait_for()
    panel.get_by_role("button", name="Play clip-00.wav").click()
    page.wait_for_function("() => document.querySelector('#panel-adapt audio').currentTime > 0")
    panel.get_by_role("button", name="Label a few clips").click()
    panel.get_by_text(f"Clip 1 of {NUM_CLIPS}").wait_for()
    for key in ("1", "2", "0", "Backspace", "4"):
        page.keyboard.press(key)
    panel.get_by_text(f"Clip 4 of {NUM_CLIPS}").wait_for()
    sent: list[bytes] = []
    figure = {"value": 0.5, "low": 0.25, "high": 0.75}
    figures = dict.fromkeys(("wa", "uar", "ece", "answered_share"), figure)

    def evaluate(route: Any) -> None:
        sent.append(route.request.post_data_buffer)
        calibrated = b'name="apply"' in sent[-1]
        route.fulfill(
            json={**figures, "recalibrated": figures, "reason": "",
                  "bundle": "default/4" if calibrated else None}
        )  # fmt: skip

    page.route("**/models/default/3/evaluate", evaluate)
    panel.get_by_role("button", name="Evaluate with 3 labels").click()
    panel.get_by_role("row", name="Accuracy 50 % (25 %").wait_for()
    panel.get_by_role("button", name="Publish a calibrated version").click()
    panel.get_by_text("default/4 was published").wait_for()
    require_access(page)
    start_of_zip = sent[0].index(b"PK\x03\x04")
    with zipfile.ZipFile(io.BytesIO(sent[0][start_of_zip : sent[0].rindex(b"\r\n--")])) as archive:
        assert archive.testzip() is None
        assert len(archive.namelist()) == 4
        assert archive.read("metadata.csv").startswith(b"path,emotion\n")
    with page.expect_download() as saved:
        panel.get_by_role("button", name="Save labels").click()
    lines = Path(saved.value.path()).read_text().splitlines()
    assert lines[0] == "path,emotion"
    assert [line.partition(",")[2] for line in lines[1:]] == ["angry", "calm", "sad"]


def test_a_folder_of_the_server_and_audio_that_was_kept(
    start: Start, browse: Open, clips: list[Path], tmp_path: Path
) -> None:
    root = tmp_path / "audio"
    (root / "urdu").mkdir(parents=True)
    for clip in clips:
        shutil.copy(clip, root / "urdu")
    address = start(adapt_roots=(root,))
    page = browse(address)
    page.get_by_role("tab", name="Adapt").click()
    panel = page.locator("#panel-adapt")
    panel.get_by_label("Or a folder of the server").select_option(str(root / "urdu"))
    panel.get_by_role("button", name="Adapt", exact=True).click()
    panel.get_by_text("Version 3 of default is there").wait_for()
    # the server keeps no audio unless it is asked before
    panel.get_by_text("the server keeps no audio").wait_for()
    assert panel.get_by_role("button", name="Play clip-00.wav").is_disabled()
    # asked for, it plays in another tab as well
    panel.get_by_label("Or a folder of the server").select_option("")
    panel.get_by_label("Keep the audio on the server").check()
    panel.locator("input[type=file]").first.set_input_files([str(clip) for clip in clips])
    panel.get_by_role("button", name="Adapt", exact=True).click()
    panel.get_by_text("Version 4 of default is there").wait_for()
    other = page.context.new_page()
    other.goto(f"{address}#adapt")
    panel = other.locator("#panel-adapt")
    panel.locator("table tbody button").first.click()
    panel.get_by_role("button", name="Play clip-00.wav").click()
    other.wait_for_function("() => document.querySelector('#panel-adapt audio').currentTime > 0")
