"""The trials that a study of Optuna's holds, as people count them.

Knows Optuna's trials, and what a search notes on them; not how they come about.

A trial that was broken off is written down once more and begun again; one that repeats the words of another is told
the other's result. Neither is counted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from cvtrain.search.parameters import Value
from cvtrain.search.space import Key, Space

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

# What is noted on a trial: the number of the broken one that it goes on with, or of the one whose words it repeats; ...
CONTINUES, REPEATS = "continues", "repeats"
# ... of its evaluations; ...
STEPS, ACCURACIES = "steps", "accuracies"
# ... and of its job.
FOLDER, ERROR, EXIT_CODE = "folder", "error", "exit_code"

_DIVERGED = 5
"""The exit code of a job that failed for its settings: it would fail again."""

TrialStatus = Literal["done", "pruned", "failed", "unfinished"]


@dataclass(frozen=True)
class TrialResult:
    """One trial of a search.

    Args:
        number: Counted from 1.
        key: What was typed for it.
        values: The same, as numbers and words of options.
        status: `unfinished` while its job runs, or is to be continued.
        val_accuracy: The best of the job, 0..1; None unless it is done.
        evaluations: Steps and validation accuracies as far as they were heard of.
        folder: Of its job, as seen from the folder of the sweep.
        error: Why it failed.
    """

    number: int
    key: Key
    values: Mapping[str, Value]
    status: TrialStatus
    val_accuracy: float | None = None
    evaluations: tuple[tuple[int, float], ...] = ()
    folder: str | None = None
    error: str | None = None


def counted(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """The trials without those that were broken off or are repeated."""
    again = {trial.user_attrs.get(CONTINUES) for trial in trials}
    return [trial for trial in trials if trial.number not in again and REPEATS not in trial.user_attrs]


def values_of(trial: FrozenTrial) -> dict[str, Value]:
    """What was chosen, or will be: of a trial that waits to be begun again, too."""
    return dict(trial.params or trial.system_attrs.get("fixed_params", {}))


def evaluations_of(trial: FrozenTrial) -> tuple[tuple[int, float], ...]:
    """Steps and validation accuracies in their order."""
    values = [value for _, value in sorted(trial.intermediate_values.items())]
    return tuple(zip(trial.user_attrs.get(STEPS, []), values, strict=False))


def is_worth_retrying(trial: FrozenTrial) -> bool:
    """Whether a trial failed for a reason that may have gone: not where training diverged."""
    return trial.state.name == "FAIL" and trial.user_attrs.get(EXIT_CODE) != _DIVERGED


def notes_for_continuing(trial: FrozenTrial) -> dict[str, Any]:
    """What is noted on the trial that goes on with a broken one: its job may go on after its last evaluation."""
    evaluations = evaluations_of(trial)
    return {
        CONTINUES: trial.number,
        STEPS: [step for step, _ in evaluations],
        ACCURACIES: [accuracy for _, accuracy in evaluations],
    }


def results_of(trials: Sequence[FrozenTrial], space: Space) -> list[TrialResult]:
    """The counted trials in the order in which they were begun."""
    found = [trial for trial in counted(trials) if space.holds(values_of(trial))]
    return [_result(number, trial, space) for number, trial in enumerate(found, start=1)]


def _result(number: int, trial: FrozenTrial, space: Space) -> TrialResult:
    statuses: dict[str, TrialStatus] = {"COMPLETE": "done", "PRUNED": "pruned", "FAIL": "failed"}
    status = statuses.get(trial.state.name, "unfinished")
    return TrialResult(
        number=number,
        key=space.key(values_of(trial)),
        values=values_of(trial),
        status=status,
        val_accuracy=trial.value if status == "done" else None,
        evaluations=evaluations_of(trial),
        folder=trial.user_attrs.get(FOLDER),
        error=trial.user_attrs.get(ERROR),
    )


def best_of(results: Sequence[TrialResult]) -> TrialResult | None:
    """The trial with the highest validation accuracy, the first of equals."""
    done = [result for result in results if result.val_accuracy is not None]
    return max(done, key=lambda result: (result.val_accuracy, -result.number), default=None)
