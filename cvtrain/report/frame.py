"""What all drawings share: the look, the colours, a figure that becomes a file in one move, words that fit their place.

Knows figures and text, not what is drawn; matplotlib is imported when something is drawn.
"""

from __future__ import annotations

import contextlib
import io
import re
import textwrap
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from cvtrain.plain_text import printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F7F7F")
"""Distinct for the colour-blind too. Source: Okabe & Ito 2008, "Color Universal Design"; grey for their yellow."""

MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_GLUE = "\u00a0"  # a space that breaks no line
_STYLE = {
    "font.family": "sans-serif",
    "font.size": 11,
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.formatter.useoffset": False,
    "grid.color": "#E3E3E3",
    "grid.linewidth": 0.8,
    "lines.linewidth": 1.8,
    "legend.frameon": False,
    "text.parse_math": False,  # a name with two dollar signs is no formula
    "svg.hashsalt": "cvtrain",  # the same picture is the same file
}


@contextlib.contextmanager
def empty_figure(*, width: float, height: float, layout: str = "constrained") -> Iterator[Figure]:
    """A figure in inches; what is drawn and measured within the block has the look of all drawings.

    Args:
        width: Inches.
        height: Inches.
        layout: `constrained` finds room for every word, which takes as long as to draw; `none` leaves margins to
            whoever draws.
    """
    import logging

    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it tells of the font caches that it makes
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE):
        yield Figure(figsize=(width, height), layout=layout)


@contextlib.contextmanager
def drawing(
    path: Path, *, width: float, height: float, dpi: int = 100, also_svg: bool = False, layout: str = "constrained"
) -> Iterator[Figure]:
    """A figure that replaces the file `path` in one move when the block ends well.

    Args:
        path: An SVG file where its name ends so, else a PNG file; folders are made.
        width: Inches.
        height: Inches.
        dpi: Pixels per inch of a PNG file.
        also_svg: Whether to write an SVG file of the same name too.
        layout: See `empty_figure`.
    """
    with empty_figure(width=width, height=height, layout=layout) as figure, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of letters that the font lacks
        yield figure
        _make_printable(figure)
        path.parent.mkdir(parents=True, exist_ok=True)
        _save(figure, path, dpi=dpi)
        if also_svg:
            _save(figure, path.with_suffix(".svg"), dpi=dpi)


def _save(figure: Figure, path: Path, *, dpi: int) -> None:
    buffer, temporary = io.BytesIO(), path.with_name(f".{path.name}.tmp")
    if path.suffix.lower() == ".svg":
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    else:
        figure.savefig(buffer, format="png", dpi=dpi)
    try:
        temporary.write_bytes(buffer.getvalue())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _make_printable(figure: Figure) -> None:
    """Shows characters that no font can draw, or no SVG file can hold, as text."""
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        text.set_text("\n".join(map(printable, text.get_text().split("\n"))))


def wrapped(text: str, *, num_letters: int, num_lines: int = 1) -> str:
    """Text broken into lines of so many letters, the last one ending in "…" where there is more.

    An interval such as `[80, 140]` and a figure with its per cent sign stay together.
    """
    words = printable(" ".join(text.split()))
    words = re.sub(r"\[[^]]{,24}\]| %", lambda match: match[0].replace(" ", _GLUE), words)
    num_letters = max(num_letters, 8)
    lines = textwrap.wrap(words, num_letters)
    if len(lines) > num_lines:
        lines = [*lines[: num_lines - 1], lines[num_lines - 1][: num_letters - 2].rstrip() + " …"]
    return "\n".join(lines).replace(_GLUE, " ")
