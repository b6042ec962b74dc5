"""``nnpm predict``: the answers of POST /predict, without a server."""

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pydantic import ValidationError
from tqdm import tqdm

from ... import __version__
from .. import environment, settings
from ..api.errors import problem_of
from ..command import UsageError
from ..files import replace
from ..inference.errors import NnpmError, NoRoomError, printable, validation_detail
from ..inference.recognizer import Recognizer
from ..predict.annotations import ANNOTATIONS
from ..predict.journal import Journal
from ..predict.predict import PredictQuery, predict
from ..predict.schemas import ModelPart, PredictAnswer
from ..predict.sources import Source, in_order, places_below, sources
from ..predict.tables import (
    FORMATS,
    TABLES,
    Failure,
    Item,
    columns,
    render,
    require_format,
    rows,
)
from ..predict.terminal import text_of
from ..predict.turns import turns_file
from ..registry.opening import loader, main_name, open_to_read
from ..registry.serving import LoadedModels, Serving
from ..scale import archive
from ..settings import Settings
from ..system import steady_memory

Outcome = PredictAnswer | NnpmError
Scored = Iterator[tuple[Source, Outcome]]

_BINARY = ("parquet", "xlsx")
_MAX_JOBS = 1024


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument(
        "paths",
        nargs="+",
        metavar="PATH",
        help="file, folder, - for standard input, or URL such as s3://bucket/folder",
    )
    parser.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        help=f"write a table ({', '.join(form.suffix for form in TABLES.values())}) or an "
        "annotation; of many recordings, annotations go into a folder of this name, and with "
        "--engine ray Parquet parts into a folder or URL",
    )
    parser.add_argument(
        "--format",
        choices=["text", "json", *FORMATS],
        metavar="NAME",
        help=f"{', '.join(['text', 'json', *FORMATS])} [by the ending of FILE; text without one]",
    )
    parser.add_argument(
        "--level", metavar="LEVEL", help="row of a table: recording, channel or segment [recording]"
    )
    parser.add_argument(
        "--resume", action="store_true", help="continue FILE; what it holds is not scored again"
    )
    parser.add_argument("--strict", action="store_true", help="exit 1 if a recording fails")
    parser.add_argument("--jobs", metavar="N", help="recordings at a time [the cores]")
    archive.add(parser)
    parser.add_argument(
        "--json",
        action="store_true",
        help="print the answers of /predict, of many files one a line; with -o a summary",
    )
    parser.add_argument("--bundle", type=Path, metavar="DIR", help="folder of a bundle")
    parser.add_argument(
        "--model", metavar="NAME[/VERSION]", help="model in the models folder [default]"
    )
    parser.add_argument(
        "--language", metavar="TAG", help="BCP-47; picks the version promoted for it"
    )
    parser.add_argument("--channels", help="mix or split [mix]")
    parser.add_argument("--window-s", metavar="S", help="seconds per window [the bundle's]")
    parser.add_argument("--hop-s", metavar="S", help="seconds between windows [the bundle's]")
    parser.add_argument("--segments", help="turns or windows [turns, without --window-s, --hop-s]")
    parser.add_argument("--turns", type=Path, metavar="FILE", help="score these turns: RTTM, JSON")
    parser.add_argument("--top-k", metavar="K", help="add the K most probable emotions")
    parser.add_argument("--neighbours", metavar="K", help="add the K nearest known utterances")
    parser.add_argument("--digits", metavar="N", help="digits of scores; 0 for all [4]")
    parser.add_argument(
        "--emotions", nargs="+", metavar="NAME", help="answer with one of these emotions only"
    )
    parser.add_argument("--no-abstain", action="store_true", help="answer even if uncertain")


def run(args: argparse.Namespace) -> int:
    """Print or write the answers, in the order of the files."""
    steady_memory()
    own = settings.load()
    environment.warn_of_unknown()
    query = _query(args)
    form = _format(args)
    jobs = own.workers if args.jobs is None else _count(args.jobs)
    found, many = sources(args.paths)
    if args.output is None and form not in ("text", "json"):
        _require_printable(form, many=many)
    recognizer, model = _model(args, own, query)
    recognizer.plan(query.options())  # what does not fit the bundle fails at once
    if args.engine == "ray":
        workers = None if args.jobs is None else jobs
        return archive.run(args, found, query, recognizer, model, own.limits, workers)

    one = partial(predict, model=model, limits=own.limits)

    def score(source: Source) -> Outcome:
        try:
            with source.opened() as file:
                return one(recognizer, file, query, name=source.name).document
        except NoRoomError:
            raise
        except NnpmError as error:
            return error

    licence = recognizer.bundle.card.licence
    about = f"nnpm: model {_name(model)}, licence {licence}\n"
    if not many and args.output is None and form not in TABLES:
        return _run_one(found[0], score, form, query, about, strict=args.strict)
    sys.stderr.write(about)
    run = _Run(args, query, form, recognizer.bundle.labels, model)
    return run.all(found, score, jobs)


