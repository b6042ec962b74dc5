"""The command line: ``nnpm serve``, ``predict``, ``models``; the training commands are handed on.

Importing this is fast; each command imports what it needs.
"""

import argparse
import importlib
import importlib.util
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from ... import __version__
from ..command import EXIT_BAD_INPUT, OneLineParser
from ..inference.errors import NnpmError

TRAINING_COMMANDS = {
    "train": "train a network on corpora",
    "export": "make a bundle of a training run",
    "evaluate": "score a bundle on labelled clips",
    "adapt": "learn a new language from unlabelled audio",
    "benchmark": "try every method on corpora, and make tables of it",
}


class UsageError(NnpmError):
    """A command that cannot be carried out as given."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        0, or 2 for bad usage or input, after one line on standard error.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        if arguments and arguments[0] in TRAINING_COMMANDS:
            _hand_on_to_training(arguments)
        args = _parser().parse_args(arguments)
        _one_blas_thread()
        command = importlib.import_module(f"nnpm.service.cli.{args.command}")
        code: int = command.run(args)
    except NnpmError as error:
        sys.stderr.write(f"nnpm: {error}\n")
        return EXIT_BAD_INPUT
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # of a reader such as head; there is nobody left to tell
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return code


def _one_blas_thread() -> None:
    """Before numpy is there: recordings share the cores, products of matrices do not.

    With OpenBLAS's own threads an answer cost four times the CPU time, on two cores that had other
    work as well.
    """
    for library in ("OPENBLAS", "MKL", "OMP"):
        os.environ.setdefault(f"{library}_NUM_THREADS", "1")


def _parser() -> argparse.ArgumentParser:
    parser = OneLineParser(prog="nnpm", description="Speech emotion recognition.")
    parser.add_argument("--version", action="version", version=f"nnpm {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    serve = commands.add_parser("serve", help="answer over HTTP; settings are NNPM_... variables")
    serve.add_argument("--host", help="address to listen on [127.0.0.1]")
    serve.add_argument("--port", help="port to listen on [8000]; 0 takes a free one")

    predict = commands.add_parser("predict", help="recognise the emotion in files or folders")
    predict.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="file or folder")
    predict.add_argument(
        "--json", action="store_true", help="as /predict answers; many: one a line"
    )
    predict.add_argument("--bundle", type=Path, metavar="DIR", help="a bundle's folder")
    predict.add_argument("--model", metavar="NAME[/VERSION]", help="of the models folder [default]")
    predict.add_argument("--language", metavar="TAG", help="BCP-47; picks what is promoted for it")
    predict.add_argument("--channels", help="mix or split [mix]")
    predict.add_argument("--window-s", metavar="S", help="seconds per window [the bundle's]")
    predict.add_argument("--hop-s", metavar="S", help="seconds between windows [the bundle's]")
    predict.add_argument("--top-k", metavar="K", help="add the K most probable emotions")
    predict.add_argument("--neighbours", metavar="K", help="add the K nearest known utterances")
    predict.add_argument("--emotions", nargs="+", metavar="NAME", help="only these may be answered")
    predict.add_argument("--no-abstain", action="store_true", help="force an answer")

    models = commands.add_parser("models", help="what the models folder holds, and what answers")
    actions = models.add_subparsers(dest="action", required=True, metavar="ACTION")
    listing = actions.add_parser("list", help="names, versions, aliases")
    listing.add_argument("--json", action="store_true", help="as GET /models answers")
    show = actions.add_parser("show", help="the card of one bundle, as JSON")
    show.add_argument("model", metavar="NAME[/VERSION]")
    for action, text in {
        "promote": "let a version answer for a language",
        "shadow": "let a version hear a language's requests without answering",
        "delete": "delete a version that no alias holds",
    }.items():
        change = actions.add_parser(action, help=text)
        change.add_argument("model", metavar="NAME/VERSION")
        if action != "delete":
            change.add_argument("--language", metavar="TAG", help="BCP-47 [the version's own]")
        if action == "shadow":
            change.add_argument("--off", action="store_true", help="end it; NAME is enough")
    back = actions.add_parser("rollback", help="take the latest promotion back")
    back.add_argument("model", metavar="NAME", nargs="?", default="default")
    back.add_argument("--language", metavar="TAG", help="BCP-47 [that of the latest promotion]")

    keys = commands.add_parser("keys", help="the keys that a service asks for")
    acts = keys.add_subparsers(dest="action", required=True, metavar="ACTION")
    create = acts.add_parser("create", help="make a key, and show it this once")
    create.add_argument("name", metavar="NAME", help="who holds it")
    create.add_argument(
        "--scopes",
        nargs="*",
        choices=("predict", "adapt", "admin"),
        help="what it is for: predict, adapt, admin (everything); none: /metrics alone",
    )
    create.add_argument("--rotate", action="store_true", help="one more for a name that has a key")
    create.add_argument("--json", action="store_true", help="one JSON document")
    listed = acts.add_parser("list", help="all keys, revoked ones included")
    listed.add_argument("--json", action="store_true", help="one JSON document")
    revoke = acts.add_parser("revoke", help="let a key open nothing any more")
    revoke.add_argument("key", metavar="NAME_OR_ID")

    worker = commands.add_parser("worker", help="adapt for services that share jobs and models")
    worker.add_argument("--workers", type=int, metavar="N", help="jobs at a time [1]")
    worker.add_argument("--heartbeat", type=Path, metavar="FILE", help="renewed while it works")

    health = commands.add_parser("health", help="exit 0 if the service of this machine is ready")
    health.add_argument(
        "--heartbeat", type=Path, metavar="FILE", help="ask this file of a worker instead"
    )

    for name, text in TRAINING_COMMANDS.items():
        commands.add_parser(name, help=text, add_help=False)
    return parser


def _hand_on_to_training(arguments: list[str]) -> NoReturn:
    # What training needs beyond itself, torch above all, it says of itself.
    if importlib.util.find_spec("nnpm.training") is None:
        raise UsageError(f"nnpm {arguments[0]} needs the training package, which is not here.")
    sys.stdout.flush()
    # -P: a folder named training where the user stands is not ours.
    os.execv(sys.executable, [sys.executable, "-P", "-m", "nnpm.training", *arguments])  # nosec B606 # noqa: S606
