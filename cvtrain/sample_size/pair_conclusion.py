"""From two sample-size sweeps to what they show together, and its plain values.

Knows figures; neither where they were read nor how anything is worded.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from cvtrain.analysis.comparison import MeanResult, PairedDifferenceResult, holm, mean_interval, smallest_p_value
from cvtrain.analysis.learning_curve.equivalence import (
    CERTAIN_SHARE,
    CrossingsResult,
    CurveComparisonResult,
    SizeDifferenceResult,
    compare_curves,
)
from cvtrain.analysis.learning_curve.fit import CurveFit, fit_curve
from cvtrain.plain_text import finite
from cvtrain.sample_size.pair import SettingDifference, Sweep, names_of, setting_differences

ALPHA = 0.05
"""Below it, after Holm's correction over all common sizes, one of the two is said to be better at a size."""

Verdict = Literal["a_better", "b_better", "not_told_apart", "too_few_pairs"]

_SIZES_BETWEEN = 100


@dataclass(frozen=True)
class ComparedSize:
    """Both sweeps at a size that both have, over the replicates that both have.

    Args:
        per_class: Images per class.
        a: Accuracy of the first, 0..1.
        b: Of the second.
        paired: The first less the second.
        holm_p_value: The p-value, adjusted for all sizes; None with fewer than two pairs.
        verdict: Who is better by the test, or why that is not said.
    """

    per_class: int
    a: MeanResult
    b: MeanResult
    paired: PairedDifferenceResult
    holm_p_value: float | None
    verdict: Verdict


@dataclass(frozen=True)
class PairConclusion:
    """What two sweeps show together.

    Args:
        names: Short ones, of the first and the second.
        settings: What they differ in, what matters most first.
        fits: The two curves.
        curves: How they compare.
        sizes: Those with a pair, smallest first.
        shares_throughout: 0..1, of the plausible pairs of curves in which the first, and in which the second, is ahead
            at every size that both measured.
    """

    names: tuple[str, str]
    settings: tuple[SettingDifference, ...]
    fits: tuple[CurveFit, CurveFit]
    curves: CurveComparisonResult
    sizes: tuple[ComparedSize, ...]
    shares_throughout: tuple[float, float]

    @property
    def has_spread(self) -> bool:
        """Whether pairs of trainings scatter at any size: one pair at each says nothing of how sure a lead is."""
        return any(size.paired.num_pairs > 1 for size in self.sizes)

    @property
    def leader(self) -> str | None:
        """The name of the one that is ahead at every size in at least `CERTAIN_SHARE` of the plausible pairs."""
        surely = [share >= CERTAIN_SHARE for share in self.shares_throughout]
        return self.names[surely.index(True)] if self.has_spread and any(surely) else None

    @property
    def num_pairs(self) -> int:
        """Of all sizes."""
        return sum(size.paired.num_pairs for size in self.sizes)


def compare_pair(a: Sweep, b: Sweep, *, seed: int) -> PairConclusion:
    """Compares two sweeps that `check_pair` has passed.

    Args:
        a: The first; its sizes are counted in images of the second.
        b: The second.
        seed: Of the plausible curves.
    """
    about = {"chance_accuracy": a.chance_accuracy, "num_test": a.num_test, "seed": seed}
    fits = fit_curve(a.points, **about), fit_curve(b.points, **about)
    curves = compare_curves(a.points, b.points, **about)
    sizes = compared_sizes(*fits, curves.differences)
    settings = setting_differences(a.config, b.config)
    return PairConclusion(
        names=names_of(settings),
        settings=settings,
        fits=fits,
        curves=curves,
        sizes=sizes,
        shares_throughout=shares_throughout(*fits, within=curves.crossings),
    )


def compared_sizes(a: CurveFit, b: CurveFit, differences: Sequence[SizeDifferenceResult]) -> tuple[ComparedSize, ...]:
    """Means, differences and verdicts of the sizes at which the two have a pair."""
    of_a, of_b = ({point.per_class: point.accuracies for point in fit.points} for fit in (a, b))
    with_pairs = [each for each in differences if each.paired.num_pairs]
    found = []
    for each, verdict in zip(with_pairs, verdicts(with_pairs), strict=True):
        accuracies = of_a[each.per_class], of_b[each.per_class]
        both = [replicate for replicate in accuracies[0] if replicate in accuracies[1]]
        means = [mean_interval([of_one[replicate] for replicate in both]) for of_one in accuracies]
        found.append(ComparedSize(each.per_class, *means, each.paired, each.holm_p_value, verdict))
    return tuple(found)


def verdicts(differences: Sequence[SizeDifferenceResult]) -> list[Verdict]:
    """Who is better at each size by the adjusted p-value, and where pairs are too few to show it whatever they say.

    Too few are those that would not pass with the smallest p-value they can have, the other sizes being as they are.

    Args:
        differences: Of sizes with at least one pair.
    """
    tested = [each for each in differences if each.holm_p_value is not None]
    p_values = [each.paired.p_value for each in tested]
    found: dict[int, Verdict] = {}
    for i, each in enumerate(tested):
        best_possible = [*p_values[:i], smallest_p_value(each.paired.num_pairs), *p_values[i + 1 :]]
        if each.holm_p_value < ALPHA:
            found[each.per_class] = "a_better" if each.paired.difference.mean > 0 else "b_better"
        elif holm(best_possible)[i] < ALPHA:
            found[each.per_class] = "not_told_apart"
    return [found.get(each.per_class, "too_few_pairs") for each in differences]


def shares_throughout(a: CurveFit, b: CurveFit, *, within: CrossingsResult | None) -> tuple[float, float]:
    """The shares of the plausible pairs of curves in which A, and in which B, is ahead at every size.

    Args:
        a: Fitted with the seed of `b`.
        b: With as many curves.
        within: Names the range of sizes that both measured; None where there is none: then nothing leads in it.
    """
    if within is None:
        return 0.0, 0.0
    sizes = np.geomspace(within.from_per_class, within.to_per_class, _SIZES_BETWEEN)
    differences = a.curves(sizes) - b.curves(sizes)
    return float((differences > 0).all(axis=1).mean()), float((differences < 0).all(axis=1).mean())


def json_text(conclusion: PairConclusion, a: Sweep, b: Sweep, *, sentences: Sequence[str]) -> str:
    """The content of `comparison.json`: what was compared, every figure, the answers in words; accuracies are 0..1."""
    curves = conclusion.curves
    plain: dict[str, Any] = {
        "names": list(conclusion.names),
        "runs": [str(a.path), str(b.path)],
        "differ_in": [asdict(each) for each in conclusion.settings],
        "chance_accuracy": a.chance_accuracy,
        "num_test": a.num_test,
        "sizes": [asdict(size) for size in conclusion.sizes],
        "shares_throughout": list(conclusion.shares_throughout),
        "crossings": None if curves.crossings is None else asdict(curves.crossings),
        "equivalences": [asdict(each) for each in curves.equivalences],
        "refusals": [curves.a_refusal, curves.b_refusal],
        "notes": [list(fit.notes) for fit in conclusion.fits],
        "sentences": list(sentences),
    }
    return json.dumps(finite(plain), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
