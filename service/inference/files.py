"""Audio files in a folder."""

from pathlib import Path

_SOUND_FILES = (
    *(".aif", ".aiff", ".au", ".caf", ".flac", ".mp3", ".oga", ".ogg", ".opus", ".rf64", ".snd"),
    *(".w64", ".wav"),
)
# Read with the extra "media". Not .ts, which is TypeScript more often than it is television.
_MEDIA = (
    *(".3g2", ".3gp", ".aac", ".amr", ".asf", ".avi", ".awb", ".flv", ".m4a", ".m4b", ".m4v"),
    *(".mka", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm", ".wma", ".wmv"),
)

AUDIO_SUFFIXES = frozenset({*_SOUND_FILES, *_MEDIA})
"""Names of files that are tried, in lower case."""


def audio_files(folder: Path) -> list[Path]:
    """List the files with an audio suffix in a folder and all below it, sorted.

    Hidden files and folders are left out.
    """
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in AUDIO_SUFFIXES
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and path.is_file()
    )
