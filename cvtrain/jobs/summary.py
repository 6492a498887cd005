"""What is said when a sweep ends: how many jobs are done, what they show, where it stands.

Knows results and a console; neither processes nor command lines.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from cvtrain.comparison_lines import say_comparison
from cvtrain.console import Console
from cvtrain.errors import OutputError
from cvtrain.jobs.ledger import Ledger
from cvtrain.jobs.sweep_report import replace_page
from cvtrain.outputs import RunDir
from cvtrain.sweeps.leaderboard import JobResult
from cvtrain.sweeps.verdict import ComparisonResult, compare


def say_summary(results: Sequence[JobResult], ledger: Ledger, *, swept: Collection[str] | None, compares: bool) -> None:
    """Says how many jobs are done, compares them, draws what there is to draw, and makes the page.

    Args:
        results: Of all jobs of the sweep.
        ledger: Its folder.
        swept: The keys that differ; None takes those that do.
        compares: Whether the jobs are a grid; those of a search were chosen by what earlier ones reached.
    """
    console = Console()
    num_done = sum(result.status == "done" for result in results)
    console.say()
    console.say(f"{num_done} of {len(results)} {'job' if len(results) == 1 else 'jobs'} done")
    tried = [result for result in results if result.is_done or result.status != "done"]  # evaluations test no arm
    if compares and len(tried) > 1 and any(result.is_done for result in tried):
        comparison = compare(tried, swept=swept)
        say_comparison(comparison, console)
        _write_comparison(comparison, tried, ledger, console)
        if comparison.series:
            console.say(f"plot     {_draw(comparison, ledger.path / 'plots' / 'lr_grid.png')}")
    console.say(f"results  {ledger.leaderboard_path}")
    if trouble := replace_page(ledger.path):
        console.warn(trouble)
    else:
        console.say(f"report   {RunDir(ledger.path).report_path}")


def _write_comparison(
    comparison: ComparisonResult, results: Sequence[JobResult], ledger: Ledger, console: Console
) -> None:
    """Writes what a page about the sweep needs; a full disk takes nothing from what was just said."""
    from cvtrain.sweeps.as_json import comparison_json

    try:
        RunDir(ledger.path).write_text(ledger.comparison_path, comparison_json(comparison, results))
    except OutputError as error:
        console.warn(error.message)


def _draw(comparison: ComparisonResult, path: Path) -> Path | str:
    """Draws the learning rates of all arms; a plot that cannot be drawn fails nothing."""
    from cvtrain.report import plots

    try:
        plots.lr_grid(path, comparison.series, metric="validation accuracy", title="Each arm over its grid")
    except Exception as error:  # whatever a drawing library thinks of
        return f"not drawn: {error}"
    return path
