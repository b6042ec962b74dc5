"""``nnpm completion``: the script that lets a shell complete commands, options and files."""

import argparse
import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import shtab

from ..command import DESCRIBE
from . import COMMANDS, build_parser

SHELLS = {
    "bash": "nnpm completion bash > ~/.local/share/bash-completion/completions/nnpm",
    "zsh": "nnpm completion zsh > ~/.zfunc/_nnpm, with ~/.zfunc in fpath",
    "fish": "nnpm completion fish > ~/.config/fish/completions/nnpm.fish",
}
"""How each shell takes its script."""

_FILES = ("paths", "output")
"""Arguments that are names of files although they are not read as paths."""


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("shell", choices=[*SHELLS], help="; ".join(SHELLS.values()))


def run(args: argparse.Namespace) -> int:
    """Print the script."""
    modules = {name: importlib.import_module(f".{name}", __package__) for name in COMMANDS}
    parser = build_parser(modules)
    _add_training_options(parser)
    _complete_files(parser)
    sys.stdout.write(shtab.complete(parser, args.shell) + "\n")
    return 0


def _add_training_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of training's commands, which its own process knows; or none of them."""
    ask = [sys.executable, "-P", "-m", "nnpm.training", DESCRIBE]
    told = subprocess.run(ask, capture_output=True, text=True, check=False)  # noqa: S603
    described = json.loads(told.stdout) if told.returncode == 0 else {}
    for name, options in described.items():
        for option in options:
            about: dict[str, Any] = {"help": option["help"].replace("%", "%%")}
            if option["takes_value"]:
                about |= {
                    "type": Path if option["is_path"] else str,
                    "choices": option["choices"],
                }
            else:
                about["action"] = "store_true"
            _commands(parser)[name].add_argument(*option["flags"], **about)


def _commands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}


def _complete_files(parser: argparse.ArgumentParser) -> None:
    for command in _commands(parser).values():
        _complete_files(command)
    for action in parser._actions:
        if action.type is Path or action.dest in _FILES:
            action.complete = shtab.FILE  # type: ignore[attr-defined]
