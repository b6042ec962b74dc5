"""``python -m nnpm.training``: the long commands of ``nnpm``."""

import argparse
import json
import logging
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..service.command import OneLineParser, UsageError, run_command
from ..service.inference.card import EMOTIONS
from ..service.system import available_cores

_EXTRA = ("torch", "audiomentations", "tensorboard", "onnx", "onnxscript", "langcodes")


def build_parser() -> argparse.ArgumentParser:
    """The commands and their options, as docs/use/command-line.md lists them."""
    parser = OneLineParser(prog="nnpm", description="Train, export, evaluate, adapt.")
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

    adapt = commands.add_parser("adapt", help="adapt a bundle to unlabelled audio")
    adapt.add_argument("--bundle", type=Path, help="the base")
    adapt.add_argument("--target", type=Path, help="folder of audio, searched below")
    adapt.add_argument("--out", type=Path, metavar="BUNDLE")
    adapt.add_argument("--method", default="nnpm", help="(%(default)s)")
    adapt.add_argument("--language", default="und", help="BCP-47 tag, such as ur (%(default)s)")
    adapt.add_argument("--seed", type=_count, default=0)
    adapt.add_argument("--config", type=Path, help="TOML (default: training/configs/adapt.toml)")
    adapt.add_argument("--threads", type=_count, default=0, help="0 for all")
    adapt.add_argument("--full", action="store_true", help="move the whole network first")
    adapt.add_argument("--source", type=Path, metavar="DIR", help="the source's audio, for --full")
    adapt.add_argument("--corpora", nargs="+", default=(), metavar="NAME", help="in --source")
    adapt.add_argument("--force", action="store_true", help="write it whatever the evidence says")
    adapt.add_argument("--json", action="store_true", help="print the report")
    adapt.add_argument("--job", type=Path, help="the folder of a service's job; nothing else then")
    adapt.set_defaults(run=_adapt)

    benchmark = commands.add_parser("benchmark", help="try every method on corpora, in tables")
    benchmark.add_argument("--data", type=Path, required=True, help="holds one folder per corpus")
    benchmark.add_argument("--protocol", choices=["P1", "P1_ravdess", "P2", "P3"], required=True)
    benchmark.add_argument("--out", type=Path, required=True, help="folder; a call goes on there")
    benchmark.add_argument("--methods", nargs="+", default=(), metavar="NAME", help="(all)")
    benchmark.add_argument("--tables", nargs="+", default=(), metavar="NAME", help="(all)")
    benchmark.add_argument("--targets", nargs="+", default=(), metavar="NAME", help="corpora")
    benchmark.add_argument("--seeds", type=_count, default=3, help="how many (%(default)s)")
    benchmark.add_argument("--runs", nargs="+", type=Path, default=(), metavar="RUN")
    benchmark.add_argument("--recipe", type=Path, help="TOML, of the runs that are trained")
    benchmark.add_argument("--config", type=Path, help="TOML, of the adaptation")
    benchmark.add_argument("--jobs", type=_count, default=1, help="processes (%(default)s)")
    benchmark.set_defaults(run=_benchmark)

    for command in (train, export, adapt, benchmark):
        command.add_argument(
            "--cache", type=Path, default=_default_cache(), help="decoded clips (%(default)s)"
        )
    return parser


class _Warnings(logging.Handler):
    """Prints each warning once on standard error, and keeps it for the JSON document."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        line = record.getMessage()
        if line not in self.lines:
            self.lines.append(line)
            print(f"nnpm: warning: {line}", file=sys.stderr)  # noqa: T201


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; 0, or 2 with one line on standard error, after warnings if any."""
    options = build_parser().parse_args(arguments)
    warnings = _Warnings()
    options.warnings = warnings.lines
    more = {
        "train": "; a run that had begun goes on with --resume",
        "benchmark": "; the same command goes on",
    }.get(options.command, "")
    log = logging.getLogger(__package__)
    log.addHandler(warnings)
    try:
        return run_command(
            lambda: _run(options), interrupted=f"interrupted; nothing half-written is left{more}"
        )
    finally:
        log.removeHandler(warnings)


