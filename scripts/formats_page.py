"""Write docs/operate/formats.md, the containers and codecs that are read, from the code's table."""

from pathlib import Path

from nnpm.service.inference.audio.formats import FORMATS

PAGE = Path(__file__).parents[1] / "docs/operate/formats.md"

_HEAD = """\
# Formats

What `/predict`, `/predict/batch`, `nnpm predict` and adaptation read, by container and codec. This
page is written from `service/inference/audio/formats.py` by `make formats`; tests make a file of
each pair with FFmpeg or libsndfile, and decode it.

A file is recognised by its first bytes; its name does not matter. The suffixes decide only which
files of a folder or archive are recordings; one without suffix is decided by its first bytes, and
what is passed over is counted and named. A codec that is not listed is refused by name, with 415
`not_audio`.

| container | suffixes | codecs | with the extra `media` also |
| --- | --- | --- | --- |
"""


def page() -> str:
    """Make the page's text."""
    rows = []
    for row in sorted(FORMATS, key=lambda row: (row.needs_media, row.name.lower())):
        suffixes = " ".join(f"`{suffix}`" for suffix in row.suffixes) or "by content only"
        codecs, more = ", ".join(row.codecs), ", ".join(row.media_codecs)
        rows.append(f"| {row.name} | {suffixes} | {codecs} | {more} |\n")
    return _HEAD + "".join(rows)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
