"""What the macros of `templates/parts.html` are given: the columns and cells of tables, and pictures.

Knows text and numbers, not what a page is about.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from cvtrain.report.words import NOTHING, WRITERS, Kind, is_missing


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Args:
        name: Its heading.
        kind: How its values are written and sorted: `text` as they are; numbers to the right, by value.
        hint: More words on it, shown when the pointer rests on the heading.
    """

    name: str
    kind: Kind = "text"
    hint: str = ""

    @property
    def is_number(self) -> bool:
        """Whether it is written to the right and sorted by value."""
        return self.kind != "text"


@dataclass(frozen=True)
class Cell:
    """A value with words of its own; tables take plain values too.

    Args:
        text: What is shown, e.g. `83.1 % [82.3, 83.8]`.
        value: What it is sorted by; None sorts numbers last and text by what is shown.
        path: A file or folder that the words lead to, relative to the page.
        tone: `good`, `bad` or nothing: the colour of the words.
    """

    text: str
    value: float | None = None
    path: str = ""
    tone: str = ""

    @property
    def link(self) -> str:
        """The path as an address that can only lead to a file beside the page: no scheme, no host, no query."""
        return quote(f"./{self.path}", errors="surrogateescape") if self.path else ""


@dataclass(frozen=True)
class Picture:
    """An image with its name and words, for `parts.pictures`.

    Args:
        data: The bytes of a PNG or JPEG file.
        name: What it shows, e.g. the file's name.
        lines: At most a few short lines below it.
        tone: `good`, `bad` or nothing: the colour of its edge.
    """

    data: bytes
    name: str
    lines: tuple[str, ...] = ()
    tone: str = ""

    @property
    def source(self) -> str:
        """As `data:` address, which needs no other file."""
        kind = "png" if self.data.startswith(b"\x89PNG") else "jpeg"
        return f"data:image/{kind};base64,{base64.b64encode(self.data).decode()}"


def cell_of(value: Any, column: Column) -> Cell:
    """A value as its column writes it; cells stay as they are."""
    if isinstance(value, Cell):
        return value
    if is_missing(value):
        return Cell(NOTHING)
    if not column.is_number:
        return Cell(str(value))
    if isinstance(value, str):  # "more than 500", "failed": shown, sorted last
        return Cell(value)
    return Cell(WRITERS[column.kind](value), float(value))
