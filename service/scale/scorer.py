"""What runs in Ray's workers: one recognizer per actor, which makes one part after another."""

import contextlib
import json
import tempfile
import time
from collections import deque
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

from ... import __version__
from ..command import UsageError
from ..inference.audio.waveform import Limits
from ..inference.errors import NnpmError, NoRoomError
from ..predict.predict import PredictQuery, predict
from ..predict.schemas import ModelPart, PredictAnswer
from ..predict.sources import source_at
from ..predict.tables import Failure, Item, Row, columns, rows
from ..registry.serving import load_recognizer
from ..system import steady_memory
from .output import Output, Part, Recording, part_name

_READ_AHEAD = 4
"""Recordings that are fetched while one is scored: a store answers within some 50 ms."""

_MOST_DEATHS = 2
"""A recording during which so many workers died gets no further one."""

WORKER_DIED = Failure(
    "worker_died",
    f"{_MOST_DEATHS} workers were killed while they scored this recording; it may need more memory "
    "than a worker has.",
)


@dataclass(frozen=True, slots=True)
class Task:
    """What all workers of a run are given.

    Attributes:
        files: of the bundle.
        query: how to score.
        model: as rows name it.
        limits: of length and channels.
        output: where parts go.
        version: of nnpm where the run was started.
    """

    files: Mapping[str, bytes]
    query: PredictQuery
    model: ModelPart
    limits: Limits
    output: str
    version: str = __version__


class Coordinator:
    """Gives workers the task, and finds the recordings that kill them; an actor, one per run.

    A part is scored at full speed the first time. If its worker dies, the next one reports each
    recording before it begins with it; what has killed again is known by name then.

    Examples:
        >>> run = Coordinator(None)
        >>> run.begin(0), run.begin(0)  # the first worker died
        ((False, frozenset()), (True, frozenset()))
        >>> run.report(0, 3)
        >>> run.begin(0)[1], run.report(0, 3), run.begin(0)[1]
        (frozenset(), None, frozenset({3}))

    Args:
        task: reference to the :class:`Task` in the object store, in a list: Ray would pass on what
            it refers to otherwise.
    """

    def __init__(self, task: Any) -> None:
        self._task = task
        self._begun: set[int] = set()
        self._at: dict[int, int] = {}
        self._deaths: dict[tuple[int, int], int] = {}

    def task(self) -> Any:
        """Give the reference, in a list; each machine fetches the task once."""
        return self._task

    def begin(self, part: int) -> tuple[bool, frozenset[int]]:
        """Begin a part, perhaps again.

        Returns:
            Whether to report recordings, and the numbers of those to leave out.
        """
        again = part in self._begun
        self._begun.add(part)
        if (number := self._at.pop(part, None)) is not None:
            self._deaths[part, number] = self._deaths.get((part, number), 0) + 1
        deadly = (n for (p, n), deaths in self._deaths.items() if p == part)
        left_out = frozenset(n for n in deadly if self._deaths[part, n] >= _MOST_DEATHS)
        return again, left_out

    def report(self, part: int, number: int) -> None:
        """Note that a recording is being scored."""
        self._at[part] = number


