"""Everything that a person sees on the terminal: bars, rows, tables, errors. Nothing else prints.

Knows figures and words, not models or files. Without a terminal it writes plain lines, one per evaluation.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from cvtrain.outputs import printable

if TYPE_CHECKING:
    from tqdm import tqdm

    from cvtrain.engine.trainer import Evaluation

_COLUMNS = ("epoch", "step", "train loss", "accuracy", "val loss", "accuracy", "lr", "seconds", "images/s")
_WIDTHS = (9, 8, 11, 9, 9, 9, 10, 8, 9)


class Console:
    """Prints for a person at a terminal, or for a log file.

    Args:
        log: Takes every line that is printed, e.g. to write it to log.txt.
    """

    def __init__(self, log: Callable[[str], None] = lambda _line: None) -> None:
        self.log = log
        self.is_terminal = sys.stdout.isatty() and sys.stderr.isatty()
        self._bar: tqdm | None = None
        self._bar_name = ""
        self._bar_shown_at = 0.0
        self._length = ""

    # -------------------------------------------------------------------------------------------- lines

    def say(self, line: str = "") -> None:
        """Prints a line, above a bar that is running."""
        line = printable(line)
        self.log(line)
        if self._bar is not None:
            self._bar.write(line, file=sys.stdout)
        else:
            print(line, flush=True)

    def warn(self, line: str) -> None:
        """Prints a line that the user should act on."""
        self.say(f"warning: {line}")

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Prints a table; the first column holds names, the others figures."""
        from rich import box
        from rich.console import Console as RichConsole
        from rich.table import Table
        from rich.text import Text

        table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False)
        for i, column in enumerate(columns):
            table.add_column(column, justify="left" if i == 0 else "right", overflow="fold")
        for row in rows:
            table.add_row(*(Text(printable(str(cell))) for cell in row))
        console = RichConsole(width=None if self.is_terminal else 120, highlight=False, soft_wrap=False)
        with console.capture() as capture:
            console.print(table)
        for line in capture.get().rstrip().splitlines():
            self.log(line)
        sys.stdout.write(capture.get())
        sys.stdout.flush()

    # -------------------------------------------------------------------------------------------- progress of work

    def progress(self, done: int, total: int, what: str) -> None:
        """Shows how far something has come; on a terminal only."""
        if not self.is_terminal:
            return
        if self._bar is None or self._bar_name != what:
            self.end_bar()
            self._start_bar(total, what, unit="")
        assert self._bar is not None
        self._bar.update(done - self._bar.n)
        if done >= total:
            self.end_bar()

    def _start_bar(self, total: int, what: str, *, unit: str, done: int = 0) -> None:
        from tqdm import tqdm

        self._bar_name = what
        self._bar = tqdm(
            total=total, initial=done, desc=what, unit=unit, unit_scale=True, leave=False, dynamic_ncols=True
        )

    def end_bar(self) -> None:
        """Takes the bar away."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    # -------------------------------------------------------------------------------------------- training

    def training_starts(self, *, step: int, total_steps: int, steps_per_epoch: int) -> None:
        """Prepares for steps and evaluations."""
        self._length = f"{total_steps / steps_per_epoch:.4g}"
        if self.is_terminal:
            self.say("".join(c.rjust(w) for c, w in zip(_COLUMNS, _WIDTHS, strict=True)))
            self._start_bar(total_steps, "training", unit="step", done=step)

    def step(self, step: int) -> None:
        """Moves the training bar, ten times a second at most."""
        now = time.monotonic()
        if self._bar is not None and now - self._bar_shown_at > 0.1:
            self._bar.update(step - self._bar.n)
            self._bar_shown_at = now

    def evaluation(self, evaluation: Evaluation, *, is_best: bool) -> None:
        """Prints a row (terminal) or a line (elsewhere) for one evaluation."""
        e, star = evaluation, "*" if is_best else " "
        if self.is_terminal:
            cells = (
                f"{e.epoch:g}/{self._length}",
                str(e.step),
                f"{e.train_loss:.4f}",
                percent(e.train_accuracy),
                "-" if e.val_loss is None else f"{e.val_loss:.4f}",
                "-" if e.val_accuracy is None else percent(e.val_accuracy),
                f"{e.lr:.3g}",
                f"{e.seconds:.1f}",
                f"{e.images_per_second:,.0f}",
            )
            self.say("".join(c.rjust(w) for c, w in zip(cells, _WIDTHS, strict=True)) + f" {star}")
            return
        val = "" if e.val_loss is None else f"  val {e.val_loss:.4f} {percent(e.val_accuracy)}{star}"
        self.say(
            f"epoch {e.epoch:g}/{self._length}  step {e.step}  train {e.train_loss:.4f} {percent(e.train_accuracy)}"
            f"{val}  lr {e.lr:.3g}  {e.seconds:.1f} s  {e.images_per_second:,.0f} images/s"
        )


def percent(share: float | None) -> str:
    """A share of 0..1 in per cent, one digit after the point."""
    return "-" if share is None else f"{100 * share:.1f} %"


def duration(seconds: float) -> str:
    """Seconds as a person would say them."""
    if seconds < 90:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


def print_error(lines: Sequence[str], *, max_lines: int = 6) -> None:
    """Prints an error of the user's to stderr, in six lines at most."""
    lines = [printable(line) for line in lines]
    if len(lines) > max_lines:
        left_out = len(lines) - max_lines + 1
        lines = [*lines[: max_lines - 1], f"... and {left_out} more"]
    print(
        "\n".join(("error: " if i == 0 else "  ") + line for i, line in enumerate(lines)), file=sys.stderr, flush=True
    )
