"""Everything that a person sees on the terminal: bars, rows, tables, errors. Nothing else prints.

Knows figures and words, not models or files. Without a terminal it writes plain lines, one per evaluation.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from cvtrain.plain_text import printable

if TYPE_CHECKING:
    from tqdm import tqdm

    from cvtrain.engine.events import Evaluation

_HEADER = (
    "{blank:{epoch}}  {blank:{step}}  {train:>15}  {val:>15}",
    "{epoch_name:>{epoch}}  {step_name:>{step}}    loss accuracy    loss accuracy          lr    time  images/s",
)
_ROW = "{epoch_cell:>{epoch}}  {step_cell:>{step}}  {train}  {val} {star}  {lr:>8}  {time:>6}  {speed:>8}"
"""Rows of 80 characters, as long as epochs have three digits and steps have five."""
_GAP = 3  # characters between two columns of a table


class Console:
    """Prints for a person at a terminal, or for a log file.

    Args:
        log: Takes every line that is printed, e.g. to write it to log.txt.
        quiet: Print warnings only; all else goes to the log alone. For one job of many.
    """

    def __init__(self, log: Callable[[str], None] = lambda _line: None, *, quiet: bool = False) -> None:
        self.log, self.quiet = log, quiet
        self.is_terminal = sys.stdout.isatty() and sys.stderr.isatty()
        self._bar: tqdm | None = None
        self._bar_name = ""
        self._bar_shown_at = 0.0
        self._has_said = self._has_lost_lines = False
        self._length, self._decimals = "", 0
        self._widths = {"epoch": 5, "step": 4}

    # -------------------------------------------------------------------------------------------- lines

    def say(self, line: str = "", *, always: bool = False) -> None:
        """Prints a line, above a bar that is running; `always`, even when it is quiet."""
        self._has_said = True
        line = printable(line)
        if line:
            self.log(line)
        if self.quiet and not always:
            return
        line = _encodable(line)
        try:
            if self._bar is not None:
                self._bar.write(line, file=sys.stdout)
            else:
                print(line, flush=True)
        except BrokenPipeError:  # `| head`: nobody misses the lines, and log.txt has them
            forget_reader()
        except OSError as error:  # a closed terminal, a file on a full disk: no reason to end hours of training
            self._cannot_say(error)

    def _cannot_say(self, error: OSError) -> None:
        """Says where something may still be said, once, that lines are lost."""
        if not self._has_lost_lines:
            self._has_lost_lines = True
            with contextlib.suppress(OSError):
                words = f"standard output cannot be written ({error.strerror}): lines may be missing there"
                print(f"warning: {words}", file=sys.stderr, flush=True)

    def warn(self, line: str) -> None:
        """Prints a line that the user should act on."""
        self.say(f"warning: {line}", always=True)

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Prints a table under an empty line and a title; the first column holds names, the others figures.

        Columns that a terminal has no room for come below, with the names again.
        """
        from rich import box
        from rich.console import Console as RichConsole
        from rich.table import Table
        from rich.text import Text

        # Where nobody looks at a screen no line is folded: it would be harder to search and to cut.
        console = RichConsole(width=None if self.is_terminal else 10_000, highlight=False, color_system=None)
        cells = [[printable(str(cell)) for cell in row] for row in (columns, *rows)]
        if self._has_said:
            self.say()
        self.say(title)
        for i, block in enumerate(_blocks(cells, width=console.width)):
            if i > 0:
                self.say()
            table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
            for column in block:
                table.add_column(Text(cells[0][column]), justify="right" if column else "left", overflow="fold")
            for row in cells[1:]:
                table.add_row(*(Text(row[column]) for column in block))
            with console.capture() as capture:
                console.print(table)
            for line in capture.get().splitlines():
                self.say(line.rstrip())

    # -------------------------------------------------------------------------------------------- progress of work

    def progress(self, done: int, total: int, what: str, *, unit: str = "") -> None:
        """Shows how far something has come; on a terminal only. Large numbers of a unit are shortened, as 1.2M."""
        if not self.is_terminal:
            return
        if self._bar is None or self._bar_name != what:
            self.end_bar()
            self._start_bar(total, what, unit=unit)
        assert self._bar is not None
        with contextlib.suppress(OSError):  # the terminal was closed
            self._bar.update(done - self._bar.n)
        if done >= total:
            self.end_bar()

    def _start_bar(self, total: int, what: str, *, done: int = 0, unit: str = "") -> None:
        from tqdm import tqdm

        self._bar_name = what
        shape = "{desc} {percentage:3.0f} % |{bar:30}| {n_fmt} of {total_fmt}{unit}, {remaining} left"
        self._bar = tqdm(
            total=total,
            initial=done,
            desc=what,
            bar_format=shape,
            leave=False,
            dynamic_ncols=True,
            unit=f" {unit}" if unit else "",
            unit_scale=bool(unit),
        )

    def end_bar(self) -> None:
        """Takes the bar away."""
        if self._bar is not None:
            with contextlib.suppress(OSError):
                self._bar.close()
            self._bar = None

    # -------------------------------------------------------------------------------------------- training

    def training_starts(self, *, step: int, total_steps: int, steps_per_epoch: int, evaluate_every: int) -> None:
        """Prepares for steps and evaluations."""
        is_whole = evaluate_every % steps_per_epoch == 0 and total_steps % steps_per_epoch == 0
        self._decimals = 0 if is_whole else 2
        self._length = f"{total_steps / steps_per_epoch:.{self._decimals}f}"
        self._widths = {"epoch": max(5, 2 * len(self._length) + 1), "step": max(4, len(str(total_steps)))}
        if self.is_terminal:
            names = {"blank": "", "train": "train", "val": "validation", "epoch_name": "epoch", "step_name": "step"}
            self.say()
            for line in _HEADER:
                self.say(line.format(**names, **self._widths))
            self._start_bar(total_steps, "training", done=step)

    def step(self, step: int) -> None:
        """Moves the training bar, ten times a second at most."""
        now = time.monotonic()
        if self._bar is not None and now - self._bar_shown_at > 0.1:
            self._bar_shown_at = now
            with contextlib.suppress(OSError):
                self._bar.update(step - self._bar.n)

    def evaluation(self, evaluation: Evaluation, *, is_best: bool) -> None:
        """Prints a row (terminal) or a line (elsewhere) for one evaluation; a star marks the best so far."""
        e, star = evaluation, "*" if is_best else " "
        cells = {
            "epoch_cell": f"{e.epoch:.{self._decimals}f}/{self._length}",
            "step_cell": e.step,
            "train": _loss_and_accuracy(e.train_loss, e.train_accuracy),
            "val": _loss_and_accuracy(e.val_loss, e.val_accuracy),
            "star": star,
            "lr": f"{e.lr:.3g}",
            "time": duration(e.seconds),
            "speed": f"{e.images_per_second:,.0f}",
        }
        if self.is_terminal:
            self.say(_ROW.format(**cells, **self._widths))
            return
        epoch, step = (str(cells[f"{name}_cell"]).rjust(self._widths[name]) for name in ("epoch", "step"))
        val = "" if e.val_loss is None else f"  val {cells['val']} {star}"
        self.say(
            f"epoch {epoch}  step {step}  train {cells['train']}{val}"
            f"  lr {cells['lr']:<8}  {cells['time']:>6}  {cells['speed']} images/s"
        )


