import pytest
from scipy.stats import binomtest

from cvtrain.analysis.proportion import wilson_interval


@pytest.mark.parametrize(("hits", "trials"), [(0, 1), (1, 1), (0, 40), (40, 40), (7, 20), (9_812, 10_000)])
def test_interval_is_that_of_scipy(hits, trials):
    expected = binomtest(hits, trials).proportion_ci(0.95, method="wilson")
    assert wilson_interval(hits, trials) == pytest.approx((expected.low, expected.high), abs=1e-12)


@pytest.mark.parametrize(("hits", "trials"), [(0, 0), (-1, 3), (4, 3)])
def test_impossible_counts_are_refused(hits, trials):
    with pytest.raises(ValueError, match="hits of"):
        wilson_interval(hits, trials)
