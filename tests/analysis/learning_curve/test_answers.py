import json
from dataclasses import asdict

import numpy as np
import pytest

from cvtrain.analysis.learning_curve.answers import (
    ahead,
    elbow,
    first_size_reaching,
    gains,
    images_for_accuracy,
    median_and_interval,
    size_grid,
    whole_images,
)
from cvtrain.analysis.learning_curve.fit import fit_curve
from cvtrain.analysis.learning_curve.points import CurvePoint, points_of

SIZES = [10, 20, 50, 100, 200, 500, 1000]


def power_law(n, *, limit=0.95, scale=1.6, exponent=0.4):
    return limit - scale * np.asarray(n, dtype=float) ** -exponent


def log_linear_curve(n, *, start=0.25, gain=0.07):
    return start + gain * np.log2(np.asarray(n, dtype=float) / 10)


def measured(curve, *, sizes=SIZES, num_replicates=5, variance=0.01, seed=0):
    """Points of a curve; a replicate is lucky at all sizes alike in a third of its variance `variance / n`."""
    rng = np.random.default_rng(seed)
    luck = np.sqrt(1 / 3) * rng.normal(size=(num_replicates, 1))
    luck = luck + np.sqrt(2 / 3) * rng.normal(size=(num_replicates, len(sizes)))
    accuracies = np.clip(curve(sizes) + luck * np.sqrt(variance / np.asarray(sizes)), 0, 1)
    return points_of([(n, r, float(accuracies[r, i])) for i, n in enumerate(sizes) for r in range(num_replicates)])


def fitted(points, *, chance_accuracy=0.1, num_curves=300, seed=0):
    return fit_curve(points, chance_accuracy=chance_accuracy, num_test=10_000, num_curves=num_curves, seed=seed)


@pytest.fixture(scope="module")
def precise():
    return fitted(measured(power_law, variance=1e-5))


@pytest.fixture(scope="module")
def noisy():
    return fitted(measured(power_law, variance=0.2, seed=1))


def test_first_size_reaching_inverts_straight_lines_exactly():
    sizes = size_grid(10, 1000)
    slopes = np.array([0.05, 0.1, 0.01])
    curves = 0.3 + slopes[:, None] * np.log(sizes / 10)
    wanted = np.array([0.4, 0.35, 0.34])
    expected = 10 * np.exp((wanted - 0.3) / slopes)
    assert first_size_reaching(sizes, curves, target=wanted) == pytest.approx(expected)
    assert first_size_reaching(sizes, curves, target=0.36)[2] == np.inf
    assert list(first_size_reaching(sizes, curves, target=0.2)) == [10, 10, 10]


def test_first_size_reaching_takes_the_first_and_crosses_a_step_where_it_is():
    sizes = np.array([1.0, 2.0, 4.0, 8.0, 16.0])
    curves = np.array([[0.1, 0.1, 0.5, 0.5, 0.9], [0.1, 0.6, 0.2, 0.7, 0.1]])
    assert first_size_reaching(sizes, curves, target=0.5) == pytest.approx([4, 2**0.8])


def test_size_grid_holds_both_ends_and_has_small_steps():
    sizes = size_grid(10, 5000)
    assert (sizes[0], sizes[-1]) == (10, 5000)
    assert (sizes[1:] / sizes[:-1]).max() < 1.031
    assert list(size_grid(7, 7)) == [7, 7]


def test_infinite_values_count_in_quantiles_and_do_no_harm():
    assert median_and_interval(np.array([1.0, 2.0, 3.0, np.inf, np.inf]), level=0.9) == (3.0, 1.0, np.inf)
    assert median_and_interval(np.array([np.inf, 2.0, np.inf]), level=0.9) == (np.inf, 2.0, np.inf)
    assert [whole_images(size) for size in (99.2, 500.0000001, 500.4, np.inf, -np.inf)] == [100, 500, 501, None, None]


@pytest.mark.parametrize(
    ("size", "status"),
    [(5, "reached_at_smallest"), (75, "measured"), (700, "measured"), (2500, "extrapolated"), (7000, "far")],
)
def test_images_for_the_accuracy_of_a_known_curve_are_found(precise, size, status):
    result = images_for_accuracy(precise, float(power_law(size)))
    assert result.status == status
    assert result.low <= result.per_class <= (result.high or np.inf)
    if status == "reached_at_smallest":
        assert result.per_class == result.low == result.high == result.sure_per_class == 10
    else:
        assert result.per_class == pytest.approx(size, rel=0.02 if size <= 1000 else 0.15)
        assert result.low <= size <= (result.high or np.inf)
    assert result.limit.per_class == 10_000


