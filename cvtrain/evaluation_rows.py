"""The evaluations of a training in words: rows of a table as wide as a terminal, or lines of a log; not too many.

Knows figures and widths; neither terminals nor files.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from cvtrain.plain_text import duration, percent

if TYPE_CHECKING:
    from cvtrain.engine.events import Evaluation

MAX_SHOWN = 200
"""Evaluations of a training that are shown at most: more of them would flood a log, and nobody would read them."""

_GAP = "  "
_LEFT_OUT = ("images/s", "time", "lr", "step", "train")
"""Columns for which a narrow terminal has no room: the first one goes first. The bar shows speed and time."""


class EvaluationRows:
    """Words for the evaluations of one training.

    Args:
        step: Steps taken before.
        total_steps: When training is over.
        steps_per_epoch: Batches in one pass over the training images.
        evaluate_every: Steps between evaluations.
    """

    def __init__(self, *, step: int, total_steps: int, steps_per_epoch: int, evaluate_every: int) -> None:
        is_whole = evaluate_every % steps_per_epoch == 0 and total_steps % steps_per_epoch == 0
        self._decimals = 0 if is_whole else 2
        self._length = f"{total_steps / steps_per_epoch:.{self._decimals}f}"
        self._total_steps, self._evaluate_every = total_steps, evaluate_every
        self._num_expected = math.ceil((total_steps - step) / evaluate_every)
        self._show_one_in = _one_in(self._num_expected)
        self._has_shown = False
        self._widths = {
            "epoch": max(5, 2 * len(self._length) + 1),
            "step": max(4, len(str(total_steps))),
            "train": 15,
            "validation": 17,  # with a star
            "lr": 8,
            "time": 6,
            "images/s": 8,
        }

    @property
    def notice(self) -> str | None:
        """What to say before the first one: that not all are shown; None where they are."""
        if self._show_one_in == 1:
            return None
        return f"{self._num_expected:,} evaluations: one in {self._show_one_in:,} is shown, metrics.csv holds all"

    def is_shown(self, evaluation: Evaluation) -> bool:
        """Whether to show this one; the first and the last are shown always."""
        number = evaluation.step // self._evaluate_every
        is_first, self._has_shown = not self._has_shown, True
        return is_first or number % self._show_one_in == 0 or evaluation.step >= self._total_steps

    def columns(self, *, width: int) -> tuple[str, ...]:
        """The columns that so many characters have room for."""
        columns = list(self._widths)
        for left_out in _LEFT_OUT:
            if sum(self._widths[column] for column in columns) + len(_GAP) * (len(columns) - 1) <= width:
                break
            columns.remove(left_out)
        return tuple(columns)

    def header(self, columns: tuple[str, ...]) -> tuple[str, str]:
        """Two lines that stand above the rows."""
        top = {"train": "train", "validation": f"{'validation':>15}  "}
        both = "loss accuracy"
        bottom = {column: column for column in columns} | {"train": both, "validation": f"{both}  "}
        return self._joined(top, columns), self._joined(bottom, columns)

    def row(self, evaluation: Evaluation, columns: tuple[str, ...], *, is_best: bool) -> str:
        """A row of the table; a star marks the best so far."""
        return self._joined(self._cells(evaluation, is_best=is_best), columns)

    def line(self, evaluation: Evaluation, *, is_best: bool) -> str:
        """The same as a line that needs no header."""
        cells = self._cells(evaluation, is_best=is_best)
        epoch, step = (cells[name].rjust(self._widths[name]) for name in ("epoch", "step"))
        val = "" if evaluation.val_loss is None else f"  val {cells['validation']}"
        return (
            f"epoch {epoch}  step {step}  train {cells['train']}{val}"
            f"  lr {cells['lr']:<8}  {cells['time']:>6}  {cells['images/s']} images/s"
        )

    def _cells(self, evaluation: Evaluation, *, is_best: bool) -> dict[str, str]:
        e = evaluation
        return {
            "epoch": f"{e.epoch:.{self._decimals}f}/{self._length}",
            "step": str(e.step),
            "train": _loss_and_accuracy(e.train_loss, e.train_accuracy),
            "validation": f"{_loss_and_accuracy(e.val_loss, e.val_accuracy)} {'*' if is_best else ' '}",
            "lr": f"{e.lr:.3g}",
            "time": duration(e.seconds),
            "images/s": f"{e.images_per_second:,.0f}",
        }

    def _joined(self, cells: dict[str, str], columns: tuple[str, ...]) -> str:
        return _GAP.join(cells.get(column, "").rjust(self._widths[column]) for column in columns).rstrip()


def _one_in(num_expected: int) -> int:
    """1, 2, 5, 10, 20, ...: the first that leaves no more than `MAX_SHOWN`."""
    steps = (factor * 10**power for power in range(19) for factor in (1, 2, 5))
    return next(step for step in steps if num_expected <= step * MAX_SHOWN)


def _loss_and_accuracy(loss: float | None, accuracy: float | None) -> str:
    """Both in 15 characters."""
    return f"{'-' if loss is None else f'{loss:.4f}':>7}{percent(accuracy):>8}"
