"""Figures by row of a table, target and seed; their means over targets and gains."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from training.benchmark.results import Row
from training.benchmark.table import spread

Figure = Callable[[Row], float | None]

Label = tuple[str, ...]
"""What stands at the left of a row of a table."""


def figure(name: str, part: str | None = None) -> Figure:
    """Reads ``row[name]``, or ``row[part][name]``."""

    def read(row: Row) -> float | None:
        value: float | None = (row if part is None else row[part])[name]
        return value

    return read


@dataclass(frozen=True, slots=True, eq=False)
class Grid:
    """One figure of many rows.

    Attributes:
        values: by label, target and seed.
        targets: columns, in order.
    """

    values: dict[tuple[Label, str, int], float]
    targets: tuple[str, ...]

    @classmethod
    def of(
        cls,
        rows: Iterable[Row],
        label: Callable[[Row], Label],
        targets: Sequence[str],
        read: Figure,
    ) -> "Grid":
        """Collect ``read(row)`` where it is there."""
        found = {(label(row), row["target"], row["seed"]): read(row) for row in rows}
        return cls({k: v for k, v in found.items() if v is not None}, tuple(targets))

    def labels(self) -> list[Label]:
        """In the order in which they were met."""
        return list(dict.fromkeys(label for label, _, _ in self.values))

    def seeds(self) -> list[int]:
        """All that there are."""
        return sorted({seed for _, _, seed in self.values})

    def cell(self, label: Label, target: str) -> str:
        """Mean ± deviation over the seeds."""
        return spread([self.values.get((label, target, seed)) for seed in self.seeds()])

    def means(self, label: Label, targets: Sequence[str]) -> list[float]:
        """Mean over targets, one per seed that has them all."""
        found = []
        for seed in self.seeds():
            values = [self.values.get((label, target, seed)) for target in targets]
            if values and None not in values:
                found.append(sum(v for v in values if v is not None) / len(values))
        return found

    def gains(self, label: Label, base: Label) -> list[float]:
        """``label`` minus ``base`` on every target and seed that has both."""
        pairs = [
            (self.values.get((label, target, seed)), self.values.get((base, target, seed)))
            for target in self.targets
            for seed in self.seeds()
        ]
        return [new - old for new, old in pairs if new is not None and old is not None]

    def least_gain(self, label: Label, base: Label) -> str:
        """The worst that happened to a target with any seed."""
        gains = self.gains(label, base)
        return f"{min(gains):+.3f}" if gains else "-"
