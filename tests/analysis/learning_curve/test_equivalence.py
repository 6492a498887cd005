import json
from dataclasses import asdict

import numpy as np
import pytest

from cvtrain.analysis.comparison import holm, paired_difference
from cvtrain.analysis.learning_curve.equivalence import (
    compare_curves,
    crossings,
    crossings_of,
    data_equivalences,
    differences_by_size,
)
from cvtrain.analysis.learning_curve.fit import fit_curve
from cvtrain.analysis.learning_curve.points import CurvePoint, points_of

SIZES = [10, 20, 50, 100, 200, 500, 1000]
TEST = {"chance_accuracy": 0.1, "num_test": 10_000}


def hill(n, *, half, power):
    """From chance 0.1 to 1, half-way at `half` images."""
    return 1 - 0.9 / (1 + (np.asarray(n, dtype=float) / half) ** power)


def slow(n):
    return hill(n, half=20, power=0.5)


def fast(n):
    return hill(n, half=36, power=0.8)


TRUE_CROSSING = (36**0.8 / 20**0.5) ** (1 / 0.3)
"""Where (n / 20) ** 0.5 is (n / 36) ** 0.8."""


def shifted(n):
    """Needs 1.7 times the images of `slow` for every accuracy."""
    return slow(np.asarray(n, dtype=float) / 1.7)


def measured_pair(a, b, *, sizes=SIZES, num_replicates=5, variance=0.01, seed=0):
    """Points of two curves; half of the variance `variance / n` of a run is the replicate's luck, common to both."""
    rng = np.random.default_rng(seed)
    common = rng.normal(size=(num_replicates, len(sizes)))
    pair = []
    for curve in (a, b):
        luck = np.sqrt(0.5) * (common + rng.normal(size=common.shape))
        accuracies = np.clip(curve(sizes) + luck * np.sqrt(variance / np.asarray(sizes)), 0, 1)
        figures = [(n, r, float(accuracies[r, i])) for i, n in enumerate(sizes) for r in range(num_replicates)]
        pair.append(points_of(figures))
    return pair


def fitted_pair(a_points, b_points, *, num_curves=150, seed=0):
    return [fit_curve(points, num_curves=num_curves, seed=seed, **TEST) for points in (a_points, b_points)]


def test_differences_are_those_of_paired_runs_and_corrected_for_the_number_of_sizes():
    a, b = measured_pair(slow, shifted, num_replicates=6)
    results = differences_by_size(a, b)
    assert [result.per_class for result in results] == SIZES
    expected = [paired_difference(x.accuracies, y.accuracies) for x, y in zip(a, b, strict=True)]
    assert [result.paired for result in results] == expected
    assert [result.holm_p_value for result in results] == holm([result.p_value for result in expected])


def test_only_common_sizes_are_compared_and_single_pairs_have_no_p_value():
    a = (CurvePoint(10, {0: 0.5}), CurvePoint(20, {0: 0.6, 1: 0.61}), CurvePoint(40, {0: 0.7}))
    b = (CurvePoint(20, {1: 0.5, 0: 0.55}), CurvePoint(40, {0: 0.6}), CurvePoint(80, {0: 0.8}))
    first, second = differences_by_size(a, b)
    assert (first.per_class, second.per_class) == (20, 40)
    assert first.paired.difference.mean == pytest.approx(0.08)
    assert first.holm_p_value == first.paired.p_value == 0.5
    assert (second.paired.num_pairs, second.holm_p_value) == (1, None)


def test_crossing_of_known_shares_is_where_they_say():
    sizes = 10 * 2.0 ** np.arange(9)
    shares = np.array([1, 0.995, 0.98, 0.7, 0.3, 0.1, 0.025, 0, 0.5])
    (found,) = crossings_of(sizes, shares)
    assert (found.low, found.high, found.ahead_before, found.ahead_after) == (40, 640, "A", "B")
    assert found.per_class == np.ceil(10 * 2**3.5)
    (mirrored,) = crossings_of(sizes, 1 - shares)
    assert (mirrored.per_class, mirrored.low, mirrored.high) == (found.per_class, found.low, found.high)
    assert (mirrored.ahead_before, mirrored.ahead_after) == ("B", "A")


