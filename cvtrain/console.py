"""Everything that a person sees on the terminal: bars, rows, tables, errors. Nothing else prints.

Knows figures and words, not models or files. Without a terminal it writes plain lines, one per evaluation.
"""

from __future__ import annotations

import contextlib
import os
import sys
import textwrap
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from cvtrain.evaluation_rows import EvaluationRows
from cvtrain.plain_text import duration as duration  # for whoever says something
from cvtrain.plain_text import percent as percent
from cvtrain.plain_text import printable
from cvtrain.progress_bar import REDRAW_SECONDS, ProgressBar

if TYPE_CHECKING:
    from cvtrain.engine.events import Evaluation, RunningFigures

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
        self.can_redraw = self.is_terminal and os.environ.get("TERM") not in ("dumb", "unknown")
        self._bar: ProgressBar | None = None
        self._has_said = self._has_lost_lines = False
        self._rows: EvaluationRows | None = None
        self._columns: tuple[str, ...] = ()
        self._figures_read_at = 0.0

    # -------------------------------------------------------------------------------------------- lines

    def say(self, line: str = "", *, always: bool = False, wrap: bool = False) -> None:
        """Prints a line, above a bar that is running.

        Args:
            line: For the log too, which has it whole.
            always: Even when it is quiet.
            wrap: It is a sentence, to be broken between words where the terminal is too narrow for it. What is to be
                copied, such as a command, is better left to the terminal.
        """
        self._has_said = True
        line = printable(line)
        if line:
            self.log(line)
        if self.quiet and not always:
            return
        line = _encodable(line)
        if wrap and self.is_terminal:
            line = "\n".join(textwrap.wrap(line, _terminal_width(), subsequent_indent="  "))
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
        width = terminal_size()[0] if self.is_terminal else 10_000
        console = RichConsole(width=width, highlight=False, color_system=None)
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

    def facts(self, facts: Sequence[tuple[str, str]]) -> None:
        """Prints facts under an empty line, a line each: a name, and what is to be known. They are never folded."""
        self.say()
        length = max(len(name) for name, _ in facts)
        for name, words in facts:
            self.say(f"{name:<{length}}  {words}")

    # -------------------------------------------------------------------------------------------- progress of work

    def progress(self, done: int, total: int, what: str, *, unit: str = "") -> None:
        """Shows how far something has come; on a terminal only."""
        if not self.can_redraw:
            return
        if self._bar is None or self._bar.what != what:
            self.end_bar()
            self._bar = ProgressBar(what, total, unit=unit, width=_terminal_width)
        self._bar.move(done)
        if done >= total:
            self.end_bar()

    def end_bar(self) -> None:
        """Takes the bar away."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    # -------------------------------------------------------------------------------------------- training

    def training_starts(self, *, step: int, total_steps: int, steps_per_epoch: int, evaluate_every: int) -> None:
        """Prepares for steps and evaluations."""
        lengths = {"total_steps": total_steps, "steps_per_epoch": steps_per_epoch, "evaluate_every": evaluate_every}
        self._rows, self._columns = EvaluationRows(step=step, **lengths), ()
        if self.is_terminal:
            self.say()
        if self._rows.notice:
            self.say(self._rows.notice)
        if self.can_redraw:
            self._bar = ProgressBar("training", total_steps, done=step, unit="steps", width=_terminal_width)

    def step(self, step: int, figures: Callable[[], RunningFigures | None] = lambda: None) -> None:
        """Moves the training bar.

        Args:
            step: Steps taken.
            figures: Gives the training loss and the speed so far, or None where it would have to wait for them. Asked
                until it gives some, ten times a second at most.
        """
        if self._bar is None:
            return
        found = None
        if time.monotonic() - self._figures_read_at > REDRAW_SECONDS:
            found = figures()
        if found is None:
            self._bar.move(step)
            return
        self._figures_read_at = time.monotonic()
        self._bar.move(step, loss=found.train_loss, images_per_second=found.images_per_second)

    def evaluation(self, evaluation: Evaluation, *, is_best: bool) -> None:
        """Prints a row (terminal) or a line (elsewhere) for one evaluation; a star marks the best so far.

        Of thousands of evaluations some are left out.
        """
        assert self._rows is not None, "training has started"
        if not self._rows.is_shown(evaluation):
            return
        if not self.is_terminal:
            self.say(self._rows.line(evaluation, is_best=is_best))
            return
        columns = self._rows.columns(width=_terminal_width())
        if columns != self._columns:  # at first, and where the window was made narrower or wider
            self._columns = columns
            for line in self._rows.header(columns):
                self.say(line)
        self.say(self._rows.row(evaluation, columns, is_best=is_best))


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
        self.is_terminal = self.can_redraw = False
        self.on_step = on_step
        self.warnings: list[str] = []

    def say(self, line: str = "", *, always: bool = False, wrap: bool = False) -> None:
        """Logs a line."""
        if line:
            self.log(printable(line))

    def warn(self, line: str) -> None:
        """Keeps a warning."""
        self.warnings.append(line)
        super().warn(line)

    def step(self, step: int, figures: Callable[[], RunningFigures | None] = lambda: None) -> None:
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


def terminal_size() -> tuple[int, int]:
    """Columns and rows; 80 and 24 where a terminal does not tell."""
    try:
        columns, rows = os.get_terminal_size(sys.stdout.fileno())
    except (OSError, ValueError):
        columns = rows = 0
    return columns or 80, rows or 24


def _terminal_width() -> int:
    return terminal_size()[0]


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
