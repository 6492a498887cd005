"""Curves that are known, measured with known noise, and what the fit says of sizes that it has not seen."""

import numpy as np
import pytest

from cvtrain.analysis.learning_curve.fit import fit_curve
from cvtrain.analysis.learning_curve.points import CurvePoint
from cvtrain.analysis.learning_curve.saturating import hill, saturating

CHANCE_ERROR = 0.9
SIZES = (10, 20, 50, 100, 200, 500)


def m4_curve(rng):
    """Any of the family: from power laws to logistics, some still at chance at 20 per class, some near their end."""
    parameters = [rng.uniform(-1.5, 0.5), rng.uniform(0.3, 0.8), rng.uniform(0, 1.2), rng.uniform(0, 0.2)]
    form = saturating(CHANCE_ERROR)
    return lambda sizes: form.errors_at(np.array([parameters]), sizes)[0]


def power_law(rng):
    floor, exponent, at_100 = rng.uniform(0, 0.15), rng.uniform(0.2, 0.6), rng.uniform(0.25, 0.5)
    return lambda sizes: np.minimum(floor + (at_100 - floor) * (sizes / 100) ** -exponent, CHANCE_ERROR)


def hill_curve(rng):
    parameters = [rng.uniform(-1.5, 1.5), rng.uniform(0.3, 0.9), 1, 0]
    form = hill(CHANCE_ERROR)
    return lambda sizes: form.errors_at(np.array([parameters]), sizes)[0]


def measured(errors, sizes, *, rng, num_runs, variance=0.005):
    """Points whose runs scatter by `2e-6 + variance / n`; half of it is the replicate's, at all sizes."""
    of_replicate = rng.normal(size=max(num_runs))
    points = []
    for size, error, runs in zip(sizes, errors, num_runs, strict=True):
        noise = np.sqrt(0.5) * (of_replicate[:runs] + rng.normal(size=runs)) * np.sqrt(2e-6 + variance / size)
        points.append(CurvePoint(size, dict(enumerate(np.clip(1 - error + noise, 0, 1).tolist()))))
    return points


def held_out(curve_of, num_draws, *, num_runs, seed=0):
    """Of each draw: whether the intervals at 2x and 4x hold the truth, at the sizes a new mean; misses, half-widths."""
    rng = np.random.default_rng(seed)
    inside, ahead = np.array(SIZES, float), SIZES[-1] * np.array([2.0, 4.0])
    hits, hits_inside, misses, halves, misses_log_linear = [], [], [], [], []
    for _ in range(num_draws):
        curve = curve_of(rng)
        points = measured(curve(inside), SIZES, rng=rng, num_runs=num_runs)
        fit = fit_curve(points, chance_accuracy=1 - CHANCE_ERROR, num_test=10_000, num_curves=200)
        low, high = fit.interval(np.concatenate([inside, ahead]))
        truth = 1 - curve(ahead)
        hits.append((low[-2:] <= truth) & (truth <= high[-2:]))
        again = measured(curve(inside), SIZES, rng=rng, num_runs=[num_runs[-1]] * len(SIZES))
        means = np.array([point.mean_accuracy for point in again])
        hits_inside.append((low[:-2] <= means) & (means <= high[:-2]))
        misses.append(fit.accuracy(ahead) - truth)
        misses_log_linear.append(fit.form_accuracy("log_linear", ahead) - truth)
        halves.append((high - low)[-2:] / 2)
    return tuple(map(np.array, (hits, hits_inside, misses, halves, misses_log_linear)))


@pytest.mark.long
def test_intervals_ahead_cover_m4_curves_as_often_as_they_say():
    hits, hits_inside, misses, _, misses_log_linear = held_out(m4_curve, 500, num_runs=(20, 20, 20, 10, 10, 10))
    assert ((hits.mean(axis=0) > 0.90) & (hits.mean(axis=0) < 0.99)).all(), hits.mean(axis=0)
    assert 0.90 < hits_inside.mean() < 0.99
    assert (np.median(np.abs(misses), axis=0) < 0.25 * np.median(np.abs(misses_log_linear), axis=0)).all()


