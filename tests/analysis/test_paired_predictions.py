import numpy as np
import pytest
import scipy.stats

from cvtrain.analysis.paired_predictions import bootstrap_interval, mcnemar_p_value, paired_predictions


def answers(*, both, only_a, only_b, neither):
    """Which images A and B answer right, mixed."""
    a = np.repeat([True, True, False, False], [both, only_a, only_b, neither])
    b = np.repeat([True, False, True, False], [both, only_a, only_b, neither])
    order = np.random.default_rng(0).permutation(len(a))
    return a[order], b[order]


@pytest.mark.parametrize(("b", "c"), [(0, 0), (0, 1), (5, 5), (3, 11), (11, 3), (0, 6), (40, 61), (900, 1100)])
def test_mcnemar_agrees_with_a_binomial_test(b, c):
    expected = scipy.stats.binomtest(b, b + c, 0.5).pvalue if b + c else 1.0
    assert mcnemar_p_value(b, c) == pytest.approx(expected, rel=1e-9)
    assert mcnemar_p_value(b, c) == mcnemar_p_value(c, b)


def test_mcnemar_agrees_with_sums_by_hand():
    # 2 of 10: 2 (1 + 10 + 45) / 1024
    assert mcnemar_p_value(2, 8) == pytest.approx(112 / 1024)
    assert mcnemar_p_value(0, 5) == pytest.approx(2 / 32)  # the smallest that five images can give
    assert mcnemar_p_value(0, 6) == pytest.approx(2 / 64)


def test_counts_and_accuracies_are_those_of_the_images():
    result = paired_predictions(*answers(both=80, only_a=9, only_b=4, neither=7))
    assert (result.num_images, result.num_only_a, result.num_only_b) == (100, 9, 4)
    assert (result.accuracy_a, result.accuracy_b) == (0.89, 0.84)
    assert result.difference == pytest.approx(0.05)
    assert result.p_value == pytest.approx(scipy.stats.binomtest(4, 13).pvalue)
    assert result.low < 0.05 < result.high


def test_order_of_the_two_turns_the_result_around():
    a, b = answers(both=80, only_a=12, only_b=4, neither=4)
    forth, back = paired_predictions(a, b), paired_predictions(b, a)
    assert (forth.difference, forth.p_value) == (-back.difference, back.p_value)
    assert (forth.low, forth.high) == pytest.approx((-back.high, -back.low), abs=0.011)  # other draws


def test_interval_agrees_with_images_drawn_one_by_one():
    a, b = answers(both=150, only_a=30, only_b=12, neither=8)
    rng, each = np.random.default_rng(7), a.astype(int) - b.astype(int)
    drawn = each[rng.integers(0, len(each), size=(20_000, len(each)))].mean(axis=1)
    expected = np.quantile(drawn, [0.025, 0.975])
    result = paired_predictions(a, b)
    assert (result.low, result.high) == pytest.approx(tuple(expected), abs=0.006)  # 1.2 images of 200
    # ... and with the normal approximation, whose variance is (b + c - (b - c)^2 / N) / N^2
    half = 1.96 * np.sqrt(30 + 12 - 18**2 / 200) / 200
    assert (result.low, result.high) == pytest.approx((0.09 - half, 0.09 + half), abs=0.006)
    scipys = scipy.stats.bootstrap((each,), np.mean, method="percentile", n_resamples=9_999, rng=rng)
    assert result.high == pytest.approx(scipys.confidence_interval.high, abs=0.006)


def test_same_seed_gives_the_same_interval():
    a, b = answers(both=500, only_a=60, only_b=40, neither=400)
    first = paired_predictions(a, b, seed=3)
    assert first == paired_predictions(a, b, seed=3)
    others = {paired_predictions(a, b, seed=seed).low for seed in range(20)}
    assert len(others) > 1
    assert max(others) - min(others) < 0.004


def test_models_that_agree_on_all_images_differ_by_nothing():
    result = paired_predictions(*answers(both=10, only_a=0, only_b=0, neither=3))
    assert (result.difference, result.low, result.high, result.p_value) == (0.0, 0.0, 0.0, 1.0)


def test_level_widens_the_interval():
    narrow = bootstrap_interval(30, 20, num_images=200, level=0.5)
    wide = bootstrap_interval(30, 20, num_images=200, level=0.99)
    assert wide[0] < narrow[0] < narrow[1] < wide[1]


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ([True], [True, False]),
        ([], []),
        ([[True]], [[True]]),
        ([1, 0], [1, 0]),
        ([0.5, float("nan")], [True, False]),
    ],
)
def test_what_is_no_pair_of_answers_is_refused(a, b):
    with pytest.raises(ValueError, match="two bool arrays of one length are needed"):
        paired_predictions(np.array(a), np.array(b))


def test_counts_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="at least 0"):
        mcnemar_p_value(-1, 3)
    for counts, num_images in (((3, 3), 5), ((-1, 0), 5), ((0, 0), 0)):
        with pytest.raises(ValueError, match="cannot be"):
            bootstrap_interval(*counts, num_images=num_images)


def test_interval_covers_the_true_difference_about_as_often_as_it_says():
    rng, truth = np.random.default_rng(11), 0.03
    counts = rng.multinomial(360, [0.07, 0.07 - truth, 0.86 + truth], size=600)
    intervals = [bootstrap_interval(a, b, num_images=360, num_draws=2_000) for a, b, _ in counts]
    covered = np.mean([low <= truth <= high for low, high in intervals])
    assert 0.92 <= covered <= 0.98


def test_equal_models_are_rarely_told_apart():
    rng = np.random.default_rng(12)
    counts = rng.multinomial(360, [0.05, 0.05, 0.9], size=4_000)
    p_values = np.array([mcnemar_p_value(a, b) for a, b, _ in counts])
    assert (p_values < 0.05).mean() <= 0.05
    assert (p_values < 0.05).mean() > 0.01  # and it is not blind
