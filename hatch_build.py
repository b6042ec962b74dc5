"""The package's description for an index: the README, whose links lead out of the wheel.

A wheel holds no docs/: a link to a file there would lead nowhere. Where the build is given the
address of the repository (NNPM_REPOSITORY), such links lead to the file at the release's tag; else
their text stays, without a link.
"""

import os
import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

_LINK = re.compile(r"(!?)\[([^\]]*)\]\((?![a-z]+:|#)([^)\s]+)\)")


class CustomMetadataHook(MetadataHookInterface):
    """Sets ``readme`` and ``urls``."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Fill in the fields that pyproject.toml calls dynamic."""
        repository = os.environ.get("NNPM_REPOSITORY", "").rstrip("/")
        tag = f"v{metadata['version']}"
        text = (Path(self.root) / "README.md").read_text("utf-8")
        metadata["readme"] = {
            "content-type": "text/markdown",
            "text": described(text, f"{repository}/{{kind}}/{tag}" if repository else ""),
        }
        metadata["urls"] = (
            {
                "Repository": repository,
                "Documentation": f"{repository}/blob/{tag}/docs/index.md",
                "Changelog": f"{repository}/blob/{tag}/CHANGELOG.md",
                "Issues": f"{repository}/issues",
            }
            if repository
            else {}
        )


def described(text: str, place: str) -> str:
    """Replace the relative links of a page.

    Args:
        text: Markdown.
        place: address of the files, with ``{kind}`` for blob or raw; empty if there is none.
    """

    def absolute(found: re.Match[str]) -> str:
        image, shown, path = found.groups()
        if not place:
            return "" if image else shown
        return f"{image}[{shown}]({place.format(kind='raw' if image else 'blob')}/{path})"

    return _LINK.sub(absolute, text)
