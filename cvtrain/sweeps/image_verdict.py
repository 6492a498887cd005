"""Which of several trained models answers more of the same test images right, where each arm has one run only.

Knows arms, predictions and statistics; prints nothing.

One run of each arm says nothing of the settings that made it: another seed may turn the order. What can be tested is
whether these models, as they are, differ on further images of the same kind: McNemar's exact test on every pair of
arms, after Holm's correction over all pairs, because which model is best was read from the same images.
Source: Dietterich 1998, Neural Computation 10(7), sections 2 and 5; Bouthillier et al. 2021 (arXiv 2103.03098).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

from cvtrain.analysis.comparison import holm, pairs_needed
from cvtrain.analysis.paired_predictions import PairedPredictionsResult, paired_predictions
from cvtrain.sweeps import image_sentences as say
from cvtrain.sweeps.arms import ArmResult, Verdict
from cvtrain.sweeps.leaderboard import JobResult
from cvtrain.sweeps.predictions import Predictions
from cvtrain.sweeps.verdict import ALPHA, MAX_PAIRED_ARMS


@dataclass(frozen=True)
class ImagePairResult:
    """Two trained models compared on the same images.

    Args:
        first: Name of the arm with the higher accuracy.
        second: Name of the other.
        paired: The first less the second.
        p_value: After Holm's correction.
    """

    first: str
    second: str
    paired: PairedPredictionsResult
    p_value: float


@dataclass(frozen=True)
class ImageComparisonResult:
    """What the answers of one model for each arm show.

    Args:
        header: Of the table of arms.
        rows: One per arm, best accuracy first.
        pair_header: Of the table of the other pairs.
        pair_rows: One per pair of arms without the best one, for as many as `MAX_PAIRED_ARMS` arms.
        sentences: One or more per arm, then the conclusion and how far it goes.
        better: Name of the arm whose model answers more images right than that of every other one, or None.
        arms: With the verdicts of this test, in the order of the rows.
        pairs: Every pair of arms with a result.
    """

    header: tuple[str, ...]
    rows: list[tuple[str, ...]]
    pair_header: tuple[str, ...]
    pair_rows: list[tuple[str, ...]]
    sentences: tuple[str, ...]
    better: str | None
    arms: tuple[ArmResult, ...]
    pairs: tuple[ImagePairResult, ...]


def run_of(arm: ArmResult) -> JobResult | None:
    """The only run of an arm that has a result; None where there are several, or none."""
    done = list(arm.arm.chosen.done.values()) if arm.arm.chosen else []
    return done[0] if len(done) == 1 else None


def has_single_runs(arms: Sequence[ArmResult]) -> bool:
    """Whether each arm with a result has one run only, and there are two such arms at least."""
    with_result = [arm for arm in arms if arm.test]
    return len(with_result) > 1 and all(run_of(arm) for arm in with_result)


def compare_images(
    arms: Sequence[ArmResult],
    predictions: Mapping[Path, Predictions],
    *,
    without_grid: Sequence[str] = (),
    seed: int = 0,
) -> ImageComparisonResult:
    """Compares the models of arms that have one run each.

    Args:
        arms: From `verdict.compare_arms`, best first; those without a result last.
        predictions: By run folder, all of the same images.
        without_grid: As `ComparisonResult` has it.
        seed: Of the bootstrap.
    """
    able = [(arm, run.run_dir) for arm in arms if (run := run_of(arm)) and run.run_dir]
    pairs = {
        (i, j): paired_predictions(predictions[able[i][1]].is_right, predictions[able[j][1]].is_right, seed=seed)
        for i, j in combinations(range(len(able)), 2)
    }
    adjusted = dict(zip(pairs, holm([pair.p_value for pair in pairs.values()]), strict=True))
    named = tuple(
        ImagePairResult(able[i][0].arm.name, able[j][0].arm.name, pair, adjusted[i, j])
        for (i, j), pair in pairs.items()
    )
    judged = tuple(_judge(arm, adjusted.get((0, rank)), rank=rank) for rank, arm in enumerate(arms))
    is_better = all(arm.verdict in ("best", "worse", "no_result") for arm in judged)
    best = able[0][0].arm.name
    of_best = {pair.second: pair for pair in named if pair.first == best}
    others = [pair for pair in named if pair.first != best]
    return ImageComparisonResult(
        header=say.HEADER,
        rows=[say.arm_row(arm, of_best.get(arm.arm.name)) for arm in judged],
        pair_header=say.PAIR_HEADER,
        pair_rows=[say.pair_row(pair) for pair in others] if len(able) <= MAX_PAIRED_ARMS else [],
        sentences=(
            *say.all_arms(judged, of_best),
            *say.conclusion(judged, is_better=is_better, num_comparisons=len(pairs)),
            *say.how_far(without_grid, needed=pairs_needed(len(pairs), alpha=ALPHA)),
        ),
        better=best if is_better else None,
        arms=judged,
        pairs=named,
    )


def _judge(arm: ArmResult, p_value: float | None, *, rank: int) -> ArmResult:
    """The arm with the verdict of this test; it is behind the best one, or level, by its rank."""
    verdict: Verdict
    if arm.test is None:
        verdict = "no_result"
    elif rank == 0:
        verdict = "best"
    else:
        verdict = "worse" if p_value is not None and p_value < ALPHA else "not_distinguishable"
    return replace(arm, verdict=verdict, p_value=p_value)
