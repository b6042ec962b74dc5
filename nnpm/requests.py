"""What the clients send to a service, and how its answers are read: the same for both."""

import json
import os
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Generic, TypeVar, cast
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from .answer import Answer
from .audio import Audio, audio_source
from .errors import Error, problem, translated, unusable
from .service.inference.answer import Segment
from .service.inference.audio.formats import audio_files
from .service.inference.errors import ExtraMissingError, printable

if TYPE_CHECKING:
    import httpx2

T = TypeVar("T")

Recordings = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]
"""A folder, an archive, or paths of recordings."""

_BATCH_FILES = 50
_ENDED = frozenset({"succeeded", "failed", "cancelled", "rejected", "interrupted"})


class Job(BaseModel):
    """An adaptation of a service, as ``GET /adapt/{id}`` shows it."""

    model_config = ConfigDict(extra="allow", protected_namespaces=())

    id: str
    state: str
    progress: float
    eta_s: float | None = None
    name: str
    language: str
    method: str
    base: str | None = None
    version: str | None = None
    clips: dict[str, Any] | None = None
    verdict: str | None = None
    estimated_accuracy: dict[str, float] | None = None
    error: str | None = None
    created_at: datetime
    updated_at: datetime

    @property
    def ended(self) -> bool:
        """Whether the job will not change any more."""
        return self.state in _ENDED

    @property
    def succeeded(self) -> bool:
        """Whether it published ``version``."""
        return self.state == "succeeded"


OnJob = Callable[[Job], object]
"""Called with the job whenever it has changed."""

_FIRST_LOOK_S, _LAST_LOOK_S = 0.1, 2.0


class Watch:
    """When to look at a job again, and when to give up."""

    def __init__(self, progress: OnJob | None, timeout_s: float | None) -> None:
        self._progress = progress
        self._until_s = None if timeout_s is None else time.monotonic() + timeout_s
        self._pause_s = _FIRST_LOOK_S
        self._seen: tuple[object, ...] = ()

    def ended(self, job: Job) -> bool:
        """Report the job if it has changed, and say whether it has ended."""
        now = (job.state, job.progress, job.updated_at)
        if now != self._seen and self._progress is not None:
            self._progress(job)
        self._seen = now
        if not job.ended and self._until_s is not None and time.monotonic() > self._until_s:
            raise Error(
                f"The job {job.id} is {job.state} still; it goes on: wait for it again.",
                status=0, code="timeout", title="Job not ended yet",
            )  # fmt: skip
        return job.ended

    def pause_s(self) -> float:
        """Seconds until the next look: short at first, for small jobs."""
        self._pause_s = min(_LAST_LOOK_S, 1.3 * self._pause_s)
        return self._pause_s


@dataclass(frozen=True)
class Call(Generic[T]):
    """One request.

    Attributes:
        method: of HTTP.
        path: below the service's address.
        read: makes the result from the body.
        params: of the query.
        body: sent as JSON.
        fields: of a form.
        files: of a form: the part's name, and what opens it and names it.
        headers: besides the client's own.
    """

    method: str
    path: str
    read: Callable[[bytes], T]
    params: Mapping[str, Any] = field(default_factory=dict)
    body: Mapping[str, Any] | None = None
    fields: Mapping[str, str] = field(default_factory=dict)
    files: tuple[tuple[str, Callable[[ExitStack], tuple[str, BinaryIO]]], ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)

    def opened(self, stack: ExitStack) -> dict[str, Any]:
        """Return the arguments of ``httpx2``'s request; files stay open as long as the stack."""
        with translated():
            files = [(part, opened(stack)) for part, opened in self.files]
        return {
            "params": self.params,
            "headers": self.headers,
            **({} if self.body is None else {"json": self.body}),
            **({"files": files, "data": self.fields} if files else {}),
        }

    def result(self, response: "httpx2.Response") -> T:
        """Read the answer.

        Raises:
            Error: if it is an error, or not what this version knows.
        """
        if response.status_code >= 400 or response.is_redirect:
            raise problem(response.status_code, response.content)
        try:
            return self.read(response.content)
        except (ValidationError, ValueError, LookupError):
            raise Error(
                f"{self.method} {self.path} was answered with something else than nnpm's answer; "
                "check the address, and that service and client are of like versions.",
                status=response.status_code, code="not_understood", title="Answer not understood",
            ) from None  # fmt: skip