@pytest.mark.parametrize("curve_of", [power_law, hill_curve])
def test_intervals_ahead_cover_the_ends_of_the_family_and_stay_useful(curve_of):
    hits, hits_inside, misses, halves, _ = held_out(curve_of, 100, num_runs=(3,) * 6)
    assert (hits.mean(axis=0) > 0.94).all(), hits.mean(axis=0)
    assert 0.88 < hits_inside.mean() < 0.99
    assert (np.sqrt((misses**2).mean(axis=0)) < [0.006, 0.01]).all()
    assert (np.median(halves, axis=0) < [0.02, 0.03]).all()


def test_intervals_with_one_run_per_size_are_wide_enough_on_the_assumed_scatter():
    hits, hits_inside, _, halves, _ = held_out(m4_curve, 60, num_runs=(1,) * 6)
    assert (hits.mean(axis=0) > 0.92).all(), hits.mean(axis=0)
    assert hits_inside.mean() > 0.95
    assert (np.median(halves, axis=0) < [0.03, 0.05]).all()


# Test errors in per cent by images per class. CIFAR-100, from the data beside Hoiem et al. 2021 (arXiv 2010.11029).
CIFAR100 = {
    "from scratch": {
        25: (74.04, 74.48, 74.07, 74.4, 75.95, 74.97, 74.02, 75.8, 74.6, 74.27),
        50: (57.59, 58.45, 58.13, 58.44, 59.46, 58.14, 58.71, 58.22),
        100: (45.01, 43.64, 45.06, 44.63),
        200: (35.36, 35.2),
        400: (27.92,),
    },
    "pretrained": {
        25: (42.91, 40.49, 42.38, 47.9, 46.75, 47.4, 44.3, 45.67, 46.62, 42.71),
        50: (32.35, 32.77, 32.17, 31.63, 32.6, 32.73, 32.57, 31.93),
        100: (26.37, 26.43, 26.47, 26.37),
        200: (21.72, 22.48),
        400: (18.88,),
    },
    "pretrained, linear": {
        25: (45.03, 45.59, 45.68, 45.42, 46.04, 46.11, 45.37, 45.49, 45.4, 46.18),
        50: (40.76, 40.66, 41.36, 40.87, 40.34, 40.93, 41.1, 40.79),
        100: (37.35, 37.4, 37.61, 37.7),
        200: (34.67, 34.59),
        400: (32.4,),
    },
}


@pytest.mark.parametrize("name", CIFAR100)
def test_published_curves_are_predicted_from_their_small_sizes(name):
    figures = {
        size: CurvePoint(size, {i: 1 - error / 100 for i, error in enumerate(errors)})
        for size, errors in CIFAR100[name].items()
    }
    largest = figures.pop(400)
    for sizes, tolerance in (((25, 50, 100), 0.025), ((25, 50, 100, 200), 0.012)):
        fit = fit_curve([figures[size] for size in sizes], chance_accuracy=0.01, num_test=10_000)
        low, high = fit.interval([400])
        assert low[0] <= largest.mean_accuracy <= high[0]
        assert abs(fit.accuracy([400])[0] - largest.mean_accuracy) < tolerance
        assert abs(fit.form_accuracy("log_linear", [400])[0] - largest.mean_accuracy) > tolerance


def test_a_curve_that_has_just_left_chance_is_predicted_better_than_by_power_laws():
    # Mean and standard deviation in per cent by images per class, of the shape that a residual network shows on
    # CIFAR-10 with 10 to 320 images in all: the curve steepens as it leaves chance, and is at 49 % at 128 per class.
    means = {1: (14.6, 2.0), 2: (17.5, 2.5), 4: (19.5, 1.4), 8: (23.3, 1.6), 16: (28.3, 1.4), 32: (33.2, 1.2)}
    normal = np.random.default_rng(0).normal(size=20)
    normal = (normal - normal.mean()) / normal.std(ddof=1)
    points = [CurvePoint(n, dict(enumerate((mean + sd * normal) / 100))) for n, (mean, sd) in means.items()]
    fit = fit_curve(points, chance_accuracy=0.1, num_test=10_000)
    low, high = fit.interval([128])
    assert low[0] <= 0.49 <= high[0]
    miss = abs(fit.accuracy([128])[0] - 0.49)
    assert miss < 0.045
    assert abs(fit.form_accuracy("hoiem", [128])[0] - 0.49) > 2 * miss
    assert {form.name: form.weight for form in fit.forms}["hoiem"] < 0.15
