"""What a sample-size sweep is about to do, what it measured and what it answers, in words and table cells.

Knows plans, rows and answers; decides nothing. Accuracies are in per cent, differences in points.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from cvtrain.analysis.comparison import mean_interval
from cvtrain.analysis.learning_curve.answers import AheadResult, ElbowResult, TargetResult
from cvtrain.analysis.learning_curve.validation import ValidationResult
from cvtrain.sample_size.conclusion import Conclusion
from cvtrain.sample_size.plan import Cell, Plan
from cvtrain.sample_size.table import Row

PLAN_HEADER = ("per class", "runs", "train", "val", "batch", "steps", "evaluated every", "best by", "one image", "SE")

RESULT_HEADER = (
    "per class",
    "runs",
    "train",
    "val",
    "SE of val",
    "test",
    "95 % interval",
    "sd",
    "steps",
    "stopped early",
)

VALIDATION_HEADER = ("fit up to", "per class", "measured", "predicted [95 %]", "miss", "last value", "log-linear")


def percent(share: float) -> str:
    """`81.3`: in per cent without the sign, for columns and intervals."""
    return f"{100 * share:z.1f}"


def points(difference: float) -> str:
    """`+2.1`: a difference of accuracies in points."""
    return f"{100 * difference:+z.1f}"


def interval(low: float, high: float) -> str:
    """`[80.1, 82.4]`."""
    return f"[{percent(low)}, {percent(high)}]"


def standard_error(accuracy: float, num_images: int) -> float:
    """Of an accuracy measured on so many images. Source: the binomial distribution."""
    return math.sqrt(accuracy * (1 - accuracy) / num_images)


# ------------------------------------------------------------------------------------------------------- before


def plan_rows(plan: Plan) -> list[tuple[str, ...]]:
    """What is to be trained at each size; the standard error is that of an accuracy of 50 %, the largest there is."""
    return [_plan_row(size, plan.at(size)) for size in plan.sizes]


def _plan_row(size: int, cells: Sequence[Cell]) -> tuple[str, ...]:
    cell, course = cells[0], cells[0].course
    return (
        f"{size:,}",
        str(len(cells)),
        f"{cell.train_size:,}",
        f"{cell.val_size:,}",
        str(course.batch_size),
        f"{course.total_steps:,}",
        f"{course.evaluate_every:,}",
        course.metric.removeprefix("val_"),
        f"{100 / cell.val_size:.2g}",
        percent(standard_error(0.5, cell.val_size)),
    )


PLAN_LEGEND = (
    "train, val: images of all classes; steps: at most; one image: what it adds to the validation accuracy, in points;"
    " SE: standard error of a validation accuracy of 50 %, in points"
)


# ------------------------------------------------------------------------------------------------------- while


def done_line(row: Row, *, time: str, progress: str) -> str:
    """One training that has come to its end."""
    early = ", early" if row.stop_reason == "early_stopping" else ""
    return (
        f"{progress}  {row.per_class:>5,} per class, run {row.replicate:>2}  test {percent(row.test_accuracy):>5} %"
        f"  val {percent(row.val_accuracy):>5} % of {row.val_size:,}  {time}{early}"
    )


def failed_line(cell: Cell, reason: str) -> str:
    """One training that has failed."""
    return f"{cell.per_class:,} per class, run {cell.replicate} failed: {reason}"


# ------------------------------------------------------------------------------------------------------- after


def result_rows(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    """What was measured at each size."""
    sizes = sorted({row.per_class for row in rows})
    return [_result_row([row for row in rows if row.per_class == size]) for size in sizes]


def _result_row(rows: Sequence[Row]) -> tuple[str, ...]:
    first, test = rows[0], mean_interval([row.test_accuracy for row in rows])
    val_accuracy = sum(row.val_accuracy for row in rows) / len(rows)
    has_interval = test.low is not None and test.high is not None and test.sd is not None
    return (
        f"{first.per_class:,}",
        str(len(rows)),
        f"{first.train_size:,}",
        f"{first.val_size:,}",
        percent(standard_error(val_accuracy, first.val_size)),
        f"{percent(test.mean)} %",
        interval(max(test.low, 0.0), min(test.high, 1.0)) if has_interval else "-",
        percent(test.sd) if has_interval else "-",
        f"{sum(row.steps for row in rows) / len(rows):,.0f}",
        f"{sum(row.stop_reason == 'early_stopping' for row in rows)} of {len(rows)}",
    )


def trouble_lines(troubles: Mapping[int, Sequence[str]]) -> list[str]:
    """A line for each size at which trainings learnt nothing: its mean says little of the images."""
    return [
        f"{len(said)} training{'s' if len(said) > 1 else ''} with {size:,} images per class learnt nothing: {said[0]}"
        for size, said in troubles.items()
        if said
    ]


def target_sentence(result: TargetResult) -> str:
    """How many images an accuracy takes."""
    goal = f"{percent(result.target)} %"
    if result.status == "reached_at_smallest":
        return f"{goal}: the smallest size, {result.per_class:,} images per class, is enough; fewer may be"
    limit = result.limit
    there = f"{limit.per_class:,} images per class give {_accuracy(limit)}" if limit.accuracy is not None else ""
    if result.status == "refused":
        return f"{goal}: not reached in the measured sizes, and no further answer: {result.reason}"
    if result.per_class is None:
        return f"{goal}: not reachable with this model and these settings; {there}"
    words = {"extrapolated": " (an extrapolation)", "far": " (a far extrapolation: do not plan with it)"}
    sure = f"{rounded(result.sure_per_class)} to be 95 % sure" if result.sure_per_class else f"never 95 % sure: {there}"
    size = f"{rounded(result.per_class)} images per class {_sizes(result.low, result.high)}"
    return f"{goal}: {size}{words.get(result.status, '')}; {sure}"


def _accuracy(result: AheadResult) -> str:
    """`81.0 % [80.1, 82.4]`."""
    assert result.accuracy is not None, "the caller has looked"
    has_interval = result.low is not None and result.high is not None
    return f"{percent(result.accuracy)} %" + (f" {interval(result.low, result.high)}" if has_interval else "")


def _sizes(low: int | None, high: int | None) -> str:
    return f"[{'fewer' if low is None else rounded(low)}, {'no upper end' if high is None else rounded(high)}]"


def rounded(per_class: int) -> str:
    """`24,500` for 24,515: three digits of a size that is read from a curve."""
    return f"{int(float(f'{per_class:.3g}')):,}"


def elbow_sentence(result: ElbowResult) -> str:
    """Where twice as many images stop paying."""
    gain = f"{100 * result.gain:g} points"
    if result.log_linear is None:
        return f"no answer where more images stop paying: {result.reason}"
    line = result.log_linear
    mean = f"{percent(line.gain)} points per doubling {interval(line.low, line.high)}"
    if result.status == "none":
        return f"no elbow: about {mean} throughout"
    if result.status == "beyond":
        return f"no elbow within the measured sizes: the last doubling still gains {gain} or more (on average {mean})"
    if result.status == "before":
        return f"the elbow lies before the smallest size: no doubling gains {gain} (on average {mean})"
    place = f"{rounded(result.per_class)} images per class {_sizes(result.low, result.high)}"
    return f"elbow at {place}: beyond it twice as many gain less than {gain} (on average {mean})"


def ahead_sentence(result: AheadResult) -> str:
    """What more images will give."""
    if result.accuracy is None:
        return f"{result.factor:g}x the largest size: no answer: {result.reason}"
    return f"{result.factor:g}x the largest size, {result.per_class:,} images per class: {_accuracy(result)}"


def validation_rows(result: ValidationResult) -> list[tuple[str, ...]]:
    """How well the curve predicted what it was not shown."""
    return [
        (
            f"{p.fitted_up_to:,}",
            f"{p.per_class:,}",
            f"{percent(p.measured)} %",
            f"{percent(p.predicted)} {interval(p.low, p.high)}{'' if p.is_hit else ' outside'}",
            points(p.miss),
            points(p.last_value_miss),
            points(p.log_linear_miss),
        )
        for p in result.predictions
    ]


def validation_sentence(result: ValidationResult) -> str:
    """The score in one line."""
    if result.rms_miss is None or result.last_value_rms_miss is None or result.log_linear_rms_miss is None:
        return f"the prediction could not be checked: {'; '.join(result.reasons)}"
    return (
        f"held out and predicted: off by {percent(result.rms_miss)} points (root mean square), the last value by"
        f" {percent(result.last_value_rms_miss)}, a log-linear line by {percent(result.log_linear_rms_miss)};"
        f" {result.num_hits} of {len(result.predictions)} within the 95 % interval"
    )


def answer_sentences(conclusion: Conclusion) -> list[str]:
    """Everything that the curve answers, and what it does not."""
    if conclusion.fit is None:
        return [f"no curve: {conclusion.reason}"]
    lines = [target_sentence(conclusion.target)] if conclusion.target else []
    if conclusion.elbow is not None:
        lines.append(elbow_sentence(conclusion.elbow))
    if conclusion.fit.refusal:
        lines.append(f"no look ahead: {conclusion.fit.refusal}")
    else:
        lines += [ahead_sentence(each) for each in conclusion.ahead]
    if conclusion.is_above_train_accuracy and conclusion.train_accuracy is not None:
        limit = f"{percent(conclusion.train_accuracy)} %"
        lines.append(
            f"caution: at the largest size {limit} of the training images are right, so more than {limit} is doubtful"
            " however many images there are: a larger model, or longer training, may gain more"
        )
    if conclusion.validation is not None:
        lines.append(validation_sentence(conclusion.validation))
    return lines + [f"note: {note}" for note in conclusion.fit.notes]
