"""How far runs scatter at each size, what the measured curve could as well have been, and which sizes are at chance.

Knows points; not what curve goes through them.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cvtrain.analysis.learning_curve.points import CurvePoint

FLOOR_VARIANCE = 2e-6
"""Of one run, whatever its size. Source: Hoiem et al. 2021 (arXiv 2010.11029), 0.02 in squared points."""

TYPICAL_VARIANCE = 0.1
"""Of one run, times all its labelled images. With 10 classes a run then scatters by 3.2 points at 10 images per class,
1.0 at 100, 0.3 at 1,000: rather more than image classifiers usually do."""

PRIOR_DEGREES = 4
"""Runs' worth of belief in the smooth line of variances, against the scatter that a size shows itself."""

CHANCE_ALPHA = 1e-3


@dataclass(frozen=True)
class RunSpread:
    """The variance of one run's accuracy.

    Args:
        per_size: (k,), at the measured sizes.
        slope: v_1 of `v_0 + v_1 / n`, the smooth line of variances.
        num_degrees: Degrees of freedom that the replicates gave: 0 where every size has one run.
    """

    per_size: np.ndarray
    slope: float
    num_degrees: int

    def at(self, sizes: np.ndarray) -> np.ndarray:
        """On the smooth line, (m,)."""
        return FLOOR_VARIANCE + self.slope / np.asarray(sizes, dtype=np.float64)


def run_spread(points: Sequence[CurvePoint], chance_accuracy: float) -> RunSpread:
    """The variance of one run at each size: what replicates show, drawn towards a line in 1 / n.

    The line is fitted to the sizes with two runs or more. With few runs it leans on `TYPICAL_VARIANCE`; without any it
    is that. A size with many runs is believed itself: near chance, runs scatter less than the line says.

    Source: Hoiem et al. 2021 (arXiv 2010.11029), section 4, for the line; Smyth 2004 (Statistical Applications in
    Genetics and Molecular Biology 3:3), section 4, for drawing towards it.
    """
    sizes = np.array([point.per_class for point in points], dtype=np.float64)
    degrees = np.array([point.num_replicates - 1 for point in points])
    own = np.array([np.var(list(p.accuracies.values()), ddof=1) if p.num_replicates > 1 else 0.0 for p in points])
    typical = TYPICAL_VARIANCE * chance_accuracy
    num_degrees = int(degrees.sum())
    slope = typical
    if num_degrees:
        seen = max(0.0, (degrees * (own - FLOOR_VARIANCE) / sizes).sum() / (degrees / sizes**2).sum())
        belief = num_degrees / (num_degrees + PRIOR_DEGREES)
        slope = belief * seen + (1 - belief) * typical
    line = FLOOR_VARIANCE + slope / sizes
    per_size = (PRIOR_DEGREES * line + degrees * own) / (PRIOR_DEGREES + degrees)
    return RunSpread(np.maximum(per_size, FLOOR_VARIANCE), slope, num_degrees)


def resampled_errors(points: Sequence[CurvePoint], sds: np.ndarray, *, num_curves: int, seed: int) -> np.ndarray:
    """Mean errors (num_curves, k) that could as well have been measured.

    Replicates are weighted anew as a whole, because what a replicate draws well or badly it does at all sizes. The
    weights belong to the replicate's number: every size keeps all its runs, and two curves that share replicates and
    seed are weighted alike, as paired curves must be. What this shows less than `sds` say (one run per size shows
    nothing) is made up by noise of its own at each size, which two curves do not share.

    Source: Rubin 1981, The Annals of Statistics 9, 130-134 (the Bayesian bootstrap).

    Args:
        points: k sizes.
        sds: (k,), standard errors of the means.
        num_curves: B.
        seed: Of the weights and the noise.
    """
    replicates = sorted({replicate for point in points for replicate in point.accuracies})
    weights = {r: np.random.default_rng([seed, r]).exponential(size=num_curves) for r in replicates}
    means, shown = np.empty((num_curves, len(points))), np.empty(len(points))
    for i, point in enumerate(points):
        errors = 1 - np.array(list(point.accuracies.values()))
        of_point = np.stack([weights[replicate] for replicate in point.accuracies], axis=1)
        means[:, i] = (of_point * errors).sum(axis=1) / of_point.sum(axis=1)
        shown[i] = ((errors - errors.mean()) ** 2).mean() / (len(errors) + 1)
    noise = np.random.default_rng([seed, key_of(points)]).normal(size=means.shape)
    return np.clip(means + noise * np.sqrt(np.maximum(sds**2 - shown, 0)), 0, 1)


def key_of(points: Sequence[CurvePoint]) -> int:
    """A number that another curve has by accident only: what seeds the noise that curves do not share."""
    figures = [(point.per_class, *sorted(point.accuracies.items())) for point in points]
    return zlib.crc32(repr(figures).encode())


def is_above_chance(points: Sequence[CurvePoint], *, chance_accuracy: float, num_test: int) -> np.ndarray:
    """Whether the mean accuracy of each size (k,) is too high for guessing, by the exact binomial upper tail."""
    from scipy.special import bdtrc

    num_correct = np.array([round(point.mean_accuracy * num_test) for point in points], dtype=np.float64)
    tails = np.where(num_correct > 0, bdtrc(np.maximum(num_correct - 1, 0), num_test, chance_accuracy), 1.0)
    return tails <= CHANCE_ALPHA
