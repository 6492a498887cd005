import numpy as np
import pytest
import scipy.stats

from cvtrain.analysis.comparison import (
    holm,
    mean_and_sd,
    mean_interval,
    paired_difference,
    pairs_needed,
    probability_greater,
    sign_flip_p_value,
    smallest_p_value,
)

A = {0: 0.91, 1: 0.935, 2: 0.92, 3: 0.94, 4: 0.915}
B = {0: 0.90, 1: 0.93, 2: 0.925, 3: 0.91, 4: 0.90}


def test_mean_and_sd_agree_with_numpy():
    mean, sd = mean_and_sd(list(A.values()))
    assert mean == pytest.approx(np.mean(list(A.values())))
    assert sd == pytest.approx(np.std(list(A.values()), ddof=1))


def test_one_value_has_no_spread_and_no_interval():
    assert mean_and_sd([0.5]) == (0.5, None)
    result = mean_interval([0.5])
    assert (result.num_values, result.mean, result.sd, result.low, result.high) == (1, 0.5, None, None, None)


def test_equal_values_have_exactly_no_spread():
    result = mean_interval([0.1] * 7)  # whose mean is not 0.1 when it is added up
    assert (result.mean, result.sd, result.low, result.high) == (0.1, 0.0, 0.1, 0.1)


@pytest.mark.parametrize("values", [[], [0.5, float("nan")], [float("inf")], [[0.1, 0.2]]])
def test_what_is_no_list_of_finite_numbers_is_refused(values):
    for measure in (mean_and_sd, mean_interval, probability_greater, sign_flip_p_value):
        with pytest.raises(ValueError, match="finite numbers are needed"):
            measure(values)


@pytest.mark.parametrize("level", [0.9, 0.95])
def test_interval_agrees_with_scipy(level):
    values = list(A.values())
    expected = scipy.stats.t.interval(level, len(values) - 1, loc=np.mean(values), scale=scipy.stats.sem(values))
    result = mean_interval(values, level=level)
    assert (result.low, result.high) == pytest.approx(expected)


def test_paired_difference_agrees_with_scipy():
    result = paired_difference(A, B)
    expected = scipy.stats.ttest_rel(list(A.values()), list(B.values())).confidence_interval()
    assert result.difference.mean == pytest.approx(0.011)
    assert (result.difference.low, result.difference.high) == pytest.approx((expected.low, expected.high))
    assert result.probability_greater == 0.8


def test_pairs_are_made_by_key_and_lonely_ones_are_counted():
    shuffled = {key: B[key] for key in (3, 0, 2)} | {"other": 0.1}
    result = paired_difference(A, shuffled)
    assert (result.num_pairs, result.num_unpaired) == (3, 3)
    assert result.difference.mean == pytest.approx(np.mean([0.01, -0.005, 0.03]))
    nothing = paired_difference({0: 0.5}, {1: 0.5})
    assert (nothing.num_pairs, nothing.num_unpaired, nothing.difference, nothing.p_value) == (0, 2, None, None)


def test_one_pair_gives_neither_an_interval_nor_a_p_value():
    result = paired_difference({0: 0.9}, {0: 0.8})
    assert result.difference.mean == pytest.approx(0.1)
    assert result.difference.low is None
    assert result.p_value is None


@pytest.mark.parametrize("n", [2, 5, 9, 12])
def test_exact_p_value_agrees_with_scipy(n):
    differences = np.random.default_rng(n).normal(0.4, 1, n)
    expected = scipy.stats.permutation_test(
        (differences,), np.mean, permutation_type="samples", n_resamples=np.inf
    ).pvalue
    assert sign_flip_p_value(differences) == pytest.approx(expected, abs=1e-12)


def test_equal_sums_count_as_equal_whatever_the_order_of_their_terms():
    # 0.1 + 0.2 - 0.3 is not 0.3 - 0.1 - 0.2 in floating point.
    assert sign_flip_p_value([0.1, 0.2, 0.3, 0.1]) == 2 / 16
    assert sign_flip_p_value([0.1, 0.2, -0.3]) == 1.0


def test_equal_runs_do_not_differ():
    result = paired_difference(A, A)
    assert result.difference.sd == 0
    assert result.p_value == 1
    assert result.probability_greater == 0.5


def test_random_flips_come_close_to_the_exact_value_and_repeat():
    differences = np.random.default_rng(3).normal(0.4, 1, 14)
    signs = 1 - 2 * ((np.arange(2**14)[:, None] >> np.arange(14)) & 1)
    exact = (abs(signs @ differences) >= abs(differences.sum()) - 1e-9).mean()
    assert sign_flip_p_value(differences) == pytest.approx(exact, abs=0.01)
    assert sign_flip_p_value(differences) == sign_flip_p_value(differences)
    assert sign_flip_p_value(differences, seed=1) != sign_flip_p_value(differences)
    assert sign_flip_p_value([1.0] * 40) == 1 / 10_001


def test_smallest_p_value_is_reached_when_all_differences_have_one_sign():
    for n in (2, 6, 12):
        assert sign_flip_p_value(np.arange(1, n + 1) / 10) == smallest_p_value(n) == 2 / 2**n


def test_pairs_needed_grow_with_the_number_of_comparisons():
    assert [pairs_needed(n) for n in (1, 3, 10, 36)] == [6, 7, 9, 11]
    assert pairs_needed(400) == 13
    assert pairs_needed(1000) is None


def test_probability_greater_counts_a_tie_half():
    assert probability_greater([1, 0, -1, 2]) == 0.625


def test_holm_agrees_with_a_hand_calculation():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []
    with pytest.raises(ValueError, match=r"0\.\.1"):
        holm([0.5, 1.5])


def test_intervals_cover_the_truth_as_often_as_they_say():
    rng = np.random.default_rng(0)
    covered = [
        result.low <= 0.9 <= result.high for result in (mean_interval(rng.normal(0.9, 0.01, 4)) for _ in range(2000))
    ]
    assert np.mean(covered) == pytest.approx(0.95, abs=0.015)


def test_equal_arms_are_told_apart_no_more_often_than_promised():
    rng = np.random.default_rng(0)
    found = [sign_flip_p_value(rng.normal(size=8)) < 0.05 for _ in range(1500)]
    assert np.mean(found) == pytest.approx(12 / 256, abs=0.015)  # the largest count of 256 flips below 0.05
