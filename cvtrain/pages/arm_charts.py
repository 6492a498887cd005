"""Charts of the arms of a comparison: the seeds as points, validation over learning rates, accuracy against cost.

Knows judged arms and charts; neither folders nor how an arm is judged.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from cvtrain.pages.leaderboard_view import brief_words
from cvtrain.report.charts import Axis, Series, line_chart, point_chart
from cvtrain.sweeps.arms import TUNED_KEY, Arm, ArmResult
from cvtrain.sweeps.arms import Cell as ArmCell

if TYPE_CHECKING:
    from markupsafe import Markup

MAX_SHOWN_ARMS = 30
"""In charts; the tables hold all."""

MAX_BANDS = 6
"""Of more lines the bands would hide each other."""


def seeds_chart(arms: Sequence[ArmResult]) -> Markup | None:
    """The test accuracy of each seed, and the mean with its interval, an arm in each row; None where there is none."""
    shown = [arm for arm in arms if arm.test and arm.arm.chosen][:MAX_SHOWN_ARMS]
    if not shown:
        return None
    of_seeds = [
        (i, job.test_accuracy, _seed_words(job.seed))
        for i, arm in enumerate(shown)
        for job in arm.arm.chosen.done.values()  # type: ignore[union-attr]
    ]
    means = [arm.test for arm in shown if arm.test]
    series = [
        Series(
            "a seed", [value for _, value, _ in of_seeds], [i for i, _, _ in of_seeds], words=[w for *_, w in of_seeds]
        )
    ]
    if any(mean.low is not None for mean in means):
        low, high = (
            [m.low if m.low is None else max(m.low, 0.0) for m in means],
            [m.high if m.high is None else min(m.high, 1.0) for m in means],
        )
        mean_words = [f"mean of {m.num_values}" for m in means]
        series.append(
            Series("mean with 95 % interval", [m.mean for m in means], list(range(len(means))), low, high, mean_words)
        )
    names = [_brief(arm.arm) for arm in shown]
    return point_chart(
        series, title="Test accuracy of each seed", x=Axis("test accuracy", "percent"), y=Axis("arm", names=names)
    )


def _seed_words(seed: int | None) -> str:
    return "" if seed is None else f"seed {seed}"


def lr_chart(arms: Sequence[ArmResult]) -> Markup | None:
    """Mean validation accuracy against the learning rate, a line for each arm with a grid; None where there is none."""
    series, is_readable = [], sum(len(arm.arm.cells) > 1 for arm in arms) <= MAX_BANDS
    for result in arms[:MAX_SHOWN_ARMS]:
        cells = [cell for cell in result.arm.cells if cell.lr is not None and cell.val_accuracies]
        if len(cells) > 1:
            values = [cell.val_accuracies for cell in cells]
            series.append(
                Series(
                    _brief(result.arm),
                    [cell.lr for cell in cells],
                    [sum(each) / len(each) for each in values],
                    low=[min(each) for each in values] if is_readable else None,
                    high=[max(each) for each in values] if is_readable else None,
                    words=[_lr_words(cell, result.arm) for cell in cells],
                    drawn="both",
                )
            )
    if not series:
        return None
    return line_chart(
        series,
        title="Validation accuracy against the learning rate",
        x=Axis(TUNED_KEY, log=all(lr > 0 for each in series for lr in each.x)),
        y=Axis("validation accuracy", "percent"),
        wide=not is_readable,
    )


def _brief(arm: Arm) -> str:
    return brief_words(arm.settings) or arm.name


def _lr_words(cell: ArmCell, arm: Arm) -> str:
    return f"n = {len(cell.val_accuracies)}" + (", chosen" if cell is arm.chosen else "")


COSTS: dict[str, tuple[Callable[[ArmResult], float | None], Axis]] = {
    "time": (
        lambda arm: arm.arm.chosen.cost.seconds if arm.arm.chosen else None,
        Axis("seconds a job", "seconds", log=True),
    ),
    "parameters": (
        lambda arm: arm.arm.chosen.cost.num_parameters if arm.arm.chosen else None,
        Axis("parameters", "count", log=True),
    ),
}


def cost_charts(arms: Sequence[ArmResult]) -> list[Markup]:
    """Test accuracy against time and against parameters, where arms differ in them; those not surpassed are marked."""
    charts = []
    for what, (cost_of, axis) in COSTS.items():
        known = [arm for arm in arms if arm.test and cost_of(arm)]
        if len({cost_of(arm) for arm in known}) < 2:
            continue
        leading = not_surpassed(known, cost_of)
        series = [
            _cost_series("not surpassed", [arm for arm in known if arm.arm.name in leading], cost_of),
            _cost_series("others", [arm for arm in known if arm.arm.name not in leading], cost_of),
        ]
        charts.append(
            point_chart(
                [each for each in series if each.x],
                title=f"Test accuracy against {what}",
                x=axis,
                y=Axis("test accuracy", "percent"),
            )
        )
    return charts


def _cost_series(name: str, arms: Sequence[ArmResult], cost_of: Callable[[ArmResult], float | None]) -> Series:
    ordered = sorted(arms, key=lambda arm: cost_of(arm) or 0.0)
    means = [arm.test for arm in ordered if arm.test]
    return Series(
        name,
        [cost_of(arm) for arm in ordered],
        [mean.mean for mean in means],
        words=[_brief(arm.arm) for arm in ordered],
        drawn="both" if name == "not surpassed" else "points",
    )


def not_surpassed(arms: Sequence[ArmResult], cost_of: Callable[[ArmResult], float | None]) -> set[str]:
    """Names of the arms that no other surpasses, which would be as accurate for less, or more so for as little."""
    best, best_cost, names = -1.0, None, set()
    known = [arm for arm in arms if arm.test and cost_of(arm) is not None]
    for arm in sorted(known, key=lambda arm: (cost_of(arm), -arm.test.mean)):  # type: ignore[union-attr]
        mean = arm.test.mean  # type: ignore[union-attr]
        if mean > best:
            best, best_cost = mean, cost_of(arm)
            names.add(arm.arm.name)
        elif (mean, cost_of(arm)) == (best, best_cost):
            names.add(arm.arm.name)
    return names
