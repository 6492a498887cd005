"""Text that can be put into files and terminals without harm, whatever names users give to things.

Knows characters and cells, not files.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def csv_text(header: Sequence[str] | None, rows: Iterable[Sequence[Any]]) -> str:
    """Rows as CSV; a cell that a spreadsheet would run as a formula is written as text."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    if header:
        writer.writerow(header)
    writer.writerows([_harmless(cell) for cell in row] for row in rows)
    return buffer.getvalue()


def _harmless(cell: Any) -> Any:
    if isinstance(cell, str):
        cell = printable(cell)
        return f"'{cell}" if cell[:1] in ("=", "+", "-", "@") else cell
    return cell


def printable(text: str) -> str:
    r"""Text without control characters and stray bytes, which could drive a terminal: they become `\x..`."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode() for c in text)


def cell(value: Any) -> Any:
    """A value as CSV shows it: nothing for None, ten digits of a number."""
    if value is None:
        return ""
    return f"{value:.10g}" if isinstance(value, float) else value


def finite(value: Any) -> Any:
    """The same containers with None for numbers that are not finite, because JSON has none."""
    if isinstance(value, Mapping):
        return {str(k): finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