def test_a_lead_that_comes_back_is_two_crossings_and_an_uncertain_one_is_none():
    sizes = 10 * 2.0 ** np.arange(7)
    twice = crossings_of(sizes, np.array([1, 0.4, 0, 0, 0.6, 0.5, 1]))
    assert [(c.low, c.high, c.ahead_after) for c in twice] == [
        (10, np.ceil(20 * 2 ** (0.375 / 0.4)), "B"),
        (80, np.ceil(320 * 2 ** (0.475 / 0.5)), "A"),
    ]
    assert crossings_of(sizes, np.array([1, 0.9, 0.1, 0.015, 0.1, 0.9, 1])) == ()
    assert crossings_of(sizes, np.full(7, 0.5)) == ()
    assert crossings_of(sizes, np.ones(7)) == ()


def test_interval_of_the_crossing_covers_the_true_one():
    found = []
    for seed in range(100):
        a, b = fitted_pair(*measured_pair(slow, fast, seed=seed), num_curves=1, seed=seed)
        found += crossings(a, b, num_curves=400, seed=seed).crossings
    covered = [crossing.low <= TRUE_CROSSING <= crossing.high for crossing in found]
    assert len(found) >= 90
    assert np.mean(covered) >= 0.9
    assert np.median([crossing.per_class for crossing in found]) == pytest.approx(TRUE_CROSSING, rel=0.1)
    assert np.median([crossing.high / crossing.low for crossing in found]) < 3
    assert {(crossing.ahead_before, crossing.ahead_after) for crossing in found} == {("A", "B")}


@pytest.mark.parametrize("num_replicates", [1, 5])
def test_equal_models_do_not_cross(num_replicates):
    num_found = 0
    for seed in range(12):
        pair = measured_pair(slow, slow, num_replicates=num_replicates, seed=seed)
        a, b = fitted_pair(*pair, num_curves=1, seed=seed)
        num_found += len(crossings(a, b, num_curves=400, seed=seed).crossings)
    assert num_found <= 1


def test_a_model_that_is_better_throughout_is_not_crossed():
    result = compare_curves(*measured_pair(slow, shifted), num_curves=100, **TEST)
    assert result.crossings.crossings == ()
    assert (result.crossings.from_per_class, result.crossings.to_per_class) == (10, 1000)
    assert all(size.paired.difference.mean > 0 for size in result.differences)


def test_a_crossing_is_looked_for_within_common_sizes_alone():
    a, b = fitted_pair(*measured_pair(slow, fast, variance=1e-4))
    assert len(crossings(a, b).crossings) == 1
    above = fit_curve([point for point in b.points if point.per_class >= 200], **TEST)
    assert TRUE_CROSSING < 200
    only_above = crossings(*fitted_pair(a.points, above.points))
    assert (only_above.crossings, only_above.from_per_class, only_above.to_per_class) == ((), 200, 1000)
    apart = fitted_pair(a.points[:3], above.points)
    assert crossings(*apart) is None


def test_what_a_replicate_draws_cancels_between_its_pair_and_not_between_others():
    sizes, variance, widths, ranges = [20, 50, 100, 200, 500], 0.3, [], []
    rng = np.random.default_rng(0)
    luck = rng.normal(size=(8, 1)) * np.sqrt(variance / np.asarray(sizes))
    a = points_of([(n, r, float(slow(n) + luck[r, i])) for i, n in enumerate(sizes) for r in range(8)])
    b = points_of([(n, r, float(slow(n) + luck[r, i] - 0.03)) for i, n in enumerate(sizes) for r in range(8)])
    others = tuple(CurvePoint(p.per_class, {r + 8: x for r, x in p.accuracies.items()}) for p in b)
    for partner in (b, others):
        pair = fitted_pair(a, partner, num_curves=400)
        differences = np.subtract(*(fit.curves(np.array([100.0])) for fit in pair))
        widths.append(np.ptp(np.quantile(differences, [0.1, 0.9])))
        (equivalence,) = data_equivalences(*pair, per_class=[100])
        ranges.append(equivalence.high / equivalence.low)
    assert widths[0] < 0.75 * widths[1]
    assert np.log(ranges[0]) < 0.75 * np.log(ranges[1])