class SilentConsole(Console):
    """Prints nothing: for one training of many, whose caller tells of it.

    Args:
        log: Takes every line.
        on_step: Takes the number of each step.

    Attributes:
        warnings: What there was to warn of.
    """

    def __init__(self, log: Callable[[str], None], *, on_step: Callable[[int], None]) -> None:
        super().__init__(log)
        self.is_terminal = False
        self.on_step = on_step
        self.warnings: list[str] = []

    def say(self, line: str = "", *, always: bool = False) -> None:
        """Logs a line."""
        if line:
            self.log(printable(line))

    def warn(self, line: str) -> None:
        """Keeps a warning."""
        self.warnings.append(line)
        super().warn(line)

    def step(self, step: int) -> None:
        """Passes the number of a step on."""
        self.on_step(step)


def _blocks(cells: Sequence[Sequence[str]], *, width: int) -> list[list[int]]:
    """The columns of a table parted into blocks, each of the first column and as many others as have room.

    Args:
        cells: By row, all rows of one length.
        width: Of the terminal, in characters.
    """
    from rich.cells import cell_len

    widths = [max(map(cell_len, column)) for column in zip(*cells, strict=True)]
    names = min(widths[0], width // 2)  # what is longer is folded
    blocks, used = [[0]], names
    for column, needed in enumerate(widths[1:], start=1):
        if len(blocks[-1]) > 1 and used + _GAP + needed > width:
            blocks.append([0])
            used = names
        blocks[-1].append(column)
        used += _GAP + needed
    return blocks


def _loss_and_accuracy(loss: float | None, accuracy: float | None) -> str:
    """Both in 15 characters."""
    return f"{'-' if loss is None else f'{loss:.4f}':>7}{percent(accuracy):>8}"


def percent(share: float | None) -> str:
    """A share of 0..1 in per cent, one digit after the point."""
    return "-" if share is None else f"{100 * share:.1f} %"


def duration(seconds: float) -> str:
    """Seconds as a person would say them: `0.07 s`, `12.3 s`, `2 min 05 s`, `1 h 40 min`."""
    if seconds < 90:
        return f"{seconds:.2f} s" if seconds < 10 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


def _encodable(line: str) -> str:
    r"""Text that standard output can take, whatever its encoding; other characters become `\u...`."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    return line.encode(encoding, "backslashreplace").decode(encoding)


def forget_reader() -> None:
    """Lets what is printed from now on go nowhere: whoever read it has gone."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def print_error(lines: Sequence[str], *, max_lines: int = 6) -> None:
    """Prints an error of the user's to stderr, in six lines at most."""
    lines = [printable(line) for line in lines]
    if len(lines) > max_lines:
        left_out = len(lines) - max_lines + 1
        lines = [*lines[: max_lines - 1], f"... and {left_out} more"]
    text = "\n".join(("error: " if i == 0 else "  ") + line for i, line in enumerate(lines))
    with contextlib.suppress(OSError):  # the terminal was closed
        print(text, file=sys.stderr, flush=True)