class Scorer:
    """Scores parts; Ray Data makes one per worker.

    Args:
        run: handle of the actor :class:`Coordinator`.

    Raises:
        UsageError: if this machine has another version of nnpm.
        BundleError: if the bundle cannot be loaded.
    """

    def __init__(self, run: Any) -> None:
        import ray

        (reference,) = ray.get(run.task.remote())
        task: Task = ray.get(reference)
        if task.version != __version__:
            raise UsageError(
                f"a worker has nnpm {__version__}, the command {task.version}; install the same "
                "version on all machines of the cluster."
            )
        steady_memory()
        self._task, self._run = task, run
        self._output = Output(task.output)
        with tempfile.TemporaryDirectory(prefix="nnpm-bundle-") as folder:
            for name, data in task.files.items():
                (Path(folder) / name).write_bytes(data)
            self._recognizer = load_recognizer(Path(folder))
        self._reader = ThreadPoolExecutor(_READ_AHEAD, thread_name_prefix="nnpm-read")

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Make one part.

        Args:
            row: ``part``, its number, and ``recordings``.

        Returns:
            The counts of the part, ``busy_s`` and ``cpu_s``: seconds that this took, both 0 if a
            worker that died later had written it.

        Raises:
            OutputError: if it cannot be written.
            NoRoomError: if a long recording cannot be decoded, because the disk is full.
        """
        import ray

        number = int(row["part"])
        again, left_out = ray.get(self._run.begin.remote(number))
        if again and (made := self._output.read_part(part_name(number))) is not None:
            return asdict(made) | {"busy_s": 0.0, "cpu_s": 0.0}
        began, cpu_began = time.perf_counter(), time.process_time()

        def report(index: int) -> None:
            if again:
                ray.get(self._run.report.remote(number, index))

        recordings = [Recording(*one) for one in json.loads(row["recordings"])]
        part, found = self.score(number, recordings, report, left_out, ahead=not again)
        self._output.write_part(part, found, self._columns)
        busy_s = time.perf_counter() - began
        return asdict(part) | {"busy_s": busy_s, "cpu_s": time.process_time() - cpu_began}

    def score(
        self,
        number: int,
        recordings: list[Recording],
        report: Callable[[int], None],
        left_out: frozenset[int],
        *,
        ahead: bool = True,
    ) -> tuple[Part, list[Row]]:
        """Score the recordings of a part.

        Args:
            number: of the part.
            recordings: what it is of.
            report: called with the number of each before it is touched.
            left_out: numbers of those that are known to kill workers.
            ahead: read some while another is scored.

        Returns:
            Its counts, and its rows in the order of the recordings.
        """
        found: list[Row] = []
        num_failed, audio_s = 0, 0.0
        level, labels = self._task.query.level, self._recognizer.bundle.labels
        with contextlib.closing(self._opened(recordings, left_out, ahead)) as opened:
            for index, recording in enumerate(recordings):
                report(index)
                outcome = self._outcome(recording, next(opened))
                if isinstance(outcome, Failure):
                    num_failed += 1
                else:
                    audio_s += outcome.audio.duration_s
                found += rows(Item(recording.name, outcome, self._task.model), level, labels)
        name = part_name(number)
        return Part(name, len(recordings), num_failed, len(found), round(audio_s, 3)), found

    def _outcome(
        self, recording: Recording, opened: "Callable[[], Opened] | None"
    ) -> PredictAnswer | Failure:
        if opened is None:
            return WORKER_DIED
        task = self._task
        try:
            stack, file = opened()
            with stack:
                return predict(
                    self._recognizer,
                    file,
                    task.query,
                    model=task.model,
                    limits=task.limits,
                    name=recording.name,
                ).document
        except NoRoomError:
            raise
        except NnpmError as error:
            return Failure.of(error)

    def _opened(
        self, recordings: list[Recording], left_out: frozenset[int], ahead: bool
    ) -> "Generator[Callable[[], Opened] | None]":
        """Give what opens each recording; at most ``_READ_AHEAD`` of them are being read."""
        waiting: deque[Future[Opened] | None] = deque()
        rest = iter(enumerate(recordings))

        def fill(most: int) -> None:
            while len(waiting) < most and (following := next(rest, None)) is not None:
                index, one = following
                waiting.append(None if index in left_out else self._reader.submit(_open, one))

        try:
            while True:
                fill(1)
                if not waiting:
                    return
                first = waiting.popleft()
                fill(_READ_AHEAD if ahead else 0)
                yield None if first is None else first.result
        finally:
            for one in filter(None, waiting):
                one.cancel()
                one.add_done_callback(_close)

    @property
    def _columns(self) -> Mapping[str, type]:
        return columns(self._task.query.level, self._recognizer.bundle.labels)


Opened = tuple[ExitStack, Path | BinaryIO]


def _open(recording: Recording) -> Opened:
    stack = ExitStack()
    return stack, stack.enter_context(source_at(recording.place, recording.num_bytes).opened())


def _close(future: "Future[Opened]") -> None:
    if not future.cancelled() and future.exception() is None:
        future.result()[0].close()
