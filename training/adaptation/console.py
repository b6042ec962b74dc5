"""An adaptation on a terminal: bars while it runs, lines when it is done."""

from types import TracebackType
from typing import Self

from tqdm import tqdm

from training.adaptation.report import AdaptationReport

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
