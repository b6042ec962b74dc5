"""``nnpm completion``: the script that lets a shell complete commands, options and files."""

import argparse
import importlib
import sys
from pathlib import Path

import shtab

from . import COMMANDS, build_parser

SHELLS = {
    "bash": "nnpm completion bash > ~/.local/share/bash-completion/completions/nnpm",
    "zsh": "nnpm completion zsh > ~/.zfunc/_nnpm, with ~/.zfunc in fpath",
    "fish": "nnpm completion fish > ~/.config/fish/completions/nnpm.fish",
}
"""How each shell takes its script."""

_FILES = ("paths",)
"""Arguments that are names of files although they are not read as paths."""


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("shell", choices=[*SHELLS], help="; ".join(SHELLS.values()))


def run(args: argparse.Namespace) -> int:
    """Print the script."""
    modules = {name: importlib.import_module(f".{name}", __package__) for name in COMMANDS}
    parser = build_parser(modules)
    _complete_files(parser)
    sys.stdout.write(shtab.complete(parser, args.shell) + "\n")
    return 0


def _complete_files(parser: argparse.ArgumentParser) -> None:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                _complete_files(command)
        elif action.type is Path or action.dest in _FILES:
            action.complete = shtab.FILE  # type: ignore[attr-defined]
