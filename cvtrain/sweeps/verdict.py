"""Which arm of a sweep is better, in tables and sentences that claim no more than the runs can show.

Knows arms and statistics; prints nothing.

Each arm is judged by the test accuracy at the learning rate that its validation accuracy chose, in pairs of runs with
the same seed and split. A claim needs a sign-flip p-value below 0.05 after Holm's correction and P(A>B) of at least
0.75 (Bouthillier et al. 2021, arXiv 2103.03098, section 4). The family of the correction is all pairs of arms, not only
those with the best one: which one is best was read from the same test accuracies. With nine equal arms and ten seeds
the smaller family finds a difference in one sweep of ten.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from cvtrain.analysis.comparison import (
    MeanResult,
    PairedDifferenceResult,
    holm,
    mean_interval,
    paired_difference,
    pairs_needed,
    smallest_p_value,
)
from cvtrain.sweeps import sentences as say
from cvtrain.sweeps.arms import TUNED_KEY, Arm, ArmResult, Verdict, arms_of
from cvtrain.sweeps.leaderboard import JobResult

ALPHA = 0.05
MIN_PROBABILITY_GREATER = 0.75

MAX_PAIRED_ARMS = 6
"""With more of them the pairs, 15 for six, are too many to read."""


@dataclass(frozen=True)
class PairResult:
    """Two arms compared over the runs that both have.

    Args:
        first: Name of the arm with the higher mean.
        second: Name of the other.
        paired: The first less the second.
        p_value: After Holm's correction; None where no claim can be made.
    """

    first: str
    second: str
    paired: PairedDifferenceResult
    p_value: float | None


@dataclass(frozen=True)
class ComparisonResult:
    """What a sweep shows.

    Args:
        header: Of the table of arms.
        rows: One per arm, best mean test accuracy first.
        lr_header: Of the table of learning rates.
        lr_rows: One per arm and learning rate; empty where there is no grid.
        pair_header: Of the table of the other pairs.
        pair_rows: One per pair of arms without the best one, for as many as `MAX_PAIRED_ARMS` arms.
        sentences: One or more per arm, then the conclusion.
        series: For each arm with a grid `(lr, mean, sd)` of the validation accuracy, 0..1, smallest lr first; sd is 0
            for a single run. A rate at which no job came to its end is left out, and so is an arm without any.
        winner: Name of the arm that is better than every other one, or None.
        arms: The same as plain values, in the order of the rows.
        pairs: Every pair of arms that have a result.
        without_grid: Groups of settings whose options need a grid of learning rates each, and have none.
    """

    header: tuple[str, ...]
    rows: list[tuple[str, ...]]
    lr_header: tuple[str, ...]
    lr_rows: list[tuple[str, ...]]
    pair_header: tuple[str, ...]
    pair_rows: list[tuple[str, ...]]
    sentences: tuple[str, ...]
    series: Mapping[str, list[tuple[float, float, float]]]
    winner: str | None
    arms: tuple[ArmResult, ...]
    pairs: tuple[PairResult, ...]
    without_grid: tuple[str, ...]


def compare(results: Sequence[JobResult], *, swept: Collection[str] | None = None) -> ComparisonResult:
    """Compares the arms of a sweep.

    Args:
        results: From `leaderboard.read_jobs`.
        swept: The keys that the sweep varies; None takes those that differ.
    """
    return compare_arms(arms_of(results, swept=swept))


def compare_arms(arms: Sequence[Arm]) -> ComparisonResult:
    """Compares arms, in any order."""
    ranked = _ranked(arms)
    without_grid = _groups_without_grid([arm for arm, _ in ranked])
    pairs = _pairs([arm for arm, test in ranked if test])
    tested = [pair for pair, result in pairs.items() if result.p_value is not None]
    most_pairs = max((pairs[pair].num_pairs for pair in tested), default=0)
    is_decidable = bool(tested) and smallest_p_value(most_pairs) * len(tested) < ALPHA and not without_grid
    adjusted = dict(zip(tested, holm([pairs[pair].p_value for pair in tested]), strict=True)) if is_decidable else {}
    judged = tuple(
        _judge(arm, test, best=ranked[0][0], difference=pairs.get((0, rank)), p_value=adjusted.get((0, rank)))
        for rank, (arm, test) in enumerate(ranked)
    )
    named_pairs = tuple(
        PairResult(ranked[i][0].name, ranked[j][0].name, pair, adjusted.get((i, j))) for (i, j), pair in pairs.items()
    )
    is_winner = is_decidable and is_won(judged)
    if without_grid:
        conclusion = say.no_grid(without_grid)
    elif is_decidable:
        conclusion = say.conclusion(judged, winner=is_winner, num_comparisons=len(tested))
    else:
        needed = pairs_needed(max(1, len(pairs)), alpha=ALPHA)
        conclusion = say.undecidable(judged, num_pairs=_num_pairs(pairs), num_comparisons=len(pairs), needed=needed)
    return ComparisonResult(
        header=say.HEADER,
        rows=[say.arm_row(each, is_alone=len(judged) == 1) for each in judged],
        lr_header=say.LR_HEADER,
        lr_rows=[row for each in judged if len(each.arm.cells) > 1 for row in say.lr_rows(each.arm)],
        pair_header=say.PAIR_HEADER,
        pair_rows=_other_pairs(named_pairs, best=judged[0].arm.name) if 0 < len(judged) <= MAX_PAIRED_ARMS else [],
        sentences=(*say.all_arms(judged), *conclusion),
        series={each.arm.name: series for each in judged if len(each.arm.lrs) > 1 and (series := _series(each.arm))},
        winner=judged[0].arm.name if is_winner else None,
        arms=judged,
        pairs=named_pairs,
        without_grid=tuple(without_grid),
    )


def _ranked(arms: Sequence[Arm]) -> list[tuple[Arm, MeanResult | None]]:
    """Arms with their test accuracy at the chosen learning rate, best first, without a result last."""
    measured = [(arm, mean_interval(list(arm.chosen.test_accuracies.values())) if arm.chosen else None) for arm in arms]
    return sorted(measured, key=lambda each: -each[1].mean if each[1] else 1.0)


def _pairs(arms: Sequence[Arm]) -> dict[tuple[int, int], PairedDifferenceResult]:
    """Every pair of arms by rank, the better mean first."""
    accuracies = [arm.chosen.test_accuracies for arm in arms if arm.chosen]
    return {(i, j): paired_difference(accuracies[i], accuracies[j]) for i, j in combinations(range(len(accuracies)), 2)}


def _other_pairs(pairs: Sequence[PairResult], *, best: str) -> list[tuple[str, ...]]:
    return [say.pair_row(each.first, each.second, each.paired, each.p_value) for each in pairs if each.first != best]


def _num_pairs(pairs: Mapping[tuple[int, int], PairedDifferenceResult]) -> int:
    return max((pair.num_pairs for pair in pairs.values()), default=0)


def _judge(
    arm: Arm, test: MeanResult | None, *, best: Arm, difference: PairedDifferenceResult | None, p_value: float | None
) -> ArmResult:
    verdict: Verdict
    if test is None:
        verdict = "no_result"
    elif arm is best:
        verdict = "best"
    elif difference is None or difference.num_pairs == 0:
        verdict = "not_comparable"
    elif p_value is None:
        verdict = "undecided"
    else:
        is_better = difference.difference is not None and difference.difference.mean > 0
        is_often_better = (difference.probability_greater or 0) >= MIN_PROBABILITY_GREATER
        verdict = "worse" if is_better and is_often_better and p_value < ALPHA else "not_distinguishable"
    return ArmResult(arm, test, difference, p_value, verdict, time_share=_time_share(arm, best))


def _time_share(arm: Arm, best: Arm) -> float | None:
    if arm is best or arm.chosen is None or best.chosen is None:
        return None
    one, other = arm.chosen.cost, best.chosen.cost
    if not one.seconds or not other.seconds or len({*one.devices, *other.devices}) != 1:
        return None
    return one.seconds / other.seconds


def is_won(arms: Sequence[ArmResult]) -> bool:
    """Whether the first arm is better than all others and lost no job of its own."""
    first = arms[0].arm.chosen
    return first is not None and first.is_whole and all(each.verdict in ("worse", "no_result") for each in arms[1:])


def _groups_without_grid(arms: Sequence[Arm]) -> list[str]:
    """Of the groups in which arms differ those that need two learning rates or more for each, and have not.

    A rate that suits one optimizer, or one scale of the loss, is wrong for another: with a single rate for all, the
    comparison is one of learning rates. So it is for every group where arms have other rates than each other.
    """
    if len(arms) < 2 or all(len(arm.lrs) > 1 for arm in arms):
        return []
    groups = dict.fromkeys(key.partition(".")[0] for arm in arms for key in arm.settings if key != TUNED_KEY)
    have_equal_rates = len({tuple(arm.lrs) for arm in arms}) == 1
    return [group for group in groups if group in ("optimizer", "loss") or not have_equal_rates]


def _series(arm: Arm) -> list[tuple[float, float, float]]:
    found = []
    for cell in arm.cells:
        if cell.lr is not None and cell.val_accuracies:
            mean = mean_interval(cell.val_accuracies)
            found.append((cell.lr, mean.mean, mean.sd or 0.0))
    return found
