"""Models that score recordings in this process."""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from pydantic import ValidationError

from .answer import Answer, frame, require_pandas
from .audio import Audio, audio_source
from .errors import translated
from .service import settings
from .service.inference.audio.waveform import Limits
from .service.inference.bundle import CARD
from .service.inference.card import DEFAULT_NAME
from .service.inference.errors import NnpmError, NoRoomError, ParameterError, validation_detail
from .service.inference.recognizer import Recognizer
from .service.predict.predict import PredictQuery, predict
from .service.predict.schemas import ModelPart, PredictAnswer
from .service.predict.sources import Source, in_order, sources
from .service.predict.tables import Failure, Item, Level
from .service.registry.opening import main_name, open_to_read
from .service.registry.serving import LoadedModels, Serving, load_recognizer
from .service.system import available_cores

if TYPE_CHECKING:
    import pandas


def load(model: str | os.PathLike[str] = DEFAULT_NAME, *, language: str | None = None) -> "Model":
    """Load a model.

    Args:
        model: ``name`` or ``name/version`` in the models folder (NNPM_MODELS, else ``./models``,
            else that of the installation), or the folder of a bundle.
        language: BCP-47 tag; picks the version that was promoted for it, if there is one.

    Raises:
        Error: if there is no such model, or its bundle is damaged.

    Examples:
        >>> import numpy as np
        >>> model = load("default")
        >>> model.name, model.language
        ('default', 'und')
        >>> answer = model.predict(np.zeros(16_000, np.float32), 16_000)
        >>> print(answer.emotion, answer.reasons[0])
        None no_speech
    """
    with translated():
        own = settings.load()
        if (folder := _bundle_folder(model)) is not None:
            recognizer = load_recognizer(folder)
            part = ModelPart(
                name=folder.resolve().name, version="", language=recognizer.bundle.card.language
            )
            return Model(recognizer, part, own.limits)
        query = read_options(language=language)
        registry = open_to_read(own)
        name = os.fspath(model)
        route = Serving(registry, LoadedModels(load_recognizer, 1)).choose(
            main_name(registry) if name == DEFAULT_NAME else name, query.language
        )
        found = route.model
        part = ModelPart(name=found.name, version=found.version, language=route.language)
        return Model(route.recognizer, part, own.limits)


class Model:
    """A model in this process; :func:`load` makes it. Several threads may use it.

    Attributes:
        name: of the model, or of the bundle's folder.
        version: empty for a bundle's folder.
        language: BCP-47 tag of the route that chose it, or of the bundle.
        labels: the emotions that it knows.
        licence: of its weights.
        path: folder of the bundle.
    """

    def __init__(self, recognizer: Recognizer, part: ModelPart, limits: Limits) -> None:
        card = recognizer.bundle.card
        self._recognizer, self._part, self._limits = recognizer, part, limits
        self.name, self.version, self.language = part.name, part.version, part.language
        self.labels: tuple[str, ...] = recognizer.bundle.labels
        self.licence: str = card.licence
        self.path: Path = recognizer.bundle.path

    def __repr__(self) -> str:
        shown = f"{self.name}/{self.version}" if self.version else str(self.path)
        return f"<nnpm.Model {shown}: {', '.join(self.labels)}>"

    def predict(self, audio: Audio, sample_rate: int | None = None, **options: Any) -> Answer:
        """Score one recording.

        Args:
            audio: path of a file, its bytes, an open binary file, or samples of shape
                ``(num_samples,)`` or ``(num_channels, num_samples)``: floats in [-1, 1], or
                16-bit or 32-bit integers.
            sample_rate: of samples, in Hz; a file says its own.
            **options: the parameters of ``POST /predict``, with the same defaults: ``channels``
                (``mix`` or ``split``), ``segments`` (``turns`` or ``windows``), ``turns`` (a list,
                or the text of RTTM), ``window_s``, ``hop_s``, ``top_k``, ``neighbours``,
                ``abstain``, ``emotions``, ``digits``.

        Returns:
            The answer. Silence is one, without an emotion.

        Raises:
            Error: if the recording cannot be scored, or an option cannot be used.
        """
        with translated():
            query = read_options(**options)
            source, name = audio_source(audio, sample_rate, self._limits)
            return Answer.named(self._predict(source, query, name or None), name)

    def process_folder(
        self,
        folder: str | os.PathLike[str],
        *,
        level: Level = "segment",
        jobs: int | None = None,
        progress: bool = False,
        **options: Any,
    ) -> "pandas.DataFrame":
        """Score all recordings below a folder.

        Args:
            folder: searched recursively, for every format that can be read.
            level: what a row is: a ``segment``, a ``channel`` or the whole ``recording``.
            jobs: recordings at a time; the cores by default.
            progress: show a bar on standard error, if that is a terminal.
            **options: as of :meth:`predict`.

        Returns:
            A data frame as :meth:`Answer.to_frame` makes it, in the order of the files' paths. A
            recording that cannot be scored is one row with ``error`` (a code) and ``detail``, and
            otherwise empty: ``found[found.error.notna()]`` lists them.

        Raises:
            Error: if there is no audio below the folder, an option cannot be used, or pandas, of
                the extra ``tables``, is not installed.
        """
        require_pandas()
        with translated():
            query = read_options(**options, level=level)
            if jobs is not None and jobs < 1:
                raise ParameterError(f"jobs is {jobs}; it must be at least 1.")
            if not Path(folder).is_dir():
                raise ParameterError(f"{os.fspath(folder)} is not a folder.")
            found, _ = sources([os.fspath(folder)])
            self._recognizer.plan(query.options())
            scored = in_order(
                found,
                lambda source: self._item(source, query),
                jobs or available_cores(),
                total=len(found),
                progress=progress,
            )
            items = [item for _, item in scored]
        return frame(items, level, self.labels)

    def _item(self, source: Source, query: PredictQuery) -> Item:
        try:
            with source.opened() as file:
                return Item(source.name, self._predict(file, query, source.name))
        except NoRoomError:
            raise
        except NnpmError as error:
            return Item(source.name, Failure(error.code, str(error)), self._part)

    def _predict(
        self, source: Path | BinaryIO, query: PredictQuery, name: str | None
    ) -> PredictAnswer:
        return predict(
            self._recognizer, source, query, model=self._part, limits=self._limits, name=name
        ).document


def read_options(**options: Any) -> PredictQuery:
    """Check the options of a prediction.

    Raises:
        ParameterError: naming each that is unknown or cannot be used.

    Examples:
        >>> read_options(top_k=2).top_k
        2
    """
    unknown = [name for name in options if name not in PredictQuery.model_fields]
    if unknown:
        known = ", ".join(PredictQuery.model_fields)
        raise ParameterError(f"{unknown[0][:64]!r} is not a known option; known are {known}.")
    given = {name: value for name, value in options.items() if value is not None}
    if isinstance(given.get("emotions"), str):
        given["emotions"] = (given["emotions"],)
    if isinstance(given.get("turns"), list | tuple):
        given["turns"] = json.dumps(given["turns"])
    try:
        return PredictQuery(**given)
    except ValidationError as error:
        raise ParameterError(validation_detail(error.errors())) from None


def _bundle_folder(model: str | os.PathLike[str]) -> Path | None:
    """The folder of a bundle, if that is meant and not a name in the registry."""
    path = Path(model)
    if isinstance(model, os.PathLike) or path.is_absolute() or str(model).startswith((".", "~")):
        return path.expanduser()
    return path if (path / CARD).is_file() else None