class Calls:
    """The requests of all methods."""

    @staticmethod
    def predict(audio: Audio, sample_rate: int | None, options: Mapping[str, Any]) -> Call[Answer]:
        """POST /predict."""
        with translated():
            source, name = audio_source(audio, sample_rate)
        part = ("file", _opener(source, name))
        return Call(
            "POST", "/predict", lambda body: _answer(body, name), _query(options), files=(part,)
        )

    @staticmethod
    def batches(
        recordings: Iterable[str | os.PathLike[str]], options: Mapping[str, Any]
    ) -> Iterator[Call[list[Answer | Error]]]:
        """POST /predict/batch, some files at a time."""
        rest = iter(recordings)
        params = _query(options)
        while paths := [Path(path) for path in islice(rest, _BATCH_FILES)]:
            for path in paths:
                _require_file(path)

            def read(body: bytes, paths: list[Path] = paths) -> list[Answer | Error]:
                found = json.loads(body)["results"]
                return [_item(one, path) for one, path in zip(found, paths, strict=True)]

            files = tuple(("files", _opener(path, str(path))) for path in paths)
            yield Call("POST", "/predict/batch", read, params, files=files)

    @staticmethod
    def adapt(
        recordings: Recordings | None,
        folder_on_server: str | None,
        idempotency_key: str | None,
        request: Mapping[str, Any],
    ) -> Call[Job]:
        """POST /adapt."""
        headers = {} if idempotency_key is None else {"Idempotency-Key": idempotency_key}
        given = {name: value for name, value in request.items() if value is not None}
        if (recordings is None) == (folder_on_server is None):
            raise unusable("Give either recordings or folder_on_server.")
        if recordings is None:
            body = {**given, "folder": folder_on_server}
            return Call("POST", "/adapt", Job.model_validate_json, body=body, headers=headers)
        fields = {name: _text(value) for name, value in given.items()}
        return Call(
            "POST", "/adapt", Job.model_validate_json,
            fields=fields, files=_uploads(recordings), headers=headers,
        )  # fmt: skip

    @staticmethod
    def job(id: str, method: str = "GET") -> Call[Job]:  # noqa: A002 - the job's own word
        """GET or DELETE /adapt/{id}."""
        return Call(method, f"/adapt/{quote(id, safe='')}", Job.model_validate_json)

    @staticmethod
    def jobs(limit: int) -> Call[list[Job]]:
        """GET /adapt."""
        jobs = TypeAdapter(list[Job])
        return Call(
            "GET", "/adapt", lambda body: jobs.validate_python(json.loads(body)["jobs"]),
            {"limit": limit},
        )  # fmt: skip

    @staticmethod
    def models() -> Call[list[dict[str, Any]]]:
        """GET /models."""
        return Call("GET", "/models", lambda body: list(json.loads(body)["models"]))

    @staticmethod
    def document(method: str, *path: str, body: Mapping[str, Any] | None = None) -> Call[Any]:
        """Any request whose answer is a JSON document, or nothing."""
        given = None if body is None else {k: v for k, v in body.items() if v is not None}
        return Call(
            method, "".join(f"/{quote(part, safe='')}" for part in path),
            lambda answer: json.loads(answer) if answer else None,
            body=given, headers={"Accept": "application/json"},
        )  # fmt: skip


def require_httpx() -> None:
    """Check that the clients' library is installed.

    Raises:
        Error: if it is not.
    """
    with translated():
        try:
            import httpx2  # noqa: F401
        except ImportError:
            raise ExtraMissingError(
                "The clients need httpx2, which is not installed; install the extra 'client': "
                "pip install 'nnpm[client]'."
            ) from None


