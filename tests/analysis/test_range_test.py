"""What is read off curves of a range test, on curves whose places are known."""

import numpy as np
import pytest

from cvtrain.analysis.range_test import (
    RangeTestResult,
    Suggestion,
    analyse,
    combined,
    disagree,
    is_over,
    running_mean,
    smooth,
)

CENTRE, WIDTH = 1e-3, 0.35
"""Of the fall: the lr in its middle, and the decades over which it goes most of its way."""


def curve(*, num_steps=600, explodes_at=0.1, noise=0.0, fall=2.0, seed=0):
    """A fall that is a logistic function of log lr, steepest at `CENTRE`, and a rise without end at `explodes_at`."""
    decades = np.linspace(-6, 0, num_steps)
    lrs = 10.0**decades
    losses = 2.3 - fall / (1 + np.exp(-(decades - np.log10(CENTRE)) / WIDTH))
    losses += (lrs / explodes_at) ** 4
    return lrs, losses + noise * np.random.default_rng(seed).standard_normal(num_steps)


def lr_of(result, kind):
    return next(s.lr for s in result.suggestions if s.kind == kind)


def test_suggestions_are_those_that_the_formula_gives():
    lrs, losses = curve()
    result = analyse(lrs, losses)
    assert [s.kind for s in result.suggestions] == ["steepest", "valley", "stable"]
    assert (result.has_fallen, result.has_risen) == (True, True)
    assert lr_of(result, "steepest") == pytest.approx(CENTRE, rel=0.15)
    least = losses.argmin()
    begins = lrs[losses > losses[0] - 0.1 * (losses[0] - losses[least])]
    begun = begins[begins < lrs[least]].max()
    assert lr_of(result, "valley") == pytest.approx(np.sqrt(begun * lrs[least]), rel=0.2)
    risen = lrs[least:][losses[least:] > losses[least] + 0.1 * (losses[0] - losses[least])]
    assert lr_of(result, "stable") == pytest.approx(risen[0] / 10, rel=0.2)


@pytest.mark.parametrize("seed", range(5))
def test_noise_of_batches_moves_suggestions_by_less_than_half(seed):
    quiet, noisy = analyse(*curve()), analyse(*curve(noise=0.1, seed=seed))
    for kind in ("steepest", "valley", "stable"):
        assert 1 / 2 < lr_of(noisy, kind) / lr_of(quiet, kind) < 2


def test_flat_curves_tell_nothing():
    lrs = np.logspace(-6, 0, 300)
    result = analyse(lrs, 2.3 + 0.05 * np.random.default_rng(0).standard_normal(300))
    assert (result.suggestions, result.has_fallen, result.has_risen) == ((), False, False)


def test_curves_that_only_rise_tell_nothing_but_that():
    result = analyse(*curve(fall=0))
    assert (result.suggestions, result.has_fallen, result.has_risen) == ((), False, True)


def test_curves_that_still_fall_at_their_end_have_no_largest_stable_lr():
    result = analyse(*curve(explodes_at=1e9))
    assert [s.kind for s in result.suggestions] == ["steepest", "valley"]
    assert not result.has_risen


def test_an_explosion_does_not_reach_back_into_the_curve():
    lrs, losses = curve()
    usual = analyse(lrs[:520], losses[:520])
    huge = analyse(lrs[:520], np.concatenate([losses[:519], [1e30]]))
    assert lr_of(huge, "steepest") == lr_of(usual, "steepest")
    assert huge.smoothed.max() < 5


def test_a_few_steps_tell_nothing():
    assert analyse([1, 2, 3], [3, 2, 1]).suggestions == ()


@pytest.mark.parametrize(
    ("lrs", "losses"),
    [([], []), ([1, 2], [1]), ([1, 2], [1, np.nan]), ([2, 1], [1, 1]), ([0, 1], [1, 1]), ([[1, 2]], [[1, 1]])],
)
def test_what_is_no_curve_is_refused(lrs, losses):
    with pytest.raises(ValueError, match=r"curve|finite"):
        analyse(lrs, losses)


def test_running_mean_is_a_weighted_mean_of_all_values_so_far():
    values = np.random.default_rng(0).standard_normal(40)
    for n in (1, 2, 7, 40):
        weights = 0.9 ** np.arange(n)[::-1]
        assert running_mean(values)[n - 1] == pytest.approx(np.average(values[:n], weights=weights), abs=1e-12)
    np.testing.assert_allclose(running_mean(np.full(5, 3.0)), 3.0)


def test_smoothing_prefers_neither_direction():
    values = np.random.default_rng(0).standard_normal(50)
    np.testing.assert_allclose(smooth(values[::-1]), smooth(values)[::-1])


def test_a_test_is_over_once_the_loss_explodes_or_has_lost_all_it_gained():
    falling = list(np.linspace(2.3, 0.5, 60))
    assert not is_over([2.3])
    assert not is_over([2.3, 2.4, 2.2] * 30)
    assert not is_over(falling)
    assert not is_over([*falling, 3.0])  # one bad batch
    assert is_over([*falling, *[2.6] * 25])
    assert is_over([2.3] * 20 + [1e4])
    assert not is_over([-2.0] * 20 + [-2.5] * 20)
    assert is_over([-2.0] * 20 + [-2.5] * 20 + [-1.0] * 20)


def result_with(**rates):
    suggestions = tuple(Suggestion(kind, lr, 0) for kind, lr in rates.items())
    return RangeTestResult(np.zeros(1), suggestions, True, True)


def test_several_tests_are_combined_by_the_median():
    tests = [result_with(steepest=0.1, stable=1.0), result_with(steepest=0.4), result_with(steepest=0.2)]
    (only,) = combined(tests)  # one of three tests is not most of them
    assert (only.kind, only.lr, only.low, only.high, only.num_tests) == ("steepest", pytest.approx(0.2), 0.1, 0.4, 3)
    assert combined([result_with(steepest=0.1), result_with()]) == ()


def test_suggestions_more_than_ten_times_apart_disagree():
    assert not disagree(combined([result_with(steepest=0.1, valley=0.9)]))
    assert disagree(combined([result_with(steepest=0.1, valley=0.2, stable=1.1)]))
    assert not disagree(())
