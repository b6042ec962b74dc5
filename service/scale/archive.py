"""``nnpm predict --engine ray``: archives on Ray Data.

The driver lists the recordings and plans parts; Ray Data hands these to actors, which read, decode
and score, and write each part themselves. Only names travel there, and only counts come back, so
memory does not grow with the archive.
"""

import argparse
import json
import logging
import math
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, redirect_stdout, suppress
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ... import __version__
from ..command import UsageError
from ..inference.audio.waveform import Limits
from ..inference.bundle import SEAL
from ..inference.errors import NnpmError, ParameterError, printable
from ..inference.recognizer import Recognizer
from ..predict.predict import PredictQuery
from ..predict.schemas import ModelPart
from ..predict.sources import STANDARD_INPUT, Source
from ..predict.tables import columns, require_format
from .cluster import connected, own_error, require_ray
from .output import (
    MANIFEST,
    Output,
    Part,
    Progress,
    Recording,
    part_name,
    require_same,
)
from .scorer import Coordinator, Scorer, Task

MAX_RECORDINGS, MAX_BYTES = 256, 256 << 20
"""Most recordings, and most bytes, of a part: some seconds of a worker's time, which is what is
scored again of a worker that dies."""

_PARTS_PER_WORKER = 4
"""Fewest, so that no worker waits for another at the end."""

