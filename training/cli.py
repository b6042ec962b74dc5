"""``python -m training``: the long commands of ``nnpm``."""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from service.arguments import EXIT_BAD_INPUT, OneLineParser
from service.inference.errors import NnpmError
from service.inference.labels import EMOTIONS


def build_parser() -> argparse.ArgumentParser:
    """The commands and their options, as docs/api.md lists them."""
    parser = OneLineParser(prog="nnpm", description="Train, export and evaluate.")
    commands = parser.add_subparsers(dest="command", required=True)

    train = commands.add_parser("train", help="train a network on labelled corpora")
    train.add_argument("--corpora", nargs="+", required=True, metavar="NAME")
    train.add_argument("--data", type=Path, required=True, help="holds one folder per corpus")
    train.add_argument("--out", type=Path, required=True, help="run folder")
    train.add_argument("--config", type=Path, help="TOML recipe (default: the bundled model's)")
    train.add_argument("--seed", type=_count, default=0)
    train.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    train.add_argument(
        "--device",
        choices=["auto", "cpu", "cuda", "mps"],
        default="auto",
        help="(%(default)s)",
    )
    train.add_argument("--threads", type=_count, default=0, help="of torch on the CPU; 0 for all")
    train.set_defaults(run=_train)

    export = commands.add_parser("export", help="make a bundle of a finished run")
    export.add_argument("run_folder", type=Path, metavar="RUN")
    export.add_argument("--out", type=Path, required=True, metavar="BUNDLE")
    export.add_argument("--data", type=Path, help="where the corpora are, if they have moved")
    export.add_argument("--json", action="store_true")
    export.set_defaults(run=_export)

    evaluate = commands.add_parser("evaluate", help="score a bundle on a labelled corpus")
    evaluate.add_argument("--bundle", type=Path, required=True)
    evaluate.add_argument("--data", type=Path, required=True, help="folder of one corpus")
    evaluate.add_argument("--emotions", nargs="+", choices=EMOTIONS, metavar="EMOTION")
    evaluate.add_argument("--predictions", type=Path, metavar="FILE", help="CSV, one row per clip")
    evaluate.add_argument("--json", action="store_true")
    evaluate.set_defaults(run=_evaluate)

    for command in (train, export):
        command.add_argument(
            "--cache", type=Path, default=_default_cache(), help="decoded clips (%(default)s)"
        )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; 0, or 2 with one line on standard error."""
    options = build_parser().parse_args(arguments)
    try:
        options.run(options)
        sys.stdout.flush()
    except NnpmError as error:
        print(f"nnpm: {error}", file=sys.stderr)  # noqa: T201 - the command line's answer
        return EXIT_BAD_INPUT
    except ModuleNotFoundError as error:
        if error.name not in ("torch", "audiomentations", "tensorboard", "onnx", "onnxscript"):
            raise
        print(  # noqa: T201
            f"nnpm: {options.command} needs {error.name}, which is not installed; "
            "install the training extra: pip install '.[train]' in the checkout",
            file=sys.stderr,
        )
        return EXIT_BAD_INPUT
    except BrokenPipeError:  # of a reader such as head; there is nobody left to tell
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        print(f"nnpm: {place}{error.strerror or error}", file=sys.stderr)  # noqa: T201
        return EXIT_BAD_INPUT
    except KeyboardInterrupt:
        more = "; a run that had begun goes on with --resume" * (options.command == "train")
        print(  # noqa: T201
            f"nnpm: interrupted; nothing half-written is left{more}", file=sys.stderr
        )
        return 130
    return 0


def _default_cache() -> Path:
    folder = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    try:
        return folder.expanduser() / "nnpm"
    except RuntimeError:  # a user without a home, as in some containers
        return Path(tempfile.gettempdir()) / "nnpm"


def _count(text: str) -> int:
    if not (text.isdecimal() and int(text) < 1 << 32):
        raise argparse.ArgumentTypeError(f"{text} is not a whole number from 0 to 4294967295")
    return int(text)


def _train(options: argparse.Namespace) -> None:
    import torch

    from training import config, run

    if options.threads:
        torch.set_num_threads(options.threads)
    request = run.Request(
        corpora=tuple(options.corpora),
        data=options.data.resolve(),
        seed=options.seed,
        config=config.load(options.config or config.DEFAULT),
    )
    run.train(
        options.out,
        request,
        cache=options.cache,
        device=run.choose_device(options.device),
        resume=options.resume,
    )


def _export(options: argparse.Namespace) -> None:
    from training.export import export

    figures = export(options.run_folder, options.out, cache=options.cache, data=options.data)
    _print(figures, as_json=options.json)


def _evaluate(options: argparse.Namespace) -> None:
    from service.inference import bundle
    from service.inference.recognizer import Recognizer
    from training.corpora import load_folder
    from training.evaluation import judge, report, write_predictions
    from training.replacing import require_place

    if options.predictions:
        require_place(options.predictions)
    recognizer = Recognizer(bundle.load(options.bundle))
    verdicts = judge(recognizer, load_folder(options.data), options.emotions)
    if options.predictions:
        write_predictions(verdicts, options.data, options.predictions)
    _print(report(verdicts, options.emotions or recognizer.bundle.labels), as_json=options.json)


def _print(figures: dict[str, Any], *, as_json: bool) -> None:
    """One JSON document, or the headline figures for people."""
    if as_json:
        print(json.dumps(figures))  # noqa: T201 - the command's answer
        return
    for name in ("clips", "wa", "uar", "macro_f1", "ece", "coverage", "wa_answered"):
        value = figures[name]
        print(f"{name:12} {value:.4f}" if isinstance(value, float) else f"{name:12} {value}")  # noqa: T201
    for emotion, row in figures["per_class"].items():
        print(f"  {emotion:10} recall {row['recall']:.3f} of {row['clips']}")  # noqa: T201
