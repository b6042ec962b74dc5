"""What an adaptation tells of itself.

An adaptation on a terminal: bars while it runs, lines when it is done.
"""

from types import TracebackType
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict
from tqdm import tqdm

Verdict = Literal["improved", "no change", "reject"]
"""What the evidence says: to be used, as good as the base, or not to be used."""


class _Part(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False
    )


class Estimate(_Part):
    """An accuracy nobody measured."""

    value: float
    """In [0, 1]."""
    error: float
    """How far from the true accuracy such estimates are on average, in [0, 1]."""


class Evidence(_Part):
    """What can be said about an adapted head without labels."""

    verdict: Verdict
    reasons: tuple[str, ...]
    """Sentences for people: why this verdict."""
    estimated_accuracy: Estimate | None
    figures: dict[str, float]
    """All that was looked at, by name."""


class Base(_Part):
    """The bundle that was adapted."""

    version: str
    """The name of its folder."""
    digest: str
    """sha256 of its card."""


class Clips(_Part):
    """The files of the target folder."""

    accepted: int
    skipped: dict[str, int]
    """How many were left out, by reason."""
    examples: dict[str, tuple[str, ...]]
    """Up to five of them by reason, relative to the folder."""


class AdaptationReport(_Part):
    """The answer of ``nnpm adapt --json``."""

    method: str
    full: bool = False
    """Whether ``--full`` moved the encoder as well; the evidence is then of the head's part."""
    seed: int
    language: str
    base: Base
    clips: Clips
    windows: int
    """Stretches of speech that were learnt from: more than the clips where some are long."""
    verdict: Verdict
    reasons: tuple[str, ...]
    estimated_accuracy: Estimate | None
    evidence: dict[str, float]
    seconds: dict[str, float]
    """What each stage took."""
    bundle: str | None
    """Where the adapted bundle stands; null where none was written."""

    def for_card(self) -> dict[str, object]:
        """The part that goes with the bundle: nothing of this machine, this hour or these files."""
        return self.model_dump(
            mode="json", exclude={"seconds": True, "bundle": True, "clips": {"examples"}}
        )


_UNITS = {"decode": "clip", "fine-tune": "step", "listen": "clip", "adapt": "step"}


class Bars:
    """One bar per stage on standard error; none where that is a file or a pipe."""

    def __init__(self) -> None:
        self._stage = ""
        self._bar: tqdm[None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._close()

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Move the bar of ``stage`` to ``done`` of ``total``."""
        if self._bar is None or stage != self._stage:
            self._close()
            unit = _UNITS.get(stage, "it")
            self._bar = tqdm(total=total, desc=stage, unit=unit, dynamic_ncols=True, disable=None)
            self._stage = stage
        self._bar.update(done - self._bar.n)

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()


def describe(report: AdaptationReport) -> str:
    """The report in lines for people."""
    skipped = "; ".join(
        f"{count} {reason} ({', '.join(report.clips.examples[reason])}"
        f"{', …' * (count > len(report.clips.examples[reason]))})"
        for reason, count in report.clips.skipped.items()
    )
    estimate = report.estimated_accuracy
    lines = [
        f"clips     {report.clips.accepted} used",
        f"skipped   {skipped or 'none'}",
        f"verdict   {report.verdict}",
        *(f"          {reason}" for reason in report.reasons),
    ]
    if estimate:
        lines.append(f"estimated accuracy {estimate.value:.2f} ± {estimate.error:.2f}")
    lines.append(
        f"bundle    {report.bundle}"
        if report.bundle
        else "bundle    none written; the base stays (--force writes it all the same)"
    )
    return "\n".join(lines)
