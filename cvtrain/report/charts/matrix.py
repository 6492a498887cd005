"""A matrix of counts as coloured cells, such as true against predicted classes.

Knows counts and names, not where they come from.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence

from markupsafe import Markup

from cvtrain.plain_text import printable
from cvtrain.report.charts.frame import empty_chart
from cvtrain.report.charts.svg import element, joined, place, shortened
from cvtrain.report.words import count, percent

_NUM_LEVELS = 10
"""Of each of the two colours."""

_MOST_WRITTEN = 20
"""Rows and columns of a matrix whose cells hold their counts as text."""

_MOST_NAMED = 60
"""Rows and columns whose names can be read."""

_NAME_LETTERS, _LETTER = 18, 7.4
_TOP, _RIGHT = 30, 16


def matrix_chart(
    counts: Sequence[Sequence[int]],
    names: Sequence[str],
    *,
    title: str,
    rows: str = "true class",
    columns: str = "predicted class",
) -> Markup:
    """Draws a square matrix of counts, each cell coloured by its share of its row: the diagonal blue, the rest orange.

    Colours follow the square root of the share, so that rare confusions are seen. Up to 20 classes have their counts
    written; of more, the script of the page shows them.

    Args:
        counts: `(K, K)`, whole numbers from 0.
        names: `(K,)`, of rows and columns.
        title: Its heading.
        rows: What a row is.
        columns: What a column is.

    Returns:
        Markup for `parts.chart`; a sentence where all counts are 0.

    Raises:
        ValueError: It is not square, or has another number of names.
    """
    size = len(names)
    if len(counts) != size or any(len(row) != size for row in counts):
        raise ValueError(f"{size} names for a matrix of {[len(row) for row in counts]}")
    if not any(map(any, counts)):
        return empty_chart(title, "There is nothing to count.")
    left = 40 + _LETTER * max(len(shortened(name, num_letters=_NAME_LETTERS)) for name in names)
    left = left if size <= _MOST_NAMED else 40
    cell = max(5.0, min(38.0, 620 / size))
    below = 30 if size > _MOST_NAMED else 34 + 0.72 * (left - 40)
    width, height = left + size * cell + _RIGHT, _TOP + size * cell + below
    drawing = element(
        "svg",
        _cells(counts, left=left, cell=cell),
        _written(counts, left=left, cell=cell) if size <= _MOST_WRITTEN else "",
        _names(names, left=left, cell=cell) if size <= _MOST_NAMED else "",
        element("text", f"{rows} (down)", class_="label", x=4, y=16),
        element("text", f"{columns} (across)", class_="label", x=width - 4, y=16, text_anchor="end"),
        viewBox=f"0 0 {place(width)} {place(height)}",
        width=place(width),
        role="img",
        aria_label=_told(counts, title=title, rows=rows, columns=columns),
        tabindex="0",
        data_left=place(left),
        data_top=_TOP,
        data_cell=f"{cell:.3f}",
        data_names=json.dumps([*map(printable, names)]),
        data_counts=" ".join(str(value) for row in counts for value in row),
        data_rows=rows,
        data_columns=columns,
    )
    scroll = element("div", drawing, class_="scroll")
    return element("div", element("h3", title), scroll, class_="chart matrix", data_hover="cell")


def _told(counts: Sequence[Sequence[int]], *, title: str, rows: str, columns: str) -> str:
    total, right = sum(map(sum, counts)), sum(row[i] for i, row in enumerate(counts))
    on_diagonal = f"{count(right)} of {count(total)} ({percent(right / total)}) on the diagonal"
    return f"{title}: {rows} against {columns}; {on_diagonal}"


def level_of(value: int, row_total: int) -> int:
    """Strength of the colour of a cell, 1 to 10; 0 for none."""
    return math.ceil(_NUM_LEVELS * math.sqrt(value / row_total) - 1e-9) if value > 0 else 0


def _cells(counts: Sequence[Sequence[int]], *, left: float, cell: float) -> Markup:
    """One path for all cells of a colour: a hundred classes make ten thousand cells."""
    paths: dict[str, list[str]] = {}
    side = cell - (1 if cell > 8 else 0.4)
    shape = f"h{side:.4g}v{side:.4g}h-{side:.4g}z"
    for i, row in enumerate(counts):
        total = sum(row)
        for j, value in enumerate(row):
            if value:
                key = f"{'right' if i == j else 'wrong'} level{level_of(value, total)}"
                paths.setdefault(key, []).append(f"M{place(left + j * cell)} {place(_TOP + i * cell)}{shape}")
    extent = {"x": left - 1, "y": _TOP - 1, "width": len(counts) * cell + 1, "height": len(counts) * cell + 1}
    cells = [element("path", class_=f"cell {key}", d="".join(parts)) for key, parts in sorted(paths.items())]
    return joined([element("rect", class_="ground", **extent), *cells])


def _written(counts: Sequence[Sequence[int]], *, left: float, cell: float) -> Markup:
    texts = []
    for i, row in enumerate(counts):
        total = sum(row)
        for j, value in enumerate(row):
            if value:
                at = {"x": left + (j + 0.5) * cell - 0.5, "y": _TOP + (i + 0.5) * cell + 4}
                look = f"count {'right' if i == j else 'wrong'} level{level_of(value, total)}"
                look += " small" if value >= 10_000 or cell < 34 else ""
                texts.append(element("text", value, class_=look, text_anchor="middle", **at))
    return joined(texts)


def _names(names: Sequence[str], *, left: float, cell: float) -> Markup:
    texts = []
    bottom = _TOP + len(names) * cell
    look = "tick" if cell >= 14 else "tick small"
    for i, name in enumerate(names):
        text = shortened(name, num_letters=_NAME_LETTERS)
        middle = (i + 0.5) * cell
        texts.append(element("text", text, class_=look, x=left - 6, y=_TOP + middle + 4, text_anchor="end"))
        turn = f"translate({place(left + middle + 4)} {place(bottom + 12)}) rotate(-45)"
        texts.append(element("text", text, class_=look, transform=turn, text_anchor="end"))
    return joined(texts)
