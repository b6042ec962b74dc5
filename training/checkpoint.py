"""One checkpoint per run, replaced whole after every epoch."""

from pathlib import Path
from typing import Any

import torch

_NAME = "checkpoint.pt"


def save(run: Path, state: dict[str, Any]) -> None:
    """Write the checkpoint of ``run``; a kill leaves the old one or the new one."""
    temporary = run / f"{_NAME}.tmp"
    torch.save(state, temporary)
    temporary.replace(run / _NAME)


def load(run: Path) -> dict[str, Any] | None:
    """Read the checkpoint of ``run`` (tensors and numbers only), or None if there is none."""
    path = run / _NAME
    if not path.exists():
        return None
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return state
