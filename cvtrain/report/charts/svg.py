"""Markup of drawings: elements whose attributes and text are escaped, and the shapes that marks have.

Knows XML and places on a drawing, not what is drawn.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from markupsafe import Markup, escape

from cvtrain.plain_text import printable

SHAPES = ("circle", "square", "triangle", "diamond", "cross")
DASHES = ("", "6 3", "2 3", "9 3 2 3")


def element(tag: str, *children: Any, **attributes: Any) -> Markup:
    """An element; `_` in names of attributes stands for `-`, None leaves one out, numbers get one decimal."""
    written = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{escape(_value(value))}"'
        for name, value in attributes.items()
        if value is not None and value is not False
    )
    inner = "".join(escape(_text(child)) for child in children)
    return Markup(f"<{tag}{written}>{inner}</{tag}>")


def joined(children: Iterable[Markup]) -> Markup:
    """Markup side by side."""
    return Markup("").join(children)


def _value(value: Any) -> str:
    if value is True:
        return ""
    return place(value) if isinstance(value, float) else _text(value)


def _text(value: Any) -> Any:
    return value if isinstance(value, Markup) else "\n".join(map(printable, str(value).split("\n")))


def place(value: float) -> str:
    """A place on a drawing, to a tenth of its unit."""
    return f"{value:.1f}".removesuffix(".0")


def path_of(points: Sequence[tuple[float, float]]) -> str:
    """Straight lines from point to point."""
    return "M" + "L".join(f"{place(x)} {place(y)}" for x, y in points)


def marker(shape: str, x: float, y: float, *, size: float = 4.5) -> Markup:
    """A mark of about the same area in each shape; `cross` alone is not filled."""
    if shape == "circle":
        return element("circle", class_="marker", cx=x, cy=y, r=size)
    corners = {
        "square": [(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)],
        "triangle": [(0, -1.2), (1.1, 0.8), (-1.1, 0.8)],
        "diamond": [(0, -1.3), (1.1, 0), (0, 1.3), (-1.1, 0)],
    }.get(shape)
    if corners:
        return element("path", class_="marker", d=path_of([(x + a * size, y + b * size) for a, b in corners]) + "Z")
    a = 0.9 * size
    d = path_of([(x - a, y - a), (x + a, y + a)]) + path_of([(x - a, y + a), (x + a, y - a)])
    return element("path", class_="marker open", d=d)


def shortened(text: str, *, num_letters: int) -> str:
    """Text of at most so many letters; of more its middle gives way to "…": names often differ in their ends."""
    text = printable(text)
    if len(text) <= num_letters:
        return text
    ending = (num_letters - 1) // 2
    return f"{text[: num_letters - 1 - ending].rstrip()}…{text[len(text) - ending :].lstrip()}"
