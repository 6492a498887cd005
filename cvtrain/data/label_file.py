"""Reads CSV files of labels, and gathers everything that is wrong with them into one error.

Does not know which images there are, nor what a label may be: that is for who asks to say.

A file is UTF-8, with or without a byte order mark; its first row names the columns, in any order and case; cells are
parted by commas, semicolons or tabs. Rows without any text are passed over.
"""

from __future__ import annotations

import csv
import difflib
import io
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cvtrain.data.image_file import listed, printable
from cvtrain.data.reasons import reason
from cvtrain.errors import DataError

MAX_BYTES = 256 * 2**20
_DELIMITERS = (",", ";", "\t")
_KINDS_SHOWN = 4
_LINES_SHOWN = 10
_SAVE_AS = "save it as CSV UTF-8 (so it is called in spreadsheet programs)"


@dataclass(frozen=True)
class Column:
    """A column that is looked for.

    Args:
        names: What it may be called; the first that is there is taken.
        needed: Whether a file without it is refused.
        key: The setting that names it, for the hint.
    """

    names: tuple[str, ...]
    needed: bool = True
    key: str | None = None


@dataclass(frozen=True)
class Row:
    """A row of a label file: where it stands, and its text in each column that was found."""

    line: int
    cells: Mapping[str, str]


@dataclass(frozen=True)
class Problem:
    """Something that is wrong with a label file.

    Args:
        path: The file.
        line: Where, counted from 1; None for what the whole file lacks.
        column: Its name as written in the file, if it is a matter of one column.
        kind: Problems of one kind, in one column, are told in one line.
        text: What is wrong.
    """

    path: Path
    line: int | None
    column: str | None
    kind: str
    text: str


class LabelFileError(DataError):
    """Labels that cannot be used; the message tells the first problem of each kind and where the others are.

    Args:
        problems: All that was found.
        hint: What to do.
    """

    def __init__(self, problems: Sequence[Problem], *, hint: str | None = None) -> None:
        groups: dict[tuple[object, ...], list[Problem]] = {}
        for problem in problems:
            groups.setdefault((problem.path, problem.column, problem.kind), []).append(problem)
        paths = list(dict.fromkeys(printable(str(problem.path)) for problem in problems))
        head = f"{len(problems):,} problem{'s' * (len(problems) > 1)} in {', '.join(paths[:3])}"
        if len(groups) > _KINDS_SHOWN:
            head += f", of {len(groups)} kinds, of which these are {_KINDS_SHOWN}"
        shown = [_told(group, with_file=len(paths) > 1) for group in list(groups.values())[:_KINDS_SHOWN]]
        super().__init__("\n".join([f"{head}:", *shown]), hint=hint)
        self.problems = tuple(problems)


def _told(group: Sequence[Problem], *, with_file: bool) -> str:
    first = group[0]
    places = [printable(first.path.name)] if with_file else []
    places += [f"line {first.line}"] if first.line is not None else []
    places += [f"column {printable(first.column)}"] if first.column is not None else []
    others = [f"{problem.line}" for problem in group[1:]]
    more = f" and {len(others) - _LINES_SHOWN + 1:,} more" if len(others) >= _LINES_SHOWN else ""
    also = f" (also line{'s' * (len(others) > 1)} {', '.join(others[: _LINES_SHOWN - 1])}{more})" if others else ""
    return f"  {', '.join(places)}{': ' if places else ''}{first.text}{also}"


@dataclass
class LabelFile:
    """What a label file holds.

    Args:
        path: The file.
        columns: What each column that was found is called in the file.
        rows: All that could be parted into cells; an empty cell that is needed has been noted as a problem.
        problems: What is wrong so far; who reads the rows adds to it.
    """

    path: Path
    columns: dict[str, str]
    rows: list[Row] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    def blame(self, row: Row | int | None, column: str | None, text: str, *, kind: str) -> None:
        """Note a problem of a row (or of a line, or of the file), in one of the columns or in none."""
        line = row.line if isinstance(row, Row) else row
        self.problems.append(Problem(self.path, line, self.columns[column] if column else None, kind, text))


def refuse_problems(files: Sequence[LabelFile], *, hint: str | None = None) -> None:
    """Raise one error of all problems that were noted, if there are any.

    Raises:
        LabelFileError: There are.
    """
    problems = [problem for file in files for problem in sorted(file.problems, key=lambda p: (not p.line, p.line or 0))]
    if problems:
        raise LabelFileError(problems, hint=hint)


