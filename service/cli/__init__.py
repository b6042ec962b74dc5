"""The command line: ``nnpm serve``, ``predict``, ``models`` and more, one module each.

A command's module has ``add(parser)``, which adds its options, and ``run(args)``. It is imported
only when the command is called, so that ``nnpm --help`` is fast. The training commands are handed
on to another process, which may import torch.
"""

import argparse
import importlib
import importlib.util
import os
import sys
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import NoReturn

from ... import __version__
from ..command import OneLineParser, UsageError, run_command

COMMANDS = {
    "serve": "answer over HTTP; settings are environment variables NNPM_...",
    "predict": "recognise the emotion in recordings",
    "models": "show and change the models folder, and which version answers",
    "keys": "make, list and revoke API keys",
    "worker": "run adaptation jobs for services that share jobs and models",
    "health": "exit 0 if the service on this machine is ready",
    "doctor": "tell what is installed, which model answers, and what is off",
    "completion": "print the script with which a shell completes commands and options",
}

TRAINING_COMMANDS = {
    "train": "train a network on labelled corpora",
    "export": "make a bundle of a training run",
    "evaluate": "score a bundle on a labelled corpus",
    "adapt": "adapt a bundle to a new language, from unlabelled recordings",
    "calibrate": "fit the confidence of a bundle to labelled clips",
    "label": "pick the clips that are worth a label, and keep their labels",
    "benchmark": "compare all adaptation methods on corpora, in tables",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; without one, print the help.

    Returns:
        0, or 2 for bad usage or input, after one line on standard error.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    return run_command(lambda: _run(arguments))


def _run(arguments: list[str]) -> int:
    name = next((word for word in arguments if not word.startswith("-")), "")
    if name in TRAINING_COMMANDS and arguments[0] == name:
        _hand_on_to_training(arguments)
    _one_blas_thread()
    module = importlib.import_module(f".{name}", __name__) if name in COMMANDS else None
    parser = build_parser({} if module is None else {name: module})
    if not arguments:
        parser.print_help()
        return 0
    args = parser.parse_args(arguments)
    if module is None:
        parser.error("COMMAND is missing")
    code: int = module.run(args)
    return code


def _one_blas_thread() -> None:
    """Limit BLAS to one thread before numpy is imported: recordings share the cores instead.

    With OpenBLAS's own threads an answer cost four times the CPU time, on two cores that had other
    work as well.
    """
    for library in ("OPENBLAS", "MKL", "OMP"):
        os.environ.setdefault(f"{library}_NUM_THREADS", "1")


def build_parser(modules: Mapping[str, ModuleType]) -> argparse.ArgumentParser:
    """Make the parser of all commands; those whose module is given have their options."""
    parser = OneLineParser(prog="nnpm", description="Speech emotion recognition.")
    parser.add_argument("--version", action="version", version=f"nnpm {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    for command, text in COMMANDS.items():
        added = commands.add_parser(command, help=text, description=f"{text[0].upper()}{text[1:]}.")
        if command in modules:
            modules[command].add(added)
    for command, text in TRAINING_COMMANDS.items():
        commands.add_parser(command, help=text, add_help=False)
    return parser


def _hand_on_to_training(arguments: list[str]) -> NoReturn:
    # Training reports itself what it lacks, such as torch.
    if importlib.util.find_spec("nnpm.training") is None:
        raise UsageError(f"nnpm {arguments[0]} needs the training package, which is not installed.")
    sys.stdout.flush()
    # -P: a package called nnpm in the user's working directory is not ours.
    os.execv(sys.executable, [sys.executable, "-P", "-m", "nnpm.training", *arguments])  # nosec B606 # noqa: S606
