"""The output of an archive: Parquet parts, the plan that assigns recordings to them, a manifest.

In a folder, or in an object store:

- ``_plan.jsonl.gz``: one line per part, the recordings in it. It is written before anything is
  scored, so that a part has the same rows whoever makes it, and however often.
- ``part-000000.parquet`` and so on, each written whole or not at all. A part that is there is done.
- ``_manifest.json``: what the rows were made with, and the counts.

Readers of Parquet pass over names that begin with an underscore.
"""

import contextlib
import gzip
import io
import json
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from ..files import lock, object_lock, replace
from ..inference.errors import NnpmError, ParameterError
from ..predict.sources import open_store, why
from ..predict.tables import Columns, Row, arrow_schema

MANIFEST = "_manifest.json"
PLAN = "_plan.jsonl.gz"
_LOCK = "_lock"
_PART = re.compile(r"part-\d{6,}\.parquet")
_FOOTER = b"nnpm"

MADE_WITH = ("nnpm", "model", "bundle", "level", "columns", "options")
"""Entries of the manifest that must be the same for a run to be continued."""


class OutputError(NnpmError):
    """An output that cannot be written, or that another run writes."""

    status, code, detail = 409, "output_unusable", None
    title = "The output cannot be used"


class Recording(NamedTuple):
    """A recording of the plan: its name in the table, where it is, and its size if known."""

    name: str
    place: str
    num_bytes: int


@dataclass(frozen=True, slots=True)
class Part:
    """What a finished part holds.

    Attributes:
        file: its name.
        recordings: how many it is of.
        failed: recordings without an answer.
        rows: of its table.
        audio_s: seconds of audio that were scored.
    """

    file: str
    recordings: int
    failed: int
    rows: int
    audio_s: float


@dataclass
class Progress:
    """Counts of a run, and its manifest.

    Attributes:
        parts: what is finished, by file name.
        busy_s: seconds that workers spent on parts in this run.
        cpu_s: of these, seconds of CPU.
        audio_s: seconds of audio scored in this run.
        num_failed: recordings without an answer in this run.
        began: clock at the start of this run.
    """

    parts: dict[str, Part]
    busy_s: float = 0.0
    cpu_s: float = 0.0
    audio_s: float = 0.0
    num_failed: int = 0
    began: float = field(default_factory=time.monotonic)

    def add(self, row: dict[str, Any]) -> Part:
        """Count a part that a worker has finished."""
        self.busy_s += row.pop("busy_s")
        self.cpu_s += row.pop("cpu_s")
        part = Part(**row)
        self.audio_s += part.audio_s
        self.num_failed += part.failed
        self.parts[part.file] = part
        return part

    def counts(self) -> dict[str, Any]:
        """Sum up all parts, of earlier runs too."""
        found = self.parts.values()
        return {
            "recordings": sum(part.recordings for part in found),
            "failed": sum(part.failed for part in found),
            "rows": sum(part.rows for part in found),
            "audio_s": round(sum(part.audio_s for part in found), 3),
        }

    @property
    def times_real_time(self) -> float:
        """Seconds of audio per second of this run."""
        return self.audio_s / max(1e-3, time.monotonic() - self.began)


def part_name(number: int) -> str:
    """Name the file of a part."""
    return f"part-{number:06d}.parquet"


