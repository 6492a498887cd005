"""Text that can be put into files and terminals without harm, whatever names users give to things.

Knows characters and cells, not files.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

_FORMULA = re.compile(r"\s*[=+\-@\uff1d\uff0b\uff0d\uff20]")
"""How a formula begins; some spreadsheets pass over spaces, and take the wide signs of East Asia for the others."""
_UNSEEN = re.compile(
    r"[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
"""Letters and signs that show nothing. Source: Unicode, `Default_Ignorable_Code_Point`, and the empty Braille cell."""


def csv_text(header: Sequence[str] | None, rows: Iterable[Sequence[Any]]) -> str:
    """Rows as CSV; a cell that a spreadsheet would run as a formula is written as text."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    if header:
        writer.writerow([_harmless(cell) for cell in header])
    writer.writerows([_harmless(cell) for cell in row] for row in rows)
    return buffer.getvalue()


def _harmless(cell: Any) -> Any:
    if not isinstance(cell, str):
        return cell
    shown = printable(cell)
    return f"'{shown}" if _FORMULA.match(shown) and not _is_number(shown) else shown


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def printable(text: str) -> str:
    r"""Text without control characters and stray bytes, which could drive a terminal, nor any that are not seen.

    They become `\x..`.
    """
    if text.isascii() and text.isprintable():  # nearly all, and a page has ten thousands of them
        return text
    return "".join(c if _is_seen(c) else c.encode("unicode_escape", "backslashreplace").decode() for c in text)


def _is_seen(character: str) -> bool:
    return character.isprintable() and not _UNSEEN.match(character)


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


def duration(seconds: float) -> str:
    """Seconds as a person would say them: `0.07 s`, `12.3 s`, `2 min 05 s`, `1 h 40 min`."""
    if seconds < 90:
        return f"{seconds:.2f} s" if seconds < 10 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


def percent(share: float | None) -> str:
    """A share of 0..1 in per cent, one digit after the point."""
    return "-" if share is None else f"{100 * share:.1f} %"
