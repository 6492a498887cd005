"""The words and table cells of a comparison of single runs on the same test images.

Knows results that are judged already; decides nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from cvtrain.sweeps.arms import ArmResult
from cvtrain.sweeps.sentences import (
    COST_HEADER,
    MAX_SAID_ARMS,
    VERDICTS,
    cheaper_sentence,
    cost_cells,
    lr_word,
    no_grid,
    no_result,
    p_word,
    percent,
    points,
)

if TYPE_CHECKING:
    from cvtrain.sweeps.image_verdict import ImagePairResult

HEADER = (
    "arm",
    "lr",
    "validation",
    "test",
    "verdict",
    "below the best [95 %]",
    "p (Holm)",
    "right alone: best / arm",
    *COST_HEADER,
)
PAIR_HEADER = ("first - second", "difference [95 %]", "p (Holm)", "right alone: first / second")


def arm_row(arm: ArmResult, pair: ImagePairResult | None) -> tuple[str, ...]:
    """A row of the table of arms; `pair` is the best arm and this one, None for the best itself."""
    cell, verdict = arm.arm.chosen, VERDICTS[arm.verdict]
    if cell is None or arm.test is None:
        return (arm.arm.name, "-", "-", "-", verdict, *["-"] * 6)
    validation = percent(cell.val_accuracies[0]) if cell.val_accuracies else "-"
    compared = pair_row(pair)[1:] if pair else ("-", "-", "-")
    return (arm.arm.name, lr_word(cell), validation, percent(arm.test.mean), verdict, *compared, *cost_cells(cell))


def pair_row(pair: ImagePairResult) -> tuple[str, ...]:
    """A row of the table of pairs."""
    alone = f"{pair.paired.num_only_a:,} / {pair.paired.num_only_b:,}"
    return (f"{pair.first} - {pair.second}", _with_interval(pair), p_word(pair.p_value), alone)


def _with_interval(pair: ImagePairResult) -> str:
    mean, low, high = (points(share, decimals=_decimals(pair)) for share in _ends(pair))
    return f"{mean} [{low}, {high}]"


def _ends(pair: ImagePairResult) -> tuple[float, float, float]:
    return pair.paired.difference, pair.paired.low, pair.paired.high


def _decimals(pair: ImagePairResult) -> int:
    """So many that an image more or less is seen."""
    return 1 if pair.paired.num_images < 2_000 else 2


def all_arms(arms: Sequence[ArmResult], of_best: Mapping[str, ImagePairResult]) -> list[str]:
    """What each model reached and how it compares with the best one; of many the first ones.

    Args:
        arms: Best first.
        of_best: The best arm and each other one, by the name of that.
    """
    said = []
    for arm in arms[:MAX_SAID_ARMS]:
        said.append(_arm_sentence(arm, of_best.get(arm.arm.name)))
        cell = arm.arm.chosen
        cheap = cheaper_sentence(arm, cell.cost.seconds) if cell else None
        said += [cheap] if cheap else []
    num_more = len(arms) - MAX_SAID_ARMS
    return [*said, f"{num_more} more arms are in the table"] if num_more > 0 else said


def _arm_sentence(arm: ArmResult, pair: ImagePairResult | None) -> str:
    if arm.test is None:
        return f"{arm.arm.name}: {no_result(arm.arm)}"
    reached = f"{arm.arm.name}: {percent(arm.test.mean)} (one run)"
    if pair is None:
        return f"{reached}; the most right answers"
    alone = f"{pair.paired.num_only_b:,} images only it has right, {pair.paired.num_only_a:,} only the best"
    mean, _, interval = _with_interval(pair).partition(" ")
    if arm.verdict == "worse":
        return f"{reached}; worse by {mean} points {interval}, p {p_word(pair.p_value, sign='= ')}: {alone}"
    return (
        f"{reached}; not distinguishable from the best: {mean} points {interval} below it,"
        f" p {p_word(pair.p_value, sign='= ')}: {alone}"
    )


def conclusion(arms: Sequence[ArmResult], *, is_better: bool, num_comparisons: int) -> list[str]:
    """What is shown of these models.

    Args:
        arms: Best first.
        is_better: Whether the first one is better than all others.
        num_comparisons: In the family.
    """
    best = arms[0].arm.name
    family = f"p < 0.05 after Holm over {num_comparisons} comparisons" if num_comparisons > 1 else "p < 0.05"
    if is_better:
        without = [arm.arm.name for arm in arms if arm.verdict == "no_result"]
        left_out = f"; without a result: {', '.join(without)}" if without else ""
        others = "the other one" if num_comparisons == 1 else "every other one"
        return [f"of these trained models, that of {best} is better than {others} ({family}){left_out}"]
    level = [arm.arm.name for arm in arms if arm.verdict == "not_distinguishable"]
    return [f"of these trained models none is shown to be the best: not distinguishable from {best}: {_listed(level)}"]


def _listed(names: Sequence[str]) -> str:
    more = len(names) - MAX_SAID_ARMS
    return ", ".join(names[:MAX_SAID_ARMS]) + (f" and {more} more" if more > 0 else "")


def how_far(without_grid: Sequence[str], *, needed: int | None) -> list[str]:
    """What a test on images cannot show, and what to do instead.

    Args:
        without_grid: Groups whose options need a grid of learning rates each, and have none.
        needed: Seeds that could show a difference between the arms; None where no number can.
    """
    settings = "to compare more than models, compare fewer arms"
    if needed is not None:
        settings = f"to compare the settings, train each with {needed} seeds: seed={','.join(map(str, range(needed)))}"
    only_models = (
        "this holds for these models on more images of the same kind, and not for their settings: another seed may turn"
        f" it; {settings}"
    )
    return [only_models, *(no_grid(without_grid) if without_grid else [])]
