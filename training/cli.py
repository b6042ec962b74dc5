"""``python -m nnpm.training``: the commands train, export, evaluate, adapt and benchmark."""

import argparse
import json
import logging
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..service.command import DESCRIBE, OneLineParser, UsageError, describe, run_command
from ..service.inference.card import EMOTIONS
from ..service.system import available_cores

_EXTRAS = dict.fromkeys(("autograd", "onnx"), "adapt")
_EXTRAS |= dict.fromkeys(
    ("torch", "tensorboard", "onnxscript", "matplotlib", "transformers", "huggingface_hub"), "train"
)
"""The extra that installs a package."""


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of the commands and options that docs/use/command-line.md lists."""
    parser = OneLineParser(
        prog="nnpm", description="Train, export, evaluate, adapt and benchmark models."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name, (summary, add_options, run) in {
        "train": ("train a network on labelled corpora", _train_options, _train),
        "export": ("make a bundle from a finished run", _export_options, _export),
        "evaluate": ("score a bundle on a labelled corpus", _evaluate_options, _evaluate),
        "adapt": ("adapt a bundle to unlabelled audio", _adapt_options, _adapt),
        "calibrate": (
            "fit a bundle's confidence to labelled clips",
            _calibrate_options,
            _calibrate,
        ),
        "label": ("pick the clips that are worth a label", _label_options, _label),
        "benchmark": ("compare adaptation methods on corpora", _benchmark_options, _benchmark),
    }.items():
        command = commands.add_parser(name, help=summary)
        add_options(command.add_argument)
        if name not in ("evaluate", "calibrate", "label"):
            command.add_argument(
                "--cache",
                type=Path,
                default=_default_cache(),
                help="folder of decoded clips (%(default)s)",
            )
        command.set_defaults(run=run)
    return parser


def _train_options(add: Callable[..., Any]) -> None:
    add("--corpora", nargs="+", required=True, metavar="NAME", help="names of folders in --data")
    add("--data", type=Path, required=True, help="folder with one folder per corpus")
    add("--out", type=Path, required=True, help="folder of the run")
    add("--config", type=Path, help="recipe, a TOML file (default: the bundled model's)")
    add(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="change one value of the recipe, as encoder.layers=3; may be repeated",
    )
    add("--seed", type=_count, default=0, help="of all random draws (%(default)s)")
    add("--resume", action="store_true", help="continue from the last checkpoint")
    add(
        "--device",
        choices=["auto", "cpu", "cuda", "mps"],
        default="auto",
        help="where to train (%(default)s)",
    )
    add("--threads", type=_count, default=0, help="CPU threads of torch; 0 for all cores")


def _export_options(add: Callable[..., Any]) -> None:
    add("run_folder", type=Path, metavar="RUN", help="folder of the run")
    add("--out", type=Path, required=True, metavar="BUNDLE", help="folder of the new bundle")
    add("--data", type=Path, help="folder of the corpora, if they have moved")
    add(
        "--precision",
        choices=["fp32", "int8"],
        default="int8",
        help="of the matrix products (%(default)s)",
    )
    add("--json", action="store_true", help="print the figures as JSON")


def _evaluate_options(add: Callable[..., Any]) -> None:
    add("--bundle", type=Path, required=True, help="folder of the bundle")
    add("--data", type=Path, required=True, help="folder of one corpus")
    add(
        "--emotions",
        nargs="+",
        choices=EMOTIONS,
        metavar="EMOTION",
        help="use only these clips and answers (all)",
    )
    add("--predictions", type=Path, metavar="FILE", help="CSV file to write, one row per clip")
    add("--json", action="store_true", help="print the figures as JSON")


def _adapt_options(add: Callable[..., Any]) -> None:
    add("--bundle", type=Path, help="folder of the base")
    add("--target", type=Path, help="folder of audio, searched recursively")
    add("--out", type=Path, metavar="BUNDLE", help="folder of the new bundle")
    add("--method", default="nnpm", help="adaptation method (%(default)s)")
    add("--language", default="und", help="BCP-47 tag, such as ur (%(default)s)")
    add(
        "--emotions",
        nargs="+",
        default=(),
        choices=EMOTIONS,
        metavar="EMOTION",
        help="emotions that occur: the new bundle's default answers (all)",
    )
    add(
        "--channels",
        default="mix",
        metavar="mix|split|N",
        help="channels that are learnt from: their mix, each by itself, or one (%(default)s)",
    )
    add("--labels", type=Path, metavar="FILE", help="a few labels: CSV with path and emotion")
    add("--seed", type=_count, default=0, help="of all random draws (%(default)s)")
    add("--config", type=Path, help="settings, a TOML file (default: training/configs/adapt.toml)")
    add("--threads", type=_count, default=0, help="CPU threads; 0 for all cores")
    add("--full", action="store_true", help="fine-tune the whole network first")
    add("--source", type=Path, metavar="DIR", help="folder of the source corpora, for --full")
    add(
        "--run",
        dest="run_folder",  # run is the command's own function
        type=Path,
        metavar="RUN",
        help="run folder that made the base, for --full",
    )
    add("--force", action="store_true", help="write the bundle even if it is rejected")
    add("--json", action="store_true", help="print the report as JSON")
    add("--job", type=Path, help="folder of a job of the service, instead of all other options")


def _calibrate_options(add: Callable[..., Any]) -> None:
    add("--bundle", type=Path, required=True, help="folder of the bundle")
    add("--data", type=Path, required=True, help="labelled clips, with a metadata.csv")
    add("--out", type=Path, required=True, metavar="BUNDLE", help="folder of the new bundle")
    add("--threads", type=_count, default=0, help="CPU threads; 0 for all cores")
    add("--json", action="store_true", help="print the figures as JSON")


def _label_options(add: Callable[..., Any]) -> None:
    add("folder", type=Path, metavar="FOLDER", help="recordings, searched recursively")
    add("--bundle", type=Path, help="folder of the bundle whose answers are labelled")
    add("--out", type=Path, metavar="FILE", help="file of labels (FOLDER/metadata.csv)")
    add("--count", type=_count, default=30, metavar="N", help="clips to pick (%(default)s)")
    add("--play", action="store_true", help="play each clip, with ffplay, afplay, aplay or paplay")
    add("--export", type=Path, metavar="FILE", help="write tasks for Label Studio as JSON")
    add(
        "--import",
        dest="answers",
        type=Path,
        metavar="FILE",
        help="read Label Studio's answers as JSON",
    )
    add("--json", action="store_true", help="print the clips as JSON, and ask nothing")


def _benchmark_options(add: Callable[..., Any]) -> None:
    add("--data", type=Path, required=True, help="folder with one folder per corpus")
    add("--out", type=Path, required=True, help="folder of the results; finished work is kept")
    add("--bundle", nargs="+", type=Path, default=(), help="bundles of one protocol, one per seed")
    add("--runs", nargs="+", type=Path, default=(), metavar="RUN", help="runs to export first")
    add("--protocol", default="", help="source and target corpora (default: the bundles')")
    add("--development", action="store_true", help="take the protocol's development targets")
    add("--targets", nargs="+", default=(), metavar="NAME", help="target corpora")
    add("--methods", nargs="+", default=(), metavar="NAME", help="methods (all)")
    add("--tables", nargs="+", default=("main",), metavar="NAME", help="tables (main), or all")
    add("--config", type=Path, help="settings of the adaptation, a TOML file")
    add("--jobs", type=_count, default=1, help="parallel processes (%(default)s)")


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
    given = sys.argv[1:] if arguments is None else list(arguments)
    if given == [DESCRIBE]:
        print(json.dumps(describe(build_parser())))  # noqa: T201
        return 0
    options = build_parser().parse_args(given)
    warnings = _Warnings()
    options.warnings = warnings.lines
    more = {
        "train": "; --resume continues the run",
        "benchmark": "; the same command continues",
    }.get(options.command, "")
    log = logging.getLogger(__package__)
    log.addHandler(warnings)
    try:
        return run_command(
            lambda: _run(options), interrupted=f"interrupted; no incomplete file is left{more}"
        )
    finally:
        log.removeHandler(warnings)


def _run(options: argparse.Namespace) -> None:
    try:
        options.run(options)
    except ModuleNotFoundError as error:
        lacking = (error.name or "").partition(".")[0]
        if lacking not in _EXTRAS:
            raise
        extra = _EXTRAS[lacking]
        raise UsageError(
            f"{options.command} needs {lacking}, which is not installed; install the extra "
            f"{extra}: pip install 'nnpm[{extra}]'"
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
    from .source.processes import joined

    if options.threads:
        torch.set_num_threads(options.threads)
    with joined(lambda: run.choose_device(options.device)) as (processes, device):
        request = run.Request(
            corpora=tuple(options.corpora),
            data=options.data.resolve(),
            seed=options.seed,
            config=config.load(options.config or config.DEFAULT, options.set),
        )
        run.train(
            options.out,
            request,
            cache=options.cache,
            device=device,
            resume=options.resume,
            processes=processes,
        )


def _export(options: argparse.Namespace) -> None:
    from .bundle.export import export

    figures = export(
        options.run_folder,
        options.out,
        cache=options.cache,
        data=options.data,
        precision=options.precision,
    )
    _print(figures, options)


def _evaluate(options: argparse.Namespace) -> None:
    from .evaluation import evaluate

    figures = evaluate(options.bundle, options.data, options.emotions, options.predictions)
    _print(figures, options)


def _adapt(options: argparse.Namespace) -> None:
    from ..service.jobs.folder import AdaptationTask, read_request
    from ..service.jobs.labels import read_labels
    from .adaptation import command, config
    from .adaptation.head import Full
    from .adaptation.report import Bars, describe

    if options.job is not None:
        from .adaptation.job import run_job
        from .labelled.calibrate import evaluate

        run_job(options.job, evaluate)
        return
    if lacking := [n for n in ("bundle", "target", "out") if getattr(options, n) is None]:
        raise UsageError(f"the following arguments are required: --{', --'.join(lacking)}")
    if not options.full == (options.source is not None) == (options.run_folder is not None):
        raise UsageError("--full, --run RUN and --source DIR must be given together")
    full = Full(options.run_folder, options.source, options.cache)
    names = ("bundle", "target", "out", "method", "language", "emotions", "channels", "labels")
    given = {name: getattr(options, name) for name in (*names, "seed", "force")}
    task = read_request(AdaptationTask, {**given, "threads": options.threads or available_cores()})
    if task.labels is not None:
        read_labels(task.labels, task.target)
    numbers = config.load(options.config or config.DEFAULT)
    with Bars() as bars:
        report = command.adapt(task, numbers, bars, full=full if options.full else None)
    if options.json:
        document = {**report.model_dump(mode="json"), "warnings": options.warnings}
        print(json.dumps(document))  # noqa: T201 - the command's answer
    else:
        print(describe(report))  # noqa: T201


def _calibrate(options: argparse.Namespace) -> None:
    from ..service.files import require_place
    from ..service.jobs.folder import EvaluationTask
    from .labelled.calibrate import describe, evaluate

    if options.out.exists():
        raise UsageError(f"{options.out} exists; bundles are not overwritten: choose another --out")
    require_place(options.out)
    task = EvaluationTask(
        bundle=options.bundle,
        target=options.data,
        out=options.out,
        threads=options.threads or available_cores(),
    )
    report = evaluate(task)
    if report["bundle"] is None:
        raise UsageError(report["reason"])
    if options.json:
        print(json.dumps({**report, "warnings": options.warnings}))  # noqa: T201 - the answer
    else:
        print(describe(report))  # noqa: T201


def _label(options: argparse.Namespace) -> None:
    from .labelled.label import Request, label

    names = ("folder", "bundle", "out", "count", "play", "export", "answers")
    request = Request(**{name: getattr(options, name) for name in names})
    if not 1 <= request.count <= 10_000:
        raise UsageError(f"--count is {request.count}; it must be from 1 to 10000")
    document, text = label(request, interactive=sys.stdin.isatty() and not options.json)
    print(json.dumps(document) if options.json else text)  # noqa: T201 - the command's answer


def _benchmark(options: argparse.Namespace) -> None:
    from .adaptation import config
    from .benchmark.cases import all_methods
    from .benchmark.command import Request, benchmark
    from .benchmark.estimator import ESTIMATOR, fit_estimator
    from .benchmark.plan import TABLES

    request = Request(
        data=options.data,
        bundles=tuple(options.bundle),
        runs=tuple(options.runs),
        protocol=options.protocol,
        development=options.development,
        targets=tuple(options.targets),
        methods=tuple(options.methods) or all_methods(),
        tables=TABLES if options.tables == ["all"] else tuple(options.tables),
        config=config.load(options.config or config.DEFAULT),
        out=options.out,
        cache=options.cache,
        jobs=options.jobs,
    )
    if request.tables == (ESTIMATOR,):
        tables = fit_estimator(request)
    else:
        named = {f"{request.tables[0]}-{figure}" for figure in ("uar", "wa", "right")}
        tables = [table for table in benchmark(request) if table.name in named]
    for table in tables:
        print(f"{table.title}\n\n{table.markdown()}\n")  # noqa: T201 - the command's answer


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
