"""How far a sample-size sweep has come, counted in images trained on: trainings differ a hundredfold in length.

Knows trainings and a console.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from cvtrain.console import Console
from cvtrain.sample_size.plan import Cell


class Progress:
    """Moves one bar for all trainings.

    Args:
        cells: All of the sweep.
        done: Names of those that are done already.
        console: Shows the bar.
    """

    def __init__(self, cells: Sequence[Cell], *, done: Collection[str], console: Console) -> None:
        self._cells = {cell.name: cell for cell in cells if cell.name not in done}
        self._seen: dict[str, int] = {}
        self._total = sum(cell.course.num_images for cell in self._cells.values())
        self._console = console

    def step(self, name: str, step: int) -> None:
        """A training has taken so many steps."""
        course = self._cells[name].course
        self._seen[name] = min(step, course.total_steps) * course.batch_size
        self._show()

    def end_of(self, cell: Cell) -> None:
        """A training has ended: the steps that it was spared count as done."""
        self._seen[cell.name] = cell.course.num_images
        self._show()

    def _show(self) -> None:
        self._console.progress(sum(self._seen.values()), self._total, "training", unit="images")