class Output:
    """A folder or a URL that parts are written to; workers have one each.

    Args:
        place: absolute path of a folder, or a URL.

    Raises:
        ExtraMissingError: if a URL needs a package that is not installed.
    """

    def __init__(self, place: str) -> None:
        self.place = place
        self._folder = None if "://" in place else Path(place)
        self._store, self._top = open_store(place if self._folder is None else f"file://{place}")

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Keep other runs out until the block ends, or this process does.

        Raises:
            OutputError: if another run writes there, or the place cannot be written.
        """
        with contextlib.ExitStack() as stack:
            try:
                if self._folder is None:
                    held = object_lock(self._store, self._path(_LOCK), wait_s=0)
                    stack.enter_context(held)
                else:
                    self._folder.mkdir(parents=True, exist_ok=True)
                    stack.enter_context(lock(self._folder / _LOCK, wait=False, mode=0o666))
            except BlockingIOError:
                raise OutputError(
                    f"Another run writes {self.place}; wait for its end, or name another output. "
                    "The lock of a run that died in an object store is given up after a minute."
                ) from None
            except Exception as error:  # each driver has its own
                raise OutputError(f"{self.place} cannot be written: {why(error)}.") from error
            yield

    def write(self, name: str, data: bytes) -> None:
        """Write a file, whole or not at all.

        Raises:
            OutputError: if it cannot be written.
        """
        try:
            if self._folder is None:
                self._store.pipe_file(self._path(name), data)
            else:
                replace(self._folder / name, data)
        except Exception as error:
            raise OutputError(f"{self.place}/{name} cannot be written: {why(error)}.") from error

    def read(self, name: str) -> bytes | None:
        """Read a file; None if there is none.

        Raises:
            OutputError: if it cannot be read.
        """
        try:
            found: bytes = self._store.cat_file(self._path(name))
        except FileNotFoundError:
            return None
        except Exception as error:
            raise OutputError(f"{self.place}/{name} cannot be read: {why(error)}.") from error
        return found

    def part_names(self) -> set[str]:
        """List the parts that are there.

        Raises:
            OutputError: if the place cannot be read.
        """
        try:
            self._store.invalidate_cache()
            listed = self._store.ls(self._top, detail=False)
        except FileNotFoundError:
            return set()
        except Exception as error:
            raise OutputError(f"{self.place} cannot be read: {why(error)}.") from error
        names = (str(path).rpartition("/")[2] for path in listed)
        return {name for name in names if _PART.fullmatch(name)}

    def write_part(self, part: Part, rows: list[Row], of: Columns) -> None:
        """Write the rows of a part, and its counts into its footer.

        Raises:
            OutputError: if it cannot be written.
        """
        import pyarrow
        from pyarrow import parquet

        schema = arrow_schema(of).with_metadata({_FOOTER: json.dumps(asdict(part))})
        file = io.BytesIO()
        parquet.write_table(pyarrow.Table.from_pylist(rows, schema=schema), file)
        self.write(part.file, file.getvalue())

    def read_part(self, name: str) -> Part | None:
        """Read the counts of a part; None if it is missing or damaged, and so has to be made."""
        from pyarrow import parquet

        try:
            with self._store.open(self._path(name)) as file:
                found = parquet.read_schema(file).metadata[_FOOTER]
            return Part(**json.loads(found))
        except Exception:  # of store and pyarrow: whatever it is, making the part again mends it
            return None

    def manifest(self) -> dict[str, Any] | None:
        """Read the manifest; None if there is none.

        Raises:
            OutputError: if it is damaged.
        """
        found = self.read(MANIFEST)
        if found is None:
            return None
        try:
            document = json.loads(found)
            document["parts"] = [Part(**part) for part in document["parts"]]
        except (ValueError, LookupError, TypeError):
            raise OutputError(
                f"{self.place}/{MANIFEST} is damaged; name another output, or delete this one."
            ) from None
        return dict(document)

    def write_plan(self, plan: list[list[Recording]]) -> None:
        """Write which recordings each part is of.

        Raises:
            OutputError: if it cannot be written.
        """
        lines = "".join(f"{json.dumps(part)}\n" for part in plan)
        self.write(PLAN, gzip.compress(lines.encode(), mtime=0))

    def plan(self) -> list[list[Recording]]:
        """Read the plan; empty if there is none.

        Raises:
            OutputError: if it is damaged.
        """
        found = self.read(PLAN)
        try:
            lines = gzip.decompress(found or b"").splitlines()
            return [[Recording(*one) for one in json.loads(line)] for line in lines]
        except (OSError, EOFError, ValueError, TypeError):
            raise OutputError(
                f"{self.place}/{PLAN} is damaged; name another output, or delete this one."
            ) from None

    def _path(self, name: str) -> str:
        return f"{self._top.rstrip('/')}/{name}"


def require_same(place: str, seen: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Check that a run goes on with what it was begun with.

    Raises:
        ParameterError: if anything differs that rows depend on.
    """
    for name in MADE_WITH:
        if seen.get(name) != wanted[name]:
            one = f"{name} {seen.get(name)}" if isinstance(wanted[name], str) else f"other {name}"
            raise ParameterError(
                f"{place} was begun with {one}; name another output, or use the same again."
            )
