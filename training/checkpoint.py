"""One checkpoint per run, replaced whole after every epoch."""

import os
import pickle  # nosec B403 # its error is caught; nothing is unpickled
from pathlib import Path
from typing import Any

import torch

from training.errors import TrainingError

_NAME = "checkpoint.pt"


def save(run: Path, state: dict[str, Any]) -> None:
    """Write the checkpoint of ``run``; a kill or a power cut leaves the old one or the new one."""
    temporary = run / f"{_NAME}.tmp"
    with temporary.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(run / _NAME)


def load(run: Path) -> dict[str, Any] | None:
    """Read the checkpoint of ``run`` (tensors and numbers only), or None if there is none.

    Raises:
        TrainingError: if it cannot be read.
    """
    path = run / _NAME
    if not path.exists():
        return None
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (EOFError, RuntimeError, pickle.UnpicklingError) as error:
        raise TrainingError(f"{path} is damaged; start again, with another --out") from error
    return state