def test_what_no_curve_reaches_is_not_reachable_and_the_limit_is_told(precise):
    result = images_for_accuracy(precise, 0.995)
    assert (result.status, result.per_class, result.high, result.sure_per_class) == ("not_reachable", None, None, None)
    assert result.share_never > 0.9
    assert result.limit.per_class == 10_000
    assert result.limit.low < power_law(10_000) < result.limit.high


def test_looking_further_needs_to_be_asked_for(precise):
    target = float(power_law(30_000))
    assert images_for_accuracy(precise, target).status == "not_reachable"
    further = images_for_accuracy(precise, target, max_factor=100)
    assert further.status == "far"
    assert further.limit.per_class == 100_000


def test_interval_has_no_upper_end_where_curves_fail_to_reach(noisy):
    shares = {}
    for target in np.arange(0.80, 0.96, 0.02):
        result = images_for_accuracy(noisy, float(target))
        shares[result.status] = result.share_never
        assert (result.high is None) == (result.share_never > 0.05)
        assert (result.per_class is None) == (result.share_never > 0.5)
        assert (result.low is None) == (result.share_never > 0.95)
    assert any(0.05 < share < 0.5 for share in shares.values())


def test_sure_size_lies_above_the_interval_and_its_lower_bound_reaches_the_target(noisy):
    result = images_for_accuracy(noisy, 0.78)
    assert result.per_class < result.high <= result.sure_per_class
    low, _ = noisy.interval(np.array([result.sure_per_class], dtype=float), level=0.9)
    assert low[0] >= 0.78 - 1e-3


def test_a_fit_that_refuses_answers_within_the_measured_sizes_alone():
    fit = fitted(measured(power_law, sizes=[50, 100, 200], variance=1e-4))
    assert fit.refusal
    inside = images_for_accuracy(fit, float(power_law(120)))
    assert (inside.status, inside.reason, inside.limit.per_class) == ("measured", None, 200)
    assert inside.per_class == pytest.approx(120, rel=0.1)
    beyond = images_for_accuracy(fit, float(power_law(400)))
    assert (beyond.status, beyond.reason) == ("refused", fit.refusal)
    assert (beyond.per_class, beyond.high, beyond.sure_per_class) == (None, None, None)
    for result in ahead(fit):
        assert (result.accuracy, result.low, result.high, result.reason) == (None, None, None, fit.refusal)


@pytest.mark.parametrize(
    ("size", "curve", "chance_accuracy", "num_replicates"),
    [
        (300, power_law, 0.1, 5),
        (300, power_law, 0.1, 1),
        (1500, power_law, 0.1, 5),
        (300, lambda n: power_law(n, limit=0.98, scale=0.9, exponent=0.35), 0.5, 5),
    ],
    ids=["measured", "one_replicate", "extrapolated", "two_classes"],
)
def test_interval_of_images_covers_the_truth(size, curve, chance_accuracy, num_replicates):
    target, num_draws = float(curve(size)), 25
    num_covered = 0
    for seed in range(num_draws):
        points = measured(curve, num_replicates=num_replicates, seed=seed)
        fit = fitted(points, chance_accuracy=chance_accuracy, num_curves=100, seed=seed)
        result = images_for_accuracy(fit, target, max_factor=4)
        num_covered += result.low is not None and result.low <= size <= (result.high or np.inf)
    assert num_covered >= 0.8 * num_draws  # 90 % but for luck


@pytest.mark.parametrize("target", [0, -0.1, 85, float("nan")])
def test_what_is_no_accuracy_is_refused(precise, target):
    with pytest.raises(ValueError, match="an accuracy lies above 0"):
        images_for_accuracy(precise, target)


def test_factors_below_one_are_refused(precise):
    with pytest.raises(ValueError, match="start at 1"):
        images_for_accuracy(precise, 0.8, max_factor=0.5)
    with pytest.raises(ValueError, match="start at 1"):
        ahead(precise, (2, 0.1))


@pytest.mark.parametrize(("num_replicates", "gain"), [(1, 0.07), (3, 0.02), (5, 0.07), (10, 0.01)])
def test_a_straight_line_has_no_elbow(num_replicates, gain):
    curve = lambda n: log_linear_curve(n, gain=gain)  # noqa: E731
    results = [
        elbow(fitted(measured(curve, num_replicates=num_replicates, seed=seed), num_curves=10)) for seed in range(30)
    ]
    none = [result for result in results if result.status == "none"]
    assert len(none) >= 0.9 * len(results)
    assert all(result.per_class is None and result.low is None and result.high is None for result in none)
    covered = [result.log_linear.low <= gain <= result.log_linear.high for result in results]
    assert np.mean(covered) >= 0.8


