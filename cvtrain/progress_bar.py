"""A bar that shows how far something has come, how fast it goes, and how long it will take.

Knows numbers and the width of a terminal; not what the work is.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TextIO

from cvtrain.job_estimate import coarse

if TYPE_CHECKING:
    from tqdm import tqdm

REDRAW_SECONDS = 0.1
"""At most so often is a bar drawn."""

_LONGEST_BAR, _SHORTEST_BAR = 30, 8
_PRIORITY = ("left", "loss", "speed", "count")
"""What a narrow terminal keeps longest comes first."""
_ORDER = ("count", "loss", "speed", "left")


class ProgressBar:
    """One line on a terminal, below what is said; all calls come from one thread.

    Args:
        what: The work.
        total: Of what there is to do.
        done: Of what was done before.
        unit: Of both, in words.
        width: Of the terminal, in characters; asked each time, for windows change.
    """

    def __init__(self, what: str, total: int, *, done: int = 0, unit: str = "", width: Callable[[], int]) -> None:
        from tqdm import tqdm

        tqdm.monitor_interval = 0  # no thread that draws in between
        self.what, self.total = what, total
        self._done = self._done_before = done
        self._unit, self._width = unit, width
        self._facts: dict[str, str] = {}
        self._began_at, self._drawn_at = time.monotonic(), -math.inf
        self._bar: tqdm = tqdm(
            total=total, initial=done, desc=what, bar_format=self._shape(), leave=False, dynamic_ncols=True
        )

    def move(self, done: int, *, loss: float | None = None, images_per_second: float | None = None) -> None:
        """Shows that so much is done, ten times a second at most; figures stay until there are new ones."""
        self._done = done
        if loss is not None:
            self._facts["loss"] = f"loss {loss:.4f}"
        if images_per_second is not None:
            self._facts["speed"] = f"{images_per_second:,.0f} images/s"
        now = time.monotonic()
        if now - self._drawn_at < REDRAW_SECONDS and done < self.total:
            return
        self._drawn_at = now
        self._bar.bar_format, self._bar.n = self._shape(), done
        with contextlib.suppress(OSError):  # the terminal was closed
            self._bar.refresh()

    def write(self, line: str, *, file: TextIO) -> None:
        """Writes a line above the bar."""
        self._bar.write(line, file=file)

    def close(self) -> None:
        """Takes the bar away."""
        with contextlib.suppress(OSError):
            self._bar.close()

    def _shape(self) -> str:
        width = self._width() - 1  # some terminals fold a row whose last cell is used
        facts = self._facts | {"count": self._count()}
        seconds_left = self._seconds_left()
        if seconds_left is not None:
            facts["left"] = f"{coarse(seconds_left) if seconds_left > 10 else 'under 10 s'} left"
        return bar_shape(self.what, facts, width=width)

    def _count(self) -> str:
        total = _short(self.total)
        return f"{_short(self._done):>{len(total)}} of {total} {self._unit}".rstrip()

    def _seconds_left(self) -> float | None:
        """At the speed so far, pauses included; None where nothing has been done yet."""
        num_done = self._done - self._done_before
        if num_done <= 0 or self._done >= self.total:
            return None
        return (time.monotonic() - self._began_at) / num_done * (self.total - self._done)


def _short(count: int) -> str:
    """`12,345`, `1.2M`."""
    return f"{count:,}" if count < 1e6 else f"{count / 1e6:.1f}M" if count < 1e9 else f"{count / 1e9:.1f}G"


def bar_shape(what: str, facts: dict[str, str], *, width: int) -> str:
    """A format for tqdm: the share in per cent, a bar, and as many facts as there is room for.

    Args:
        what: The work.
        facts: By `count`, `loss`, `speed`, `left`; what is not known is not there.
        width: Characters, of which no more are used as long as they suffice for work and share.
    """
    head = "{desc} {percentage:3.0f} %"
    room = width - _cell_len(what) - len(" 100 %")
    kept: list[str] = []
    for name in (name for name in _PRIORITY if name in facts):
        if len(_tail(facts, [*kept, name])) + len(" ||") + _SHORTEST_BAR > room:
            break
        kept.append(name)
    tail = _tail(facts, kept)
    length = min(room - len(tail) - len(" ||"), _LONGEST_BAR)
    return f"{head} |{{bar:{length}}}|{tail}" if length >= _SHORTEST_BAR else head + tail


def _tail(facts: dict[str, str], kept: Sequence[str]) -> str:
    words = ", ".join(facts[name] for name in _ORDER if name in kept)
    return f" {words}" if words else ""


def _cell_len(text: str) -> int:
    from rich.cells import cell_len

    return cell_len(text)
