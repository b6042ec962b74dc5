"""The answer for one recording, and answers as data frames."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Self

from pydantic import ConfigDict, PrivateAttr

from .errors import translated
from .service.inference.errors import ExtraMissingError
from .service.predict.schemas import PredictAnswer
from .service.predict.tables import Failure, Item, Level, columns, rows

if TYPE_CHECKING:
    import pandas

_DTYPES = {str: "string", float: "float64", int: "Int64", bool: "boolean"}


class Answer(PredictAnswer):
    """The answer for one recording: the document of ``POST /predict``.

    The most used of its fields: ``emotion`` (None where the model abstains), ``confidence``,
    ``scores`` (of every emotion), ``abstained`` and ``reasons``, ``segments`` and ``timeline``,
    ``per_channel``, ``audio`` and ``model``. ``to_json()`` writes it as the service does.
    """

    model_config = ConfigDict(extra="allow")

    _file: str = PrivateAttr(default="")

    @classmethod
    def named(cls, document: PredictAnswer, file: str) -> Self:
        """Make it from a document, and note the recording's file name for :meth:`to_frame`."""
        answer = cls.model_construct(document.model_fields_set, **vars(document))
        answer._file = file
        return answer

    def to_frame(self, level: Level = "segment") -> "pandas.DataFrame":
        """Make a data frame.

        Args:
            level: what a row is: a ``segment``, a ``channel`` or the whole ``recording``.

        Returns:
            One row each, with the columns of ``nnpm predict -o results.csv``, indexed by ``file``
            (empty for an array), ``start`` and ``end`` (timedelta) as audinterface has it.

        Raises:
            Error: if pandas, of the extra ``tables``, is not installed.
        """
        return frame([Item(self._file, self)], level, self.scores)


def require_pandas() -> None:
    """Check, before anything is scored, that data frames can be made.

    Raises:
        Error: if pandas is not installed.
    """
    with translated():
        try:
            import pandas  # noqa: F401
        except ImportError:
            raise ExtraMissingError(
                "Data frames need pandas, which is not installed; install the extra 'tables': "
                "pip install 'nnpm[tables]'."
            ) from None


def frame(items: Iterable[Item], level: Level, labels: Iterable[str]) -> "pandas.DataFrame":
    """Make one data frame of many recordings.

    Args:
        items: recordings with their answers. One that failed is a row with ``error`` and
            ``detail``, whose ``end`` is NaT.
        level: what a row is.
        labels: the emotions that the model knows.

    Raises:
        Error: if pandas is not installed.
    """
    require_pandas()
    import pandas

    known = list(labels)
    of = columns(level, known)
    found, starts, ends = [], [], []
    for item in items:
        for row in rows(item, level, known):
            found.append(row)
            starts.append(row.get("start_s") or 0.0)
            ends.append(_end_s(item, row))
    data = pandas.DataFrame(found, columns=list(of)).astype(
        {name: _DTYPES[kind] for name, kind in of.items()}
    )
    index = pandas.MultiIndex.from_arrays(
        [
            data.pop("file"),
            pandas.to_timedelta(pandas.Series(starts, dtype="float64"), unit="s"),
            pandas.to_timedelta(pandas.Series(ends, dtype="float64"), unit="s"),
        ],
        names=["file", "start", "end"],
    )
    return data.drop(columns=["start_s", "end_s"], errors="ignore").set_index(index)


def _end_s(item: Item, row: dict[str, object]) -> float | None:
    if isinstance(item.outcome, Failure):
        return None
    end_s = row.get("end_s")
    return end_s if isinstance(end_s, float) else item.outcome.audio.duration_s