_MAX_BLOCKS = 20_000
_SAVE_S = 30.0


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``nnpm predict`` that are about Ray."""
    parser.add_argument(
        "--engine", choices=["local", "ray"], default="local", help="where to score [local]"
    )
    parser.add_argument("--address", help="Ray cluster to score on [one started on this machine]")


def chosen(args: argparse.Namespace) -> bool:
    """Whether Ray is to score; checks what goes with it.

    Raises:
        UsageError: if options do not go together.
        ExtraMissingError: if Ray or pyarrow is not installed.
    """
    if args.engine != "ray":
        if args.address is not None:
            raise UsageError("--address names a Ray cluster; add --engine ray.")
        if args.output is not None and "://" in args.output:
            raise UsageError(f"{args.output} is a URL; add --engine ray, or name a file here.")
        return False
    if args.output is None or args.format not in (None, "parquet"):
        raise UsageError(
            "--engine ray writes Parquet parts; name a folder or URL with -o, and no other "
            "--format than parquet."
        )
    require_ray()
    require_format("parquet", many=True)
    return True


def run(
    args: argparse.Namespace,
    found: list[Source],
    query: PredictQuery,
    recognizer: Recognizer,
    model: ModelPart,
    limits: Limits,
    workers: int | None,
) -> int:
    """Score an archive as options say, and report; return the exit code."""
    with redirect_stdout(sys.stderr):  # where Ray's own words belong
        counts = predict_archive(
            found,
            query,
            recognizer,
            model=model,
            limits=limits,
            output=args.output,
            address=args.address,
            workers=workers,
            resume=args.resume,
        )
    shown = printable(args.output)
    if args.json:
        summary = {"output": shown, "format": "parquet", "level": query.level}
        sys.stdout.write(json.dumps(summary | counts) + "\n")
    else:
        sys.stderr.write(
            f"nnpm: {shown}: {counts['recordings']} recordings, {counts['failed']} failed, "
            f"{counts['times_real_time']:.0f} times real time\n"
        )
    return 1 if counts["failed"] and args.strict else 0


def predict_archive(
    found: list[Source],
    query: PredictQuery,
    recognizer: Recognizer,
    *,
    model: ModelPart,
    limits: Limits,
    output: str,
    address: str | None = None,
    workers: int | None = None,
    resume: bool = False,
) -> dict[str, Any]:
    """Score recordings on a Ray cluster, and write Parquet parts.

    Args:
        found: the recordings; workers must be able to read their places.
        query: how to score them.
        recognizer: of the bundle, whose files are sent to the workers.
        model: as rows name it.
        limits: of length and channels.
        output: folder or URL that gets the parts.
        address: of a cluster; None starts one on this machine.
        workers: most of them at a time; None for as many as the cluster has cores.
        resume: continue what an earlier run left in the output.

    Returns:
        Counts of the whole output, as in its manifest.

    Raises:
        ExtraMissingError: if Ray is not installed.
        OutputError: if another run writes the output, or it cannot be written.
        ParameterError: if there is an output already, or one that was made otherwise.
        UsageError: if the cluster cannot be reached.
    """
    require_ray()
    if any(source.place == STANDARD_INPUT for source in found):
        raise ParameterError("- is standard input, which workers cannot read; name a folder.")
    place = output if "://" in output else str(Path(output).absolute())
    target = Output(place)
    files = {path.name: path.read_bytes() for path in recognizer.bundle.path.iterdir()}
    card, labels = recognizer.bundle.card, recognizer.bundle.labels
    of = columns(query.level, labels)
    head: dict[str, Any] = {
        "nnpm": __version__,
        "model": f"{model.name}/{model.version}",
        "bundle": files[SEAL].split()[0].decode(),
        "licence": card.licence,
        "level": query.level,
        "columns": {name: kind.__name__ for name, kind in of.items()},
        "options": query.model_dump(exclude={"model", "format", "level"}, mode="json"),
    }
    task = Task(files, query, model, limits, place)
    with target.alone():
        before = target.manifest()
        _check_before(target, before, head, resume=resume)
        head["started_at"] = (before or {}).get("started_at") or _now()
        return _run(target, found, task, head, before, (address, workers))


def _check_before(
    target: Output, before: dict[str, Any] | None, head: dict[str, Any], *, resume: bool
) -> None:
    if resume:
        if before is not None:
            require_same(target.place, before, head)
        elif target.part_names():
            raise ParameterError(
                f"{target.place} has parts and no {MANIFEST}; name another output."
            )
    elif before is not None or target.part_names():
        raise ParameterError(
            f"{target.place} holds an output; add --resume to continue it, or name another."
        )


def _run(
    target: Output,
    found: list[Source],
    task: Task,
    head: dict[str, Any],
    before: dict[str, Any] | None,
    cluster: tuple[str | None, int | None],
) -> dict[str, Any]:
    known = {part.file: part for part in before["parts"]} if before else {}
    progress = Progress(_finished(target, known))

    def save(*, complete: bool = False) -> dict[str, Any]:
        counts = progress.counts()
        parts = [asdict(progress.parts[name]) for name in sorted(progress.parts)]
        state = {"complete": complete, "updated_at": _now(), **counts, "parts": parts}
        target.write(MANIFEST, json.dumps(head | state, indent=1).encode())
        return counts

    save()
    plan = target.plan()
    total, num_done, saved = 0, progress.counts()["recordings"], time.monotonic()
    try:
        with ExitStack() as stack:
            workers = 1
            if extended(plan, found, 1) != plan or len(progress.parts) < len(plan):
                workers = stack.enter_context(connected(*cluster))
            plan = extended(plan, found, workers)
            target.write_plan(plan)
            total = sum(map(len, plan))
            bar = stack.enter_context(
                tqdm(total=total, initial=num_done, unit="file", disable=None)
            )
            for row in _scored(plan, progress.parts.keys(), task, workers):
                part = progress.add(row)
                bar.update(part.recordings)
                bar.set_postfix_str(
                    f"{progress.num_failed} failed, {progress.times_real_time:.0f}x real time",
                    refresh=False,
                )
                if time.monotonic() - saved > _SAVE_S:
                    save()
                    saved = time.monotonic()
    except BaseException as error:
        with suppress(NnpmError):
            save()
        if isinstance(error, KeyboardInterrupt):
            num_done = progress.counts()["recordings"]
            sys.stderr.write(
                f"nnpm: interrupted; {num_done} of {total} recordings are in "
                f"{printable(target.place)}, and --resume continues there.\n"
            )
        raise
    counts = save(complete=True)
    speed = {"times_real_time": round(progress.times_real_time, 1)}
    return counts | speed | {"cpu_s": round(progress.cpu_s, 3)}


def _finished(target: Output, known: dict[str, Part]) -> dict[str, Part]:
    """The parts that are there; the footer is read of those that no manifest lists yet."""
    there = {name: known.get(name) or target.read_part(name) for name in target.part_names()}
    return {name: part for name, part in there.items() if part is not None}


def extended(
    plan: list[list[Recording]], found: list[Source], workers: int
) -> list[list[Recording]]:
    """Assign the recordings that a plan does not have yet to new parts, in order.

    Args:
        plan: of the runs before; its parts stay as they are.
        found: all recordings.
        workers: how many share the work.
    """
    planned = {one.name for part in plan for one in part}
    new = [
        Recording(source.name, source.place, source.num_bytes)
        for source in found
        if source.name not in planned
    ]
    most = min(MAX_RECORDINGS, max(1, math.ceil(len(new) / (_PARTS_PER_WORKER * workers))))
    parts: list[list[Recording]] = []
    num_bytes = 0
    for one in new:
        if not parts or len(parts[-1]) >= most or num_bytes + one.num_bytes > MAX_BYTES:
            parts.append([])
            num_bytes = 0
        parts[-1].append(one)
        num_bytes += one.num_bytes
    return plan + parts


def _scored(
    plan: list[list[Recording]], finished: Any, task: Task, workers: int
) -> Iterator[dict[str, Any]]:
    """Let Ray Data score the parts that are not finished; give their counts as they come."""
    import ray
    from ray.data import ActorPoolStrategy, DataContext
    from ray.exceptions import RayError

    wanted = [
        {"part": number, "recordings": json.dumps(part)}
        for number, part in enumerate(plan)
        if part_name(number) not in finished
    ]
    if not wanted:
        return
    DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    run = ray.remote(num_cpus=0)(Coordinator).remote([ray.put(task)])
    pool = ActorPoolStrategy(min_size=1, max_size=min(workers, len(wanted)))
    try:
        dataset = ray.data.from_items(
            wanted, override_num_blocks=min(len(wanted), _MAX_BLOCKS)
        ).map(
            Scorer,  # type: ignore[arg-type] # Ray makes one per actor, and calls it
            fn_constructor_args=(run,),
            compute=pool,
            num_cpus=1,
        )
        yield from dataset.iter_rows()
    except RayError as error:
        raise own_error(error) from error


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
