"""A table, and how it is written."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape


@dataclass(frozen=True, slots=True)
class Table:
    """Cells of text.

    Attributes:
        name: of its CSV file, without ending.
        title: what it shows.
        note: how to read it.
        header: of the columns.
        rows: as long as the header.
    """

    name: str
    title: str
    note: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def csv(self, facts: Mapping[str, str]) -> str:
        """Comma-separated, after one line of provenance that begins with #."""
        text = io.StringIO()
        text.write("# " + "; ".join(f"{name}: {value}" for name, value in facts.items()) + "\n")
        csv.writer(text, lineterminator="\n").writerows([self.header, *self.rows])
        return text.getvalue()

    def markdown(self) -> str:
        """A heading, the note and the table.

        Examples:
            >>> print(Table("t", "T", "N.", ("a", "b"), (("1", "2"),)).markdown())
            ## T
            <BLANKLINE>
            N.
            <BLANKLINE>
            | a | b |
            | --- | --- |
            | 1 | 2 |
        """
        lines = [self.header, ("---",) * len(self.header), *self.rows]
        table = "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
        return f"## {self.title}\n\n{self.note}\n\n{table}"

    def html(self) -> str:
        """A heading, the note and the table."""
        head = "".join(f"<th>{escape(cell)}</th>" for cell in self.header)
        body = "\n".join(
            "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>"
            for row in self.rows
        )
        return (
            f"<h3>{escape(self.title)}</h3>\n<p>{escape(self.note)}</p>\n"
            f"<table><thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table>\n"
        )


def listing(facts: Mapping[str, str]) -> str:
    """Provenance as Markdown."""
    return "\n".join(f"- {name}: {value}" for name, value in facts.items())


def spread(values: Sequence[float | None], digits: int = 3) -> str:
    """Mean ± sample standard deviation; the mean alone of one value, a dash of none.

    Examples:
        >>> spread([0.5, 0.7]), spread([0.5]), spread([])
        ('0.600 ± 0.141', '0.500', '-')
    """
    found = [value for value in values if value is not None]
    if not found:
        return "-"
    mean = sum(found) / len(found)
    if len(found) == 1:
        return f"{mean:.{digits}f}"
    deviation = (sum((value - mean) ** 2 for value in found) / (len(found) - 1)) ** 0.5
    return f"{mean:.{digits}f} ± {deviation:.{digits}f}"
