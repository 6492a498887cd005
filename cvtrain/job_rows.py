"""Rows of jobs that fit a terminal's width: names are shortened, figures stand one below the other and are never cut.

Knows words and cells, neither jobs nor terminals.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache

_GAP = "  "
_CUT = "..."
_NUMBER = re.compile(r"^job \d+( of \d+)?: ")
COLUMNS = ("share", "step", "val", "time")
_LEFT_OUT_BELOW = {"step": 24, "time": 18, "val": 10}
"""Columns that are left out where names would have less room than so many cells: the first one first."""


def clock(seconds: float) -> str:
    """Seconds as `0:20`, `12:05` or `3:07:09`."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def job_rows(names: tuple[str, ...], figures: Sequence[dict[str, str]], *, width: int) -> list[str]:
    """A row per job: its name, as far as there is room, and its figures, one below the other.

    Args:
        names: By job.
        figures: By job and column.
        width: Cells of a row. Columns for which there is no room are left out; figures are never cut.
    """
    widths = {column: max((len(cells[column]) for cells in figures), default=0) for column in COLUMNS}
    columns = [column for column in COLUMNS if widths[column]]
    longest = max(map(_cell_len, names), default=0)

    def room() -> int:
        return width - sum(len(_GAP) + widths[column] for column in columns)

    for column, min_room in _LEFT_OUT_BELOW.items():
        if column in columns and room() < min(longest, min_room):
            columns.remove(column)
    names = fit_names(names, max(room(), 0))
    longest = max(map(_cell_len, names), default=0)
    rows = []
    for name, cells in zip(names, figures, strict=True):
        padded = name + " " * (longest - _cell_len(name))
        rows.append(_GAP.join([padded, *(cells[column].rjust(widths[column]) for column in columns)]).rstrip())
    return rows


@lru_cache(maxsize=4)  # the names stay the same from one job's end to the next's
def fit_names(names: tuple[str, ...], width: int) -> tuple[str, ...]:
    """Names in so many cells each, all shortened in the same way: in words if possible, else cut in the middle."""
    short = names
    for short in _ever_shorter(names):
        if max(map(_cell_len, short), default=0) <= width:
            return short
    return tuple(_cut_in_the_middle(name, width) for name in short)


def _ever_shorter(names: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """As they are; without `job 3 of 12: `; without words that all have in common, one by one; `sgd lr=0.1` at last."""
    yield names
    bare = tuple(_NUMBER.sub("", name) for name in names)
    yield bare
    words = [name.split() for name in bare]
    common = [word for word in dict.fromkeys(words[0]) if all(word in own for own in words[1:])]
    for word in common if len(words) > 1 else ():
        shorter = [[other for other in own if other != word] for own in words]
        if not all(shorter):
            break  # a job of which nothing is left could not be told from others
        words = shorter
        yield tuple(map(" ".join, words))
    yield tuple(" ".join(map(_brief, own)) for own in words)


def _brief(word: str) -> str:
    """`sgd` for `optimizer=sgd`, `lr=0.1` for `optimizer.lr=0.1`."""
    key, is_setting, value = word.partition("=")
    if not is_setting:
        return word
    is_choice = "." not in key and value[:1].isalpha()
    return value if is_choice else f"{key.rpartition('.')[2]}={value}"


def folded(parts: Sequence[str], *, width: int) -> list[str]:
    """Parts joined by commas, in as many rows as they take."""
    rows = [parts[0]]
    for part in parts[1:]:
        if len(rows[-1]) + len(part) + 3 > width:  # with a comma behind it
            rows[-1] += ","
            rows.append(part)
        else:
            rows[-1] += f", {part}"
    return rows


def _cell_len(text: str) -> int:
    """Cells that a text takes; a Chinese character takes two."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


def _cut_in_the_middle(text: str, width: int) -> str:
    if _cell_len(text) <= width:
        return text
    room = width - len(_CUT)
    if room < 2:
        return _first_cells(text, width)
    tail = _first_cells(text[::-1], room // 2)[::-1]
    return _first_cells(text, room - _cell_len(tail)) + _CUT + tail


def _first_cells(text: str, width: int) -> str:
    """As much of a text as so many cells hold."""
    taken = 0
    for i, character in enumerate(text):
        taken += _cell_len(character)
        if taken > width:
            return text[:i]
    return text