def _run_one(
    source: Source,
    score: Callable[[Source], Outcome],
    form: str,
    query: PredictQuery,
    about: str,
    *,
    strict: bool,
) -> int:
    outcome = score(source)
    if isinstance(outcome, NnpmError):
        if strict:
            sys.stderr.write(f"nnpm: {source.name}: {outcome}\n")
            return 1
        raise UsageError(f"{source.name}: {outcome}")
    sys.stderr.write(about)
    match form:
        case "json":
            text = outcome.to_json() + "\n"
        case "text":
            text = text_of(source.name, outcome) + "\n"
        case _:
            text = render(form, [Item(source.name, outcome)], query.level, ()).decode()
    sys.stdout.write(text)
    return 0


@dataclass(frozen=True)
class _Run:
    """Scores many recordings and writes them as the options say."""

    args: argparse.Namespace
    query: PredictQuery
    form: str
    labels: tuple[str, ...]
    model: ModelPart

    def all(self, found: list[Source], score: Callable[[Source], Outcome], jobs: int) -> int:
        """Score and write all; return the exit code."""
        output = None if self.args.output is None else Path(self.args.output)

        def scored(wanted: list[Source]) -> Scored:
            return in_order(wanted, score, jobs, total=len(found))

        if output is None:
            failed = self._print(scored(found))
        elif self.form in TABLES:
            failed = self._table(output, found, scored)
        else:
            failed = self._annotations(output, found, scored)
        if output is not None:
            self._report(output, len(found), failed)
        return 1 if failed and self.args.strict else 0

    def _print(self, scored: Scored) -> int:
        """Print each answer as it comes; return how many failed."""
        num_failed = 0

        def items() -> Iterator[Item]:
            nonlocal num_failed
            for source, outcome in scored:
                num_failed += isinstance(outcome, NnpmError)
                yield _item(source, outcome, self.model)

        if self.form in TABLES:
            level, labels = self.query.level, self.labels
            found = (row for item in items() for row in rows(item, level, labels))
            TABLES[self.form].write(sys.stdout.buffer, found, columns(level, labels))
        elif self.form in ANNOTATIONS:
            for item in items():
                _say(item)
                tqdm.write(render(self.form, [item], "recording", ()).decode(), sys.stdout, end="")
        else:
            write = _json_line if self.form == "json" else text_of
            for source, outcome in scored:
                num_failed += isinstance(outcome, NnpmError)
                tqdm.write(write(source.name, outcome), file=sys.stdout)
        return num_failed

    def _table(
        self, output: Path, found: list[Source], scored: Callable[[list[Source]], Scored]
    ) -> int:
        """Write one table; return how many of its recordings failed."""
        options = self.query.model_dump(exclude={"model", "format", "level"}, mode="json")
        made_with: dict[str, object] = {
            "version": __version__,
            "model": _name(self.model),
            "options": options,
        }
        with Journal(
            output,
            TABLES[self.form],
            self.query.level,
            self.labels,
            made_with,
            resume=self.args.resume,
        ) as journal:
            wanted = [source for source in found if source.name not in journal.done]
            try:
                for source, outcome in scored(wanted):
                    journal.add(_item(source, outcome, self.model))
            except KeyboardInterrupt:
                sys.stderr.write(
                    f"nnpm: interrupted; {len(journal.done)} of {len(found)} recordings are in "
                    f"{journal.path}, and --resume continues there.\n"
                )
                raise
            journal.finish()
            return journal.num_failed

    def _annotations(
        self, output: Path, found: list[Source], scored: Callable[[list[Source]], Scored]
    ) -> int:
        """Write an annotation of each recording; return how many have none."""
        if ANNOTATIONS[self.form].holds_many and output.suffix and not output.is_dir():
            return self._one_annotation(output, scored(found))
        places = places_below(output, found, ANNOTATIONS[self.form].suffix)
        wanted = [one for one in found if not (self.args.resume and places[one.name].exists())]
        num_failed = 0
        for source, outcome in scored(wanted):
            item = _item(source, outcome, self.model)
            if isinstance(item.outcome, Failure):
                num_failed += 1
                _say(item)
                continue
            place = places[source.name]
            place.parent.mkdir(parents=True, exist_ok=True)
            replace(place, render(self.form, [item], "recording", ()))
        return num_failed

    def _one_annotation(self, output: Path, scored: Scored) -> int:
        """Write one file for all recordings; return how many are not in it."""
        if self.args.resume:
            raise UsageError(f"--resume continues tables and folders; {output} is neither.")
        items = [_item(*one, self.model) for one in scored]
        failed = [one for one in items if isinstance(one.outcome, Failure)]
        for item in failed:
            _say(item)
        replace(output, render(self.form, items, "recording", ()))
        return len(failed)

    def _report(self, output: Path, num_recordings: int, num_failed: int) -> None:
        if self.args.json:
            summary: dict[str, object] = {
                "output": printable(output),
                "format": self.form,
                "level": self.query.level,
            }
            summary |= {"recordings": num_recordings, "failed": num_failed}
            sys.stdout.write(json.dumps(summary) + "\n")
        else:
            counted = f"{num_recordings} recording{'s' * (num_recordings != 1)}"
            sys.stderr.write(f"nnpm: {printable(output)}: {counted}, {num_failed} failed\n")


