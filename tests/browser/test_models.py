"""The tab Models: versions, cards, aliases, drift; deleting asks first."""

from pathlib import Path

from tests.support.page import Open, Start


def test_versions_are_shown_promoted_and_deleted(
    start: Start, browse: Open, recordings: Path
) -> None:
    page = browse(start())
    page.locator("#panel-recognise input[type=file]").first.set_input_files(
        str(recordings / "clip.wav")
    )
    page.locator(".outcome").wait_for()
    page.get_by_role("tab", name="Models").click()
    panel = page.locator("#panel-models")
    panel.get_by_text("Heard lately").wait_for()
    panel.get_by_role("button", name="2", exact=True).click()
    card = panel.get_by_role("region", name="Card").first
    card.get_by_text("default/2").wait_for()
    panel.get_by_role("button", name="Promote 1").click()
    aliases = panel.get_by_role("table", name="Which version answers")
    aliases.get_by_role("cell", name="1").wait_for()
    panel.get_by_role("button", name="Shadow 2").click()
    aliases.get_by_role("button", name="End shadow").click()
    aliases.get_by_role("button", name="End shadow").wait_for(state="detached")
    panel.get_by_role("button", name="Delete 1").click()  # it is live
    panel.get_by_role("alert").get_by_role("button", name="Delete").click()
    panel.get_by_text("promote another version").wait_for()
    panel.get_by_role("button", name="Roll back").click()
    aliases.wait_for(state="detached")
    panel.get_by_role("button", name="Delete 1").click()
    panel.get_by_role("alert").get_by_role("button", name="Delete").last.click()
    panel.get_by_role("button", name="1", exact=True).wait_for(state="detached")
