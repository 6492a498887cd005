import numpy as np
import pytest

from cvtrain.analysis.calibration import calibration


def by_hand(probabilities, is_right, num_bins):
    """The error as the paper writes it, image by image."""
    total = 0.0
    for number in range(num_bins):
        low, high = number / num_bins, (number + 1) / num_bins
        inside = [i for i, p in enumerate(probabilities) if low < p <= high or (number == 0 and p == 0)]
        if inside:
            confidence = sum(probabilities[i] for i in inside) / len(inside)
            accuracy = sum(is_right[i] for i in inside) / len(inside)
            total += len(inside) / len(probabilities) * abs(accuracy - confidence)
    return total


@pytest.mark.parametrize("num_bins", [1, 4, 15])
def test_error_is_that_of_the_paper(num_bins):
    rng = np.random.default_rng(0)
    said = rng.uniform(0.1, 1, 700)
    right = rng.uniform(size=700) < said**2
    result = calibration(said, right, num_bins=num_bins)
    assert result.ece == pytest.approx(by_hand(said, right, num_bins), abs=1e-12)
    assert sum(each.num_images for each in result.bins) == result.num_images == 700
    assert result.confidence > result.accuracy, "these answers are less often right than they say"


def test_adaptive_error_has_bins_of_equally_many_images():
    said = np.r_[np.full(10, 0.5), np.full(10, 0.9)]
    right = np.r_[np.ones(5), np.zeros(5), np.ones(8), np.zeros(2)]
    result = calibration(said, right, num_bins=2)
    assert result.adaptive_ece == pytest.approx(0.5 * 0.0 + 0.5 * 0.1)


def test_probability_on_an_edge_belongs_to_the_bin_below():
    bins = calibration([0.5, 1.0, 0.0], [True, True, False], num_bins=2).bins
    assert [each.num_images for each in bins] == [2, 1]
    assert (bins[1].confidence, bins[1].accuracy) == (1.0, 1.0)


def test_bin_without_images_has_no_figures():
    bins = calibration([0.9], [True], num_bins=3).bins
    assert [(each.num_images, each.confidence, each.accuracy) for each in bins[:2]] == [(0, None, None)] * 2


@pytest.mark.parametrize(
    ("said", "right"), [([], []), ([0.5], [True, False]), ([1.2], [True]), ([float("nan")], [True])]
)
def test_impossible_probabilities_are_refused(said, right):
    with pytest.raises(ValueError, match="probabilities"):
        calibration(said, right)
