"""What pages show of the arms of a comparison in words: the best one, and tables that can be sorted.

Knows judged arms and tables; neither folders nor how an arm is judged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cvtrain.analysis.proportion import wilson_interval
from cvtrain.pages.arm_charts import COSTS, not_surpassed
from cvtrain.report.page_parts import Cell, Column
from cvtrain.report.words import interval
from cvtrain.sweeps.arms import ArmResult
from cvtrain.sweeps.from_json import StoredComparison
from cvtrain.sweeps.image_verdict import ImagePairResult
from cvtrain.sweeps.sentences import NARROW, VERDICTS, lr_word, p_word, points
from cvtrain.sweeps.verdict import PairResult

if TYPE_CHECKING:
    from cvtrain.analysis.comparison import MeanResult

MAX_PAIRS = 200
"""Of more pairs the table has those with the best arm."""

_CONCLUSIONS = ("winner: ", "no winner named", "of these trained models")
"""How the sentence begins that says which arm is better, or that none is shown to be."""

_TONES = {"best": "good", "worse": "bad"}
_NOT_TESTED = "No claim can be made from these runs: see the sentences above."


@dataclass(frozen=True)
class Headline:
    """What a page begins with.

    Args:
        figure: An accuracy.
        name: Whose it is.
        words: What kind of figure it is.
        conclusion: What may be said of it, in a sentence.
    """

    figure: str
    name: str
    words: str
    conclusion: str


# ------------------------------------------------------------------------------------------------------- tables


def arms_table(arms: Sequence[ArmResult]) -> tuple[list[Column], list[list[object]]]:
    """Columns and rows, best arm first."""
    has_lr = any(arm.arm.lrs for arm in arms)
    columns = [
        Column("arm"),
        *([Column("lr", "number", "The learning rate that validation chose.")] if has_lr else []),
        Column("n", "count", "Runs that are done."),
        Column("validation", "percent", "Mean over seeds."),
        Column("test [95 %]", "percent", "Mean over seeds with its t interval."),
        Column("spread", "percent", "Standard deviation over seeds, in points."),
        Column("below the best [95 %]", "number", "Mean of the paired differences, in points."),
        Column("p (Holm)", "number", _NOT_TESTED),
        Column("verdict"),
    ]
    return columns, [_arm_row(arm, has_lr=has_lr) for arm in arms]


def _arm_row(result: ArmResult, *, has_lr: bool) -> list[object]:
    cell, test = result.arm.chosen, result.test
    verdict = Cell(VERDICTS[result.verdict], tone=_TONES.get(result.verdict, ""))
    if cell is None or test is None:
        num_jobs = sum(len(each.jobs) for each in result.arm.cells)
        return [result.arm.name, *([None] if has_lr else []), Cell(f"0 of {num_jobs}", 0), *[None] * 5, verdict]
    num_done, num_jobs = len(cell.done), len(cell.jobs)
    difference = result.difference.difference if result.difference else None
    return [
        result.arm.name,
        *([Cell(lr_word(cell), cell.lr)] if has_lr else []),
        Cell(str(num_done) if num_done == num_jobs else f"{num_done} of {num_jobs}", num_done),
        sum(cell.val_accuracies) / len(cell.val_accuracies) if cell.val_accuracies else None,
        Cell(_mean_words(test), test.mean),
        None if test.sd is None else Cell(f"± {points(test.sd)}", test.sd),
        _difference_cell(difference),
        None if result.p_value is None else Cell(p_word(result.p_value), result.p_value),
        verdict,
    ]


def _mean_words(mean: MeanResult) -> str:
    """A mean of accuracies, whose interval ends at 0 and 1."""
    low, high = (None if end is None else min(max(end, 0.0), 1.0) for end in (mean.low, mean.high))
    return interval(mean.mean, low, high)


def _difference_cell(difference: MeanResult | None) -> Cell | None:
    if difference is None:
        return None
    return points_cell(difference.mean, difference.low, difference.high)


def points_cell(mean: float, low: float | None, high: float | None) -> Cell:
    """A difference of accuracies in points, with its interval where it has one."""
    if low is None or high is None:
        return Cell(points(mean), mean)
    decimals = 2 if high - low < NARROW else 1
    ends = ", ".join(points(end, decimals=decimals) for end in (low, high))
    return Cell(f"{points(mean, decimals=decimals)} [{ends}]", mean)


def costs_table(arms: Sequence[ArmResult]) -> tuple[list[Column], list[list[object]]]:
    """What a job of each arm takes; an arm that no other one surpasses at its cost is marked."""
    with_cost = [arm for arm in arms if arm.arm.chosen and arm.test]
    leading = {name for cost, _ in COSTS.values() for name in not_surpassed(with_cost, cost)}
    columns = [
        Column("arm"),
        Column("test", "percent"),
        Column("seconds a job", "seconds"),
        Column("images/s", "count", "In training."),
        Column("parameters", "count"),
        Column("device"),
        Column(
            "not surpassed", "text", "No other arm is at least as good for at most this time, or for as few parameters."
        ),
    ]
    rows: list[list[object]] = []
    for arm in with_cost:
        assert arm.arm.chosen is not None, "it was asked for"
        assert arm.test is not None, "so was it"
        cost = arm.arm.chosen.cost
        rows.append(
            [
                arm.arm.name,
                arm.test.mean,
                cost.seconds,
                cost.images_per_second,
                cost.num_parameters,
                ", ".join(cost.devices),
                Cell("yes", tone="good") if arm.arm.name in leading else "",
            ]
        )
    return columns, rows


def pairs_table(pairs: Sequence[PairResult], *, best: str) -> tuple[list[Column], list[list[object]]]:
    """Columns and rows of differences over seeds."""
    columns = [
        Column("first"),
        Column("second"),
        Column("n", "count", "Pairs of runs with the same seed and split."),
        Column("first - second [95 %]", "number", "Mean of the paired differences of test accuracy, in points."),
        Column("P(first > second)", "number", "Share of the pairs in which the first is better; a tie is half."),
        Column("p (Holm)", "number", _NOT_TESTED),
    ]
    shown = pairs if len(pairs) <= MAX_PAIRS else [pair for pair in pairs if best in (pair.first, pair.second)]
    rows: list[list[object]] = [
        [
            pair.first,
            pair.second,
            pair.paired.num_pairs,
            _difference_cell(pair.paired.difference),
            pair.paired.probability_greater,
            None if pair.p_value is None else Cell(p_word(pair.p_value), pair.p_value),
        ]
        for pair in shown
    ]
    return columns, rows


def image_pairs_table(pairs: Sequence[ImagePairResult]) -> tuple[list[Column], list[list[object]]]:
    """Columns and rows of differences over test images."""
    columns = [
        Column("first"),
        Column("second"),
        Column("first - second [95 %]", "number", "In points; a bootstrap over the test images."),
        Column("only the first is right", "count", "Images."),
        Column("only the second is right", "count", "Images."),
        Column("p (Holm)", "number", "McNemar's exact test, corrected for all pairs."),
    ]
    rows: list[list[object]] = [
        [
            pair.first,
            pair.second,
            points_cell(pair.paired.difference, pair.paired.low, pair.paired.high),
            pair.paired.num_only_a,
            pair.paired.num_only_b,
            Cell(p_word(pair.p_value), pair.p_value),
        ]
        for pair in pairs
    ]
    return columns, rows


def headline(comparison: StoredComparison, *, num_test: int | None) -> Headline | None:
    """The best arm and what may be said of it; None without a result.

    Args:
        comparison: With its sentences.
        num_test: Test images: they give the interval of a single run.
    """
    if not comparison.arms or not (best := comparison.arms[0]).test:
        return None
    num, figure = best.test.num_values, _mean_words(best.test)
    if num > 1:
        words = f"mean test accuracy of {num} runs, with its 95 % interval over seeds"
    elif num_test:
        figure = interval(best.test.mean, *wilson_interval(round(best.test.mean * num_test), num_test))
        words = f"test accuracy of one run on {num_test:,} images, with its 95 % interval over images, not over seeds"
    else:
        words = "test accuracy of one run: another seed may give another"
    return Headline(
        figure=figure,
        name="all runs" if len(comparison.arms) == 1 else best.arm.name,
        words=words,
        conclusion=_as_sentence(next((line for line in comparison.sentences if line.startswith(_CONCLUSIONS)), "")),
    )


def _as_sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}." if text else ""
