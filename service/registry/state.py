"""State of one model name in the registry: promotions, shadows, publications; one small file."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from .. import files
from ..inference.errors import NnpmError

STATE = "aliases.json"
_LOCK = ".lock"
_MOST_PROMOTIONS = 100


class RegistryError(NnpmError):
    """A registry whose own files cannot be read or written."""

    status, code, retry_after_s = 503, "registry_unavailable", 30
    title = "The model registry is unavailable"
    detail = "The models folder cannot be read or written; the service's log says why."


class Promotion(BaseModel):
    """One step of a language from a version to another."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    language: str
    version: str
    before: str | None
    """What stood there; None where the default model answered."""


class State(BaseModel):
    """The aliases of one name, and what makes publishing safe to repeat."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    revision: int = 0
    """Grows with every change."""
    next_version: int = 1
    """No number under it is given again, also after a version was deleted."""
    published: dict[str, str] = Field(default_factory=dict)
    """Version by the key of its publication."""
    promotions: tuple[Promotion, ...] = ()
    """Oldest first; a roll-back takes one away."""
    shadows: dict[str, str] = Field(default_factory=dict)
    """Version by language."""

    def live(self) -> dict[str, str]:
        """The promoted version by language."""
        return {step.language: step.version for step in self.promotions}

    def previous(self, language: str) -> str | None:
        """What a roll-back of a language would bring back, if that is a version."""
        step = self.last(language)
        return step.before if step else None

    def last(self, language: str | None = None) -> Promotion | None:
        """The latest promotion, of a language or of any."""
        steps = [s for s in self.promotions if language in (None, s.language)]
        return steps[-1] if steps else None

    def promoted(self, version: str, language: str) -> "State":
        """The state after a promotion; the same if the version is live there already."""
        live = self.live().get(language)
        if live == version:
            return self
        step = Promotion(language=language, version=version, before=live)
        shadows = {k: v for k, v in self.shadows.items() if (k, v) != (language, version)}
        steps = (*self.promotions, step)
        # One per language must be left, however many others there have been since.
        kept = {id(s) for s in steps[-_MOST_PROMOTIONS:]}
        kept |= {id(self.last(name) or step) for name in self.live()}
        return self.model_copy(
            update={"promotions": tuple(s for s in steps if id(s) in kept), "shadows": shadows}
        )

    def rolled_back(self, step: Promotion) -> "State":
        """The state without its promotion ``step``."""
        steps = tuple(s for s in self.promotions if s is not step)
        return self.model_copy(update={"promotions": steps})

    def without(self, version: str) -> "State":
        """The state after a version that no alias holds was deleted: old steps forget it."""
        steps = tuple(s for s in self.promotions if version not in (s.version, s.before))
        number = int(version) if version.isascii() and version.isdecimal() else 0
        next_version = max(self.next_version, 1 + number)
        return self.model_copy(update={"promotions": steps, "next_version": next_version})


def read(folder: Path) -> State:
    """Read the state of a name; a name without a file has a fresh one.

    Raises:
        RegistryError: if there is a file that cannot be read.
    """
    try:
        return State.model_validate_json((folder / STATE).read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return State()
    except (OSError, ValidationError) as error:
        raise RegistryError(
            f"{folder / STATE} cannot be read ({type(error).__name__}); restore it from a backup, "
            "or delete it: versions stay, promotions are forgotten."
        ) from error


def write(folder: Path, state: State) -> None:
    """Replace the state of a name, whole or not at all.

    Raises:
        RegistryError: if it cannot be written.
    """
    data = state.model_copy(update={"revision": state.revision + 1}).model_dump_json(indent=1)
    try:
        files.replace(folder / STATE, f"{data}\n".encode(), mode=0o644)
    except OSError as error:
        raise RegistryError(f"{folder / STATE} cannot be written: {error.strerror}.") from error


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other writers of a name out, in this process and in others; it ends with the process.

    Raises:
        RegistryError: if the folder cannot be written.
    """
    with contextlib.ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(files.lock(folder / _LOCK, mode=0o644))
        except OSError as error:
            raise RegistryError(f"{folder} cannot be written: {error.strerror}.") from error
        yield
