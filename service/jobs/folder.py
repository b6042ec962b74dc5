"""One adaptation as service, worker, child process and command line see it: request and folder.

The only module of this room that training may import: the child (``python -m nnpm.training adapt
--job DIR``) is another program, and shares this folder with the worker that starts it.
"""

import contextlib
import json
import re
import shutil
from collections.abc import Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from .. import files
from ..inference.audio.formats import PassedOver
from ..inference.card import DEFAULT_LANGUAGE, DEFAULT_NAME, EMOTIONS, given_language
from ..inference.errors import ParameterError, validation_detail

METHODS_GROUP = "nnpm.methods"
"""Entry points by which installed packages add methods."""

METHODS = (
    "source_only",
    "adabn",
    "coral",
    "mmd",
    "dann",
    "entropy",
    "self_training",
    "nnpm",
)
"""Names of the adaptation methods; training/adaptation/methods holds a class for each."""

DEFAULT_METHOD = "nnpm"

_CLASS = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")


def _canonical(language: str) -> str:
    return given_language(language) or DEFAULT_LANGUAGE


def _may_occur(emotions: tuple[str, ...]) -> tuple[str, ...]:
    for emotion in emotions:
        if emotion not in EMOTIONS:
            raise ValueError(f"emotions names {emotion[:64]!r}; it may name {', '.join(EMOTIONS)}.")
    if len(set(emotions)) < len(emotions):
        raise ValueError(f"emotions is {', '.join(emotions)}; it must name each of them once.")
    if len(emotions) == 1:
        raise ValueError(
            f"emotions is {emotions[0]} alone; it must name at least 2, or none for all."
        )
    return emotions


def _channel(channels: object) -> object:
    if isinstance(channels, str) and channels.isascii() and channels.isdecimal():
        channels = int(channels[:20])
    if channels in ("mix", "split") or (
        isinstance(channels, int)
        and not isinstance(channels, bool)
        and 0 <= channels <= MAX_CHANNEL
    ):
        return channels
    raise ValueError(
        f"channels is {str(channels)[:64]!r}; it must be mix, split, or the number of a channel "
        f"from 0 to {MAX_CHANNEL}."
    )


MAX_CHANNEL = 255
"""Largest number of a channel."""

Emotions = Annotated[tuple[str, ...], AfterValidator(_may_occur)]
"""Emotions of the vocabulary, at least two, each once; none means all of the bundle."""

Channels = Annotated[
    Literal["mix", "split"] | Annotated[int, Field(ge=0, le=MAX_CHANNEL)], BeforeValidator(_channel)
]
"""The mix of a recording's channels, each channel by itself, or one channel by its number."""


class JobRequest(BaseModel):
    """How to adapt: read from a form, a JSON body or a command line, and kept with the job."""

    model_config = ConfigDict(use_attribute_docstrings=True, extra="forbid", frozen=True)

    language: Annotated[str, Field(max_length=64), AfterValidator(_canonical)] = DEFAULT_LANGUAGE
    """Language of the recordings as a BCP-47 tag: ur, de, pt-BR; und if unknown."""

    name: str = Field(default=DEFAULT_NAME, max_length=128)
    """The model that gets a new version."""

    base: str | None = Field(default=None, max_length=128)
    """The version to adapt; by default the one that answers for the language."""

    method: str = DEFAULT_METHOD
    """Adaptation method: nnpm, or one of the methods that it is compared with."""

    emotions: Emotions = ()
    """Emotions that occur in the recordings: the new version's default answers; all by default."""

    channels: Channels = "mix"
    """Channels of a recording that are learnt from: mix, split (each by itself), or the number of
    one, from 0."""

    seed: int = Field(default=0, ge=0, le=2**31 - 1)
    """Seed of all random numbers."""

    auto_promote: bool = False
    """Promote the new version for the language at once if the evidence says that it is better."""

    force: bool = False
    """Publish the new version even if the evidence says reject."""

    keep_audio: bool = False
    """Keep recordings whose answer changed for a while, so that people can listen to them."""

    @field_validator("method")
    @classmethod
    def _is_known(cls, method: str) -> str:
        if method not in METHODS:
            known = (*METHODS, *sorted(entry_points(group=METHODS_GROUP).names - {*METHODS}))
            if method not in known:
                raise ValueError(
                    f"method is {method[:64]!r}; it must be one of {', '.join(known)}."
                )
        return method

    @model_validator(mode="after")
    def _promotes_for_a_language(self) -> Self:
        if self.auto_promote and self.language == DEFAULT_LANGUAGE:
            raise ValueError(
                "auto_promote without a language would change the answers for all languages; "
                "set language, such as ur."
            )
        return self


AnyPath = Annotated[
    Path, BeforeValidator(lambda path: Path(path) if isinstance(path, str) else path)
]
"""A path whose bytes need not be UTF-8, which pydantic's own validator of text wants."""


