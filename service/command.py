"""What all ``nnpm`` commands share: the parser, the exit codes, and how an error is reported."""

import argparse
import io
import os
import sys
from collections.abc import Callable
from typing import NoReturn

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
