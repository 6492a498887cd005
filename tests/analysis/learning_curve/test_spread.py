import numpy as np
import pytest
import scipy.stats

from cvtrain.analysis.learning_curve.points import CurvePoint
from cvtrain.analysis.learning_curve.spread import (
    FLOOR_VARIANCE,
    is_above_chance,
    resampled_errors,
    run_spread,
)

SIZES = (10, 20, 50, 100, 200, 500)


def curve(num_runs, *, seed=0, shared=0.0, slope=0.005):
    """Runs that scatter by `2e-6 + slope / n`; the share `shared` of their variance is the replicate's."""
    rng = np.random.default_rng(seed)
    of_replicate = rng.normal(size=100)
    points = []
    for size, runs in zip(SIZES, num_runs, strict=True):
        noise = np.sqrt(shared) * of_replicate[:runs] + np.sqrt(1 - shared) * rng.normal(size=runs)
        accuracies = 0.2 + 0.1 * np.log(size) + noise * np.sqrt(FLOOR_VARIANCE + slope / size)
        points.append(CurvePoint(size, dict(enumerate(accuracies.tolist()))))
    return points


def test_variances_of_many_runs_are_found():
    spread = run_spread(curve([60] * 6), 0.1)
    assert spread.slope == pytest.approx(0.005, rel=0.2)
    assert spread.per_size == pytest.approx(FLOOR_VARIANCE + 0.005 / np.array(SIZES), rel=0.5)
    assert spread.num_degrees == 6 * 59
    assert spread.at(np.array([1000]))[0] == pytest.approx(FLOOR_VARIANCE + spread.slope / 1000)


def test_the_line_is_the_weighted_least_squares_line_through_the_floor():
    points = curve([20, 20, 1, 10, 2, 2])
    spread = run_spread(points, 0.1)
    x = np.array([1 / p.per_class for p in points if p.num_replicates > 1])
    y = np.array([np.var(list(p.accuracies.values()), ddof=1) for p in points if p.num_replicates > 1])
    weights = np.array([19, 19, 9, 1, 1])
    line = np.linalg.lstsq((x * np.sqrt(weights))[:, None], (y - FLOOR_VARIANCE) * np.sqrt(weights), rcond=None)[0][0]
    assert spread.slope == pytest.approx((49 * line + 4 * 0.01) / 53)


def test_one_run_per_size_takes_the_assumed_scatter_of_as_many_images():
    ten, two = run_spread(curve([1] * 6), 0.1), run_spread(curve([1] * 6), 0.5)
    assert ten.num_degrees == 0
    assert np.sqrt(ten.per_size[3]) == pytest.approx(0.01, rel=0.02)  # 1 point at 100 images of each of 10 classes
    assert two.slope == pytest.approx(5 * ten.slope)


def test_a_size_that_scatters_more_than_the_line_is_believed():
    points = curve([20] * 6, slope=0.0005)
    wild = {i: 0.5 + 0.05 * (-1) ** i for i in range(20)}
    points[4] = CurvePoint(200, wild)
    assert run_spread(points, 0.1).per_size[4] > 0.7 * 0.05**2


def test_equal_runs_keep_the_floor():
    points = [CurvePoint(size, dict.fromkeys(range(50), 1.0)) for size in SIZES]
    assert (run_spread(points, 0.1).per_size >= FLOOR_VARIANCE).all()


@pytest.mark.parametrize("num_runs", [(20, 20, 20, 10, 10, 10), (3,) * 6, (1,) * 6, (2, 1, 3, 1, 1, 5)])
def test_resampled_means_scatter_by_the_standard_errors_about_what_was_measured(num_runs):
    points = curve(num_runs)
    sds = np.sqrt(run_spread(points, 0.1).per_size / num_runs)
    resampled = resampled_errors(points, sds, num_curves=4000, seed=0)
    own = [np.std(list(p.accuracies.values())) / np.sqrt(p.num_replicates + 1) for p in points]
    assert resampled.std(axis=0) == pytest.approx(np.maximum(sds, own), rel=0.05)
    assert resampled.mean(axis=0) == pytest.approx([1 - p.mean_accuracy for p in points], abs=4 * sds.max() / 60)


def test_what_replicates_share_along_the_curve_is_resampled_together():
    correlations = {}
    for shared in (0.0, 0.9):
        points = curve([20] * 6, shared=shared)
        sds = np.sqrt(run_spread(points, 0.1).per_size / 20)
        correlations[shared] = np.corrcoef(resampled_errors(points, sds, num_curves=2000, seed=0).T)[0, 1]
    assert abs(correlations[0.0]) < 0.4
    assert correlations[0.9] > 0.6


def test_curves_that_share_replicates_are_weighted_alike_and_share_no_noise():
    a = curve([20] * 6)
    b = [CurvePoint(p.per_class, {r: x - 0.05 for r, x in p.accuracies.items() if r != 7}) for p in a]
    nothing, noise = np.zeros(6), np.full(6, 0.02)
    together = [resampled_errors(points, nothing, num_curves=500, seed=3)[:, 0] for points in (a, b)]
    assert np.corrcoef(together)[0, 1] > 0.9
    assert np.std(together[1] - together[0]) < 0.35 * np.std(together[0])
    alone = [
        resampled_errors(
            [CurvePoint(p.per_class, {0: p.accuracies[0]}) for p in points], noise, num_curves=2000, seed=3
        )
        for points in (a, b)
    ]
    assert abs(np.corrcoef(alone[0][:, 0], alone[1][:, 0])[0, 1]) < 0.1
    assert (resampled_errors(a, noise, num_curves=5, seed=3) == resampled_errors(a, noise, num_curves=5, seed=3)).all()


@pytest.mark.parametrize("num_classes", [2, 10, 1000])
def test_chance_is_told_by_the_exact_binomial_tail(num_classes):
    chance, num_test = 1 / num_classes, 2000
    counts = np.arange(0, 1300)
    points = [CurvePoint(i + 1, {0: count / num_test}) for i, count in enumerate(counts)]
    expected = scipy.stats.binom.sf(counts - 1, num_test, chance) <= 1e-3
    assert (is_above_chance(points, chance_accuracy=chance, num_test=num_test) == expected).all()
    assert expected.any()
    assert not expected.all()
