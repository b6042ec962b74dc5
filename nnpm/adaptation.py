"""Adaptation to a language, in this process."""

import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import translated
from .model import Model, load
from .service.inference.errors import ExtraMissingError
from .service.jobs.folder import DEFAULT_METHOD, AdaptationTask, read_request
from .service.jobs.labels import read_labels
from .service.system import available_cores

if TYPE_CHECKING:
    from .training.adaptation.report import AdaptationReport

Progress = Callable[[str, int, int], None]
"""Called with the stage, the units done and all units of the stage."""

_EXTRA = ("autograd", "onnx")


def adapt(
    bundle: str | os.PathLike[str] | Model,
    folder: str | os.PathLike[str],
    *,
    out: str | os.PathLike[str],
    language: str = "und",
    method: str = DEFAULT_METHOD,
    emotions: Sequence[str] = (),
    channels: str | int = "mix",
    labels: str | os.PathLike[str] | None = None,
    seed: int = 0,
    force: bool = False,
    threads: int | None = None,
    config: str | os.PathLike[str] | None = None,
    progress: bool | Progress = False,
) -> "AdaptationReport":
    """Adapt a bundle to a folder of recordings without labels, as ``nnpm adapt`` does.

    Args:
        bundle: what is adapted: a loaded model, or what :func:`nnpm.load` takes.
        folder: recordings, searched recursively; at least twenty that can be used.
        out: folder of the new bundle, which must not exist.
        language: BCP-47 tag of the recordings, such as ``ur``.
        method: ``nnpm``, or one of the methods that it is compared with.
        emotions: that occur in the recordings, at least two: the new bundle's default answers;
            all by default.
        channels: that are learnt from: ``mix``, ``split`` (each by itself), or the number of one.
        labels: a few labels, a CSV file with the columns path, from ``folder``, and emotion.
        seed: of all random draws.
        force: write the bundle even if the evidence says reject.
        threads: CPU threads; all cores by default.
        config: settings, a TOML file; those of ``nnpm adapt`` by default.
        progress: True shows bars on standard error; a function is called instead.

    Returns:
        The report: ``verdict`` (``improved``, ``no change`` or ``reject``), ``reasons``,
        ``estimated_accuracy``, ``clips``, and ``bundle``: the new folder, to be loaded with
        :func:`nnpm.load`, or None if none was written.

    Raises:
        Error: if the task cannot be carried out, or the extra ``adapt`` is not installed; nothing
            is written then.
    """
    with translated(), ExitStack() as stack:
        try:
            from .training.adaptation import command
            from .training.adaptation import config as configs
            from .training.adaptation.report import Bars
        except ModuleNotFoundError as error:
            lacking = (error.name or "").partition(".")[0]
            if lacking not in _EXTRA:
                raise
            raise ExtraMissingError(
                f"nnpm.adapt needs {lacking}, which is not installed; install the extra "
                "'adapt': pip install 'nnpm[adapt]'."
            ) from None
        base = bundle if isinstance(bundle, Model) else load(bundle)
        given: dict[str, Any] = {
            "bundle": base.path,
            "target": Path(folder),
            "out": Path(out),
            "method": method,
            "language": language,
            "emotions": tuple(emotions),
            "channels": channels,
            "labels": None if labels is None else Path(labels),
            "seed": seed,
            "force": force,
            "threads": threads or available_cores(),
        }
        task = read_request(AdaptationTask, given)
        if task.labels is not None:
            read_labels(task.labels, task.target)
        numbers = configs.load(configs.DEFAULT if config is None else Path(config))
        shown: Progress
        if callable(progress):
            shown = progress
        else:
            shown = stack.enter_context(Bars()) if progress else _silent
        return command.adapt(task, numbers, shown)


def _silent(_stage: str, _done: int, _total: int) -> None:
    """Show nothing."""
