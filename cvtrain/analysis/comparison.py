"""Whether one set of runs is better than another: means, intervals, paired tests, many comparisons at once.

Knows figures with keys that pair them; not what they measure or where they come from.

What a seed changes (split, initialisation, order, augmentation) is the only randomness here: a result holds for these
data and these test images, and an interval says how it would move with other seeds.
Source: Bouthillier et al. 2021 (arXiv 2103.03098), sections 3 and 4.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

MAX_EXACT_PAIRS = 12
"""Up to here all `2**n` sign flips are counted (4,096 of them); above, `NUM_RANDOM_FLIPS` are drawn."""

NUM_RANDOM_FLIPS = 10_000


@dataclass(frozen=True)
class MeanResult:
    """A mean and how sure it is.

    Args:
        num_values: At least 1.
        mean: Of the values.
        sd: With `n - 1`; None for one value.
        low: Lower end of the interval; None for one value.
        high: Upper end.
    """

    num_values: int
    mean: float
    sd: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class PairedDifferenceResult:
    """How much larger A is than B, over pairs.

    Args:
        num_pairs: Keys that both have.
        num_unpaired: Keys that only one has: left out.
        difference: Mean and interval of A - B; None without pairs.
        p_value: Two-sided, sign-flip permutation; None with fewer than two pairs.
        probability_greater: Share of pairs in which A is larger; None without pairs.
    """

    num_pairs: int
    num_unpaired: int
    difference: MeanResult | None
    p_value: float | None
    probability_greater: float | None


def mean_and_sd(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean, and standard deviation with `n - 1`: None for one value, exactly 0 where all are equal.

    Raises:
        ValueError: There are no values, or one is not finite.
    """
    array = _checked(values)
    if np.ptp(array) == 0:
        return float(array[0]), 0.0 if len(array) > 1 else None  # rounding of the mean makes no spread
    return float(array.mean()), float(array.std(ddof=1))


def mean_interval(values: Sequence[float], *, level: float = 0.95) -> MeanResult:
    """The mean with its t interval.

    Source: Student 1908, Biometrika 6.

    Args:
        values: At least one; one has no interval.
        level: 0..1, share of such intervals that hold the true mean.

    Raises:
        ValueError: There are no values, or one is not finite.
    """
    mean, sd = mean_and_sd(values)
    if sd is None:
        return MeanResult(1, mean, None, None, None)
    from scipy.special import stdtrit

    half = float(stdtrit(len(values) - 1, 0.5 + level / 2)) * sd / math.sqrt(len(values))
    return MeanResult(len(values), mean, sd, mean - half, mean + half)


def paired_difference(
    a: Mapping[Hashable, float], b: Mapping[Hashable, float], *, level: float = 0.95
) -> PairedDifferenceResult:
    """Compares two sets of figures pair by pair, so that what both share (seed, split) cancels.

    Source: Bouthillier et al. 2021 (arXiv 2103.03098), section 4: pair the runs, judge by P(A>B).

    Args:
        a: Figure of each key, e.g. test accuracy 0..1 by seed.
        b: The same.
        level: Of the t interval.

    Raises:
        ValueError: A figure is not finite.
    """
    keys = [key for key in a if key in b]
    num_unpaired = len(a) + len(b) - 2 * len(keys)
    if not keys:
        return PairedDifferenceResult(0, num_unpaired, None, None, None)
    differences = [a[key] - b[key] for key in keys]
    return PairedDifferenceResult(
        num_pairs=len(keys),
        num_unpaired=num_unpaired,
        difference=mean_interval(differences, level=level),
        p_value=sign_flip_p_value(differences) if len(keys) > 1 else None,
        probability_greater=probability_greater(differences),
    )


def probability_greater(differences: Sequence[float]) -> float:
    """P(A>B): the share of differences above 0; a tie is half a win.

    Source: Bouthillier et al. 2021 (arXiv 2103.03098), equation 9; ties as in Mann & Whitney 1947.

    Raises:
        ValueError: There are none, or one is not finite.
    """
    array = _checked(differences)
    return float(((array > 0).sum() + 0.5 * (array == 0).sum()) / len(array))


def sign_flip_p_value(differences: Sequence[float], *, seed: int = 0) -> float:
    """Two-sided p-value of "the differences are as likely negative as positive".

    Exact for up to `MAX_EXACT_PAIRS` differences; above it, from random flips, of which what was seen counts as one.

    Source: Fisher 1935, The Design of Experiments, section 21; Phipson & Smyth 2010 (p is never 0).

    Args:
        differences: At least one.
        seed: Of the random flips.

    Raises:
        ValueError: There are none, or one is not finite.
    """
    array = _checked(differences)
    n = len(array)
    is_exact = n <= MAX_EXACT_PAIRS
    if is_exact:
        is_flipped = (np.arange(2**n)[:, None] >> np.arange(n)) & 1
    else:
        is_flipped = np.random.default_rng(seed).integers(0, 2, size=(NUM_RANDOM_FLIPS, n))
    sums = np.abs((1 - 2 * is_flipped) @ array)
    # Flips with equal sums must stay equal although their terms are added in another order.
    as_extreme = int((sums >= abs(array.sum()) - 1e-12 * np.abs(array).sum()).sum())
    return as_extreme / 2**n if is_exact else (as_extreme + 1) / (NUM_RANDOM_FLIPS + 1)


def smallest_p_value(num_pairs: int) -> float:
    """The smallest p-value that `sign_flip_p_value` can give: all differences have one sign."""
    if num_pairs < 1:
        return 1.0
    return 2 / 2**num_pairs if num_pairs <= MAX_EXACT_PAIRS else 1 / (NUM_RANDOM_FLIPS + 1)


def pairs_needed(num_comparisons: int, *, alpha: float = 0.05) -> int | None:
    """The fewest pairs with which one of several comparisons can pass Holm's test; None where no number can."""
    return next(
        (n for n in range(2, MAX_EXACT_PAIRS + 2) if smallest_p_value(n) * num_comparisons < alpha),
        None,
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values, in the given order: below alpha, all such claims together err with probability alpha.

    Source: Holm 1979, Scandinavian Journal of Statistics 6, 65-70.

    Args:
        p_values: Of all comparisons of the family, each 0..1.

    Raises:
        ValueError: One is outside of 0..1.
    """
    if not all(0 <= p <= 1 for p in p_values):
        raise ValueError(f"p-values lie in 0..1, not {list(p_values)}")
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = largest
    return adjusted


def _checked(values: Sequence[float]) -> np.ndarray:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or not len(array) or not np.isfinite(array).all():
        raise ValueError(f"one or more finite numbers are needed, not {values}")
    return array