class AdaptationTask(JobRequest):
    """A request with the base and the folders of this machine: what ``nnpm adapt`` carries out.

    The worker writes it to ``request.json`` for its child process.
    """

    seed: int = Field(default=0, ge=0, lt=2**32)
    """Seed of all random numbers; the command line takes any below 2^32."""

    bundle: AnyPath
    """Folder of the base."""

    target: AnyPath
    """Folder of the unlabelled recordings, searched recursively."""

    out: AnyPath
    """Folder of the adapted bundle; it must not exist yet."""

    passed_over: PassedOver = {}
    """Files of an archive that were not unpacked because they are no recordings."""

    threads: int = Field(ge=1)
    """Threads that decode and pool; the result does not depend on the number."""

    @field_validator("method")
    @classmethod
    def _is_known(cls, method: str) -> str:
        """On the command line also ``package.module:Class``, which HTTP never imports."""
        return method if _CLASS.fullmatch(method) else super()._is_known(method)

    min_clips: int | None = Field(default=None, ge=1)
    """Fewest usable clips; by default the number in the adaptation's configuration."""

    labels: AnyPath | None = None
    """CSV file with the columns path, relative to ``target``, and emotion: a few labelled clips."""


class EvaluationTask(BaseModel):
    """A bundle, and labelled recordings to measure it on; ``request.json`` of an evaluation."""

    model_config = ConfigDict(use_attribute_docstrings=True, extra="forbid", frozen=True)

    kind: Literal["evaluate"] = "evaluate"

    bundle: AnyPath
    """Folder of the bundle."""

    target: AnyPath
    """Folder of the recordings, with a metadata.csv: columns path and emotion."""

    out: AnyPath | None = None
    """Folder of the recalibrated bundle; it must not exist yet. None writes none."""

    threads: int = Field(ge=1)
    """Threads that decode and score."""


AnyRequest = TypeVar("AnyRequest", bound=BaseModel)


def read_request(kind: type[AnyRequest], data: bytes | Mapping[str, Any]) -> AnyRequest:
    """Read a request from a JSON document, or from fields by name.

    Raises:
        ParameterError: one sentence for each field that cannot be used.
    """
    try:
        if isinstance(data, bytes):
            return kind.model_validate_json(data)
        return kind.model_validate(data)
    except ValidationError as error:
        found = validation_detail(error.errors(), known=kind.model_fields, document="The body")
        raise ParameterError(found) from None


class JobFolder:
    """The folder of one job: its paths, and its small files.

    Args:
        root: holds one folder per job.
        id: the job's id: letters and digits.

    Raises:
        ParameterError: if the id holds any other character.

    Examples:
        >>> JobFolder(Path("jobs"), "7f").report.as_posix()
        'jobs/7f/report.json'
    """

    def __init__(self, root: Path, id: str) -> None:  # noqa: A002 - the job's own word
        if not id.isalnum():
            raise ParameterError(f"{id!r} is not a job id; a job id has only letters and digits.")
        self.path = root / id
        self.upload = self.path / "upload"
        """The audio as it was sent: an archive, or files."""
        self.target = self.path / "target"
        """The audio, unpacked: one folder for each claim of the job."""
        self.labels = self.path / "labels.csv"
        """A few labels of the request, if it had any: the columns path and emotion."""
        self.request = self.path / "request.json"
        """An ``AdaptationTask``; the worker writes it when the audio is prepared."""
        self.progress = self.path / "progress.json"
        """Progress of the child: ``{"state", "stage", "done", "total", "progress"}``."""
        self.report = self.path / "report.json"
        """Result of the child, an ``AdaptationReport``; written when its bundle is complete."""
        self.error = self.path / "error.json"
        """Why the child failed: ``{"detail", "errno"}``."""
        self.out = self.path / "out"
        """The bundle that the child made."""
        self.clips = self.path / "clips"
        """With ``keep_audio``: recordings whose answer changed, ``<number in the report>.wav``."""
        self.lock = self.path / "child.lock"
        """Locked while the child runs; holds its process id and host: ``{"pid", "host"}``."""
        self.log = self.path / "child.log"
        """Standard error of the child."""

    def create(self) -> None:
        """Make the folder, readable for its owner only: it holds recordings of people."""
        self.path.mkdir(mode=0o700, parents=True)

    def remove_work(self) -> None:
        """Remove all but report, error, request and kept audio; no error if it is gone."""
        kept = {self.report, self.error, self.request, self.clips}
        with contextlib.suppress(FileNotFoundError):
            for path in set(self.path.iterdir()) - kept:
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)

    def remove(self) -> None:
        """Remove everything; no error if it is gone."""
        shutil.rmtree(self.path, ignore_errors=True)


def read_json(path: Path) -> dict[str, Any] | None:
    """Read a small file that another process may be replacing.

    Returns:
        Its object; None if the file does not exist or holds no JSON object.
    """
    try:
        data = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    return data if isinstance(data, dict) else None


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Replace a small file whole, also when the power fails.

    Raises:
        OSError: if it cannot be written; the old file stays.
    """
    files.replace(path, json.dumps(data).encode())
