"""The words and table cells of a verdict: accuracies in per cent, differences in points, one decimal or two.

Knows results that are judged already; decides nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cvtrain.analysis.comparison import MeanResult, PairedDifferenceResult, mean_and_sd
from cvtrain.sweeps.arms import TUNED_KEY, Arm, ArmResult, Cell, Verdict

COST_HEADER = ("s/job", "images/s", "parameters")

HEADER = (
    "arm",
    "lr",
    "n",
    "validation",
    "test",
    "verdict",
    "below the best [95 %]",
    "p (Holm)",
    "P(best > arm)",
    *COST_HEADER,
)
LR_HEADER = ("arm", "lr", "n", "validation", "test", "chosen")

PAIR_HEADER = ("first - second", "n", "difference [95 %]", "p (Holm)")

VERDICTS: Mapping[Verdict, str] = {
    "best": "highest mean",
    "worse": "worse",
    "not_distinguishable": "not distinguishable",
    "undecided": "not tested",
    "not_comparable": "no common runs",
    "no_result": "no result",
}
"""Words of a table; `not distinguishable` is no claim that two are equal."""

CHEAP = 0.5
"""Share of the time of the best arm up to which one that is not distinguishable from it is worth a sentence."""

MAX_SAID_ARMS = 12
"""Of more arms than these the rest is in the table alone."""

NARROW = 0.002
"""Width of an interval, 0..1, below which one decimal would show its ends as equal."""


# ------------------------------------------------------------------------------------------------- tables


def arm_row(result: ArmResult, *, is_alone: bool = False) -> tuple[str, ...]:
    """A row of the table of arms; one that `is_alone` is compared with nothing."""
    cell, difference = result.arm.chosen, result.difference
    verdict = "-" if is_alone else VERDICTS[result.verdict]
    if cell is None or result.test is None:
        return (result.arm.name, "-", _num_done(result.arm.cells), "-", "-", verdict, *["-"] * 6)
    compared = difference if difference and difference.difference else None
    return (
        result.arm.name,
        lr_word(cell),
        _num_done([cell]),
        _accuracy(cell.val_accuracies),
        _mean(result.test.mean, result.test.sd),
        verdict,
        _with_interval(compared.difference) if compared and compared.difference else "-",
        "-" if result.p_value is None else p_word(result.p_value),
        f"{compared.probability_greater:.2f}" if compared else "-",
        *cost_cells(cell),
    )


def cost_cells(cell: Cell) -> tuple[str, ...]:
    """What a job of a cell takes, under `COST_HEADER`."""
    cost = cell.cost
    seconds = "-" if cost.seconds is None else _seconds(cost.seconds)
    return (
        seconds,
        *("-" if each is None else f"{each:,.0f}" for each in (cost.images_per_second, cost.num_parameters)),
    )


def _seconds(seconds: float) -> str:
    return f"{seconds:.2f}" if seconds < 10 else f"{seconds:.1f}" if seconds < 100 else f"{seconds:,.0f}"


def lr_rows(arm: Arm) -> list[tuple[str, ...]]:
    """Rows of the table of learning rates."""
    return [
        (
            arm.name,
            lr_word(cell),
            _num_done([cell]),
            _accuracy(cell.val_accuracies),
            _accuracy(list(cell.test_accuracies.values())),
            "yes" if cell is arm.chosen else "",
        )
        for cell in arm.cells
    ]


def lr_word(cell: Cell) -> str:
    """The learning rate of a cell."""
    return "default" if cell.lr is None else f"{cell.lr:g}"


def _num_done(cells: Sequence[Cell]) -> str:
    num_done, num_jobs = sum(len(cell.done) for cell in cells), sum(len(cell.jobs) for cell in cells)
    return str(num_done) if num_done == num_jobs else f"{num_done} of {num_jobs}"


def pair_row(first: str, second: str, pair: PairedDifferenceResult, p_value: float | None) -> tuple[str, ...]:
    """A row of the table of pairs."""
    shown = _with_interval(pair.difference) if pair.difference else "-"
    name = f"{first} - {second}"
    return (name, str(pair.num_pairs), shown, "-" if p_value is None else p_word(p_value))


def _accuracy(values: Sequence[float]) -> str:
    return _mean(*mean_and_sd(values)) if values else "-"


def _mean(mean: float, sd: float | None) -> str:
    return f"{100 * mean:.1f} %" + ("" if sd is None else f" +- {100 * sd:.1f}")


def percent(share: float) -> str:
    """A share of 0..1 as it stands in a table."""
    return _mean(share, None)


def points(share: float, *, decimals: int = 1) -> str:
    """A difference of shares, in points."""
    return f"{round(100 * share, decimals) + 0.0:.{decimals}f}"  # + 0.0: no minus before a zero


def _with_interval(difference: MeanResult) -> str:
    if difference.low is None or difference.high is None:
        return points(difference.mean)
    decimals = 1 if difference.high - difference.low >= NARROW else 2
    mean, low, high = (points(share, decimals=decimals) for share in (difference.mean, difference.low, difference.high))
    return f"{mean} [{low}, {high}]"


def p_word(p_value: float, *, sign: str = "") -> str:
    """A p-value; a `sign` such as `= ` stands before a number, as `<` does before the smallest ones."""
    return f"{sign}{p_value:.3f}" if p_value >= 0.001 else "< 0.001"


# ------------------------------------------------------------------------------------------------- sentences


def all_arms(arms: Sequence[ArmResult]) -> list[str]:
    """What each arm reached, best first; of many arms the first ones."""
    said = [sentence for each in arms[:MAX_SAID_ARMS] for sentence in arm_sentences(each, is_alone=len(arms) == 1)]
    num_more = len(arms) - MAX_SAID_ARMS
    return [*said, f"{num_more} more arms are in the table"] if num_more > 0 else said


def arm_sentences(result: ArmResult, *, is_alone: bool) -> list[str]:
    """What one arm reached, how it compares with the best of several, and what is wrong with its grid."""
    arm, cell = result.arm, result.arm.chosen
    if cell is None or result.test is None:
        return [f"{arm.name}: {no_result(arm)}"]
    lr = "" if cell.lr is None else f", {TUNED_KEY}={cell.lr:g}"
    reached = f"{arm.name}: {_mean(result.test.mean, result.test.sd)} (n = {result.test.num_values}{lr})"
    notes = [f"{arm.name}: {note}" for note in _grid_notes(arm, cell)]
    cheap = cheaper_sentence(result, cell.cost.seconds)
    return [reached if is_alone else reached + _compared(result), *([cheap] if cheap else []), *notes]


def cheaper_sentence(result: ArmResult, seconds: float | None) -> str | None:
    """Where an arm was tested, could not be told from the best and takes much less time; else None.

    Args:
        result: With its verdict.
        seconds: That a job of it takes.
    """
    share = result.time_share
    if result.verdict != "not_distinguishable" or share is None or share > CHEAP or seconds is None:
        return None
    times = f"{_seconds(seconds)} s a job instead of {_seconds(seconds / share)} s"
    return f"{result.arm.name}: not distinguishable from the best at {share:.1g} of its time ({times})"


def no_result(arm: Arm) -> str:
    """Why an arm has none."""
    if any(cell.done for cell in arm.cells):
        return f"no {TUNED_KEY} can be chosen without validation images, and test images must not choose it"
    return "no result: " + "; ".join(f"{_at(cell)}{cell.troubles()}" for cell in arm.cells)


def _at(cell: Cell) -> str:
    return "" if cell.lr is None else f"{TUNED_KEY}={cell.lr:g}: "


def _grid_notes(arm: Arm, chosen: Cell) -> list[str]:
    notes = []
    if arm.is_chosen_at_edge:
        notes.append(f"the grid ends at its best {TUNED_KEY}={chosen.lr:g}: widen it")
    num_pruned = sum(cell.num_pruned for cell in arm.cells)
    if num_pruned:
        num_jobs = sum(len(cell.jobs) for cell in arm.cells)
        notes.append(f"{num_pruned} of {num_jobs} jobs pruned: the search ended them early, and they are not compared")
    for cell in arm.cells:
        if all(job.is_done or job.status == "pruned" for job in cell.jobs) and cell is not chosen:
            continue  # nothing was lost
        if not cell.is_whole and cell is chosen:
            notes.append(f"{_at(cell)}{cell.troubles()}, so the figures are of the others only")
        elif not cell.is_whole:
            notes.append(f"{_at(cell)}{cell.troubles()}, so it was not chosen")
    return notes


def _compared(result: ArmResult) -> str:
    pair = result.difference
    if pair is None:
        return "; the highest mean"
    if pair.difference is None:
        return "; not comparable with the best: no run of both has the same seed and split"
    left_out = f"; runs without a partner left out: {pair.num_unpaired}" if pair.num_unpaired else ""
    if result.verdict == "undecided":
        return f"; {_below(pair.difference)} the highest mean{_in_one_pair(pair)}{left_out}"
    p_value = f", p {p_word(result.p_value, sign='= ')}" if result.p_value is not None else ""
    if result.verdict == "worse":
        amount, _, interval = _with_interval(pair.difference).partition(" ")
        return f"; worse by {amount} points {interval}{p_value}{left_out}"
    return f"; not distinguishable from the best: {_below(pair.difference)} it{p_value}{left_out}"


def _below(difference: MeanResult) -> str:
    amount, _, interval = _with_interval(difference).partition(" ")
    return f"{amount} points {interval} below".replace("  ", " ")


def _in_one_pair(pair: PairedDifferenceResult) -> str:
    return ", in one pair of runs" if pair.num_pairs == 1 else ""


# ------------------------------------------------------------------------------------------------- conclusions


def no_grid(groups: Sequence[str]) -> list[str]:
    """No winner: a single learning rate favours one arm."""
    each = " and ".join(f"each {group}" for group in groups)
    return [f"no winner named: {each} needs its own {TUNED_KEY} grid; add {TUNED_KEY}=0.1,0.01,0.001"]


def undecidable(arms: Sequence[ArmResult], *, num_pairs: int, num_comparisons: int, needed: int | None) -> list[str]:
    """No winner: too few seeds, or nothing to compare.

    Args:
        arms: In any order.
        num_pairs: The most that two arms have in common.
        num_comparisons: In the family.
        needed: Seeds that could show a difference.
    """
    if len(arms) < 2:
        is_single = any(each.test and each.test.num_values == 1 for each in arms)
        return ["n = 1 shows no spread and has no interval: add seed=0,1,2"] if is_single else []
    if num_comparisons == 0:
        return ["no winner named: fewer than two arms have a result"]
    if num_pairs == 0:
        return ["no winner named: no two arms have runs with the same seed and split"]
    if needed is None:
        return [f"no winner named: no number of seeds suffices for {num_comparisons} comparisons; compare fewer arms"]
    among = f" in {num_comparisons} comparisons" if num_comparisons > 1 else ""
    more = f"{needed} seeds can: seed={','.join(map(str, range(needed)))}"
    if num_pairs == 1:
        return [f"no winner named: one seed shows no spread; {more}"]
    return [f"no winner named: n = {num_pairs} seeds cannot show a difference at 5 %{among}; intervals only ({more})"]


def conclusion(arms: Sequence[ArmResult], *, winner: bool, num_comparisons: int) -> list[str]:
    """The winner, or why there is none, where the runs could have shown one."""
    best, others = arms[0], arms[1:]
    if winner:
        left_out = [each.arm.name for each in others if each.verdict == "no_result"]
        without = f"; without a result: {', '.join(left_out)}" if left_out else ""
        family = f"p < 0.05 after Holm over {num_comparisons} comparisons" if num_comparisons > 1 else "p < 0.05"
        at_edge = [each.arm.name for each in others if each.arm.is_chosen_at_edge]
        edge = f"; not yet tuned, as the grid ends at the best value: {', '.join(at_edge)}" if at_edge else ""
        return [f"winner: {best.arm.name} ({family}){without}{edge}"]
    equal = [each.arm.name for each in others if each.verdict == "not_distinguishable"]
    if equal:
        return [f"no winner named: not distinguishable from {best.arm.name}: {', '.join(equal)}"]
    apart = [each.arm.name for each in others if each.verdict in ("not_comparable", "undecided")]
    if apart:
        return [f"no winner named: too few runs in common with {best.arm.name}: {', '.join(apart)}"]
    assert best.arm.chosen is not None, "an arm with a difference has a result"
    return [f"no winner named: {best.arm.name} lost jobs: {best.arm.chosen.troubles()}"]