def test_elbow_of_a_saturating_curve_is_where_its_formula_says():
    # acc(2n) - acc(n) = scale * (1 - 2**-c) * n**-c, which is the gain at:
    true = (1.6 * (1 - 2**-0.4) / 0.04) ** (1 / 0.4)
    results = [elbow(fitted(measured(power_law, seed=seed), num_curves=150), gain=0.04) for seed in range(20)]
    found = [result for result in results if result.status == "found"]
    assert len(found) == len(results)
    assert np.median([result.per_class for result in found]) == pytest.approx(true, rel=0.1)
    covered = [(result.low or 0) <= true <= (result.high or np.inf) for result in found]
    assert np.mean(covered) >= 0.8


def test_elbow_outside_the_measured_doublings_is_not_invented(precise):
    last_gain, first_gain = (float(power_law(2 * n) - power_law(n)) for n in (500, 10))
    beyond = elbow(precise, gain=0.8 * last_gain)
    assert (beyond.status, beyond.per_class, beyond.low, beyond.high) == ("beyond", None, None, None)
    before = elbow(precise, gain=1.2 * first_gain)
    assert (before.status, before.per_class, before.low, before.high) == ("before", None, None, None)


def test_a_slow_start_near_chance_is_no_elbow():
    # Hardly above chance up to 50 images, then steep, then flat: only the last fall below 5 points counts.
    curve = lambda n: 0.1 + 0.85 / (1 + (200 / np.asarray(n, dtype=float)) ** 2)  # noqa: E731
    fit = fitted(measured(curve, sizes=[10, 20, 50, 100, 200, 500, 1000, 2000], variance=0.002))
    gained = np.diff(curve([10, 20]))[0]
    assert gained < 0.05
    result = elbow(fit, gain=0.05)
    assert result.status == "found"
    assert 400 < result.per_class < 1000


def test_elbow_needs_three_sizes_and_a_doubling():
    for sizes, reason in [([10, 20], "fewer than three"), ([100, 120, 150], "nothing is doubled")]:
        result = elbow(fitted(measured(power_law, sizes=sizes)))
        assert result.status == "refused"
        assert reason in result.reason
    with pytest.raises(ValueError, match="above 0"):
        elbow(fitted(measured(power_law)), gain=0)


def test_gains_are_per_doubling_and_paired():
    points = (
        CurvePoint(10, {0: 0.30, 1: 0.20, 2: 0.90}),
        CurvePoint(40, {0: 0.42, 1: 0.34}),
        CurvePoint(80, {5: 0.5}),
    )
    first, second = gains(fitted(points))
    assert (first.per_class, first.next_per_class, first.measured.num_values) == (10, 40, 2)
    assert first.measured.mean == pytest.approx(0.065)  # half of 0.12 and of 0.14
    assert (first.measured.low, first.measured.high) == pytest.approx(
        (0.065 - 12.706205 * 0.005, 0.065 + 12.706205 * 0.005)
    )
    assert (second.per_class, second.next_per_class, second.measured) == (40, 80, None)


def test_fitted_gains_are_those_of_the_curve(precise):
    for result in gains(precise):
        num_doublings = np.log2(result.next_per_class / result.per_class)
        true = float(power_law(result.next_per_class) - power_law(result.per_class)) / num_doublings
        assert result.fitted == pytest.approx(true, abs=0.01)


def test_ahead_holds_the_truth_at_twice_and_four_times_the_largest_size():
    hits = []
    for seed in range(20):
        results = ahead(fitted(measured(power_law, seed=seed), num_curves=150))
        assert [(result.factor, result.per_class) for result in results] == [(2.0, 2000), (4.0, 4000)]
        hits += [result.low <= power_law(result.per_class) <= result.high for result in results]
        assert all(result.low <= result.accuracy <= result.high for result in results)
    assert np.mean(hits) >= 0.85


@pytest.mark.parametrize("accuracy", [0.1, 0.9, 1.0])
def test_a_flat_curve_neither_fails_nor_bends(accuracy):
    points = tuple(CurvePoint(n, dict.fromkeys(range(3), accuracy)) for n in SIZES)
    fit = fitted(points)
    assert elbow(fit).status == "none"
    assert images_for_accuracy(fit, 0.05).status == "reached_at_smallest"
    assert [result.fitted for result in gains(fit)] == pytest.approx([0] * (len(SIZES) - 1), abs=0.02)


def test_answers_can_be_written_as_json(precise):
    answers = [images_for_accuracy(precise, 0.8), images_for_accuracy(precise, 0.995), elbow(precise)]
    for answer in (*answers, *gains(precise), *ahead(precise)):
        assert json.loads(json.dumps(asdict(answer), allow_nan=False)) == asdict(answer)
