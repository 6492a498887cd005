"""Whether one trained model answers more of the same images right than another: McNemar's test and a bootstrap.

Knows which answers were right; neither models nor what the images show.

Images are the only randomness here: a result holds for two models as they are, on further images of the same kind. It
says nothing of what another seed would have made of them.
Source: Dietterich 1998, Neural Computation 10(7), sections 2 and 5.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

NUM_DRAWS = 10_000


@dataclass(frozen=True)
class PairedPredictionsResult:
    """How many more of the same images A answers right than B.

    Args:
        num_images: That both answered.
        num_only_a: Right by A alone.
        num_only_b: Right by B alone.
        accuracy_a: 0..1.
        accuracy_b: 0..1.
        difference: Accuracy of A less that of B, -1..1.
        low: Lower end of its interval.
        high: Upper end.
        p_value: Two-sided, of "images that one alone answers right are as likely A's as B's".
    """

    num_images: int
    num_only_a: int
    num_only_b: int
    accuracy_a: float
    accuracy_b: float
    difference: float
    low: float
    high: float
    p_value: float


def paired_predictions(
    is_right_a: np.ndarray, is_right_b: np.ndarray, *, level: float = 0.95, seed: int = 0
) -> PairedPredictionsResult:
    """Compares two models image by image.

    Args:
        is_right_a: bool `(N,)`, whether A answers each image right; N at least 1.
        is_right_b: The same of B, in the same order.
        level: Of the interval, 0..1.
        seed: Of the bootstrap.

    Raises:
        ValueError: The two are not of one length, empty, or not bool.
    """
    a, b = np.asarray(is_right_a), np.asarray(is_right_b)
    if a.ndim != 1 or a.shape != b.shape or not len(a) or a.dtype != np.bool_ or b.dtype != np.bool_:
        raise ValueError(f"two bool arrays of one length are needed, not {a.dtype} {a.shape} and {b.dtype} {b.shape}")
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    low, high = bootstrap_interval(only_a, only_b, num_images=len(a), level=level, seed=seed)
    return PairedPredictionsResult(
        num_images=len(a),
        num_only_a=only_a,
        num_only_b=only_b,
        accuracy_a=float(a.mean()),
        accuracy_b=float(b.mean()),
        difference=(only_a - only_b) / len(a),
        low=low,
        high=high,
        p_value=mcnemar_p_value(only_a, only_b),
    )


def mcnemar_p_value(num_only_a: int, num_only_b: int) -> float:
    """Two-sided p-value of McNemar's test in its exact form: a sign test on the images that tell the two apart.

    The exact form and not the mid-p one, which finds a little more: it never errs more often than it says, however few
    images tell the two apart, and a claim rests on that. With hundreds of such images both agree.

    Source: McNemar 1947, Psychometrika 12; Fagerland, Lydersen & Laake 2013, BMC Medical Research Methodology 13:91,
    which compares the forms.

    Args:
        num_only_a: Images that A alone answers right, at least 0.
        num_only_b: Images that B alone answers right, at least 0.

    Raises:
        ValueError: A count is negative.
    """
    if min(num_only_a, num_only_b) < 0:
        raise ValueError(f"counts are at least 0, not {num_only_a} and {num_only_b}")
    from scipy.special import bdtr

    return min(1.0, 2 * float(bdtr(min(num_only_a, num_only_b), num_only_a + num_only_b, 0.5)))


def bootstrap_interval(
    num_only_a: int, num_only_b: int, *, num_images: int, level: float = 0.95, seed: int = 0, num_draws: int = NUM_DRAWS
) -> tuple[float, float]:
    """The percentile interval of the difference in accuracy, over test images that are drawn again.

    An image counts 1, 0 or -1. To draw N images with replacement is to draw how many of each kind there are from a
    multinomial distribution, which is done here: the same draws in law, without N random numbers for each.

    Source: Efron & Tibshirani 1993, An Introduction to the Bootstrap, section 13.3.

    Args:
        num_only_a: Images that A alone answers right.
        num_only_b: Images that B alone answers right.
        num_images: All, at least 1.
        level: 0..1.
        seed: Of the draws.
        num_draws: How often the test images are drawn again.

    Raises:
        ValueError: The counts do not go together.
    """
    num_ties = num_images - num_only_a - num_only_b
    if min(num_only_a, num_only_b, num_ties) < 0 or num_images < 1:
        raise ValueError(f"{num_only_a} and {num_only_b} of {num_images} images cannot be")
    shares = np.array([num_only_a, num_only_b, num_ties]) / num_images
    counts = np.random.default_rng(seed).multinomial(num_images, shares, size=num_draws)
    differences = (counts[:, 0] - counts[:, 1]) / num_images
    low, high = np.quantile(differences, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