def test_runs_are_believed_where_no_form_fits_their_difference():
    a, _ = measured_pair(slow, slow, variance=1e-5)
    lead = [0.01] * 6 + [-0.03]
    b = tuple(
        CurvePoint(p.per_class, {r: x - by for r, x in p.accuracies.items()}) for p, by in zip(a, lead, strict=True)
    )
    (found,) = crossings(*fitted_pair(a, b, num_curves=1)).crossings
    assert found.per_class == pytest.approx(500 * 2**0.25, rel=0.04)
    assert (found.ahead_before, found.ahead_after) == ("A", "B")


def test_pairing_narrows_the_interval_of_the_crossing():
    a, b = measured_pair(slow, fast, num_replicates=10)
    luck = [np.random.default_rng(r).normal() * np.sqrt(0.05 / np.asarray(SIZES)) for r in range(10)]
    a, b = (
        tuple(
            CurvePoint(p.per_class, {r: x + luck[r][i] for r, x in p.accuracies.items()}) for i, p in enumerate(points)
        )
        for points in (a, b)
    )
    others = tuple(CurvePoint(p.per_class, {r + 10: x for r, x in p.accuracies.items()}) for p in b)
    ratios = []
    for partner in (b, others):
        (found,) = crossings(*fitted_pair(a, partner, num_curves=1)).crossings
        ratios.append(found.high / found.low)
    assert np.log(ratios[0]) < 0.75 * np.log(ratios[1])


@pytest.mark.parametrize("num_replicates", [1, 5])
def test_data_equivalence_covers_the_known_ratio(num_replicates):
    covered, ratios = [], []
    for seed in range(10):
        pair = measured_pair(slow, shifted, num_replicates=num_replicates, seed=seed)
        for result in data_equivalences(*fitted_pair(*pair, num_curves=100, seed=seed), per_class=[50, 200, 1000]):
            assert result.status == ("extrapolated" if result.b_per_class > 1000 else "measured")
            assert result.accuracy == pytest.approx(slow(result.per_class), abs=0.05)
            assert result.ratio == pytest.approx(result.b_per_class / result.per_class, abs=0.02)
            covered.append((result.ratio_low or 0) <= 1.7 <= (result.ratio_high or np.inf))
            ratios.append(result.ratio)
    assert np.mean(covered) >= 0.8
    assert np.median(ratios) == pytest.approx(1.7, rel=0.1)


def test_data_equivalence_beyond_the_range_of_b_is_more_and_below_it_is_fewer():
    a, b = fitted_pair(*measured_pair(slow, lambda n: slow(np.asarray(n) / 20), variance=1e-4))
    (more,) = data_equivalences(a, b, per_class=[1000])
    assert (more.status, more.b_per_class, more.high, more.ratio, more.ratio_high) == ("more", None, None, None, None)
    assert more.limit_per_class == 4000
    (fewer,) = data_equivalences(b, a, per_class=[20])
    assert (fewer.status, fewer.b_per_class, fewer.low, fewer.ratio_low) == ("fewer", None, None, None)
    assert fewer.smallest_per_class == 10


def test_a_curve_that_must_not_be_extrapolated_is_not():
    a, b = measured_pair(slow, shifted, sizes=[50, 100, 200], variance=1e-4)
    result = compare_curves(a, b, num_curves=100, per_class=[100, 200], **TEST)
    assert result.a_refusal
    assert result.b_refusal
    inside, beyond = result.equivalences
    assert (inside.status, inside.limit_per_class) == ("measured", 200)
    assert inside.b_per_class == pytest.approx(170, rel=0.1)
    assert (beyond.status, beyond.high) == ("more", None)


def test_sizes_that_a_did_not_measure_are_refused():
    a, b = measured_pair(slow, shifted)
    with pytest.raises(ValueError, match="from 10 to 1000 images per class"):
        compare_curves(a, b, per_class=[500, 2000], num_curves=10, **TEST)


def test_comparison_can_be_written_as_json():
    result = compare_curves(*measured_pair(slow, fast, variance=1e-3), num_curves=100, **TEST)
    written = json.loads(json.dumps(asdict(result), allow_nan=False))
    assert [e["per_class"] for e in written["equivalences"]] == SIZES
    assert len(written["crossings"]["crossings"]) == 1
