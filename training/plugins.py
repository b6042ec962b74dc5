"""Methods, encoders and corpora from outside: of installed packages, or named as module:Class.

A package declares them as entry points, and its users name them as our own:

    [project.entry-points."nnpm.methods"]
    mine = "package.module:Mine"

One that cannot be imported is named in one line and left out: it must not stop those who do not
use it.
"""

import importlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, TypeVar

from .errors import TrainingError

T = TypeVar("T")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Plugins(Generic[T]):
    """All of one kind: our own, those of installed packages, and those that a name leads to.

    Attributes:
        group: of the entry points, such as ``nnpm.methods``.
        noun: what one is called, such as ``method``.
        own: ours by name; a plug-in cannot take such a name.
        is_one: whether an object is one of this kind.

    Examples:
        >>> shapes = Plugins("example.shapes", "shape", {"dot": "."}, str.__instancecheck__)
        >>> shapes.find("dot"), shapes.names()
        ('.', ('dot',))
        >>> shapes.find("line")
        Traceback (most recent call last):
        nnpm.training.errors.TrainingError: there is no shape line; choose among dot
    """

    group: str
    noun: str
    own: Mapping[str, T]
    is_one: Callable[[Any], bool]

    def names(self) -> tuple[str, ...]:
        """Names of our own, then of plug-ins, whether they can be imported or not."""
        return (*self.own, *self._installed())

    def find(self, name: str) -> T:
        """Find one by its name, or as ``package.module:Class``.

        Raises:
            TrainingError: if there is none of that name, or it cannot be imported or is of another
                kind.
        """
        if name in self.own:
            return self.own[name]
        if ":" in name:
            return self._load(name)
        installed = self._installed()
        if name not in installed:
            raise TrainingError(
                f"there is no {self.noun} {name[:64]}; choose among {', '.join(self.names())}"
            )
        return self._load(installed[name].value)

    def usable(self) -> dict[str, T]:
        """All that can be imported, by name; a warning names each of the others."""
        found = dict(self.own)
        for name, point in self._installed().items():
            try:
                found[name] = self._load(point.value)
            except TrainingError as error:
                log.warning("the %s %s is left out: %s", self.noun, name, error)
        return found

    def _installed(self) -> dict[str, EntryPoint]:
        found = entry_points(group=self.group)
        return {point.name: point for point in found if point.name not in self.own}

    def _load(self, path: str) -> T:
        module, _, attribute = path.partition(":")
        try:
            found: Any = importlib.import_module(module)
            for part in attribute.split("."):
                found = getattr(found, part)
        except Exception as error:  # a plug-in may fail in any way while it is imported
            reason = f"{type(error).__name__}: {error}".partition("\n")[0]
            raise TrainingError(f"{path[:256]} cannot be imported: {reason}") from error
        if not self.is_one(found):
            raise TrainingError(f"{path[:256]} is no {self.noun} of nnpm")
        return found  # type: ignore[no-any-return]
