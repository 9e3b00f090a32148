"""A list of names that shows, where it is printed, a table of what stands behind each name."""

import html
from collections.abc import Mapping, Sequence

Cell = str | int | float


class Listing(list[str]):
    """A list of strings in every respect but its text, which is a table, and its HTML, which notebooks show.

    `columns` head the table, the first being the names'; `rows` has a name's other cells. Floats are printed with
    two decimals, numbers flush right.
    """

    def __init__(self, columns: Sequence[str], rows: Mapping[str, Sequence[Cell]], caption: str = "") -> None:
        super().__init__(rows)
        self.columns = tuple(columns)
        self.cells = [(name, *cells) for name, cells in rows.items()]
        self.caption = caption

    def text(self, columns: Sequence[str] | None = None) -> str:
        """The table as text: all of it, or only these columns."""
        places = [self.columns.index(column) for column in columns or self.columns]
        header = [self.columns[place] for place in places]
        rows = [[_format(row[place]) for place in places] for row in self.cells]
        numeric = [all(not isinstance(row[place], str) for row in self.cells) for place in places]
        widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
        lines = [_line(cells, widths, numeric) for cells in (header, ["-" * width for width in widths], *rows)]
        return "\n".join([*lines, *([self.caption] if self.caption else [])])

    def __repr__(self) -> str:
        return self.text()

    __str__ = __repr__

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{html.escape(column)}</th>" for column in self.columns)
        body = "".join(f"<tr>{''.join(map(_html_cell, row))}</tr>" for row in self.cells)
        caption = f"<caption>{html.escape(self.caption)}</caption>" if self.caption else ""
        return f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _line(cells: Sequence[str], widths: Sequence[int], numeric: Sequence[bool]) -> str:
    padded = (
        cell.rjust(width) if right else cell.ljust(width)
        for cell, width, right in zip(cells, widths, numeric, strict=True)
    )
    return "  ".join(padded).rstrip()


def _format(cell: Cell) -> str:
    return f"{cell:,.2f}" if isinstance(cell, float) else str(cell)


def _html_cell(cell: Cell) -> str:
    side = "left" if isinstance(cell, str) else "right"
    return f'<td style="text-align: {side}">{html.escape(_format(cell))}</td>'