def _run(options: argparse.Namespace) -> None:
    try:
        options.run(options)
    except ModuleNotFoundError as error:
        if error.name not in _EXTRA:
            raise
        raise UsageError(
            f"{options.command} needs {error.name}, which is not installed; "
            "install the training extra: pip install '.[train]' in the checkout"
        ) from None


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

    from . import config
    from .source import run

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
    from .bundle.export import export

    figures = export(options.run_folder, options.out, cache=options.cache, data=options.data)
    _print(figures, options)


def _evaluate(options: argparse.Namespace) -> None:
    from ..service.files import require_place
    from ..service.inference import bundle
    from ..service.inference.recognizer import Recognizer
    from .corpora import load_folder
    from .evaluation import judge, report, write_predictions

    if options.predictions:
        require_place(options.predictions)
    recognizer = Recognizer(bundle.load(options.bundle))
    verdicts = judge(recognizer, load_folder(options.data), options.emotions)
    if options.predictions:
        write_predictions(verdicts, options.data, options.predictions)
    _print(report(verdicts, options.emotions or recognizer.bundle.labels), options)


def _adapt(options: argparse.Namespace) -> None:
    from ..service.jobs.folder import AdaptationTask, read_request
    from .adaptation import command, config
    from .adaptation.report import Bars, describe
    from .errors import TrainingError

    if options.job is not None:
        from .adaptation.job import run_job

        run_job(options.job)
        return
    if lacking := [n for n in ("bundle", "target", "out") if getattr(options, n) is None]:
        raise TrainingError(f"the following arguments are required: --{', --'.join(lacking)}")
    if options.full != (options.source is not None):
        raise TrainingError("--full and --source DIR go together: one is not there")
    full = command.Full(options.source, tuple(options.corpora), options.cache)
    names = ("bundle", "target", "out", "method", "language", "seed", "force")
    given = {name: getattr(options, name) for name in names}
    task = read_request(AdaptationTask, {**given, "threads": options.threads or available_cores()})
    numbers = config.load(options.config or config.DEFAULT)
    with Bars() as bars:
        report = command.adapt(task, numbers, bars, full=full if options.full else None)
    if options.json:
        document = {**report.model_dump(mode="json"), "warnings": options.warnings}
        print(json.dumps(document))  # noqa: T201 - the command's answer
    else:
        print(describe(report))  # noqa: T201


def _benchmark(options: argparse.Namespace) -> None:
    from . import config as recipes
    from .adaptation import config
    from .benchmark.cases import PROTOCOLS, all_methods
    from .benchmark.command import Request, benchmark
    from .benchmark.plan import TABLES

    request = Request(
        data=options.data,
        protocol=PROTOCOLS[options.protocol],
        targets=tuple(options.targets),
        methods=tuple(options.methods) or all_methods(),
        tables=tuple(options.tables) or TABLES,
        seeds=options.seeds,
        runs=tuple(options.runs),
        recipe=recipes.load(options.recipe or recipes.DEFAULT),
        config=config.load(options.config or config.DEFAULT),
        out=options.out,
        cache=options.cache,
        jobs=options.jobs,
    )
    tables = benchmark(request)
    if tables:
        print(tables[0].markdown())  # noqa: T201 - the command's answer


def _print(figures: dict[str, Any], options: argparse.Namespace) -> None:
    """One JSON document with the warnings, or the headline figures for people."""
    if options.json:
        print(json.dumps({**figures, "warnings": options.warnings}))  # noqa: T201 - the answer
        return
    for name in ("clips", "wa", "uar", "macro_f1", "ece", "coverage", "wa_answered"):
        value = figures[name]
        print(f"{name:12} {value:.4f}" if isinstance(value, float) else f"{name:12} {value}")  # noqa: T201
    for emotion, row in figures["per_class"].items():
        print(f"  {emotion:10} recall {row['recall']:.3f} of {row['clips']}")  # noqa: T201
