"""Exchange with Label Studio: tasks for it, its labelling interface, and its answers, as JSON.

References:
    https://labelstud.io/guide/tasks and https://labelstud.io/guide/export: tasks as a list of
    ``{"data": …}``, and the exports JSON and JSON-MIN.
"""

import json
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote, unquote

from ...service.inference.card import EMOTIONS
from ..errors import TrainingError

LOCAL_FILES = "/data/local-files/?d="
"""Where Label Studio serves local files, if they are switched on there."""

_MAX_ANSWERS_BYTES = 64 << 20


def tasks(clips: Sequence[tuple[str, str]]) -> list[dict[str, Any]]:
    """Tasks for Label Studio. What the model answers is not among them: it would bias listeners.

    Args:
        clips: path, relative to the folder of recordings, and why it is worth a label.
    """
    return [
        {"data": {"audio": LOCAL_FILES + quote(path), "path": path, "why": why}}
        for path, why in clips
    ]


def label_config(emotions: Sequence[str]) -> str:
    """The labelling interface of a project in Label Studio."""
    choices = "".join(f'\n    <Choice value="{name}"/>' for name in emotions)
    return (
        f'<View>\n  <Audio name="audio" value="$audio"/>\n'
        f'  <Choices name="emotion" toName="audio" choice="single">{choices}\n  </Choices>\n'
        "</View>\n"
    )


def answers(path: Path, folder: Path) -> list[tuple[str, str]]:
    """Read what Label Studio exports as JSON: path and emotion of each task that was answered.

    Raises:
        TrainingError: if the file is no such export, or an answer is no emotion, or of a recording
            that is not in the folder.
    """
    try:
        if path.stat().st_size > _MAX_ANSWERS_BYTES:
            raise TrainingError(f"{path} has more than {_MAX_ANSWERS_BYTES} bytes, the limit")
        document = json.loads(path.read_bytes())
    except OSError as error:
        raise TrainingError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise TrainingError(f"{path} is not JSON: export the project as JSON") from None
    if not isinstance(document, list):
        raise TrainingError(f"{path} holds no list of tasks: export the project as JSON")
    found = []
    for number, task in enumerate(document, 1):
        place = f"task {number} of {path}"
        if (choice := _choice(task)) is None:
            continue
        if choice not in EMOTIONS:
            raise TrainingError(
                f"{place} has the answer {choice[:64]!r}; it must be one of {', '.join(EMOTIONS)}"
            )
        name = _path_of(task)
        parts = PurePosixPath(name).parts
        if not parts or parts[0] == "/" or ".." in parts or not (folder / name).is_file():
            raise TrainingError(f"{place} is about {name[:256]!r}, which is not in {folder}")
        found.append((PurePosixPath(name).as_posix(), choice))
    if not found:
        raise TrainingError(f"none of the {len(document)} tasks of {path} has an answer")
    return found


def _choice(task: Any) -> str | None:
    """The last choice of a task, in the full export or in JSON-MIN; None if there is none."""
    if not isinstance(task, dict):
        return None
    if isinstance(task.get("emotion"), str):
        return str(task["emotion"])
    for annotation in reversed(_list(task.get("annotations"))):
        if not isinstance(annotation, dict) or annotation.get("was_cancelled"):
            continue
        for result in _list(annotation.get("result")):
            value = result.get("value") if isinstance(result, dict) else None
            choices = _list(value.get("choices")) if isinstance(value, dict) else []
            if choices and isinstance(choices[0], str):
                return choices[0]
    return None


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _path_of(task: dict[str, Any]) -> str:
    data = task.get("data") if isinstance(task.get("data"), dict) else task
    assert isinstance(data, dict)
    if isinstance(data.get("path"), str):
        return str(data["path"])
    address = str(data.get("audio", ""))
    return unquote(address.rpartition("?d=")[2])
