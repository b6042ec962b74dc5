"""What all ``nnpm`` commands share: the parser, the exit codes, and how an error is reported."""

import argparse
import io
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from .inference.errors import NnpmError, printable

EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 130


class UsageError(NnpmError):
    """A command that cannot be carried out as given."""


class OneLineParser(argparse.ArgumentParser):
    """An argument parser whose errors are one line, without the usage."""

    def error(self, message: str) -> NoReturn:
        """Report what is wrong and where to find help, and exit with 2."""
        shown = printable(message)
        self.exit(EXIT_BAD_INPUT, f"{self.prog}: {shown} (see {self.prog} --help)\n")


DESCRIBE = "--describe-options"
"""Asks the commands of training, which run in a process of their own, for their options."""


def describe(parser: argparse.ArgumentParser) -> dict[str, list[dict[str, Any]]]:
    """List the options of each command of a parser, in a form that fits into JSON.

    Returns:
        By command: flags, help, whether a value follows, whether it is a path, and choices.
    """
    commands = next(
        action for action in parser._actions if isinstance(action, argparse._SubParsersAction)
    )
    return {
        name: [
            {
                "flags": list(action.option_strings) or [action.dest],
                "help": (action.help or "") % {"default": action.default},
                "takes_value": action.nargs != 0,
                "is_path": action.type is Path,
                "choices": None if action.choices is None else list(map(str, action.choices)),
            }
            for action in command._actions
            if not isinstance(action, argparse._HelpAction)
        ]
        for name, command in commands.choices.items()
    }


def run_command(command: Callable[[], int | None], *, interrupted: str = "") -> int:
    """Run a command; an error becomes one line on standard error and an exit code.

    Args:
        command: does the work; returns the exit code, or None for 0.
        interrupted: line to print after Ctrl-C; empty for none.

    Returns:
        The command's exit code; 2 for bad usage or input, or files that cannot be read or written;
        130 after an interrupt.
    """
    # A terminal that cannot show a character gets its number instead.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        code = command()
        sys.stdout.flush()
    except NnpmError as error:
        return _fail(str(error))
    except BrokenPipeError:  # the reader, such as head, has gone: nobody is left to report to
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        place = f"{os.fsdecode(error.filename)}: " if error.filename else ""
        return _fail(f"{place}{error.strerror or error}")
    except KeyboardInterrupt:
        if interrupted:
            _fail(interrupted)
        return EXIT_INTERRUPTED
    return code or 0


def _fail(message: str) -> int:
    sys.stderr.write(f"nnpm: {printable(message)}\n")
    return EXIT_BAD_INPUT