def hello(sample_rate: int, channels: int, options: Mapping[str, Any]) -> str:
    """Write the first message of a stream."""
    given = {name: value for name, value in options.items() if value is not None}
    return json.dumps({"sample_rate_hz": sample_rate, "channels": channels, **given})


END = '{"end": true}'
"""The last message of a stream."""


def read_message(text: str | bytes) -> Segment | Answer:
    """Read a message of a stream.

    Raises:
        Error: if it is an error.
    """
    found = json.loads(text)
    match found.get("type"):
        case "segment":
            return _SEGMENT.validate_python(found)
        case "final":
            return Answer.model_validate(found)
        case _:
            raise problem(0, json.dumps(found).encode())


_SEGMENT: TypeAdapter[Segment] = TypeAdapter(Segment)


def websocket_url(url: str) -> str:
    """The address of the streams of a service.

    Examples:
        >>> websocket_url("https://example.org/emotion")
        'wss://example.org/emotion/stream'
    """
    return f"ws{url.removeprefix('http')}/stream"


def service_url(url: str) -> str:
    """Check an address, and take off the slash at its end.

    Raises:
        Error: if it is not one of HTTP.
    """
    if not url.startswith(("http://", "https://")):
        raise unusable(f"The address is {url!r}; it must begin with http:// or https://.")
    return url.rstrip("/")


def _answer(body: bytes, name: str) -> Answer:
    return Answer.named(Answer.model_validate_json(body), name)


def _item(found: Mapping[str, Any], path: Path) -> Answer | Error:
    if "answer" in found:
        return Answer.named(Answer.model_validate(found["answer"]), str(path))
    return problem(0, json.dumps(found["error"]).encode())


def _query(options: Mapping[str, Any]) -> dict[str, Any]:
    for name in ("format", "level"):
        if name in options:
            raise unusable(f"{name} is not for a client, which reads JSON; see Answer.to_frame().")
    return {
        name: [_text(one) for one in value]
        if isinstance(value, list | tuple) and not (value and isinstance(value[0], dict))
        else _text(value)
        for name, value in options.items()
        if value is not None
    }


def _text(value: Any) -> str:
    match value:
        case bool():
            return str(value).lower()
        case list() | tuple() | dict():
            return json.dumps(value)
        case _:
            return str(value)


def _opener(source: Path | BinaryIO, name: str) -> Callable[[ExitStack], tuple[str, BinaryIO]]:
    shown = printable(Path(name).name) or "recording.wav"

    def opened(stack: ExitStack) -> tuple[str, BinaryIO]:
        if isinstance(source, Path):
            return shown, stack.enter_context(source.open("rb"))
        return shown, source

    return opened


def _uploads(
    recordings: Recordings,
) -> tuple[tuple[str, Callable[[ExitStack], tuple[str, BinaryIO]]], ...]:
    if not isinstance(recordings, str | os.PathLike):
        paths = [Path(path) for path in recordings]
        for path in paths:
            _require_file(path)
        return tuple(("files", _opener(path, str(path))) for path in paths)
    folder = Path(recordings)
    if not folder.is_dir():
        _require_file(folder)
        return (("archive", _opener(folder, str(folder))),)
    found = audio_files(folder).recordings
    if not found:
        raise unusable(f"{printable(folder)} holds no audio.")
    return (("archive", lambda stack: ("recordings.zip", _zipped(folder, found, stack))),)


def _zipped(folder: Path, found: Iterable[Path], stack: ExitStack) -> BinaryIO:
    """Pack recordings into an unnamed file."""
    file = cast(BinaryIO, stack.enter_context(tempfile.TemporaryFile()))  # noqa: SIM115
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED, strict_timestamps=False) as archive:
        for path in found:
            archive.write(path, printable(path.relative_to(folder)))
    file.seek(0)
    return file


def _require_file(path: Path) -> None:
    if not path.is_file():
        raise unusable(f"{printable(path)}: there is no such file.")
