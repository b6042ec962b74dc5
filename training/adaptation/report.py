"""The report of an adaptation: its fields, its text for people, and progress bars."""

from types import TracebackType
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict
from tqdm import tqdm

Verdict = Literal["improved", "no change", "reject"]
"""The conclusion from the evidence: use it, no better than the base, or do not use it."""


class _Part(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False
    )


class Estimate(_Part):
    """An accuracy that is estimated without labels."""

    value: float
    """In [0, 1]."""
    error: float
    """Mean absolute error of such estimates, in [0, 1]."""


class Evidence(_Part):
    """The evidence for or against an adapted head, without labels."""

    verdict: Verdict
    reasons: tuple[str, ...]
    """Sentences that explain the verdict."""
    estimated_accuracy: Estimate | None
    figures: dict[str, float]
    """All figures by name."""


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
    """Number of recordings that were not used, by reason."""
    passed_over: dict[str, int] = {}
    """Number of files that are no recordings, by reason."""
    examples: dict[str, tuple[str, ...]]
    """Up to five of these files by reason, relative to the folder."""


class Change(_Part):
    """A figure of the target's clips as they are answered before and after adaptation."""

    before: float
    """By the base, as served."""
    after: float
    """By the adapted model, as it would be served."""


class EmotionChange(_Part):
    """Shares of the emotions in the answers before and after; abstention is not looked at."""

    before: dict[str, float]
    after: dict[str, float]


class ChangedClip(_Part):
    """A turn whose answer changed."""

    path: str
    """Of its recording, relative to the folder."""
    before: str
    after: str
    confidence: float
    """Of the answer after adaptation."""


class AdaptationReport(_Part):
    """The answer of ``nnpm adapt --json``."""

    method: str
    full: bool = False
    """Whether ``--full`` trained the encoder too; the evidence then covers the head's step only."""
    seed: int
    language: str
    base: Base
    clips: Clips
    windows: int
    """Segments of speech that were used: more than the clips if some are long."""
    labels: int = 0
    """Segments with a given label."""
    default_emotions: tuple[str, ...] = ()
    """Emotions that the adapted model answers unless a request names others; empty for all."""
    answered_share: Change
    confidence: Change
    """Mean over all segments."""
    emotions: EmotionChange
    changed: int
    """Segments whose answer changed."""
    changed_clips: tuple[ChangedClip, ...] = ()
    """Some of them, the surest first; never stored in a bundle."""
    verdict: Verdict
    reasons: tuple[str, ...]
    estimated_accuracy: Estimate | None
    evidence: dict[str, float]
    seconds: dict[str, float]
    """Duration of each stage."""
    bundle: str | None
    """Folder of the adapted bundle; null if none was written."""

    def for_card(self) -> dict[str, object]:
        """The part that is stored in the bundle: no times, paths or file names of this machine."""
        return self.model_dump(
            mode="json",
            exclude={
                "seconds": True,
                "bundle": True,
                "clips": {"examples"},
                "changed_clips": True,
            },
        )


def describe(report: AdaptationReport) -> str:
    """The report as lines of text."""
    skipped, passed_over = (
        "; ".join(
            f"{count} {reason} ({', '.join(report.clips.examples[reason])}"
            f"{', …' * (count > len(report.clips.examples[reason]))})"
            for reason, count in found.items()
        )
        for found in (report.clips.skipped, report.clips.passed_over)
    )
    estimate = report.estimated_accuracy
    lines = [
        f"clips     {report.clips.accepted} used",
        f"skipped   {skipped or 'none'}",
        *([f"no audio  {passed_over}"] if passed_over else []),
        *([f"labels    {report.labels}"] if report.labels else []),
        f"answered  {report.answered_share.after:.0%} (before: {report.answered_share.before:.0%})",
        f"changed   {report.changed} of {report.windows} answers",
        f"emotions  {_shares(report.emotions.after)}",
        f"  before  {_shares(report.emotions.before)}",
        f"verdict   {report.verdict}",
        *(f"          {reason}" for reason in report.reasons),
    ]
    if estimate:
        lines.append(f"estimated accuracy {estimate.value:.2f} ± {estimate.error:.2f}")
    lines.append(
        f"bundle    {report.bundle}"
        if report.bundle
        else "bundle    not written; the base stays in use (--force writes it anyway)"
    )
    return "\n".join(lines)


def _shares(emotions: dict[str, float]) -> str:
    ordered = sorted(emotions.items(), key=lambda item: -item[1])
    return ", ".join(f"{name} {share:.0%}" for name, share in ordered)


_UNITS = {"decode": "clip", "fine-tune": "step", "listen": "clip", "adapt": "step"}


class Bars:
    """One progress bar per stage on standard error; none if that is a file or a pipe."""

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
