"""``nnpm predict``: the answers of POST /predict, without a server."""

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pydantic import ValidationError
from tqdm import tqdm

from .. import settings
from ..api.errors import problem_of
from ..command import UsageError
from ..inference.audio.formats import AUDIO_SUFFIXES, audio_files
from ..inference.errors import AudioError, printable, validation_detail
from ..predict.predict import PredictQuery, predict
from ..predict.schemas import ModelPart, PredictAnswer
from ..registry.opening import open_registry
from ..registry.serving import LoadedModels, Serving, load_recognizer

Outcome = PredictAnswer | AudioError


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="file or folder")
    parser.add_argument(
        "--json",
        action="store_true",
        help="print the answers of /predict; of many files one a line",
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
    parser.add_argument("--top-k", metavar="K", help="add the K most probable emotions")
    parser.add_argument("--neighbours", metavar="K", help="add the K nearest known utterances")
    parser.add_argument(
        "--emotions", nargs="+", metavar="NAME", help="answer with one of these emotions only"
    )
    parser.add_argument("--no-abstain", action="store_true", help="answer even if uncertain")


def run(args: argparse.Namespace) -> int:
    """Print one answer per file, in order."""
    own = settings.load()
    query = _query(args)
    files = list(_files(args.paths))
    if args.bundle is not None:
        recognizer = load_recognizer(args.bundle)
        language = recognizer.bundle.card.language
        model = ModelPart(name=printable(args.bundle.resolve().name), version="", language=language)
    else:
        serving = Serving(open_registry(own), LoadedModels(load_recognizer, 1))
        route = serving.choose(args.model, query.language)
        recognizer = route.recognizer
        model = ModelPart(
            name=route.model.name, version=route.model.version, language=route.language
        )

    def score(file: Path) -> Outcome:
        try:
            return predict(recognizer, file, query, model=model, limits=own.limits).document
        except AudioError as error:
            return error

    many = len(files) > 1 or args.paths[0].is_dir()
    if not many:
        outcome = score(files[0])
        if isinstance(outcome, AudioError):
            raise UsageError(f"{files[0]}: {outcome}")
        sys.stdout.write((outcome.to_json() if args.json else _line(files[0], outcome)) + "\n")
        return 0
    write = _json_line if args.json else _line
    return _run_many(files, score, write, own.workers)


def _run_many(
    files: list[Path],
    score: Callable[[Path], Outcome],
    write: Callable[[Path, Outcome], str],
    workers: int,
) -> int:
    with (
        ThreadPoolExecutor(workers) as pool,
        tqdm(total=len(files), unit="file", disable=None) as progress,
    ):
        try:
            for file, outcome in zip(files, pool.map(score, files), strict=True):
                progress.write(write(file, outcome), file=sys.stdout)
                progress.update()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return 0


def _query(args: argparse.Namespace) -> PredictQuery:
    given = {
        name: getattr(args, name)
        for name in ("language", "channels", "window_s", "hop_s", "top_k", "neighbours", "emotions")
        if getattr(args, name) is not None
    }
    try:
        return PredictQuery(**given, abstain=not args.no_abstain)
    except ValidationError as error:
        detail = validation_detail(
            error.errors(), name=lambda field: f"--{field}".replace("_", "-"), limit=1
        )
        raise UsageError(detail) from None


def _files(paths: list[Path]) -> Iterator[Path]:
    for path in paths:
        if path.is_dir():
            found = audio_files(path)
            if not found:
                raise UsageError(
                    f"{path} holds no audio; looked for {', '.join(sorted(AUDIO_SUFFIXES))}."
                )
            yield from found
        elif path.exists():
            yield path
        else:
            raise UsageError(f"{path}: there is no such file or folder.")


def _json_line(file: Path, outcome: Outcome) -> str:
    if isinstance(outcome, AudioError):
        problem = problem_of(outcome).model_dump(exclude_unset=True)
        return json.dumps({"file": printable(file), "error": problem})
    return f'{{"file": {json.dumps(printable(file))}, "answer": {outcome.to_json()}}}'


def _line(file: Path, outcome: Outcome) -> str:
    if isinstance(outcome, AudioError):
        return f"{printable(file)}: error: {outcome}"
    if outcome.abstained:
        return f"{printable(file)}: abstains ({', '.join(outcome.reasons)})"
    return f"{printable(file)}: {outcome.emotion} {outcome.confidence:.2f}"