def _query(args: argparse.Namespace) -> PredictQuery:
    names = (
        "language", "channels", "window_s", "hop_s", "top_k", "neighbours", "emotions", "level",
        "digits", "segments",
    )  # fmt: skip
    given = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    if args.turns is not None:
        given["turns"] = turns_file(args.turns)
    try:
        return PredictQuery(**given, abstain=not args.no_abstain)
    except ValidationError as error:
        found = error.errors()
    raise UsageError(
        validation_detail(found, name=lambda field: f"--{field}".replace("_", "-"), limit=1)
    )


def _count(jobs: str) -> int:
    if not (jobs.isascii() and jobs.isdigit() and 1 <= int(jobs[:9]) <= _MAX_JOBS):
        raise UsageError(f"--jobs is {jobs[:32]}; it must be a number from 1 to {_MAX_JOBS}.")
    return int(jobs)


def _format(args: argparse.Namespace) -> str:
    """Find the format by --format, --json and the ending of the output; check that it works."""
    if archive.chosen(args):
        return "parquet"
    form: str | None = args.format
    if args.output is None:
        if args.resume:
            raise UsageError("--resume continues an output; name it with -o FILE.")
        if args.json and form not in (None, "json"):
            raise UsageError(f"--json and --format {form} exclude one another; take one of them.")
        return "json" if args.json else form or "text"
    if form is None:
        ending = Path(args.output).suffix.lower()
        # not .txt, which is Audacity's, and everybody's
        endings = {
            one.suffix.lower(): name for name, one in FORMATS.items() if one.suffix != ".txt"
        }
        if ending not in endings:
            raise UsageError(
                f"{args.output} has an ending that names no format; end it in {', '.join(endings)}"
                ", or add --format."
            )
        form = endings[ending]
    if form in ("text", "json"):
        raise UsageError(f"--format {form} is printed; write a file as csv, jsonl or another.")
    require_format(form, many=False)
    return form


def _require_printable(form: str, *, many: bool) -> None:
    if form in _BINARY:
        raise UsageError(f"--format {form} cannot be printed; name a file with -o FILE.")
    if many and not FORMATS[form].holds_many:
        raise UsageError(
            f"--format {form} holds one recording; name a folder with -o FOLDER for a file each."
        )


def _model(
    args: argparse.Namespace, own: Settings, query: PredictQuery
) -> tuple[Recognizer, ModelPart]:
    load = loader(own)
    if args.bundle is not None:
        recognizer = load(args.bundle)
        language = recognizer.bundle.card.language
        return recognizer, ModelPart(
            name=printable(args.bundle.resolve().name), version="", language=language
        )
    registry = open_to_read(own)
    serving = Serving(registry, LoadedModels(load, 1))
    route = serving.choose(args.model or main_name(registry), query.language)
    return route.recognizer, ModelPart(
        name=route.model.name, version=route.model.version, language=route.language
    )


def _name(model: ModelPart) -> str:
    return f"{model.name}/{model.version}" if model.version else model.name


def _item(source: Source, outcome: Outcome, model: ModelPart) -> Item:
    failed = Failure.of(outcome) if isinstance(outcome, NnpmError) else outcome
    return Item(source.name, failed, model)


def _say(item: Item) -> None:
    """Name a recording without an answer on standard error, where the format has no place."""
    if isinstance(item.outcome, Failure):
        tqdm.write(f"nnpm: {item.file}: {item.outcome.detail}", file=sys.stderr)


def _json_line(name: str, outcome: Outcome) -> str:
    if isinstance(outcome, NnpmError):
        problem = problem_of(outcome).model_dump(exclude_unset=True)
        return json.dumps({"file": name, "error": problem})
    return f'{{"file": {json.dumps(name)}, "answer": {outcome.to_json()}}}'