def read_label_file(path: Path, columns: Mapping[str, Column]) -> LabelFile:
    """Read a file of labels; what is wrong with single rows is noted in the result, not raised.

    Args:
        path: The file.
        columns: What to read from it, by a name for `Row.cells`.

    Raises:
        DataError: The file cannot be read, is not UTF-8 text, is empty, or lacks a column.
    """
    text = _text(path)
    delimiter = max(_DELIMITERS, key=lambda d: _fitness(text, d, columns))
    records = _records(text, delimiter)
    line, header = next(records, (0, []))
    if isinstance(header, str):
        raise DataError(f"{printable(str(path))}, line {line}: cannot be read ({header})", hint=_SAVE_AS)
    if not header:
        raise DataError(f"{printable(str(path))} is empty", hint=f"its first row names the columns: {_wanted(columns)}")
    _refuse_nameless(path, header, columns)
    places = {name: _place(path, header, column) for name, column in columns.items()}
    found = {name: place for name, place in places.items() if place is not None}
    file = LabelFile(path, {name: header[place] for name, place in found.items()})
    for line, cells in records:
        if isinstance(cells, str):
            file.blame(line, None, f"cannot be read ({cells})", kind="csv")
        elif cells == header:
            file.blame(line, None, "names the columns again: have files been joined?", kind="header")
        elif any(cells[len(header) :]):
            text = f"{len(cells)} cells, but there are {len(header)} columns: is a text with {delimiter!r} unquoted?"
            file.blame(line, None, text, kind="cells")
        else:
            row = Row(line, {name: cells[place] if place < len(cells) else "" for name, place in found.items()})
            file.rows.append(row)
            for name, cell in row.cells.items():
                if not cell and columns[name].needed:
                    file.blame(row, name, "is empty", kind="empty")
    return file


def _text(path: Path) -> str:
    shown = printable(str(path))
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            raise DataError(f"{shown} is not a regular file")
        if status.st_size > MAX_BYTES:
            raise DataError(f"{shown} is larger than {MAX_BYTES // 2**20} MiB: that is no file of labels")
        content = path.read_bytes()
    except (OSError, ValueError) as error:
        raise DataError(f"{shown} cannot be read: {reason(error)}") from error
    if content.startswith(b"PK\x03\x04"):
        raise DataError(f"{shown} is a workbook or an archive, not CSV", hint=_SAVE_AS)
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise DataError(f"{shown} is UTF-16 text, not UTF-8", hint=_SAVE_AS)
    if b"\0" in content:
        line = content.count(b"\n", 0, content.index(b"\0")) + 1
        raise DataError(f"{shown}, line {line}: holds a NUL byte, which no text does", hint=_SAVE_AS)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        byte = content[error.start]
        raise DataError(f"{shown}, line {line}: is not UTF-8 text (byte 0x{byte:02x})", hint=_SAVE_AS) from None


def _records(text: str, delimiter: str) -> Iterator[tuple[int, list[str] | str]]:
    """`(line it begins in, its cells)` of each record with any text; what is wrong instead of cells, as the last."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    while True:
        line = reader.line_num + 1
        try:
            cells = [cell.strip() for cell in next(reader)]
        except StopIteration:
            return
        except csv.Error as error:
            yield line, reason(error)
            return
        if any(cells):
            yield line, cells


def _fitness(text: str, delimiter: str, columns: Mapping[str, Column]) -> tuple[int, int]:
    """How well a delimiter parts the first row: first by the columns found, then by their number."""
    header = next(_records(text, delimiter), (0, []))[1]
    if isinstance(header, str):  # a quoted text that another delimiter follows
        return 0, 0
    return _num_found(header, columns), len(header)


def _refuse_nameless(path: Path, header: Sequence[str], columns: Mapping[str, Column]) -> None:
    """Refuse a first row that names no column: it may well be a row of data."""
    if not _num_found(header, columns):
        keys = [f"{column.key}=NAME" for column in columns.values() if column.needed and column.key]
        raise DataError(
            f"{printable(str(path))}, line 1: names none of the columns: {listed(header, 12)}",
            hint="; or ".join([f"wanted: a first row such as {_wanted(columns)}", *keys]),
        )


def _num_found(header: Sequence[str], columns: Mapping[str, Column]) -> int:
    """How many of the columns a first row names."""
    folded = {cell.casefold() for cell in header}
    return sum(any(name.casefold() in folded for name in column.names) for column in columns.values())


def _place(path: Path, header: Sequence[str], column: Column) -> int | None:
    """Which column of the file is meant."""
    folded = [cell.casefold() for cell in header]
    for name in column.names:
        if folded.count(name.casefold()) > 1:
            raise DataError(f"{printable(str(path))}, line 1: there are two columns {name}", hint="remove one of them")
        if name.casefold() in folded:
            return folded.index(name.casefold())
    if not column.needed:
        return None
    message = f"{printable(str(path))}, line 1: there is no column {' or '.join(column.names[:4])}"
    near = difflib.get_close_matches(column.names[0].casefold(), folded, n=1)
    meant = f" (did you mean {printable(header[folded.index(near[0])])}?)" if near else ""
    hint = f"name it: {column.key}=NAME" if column.key else None
    raise DataError(f"{message}{meant}; the columns are: {listed(header, 12)}", hint=hint)


def _wanted(columns: Mapping[str, Column]) -> str:
    return ", ".join(column.names[0] for column in columns.values() if column.needed)
