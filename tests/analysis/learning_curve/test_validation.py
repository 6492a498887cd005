import json
from dataclasses import asdict, replace

import numpy as np
import pytest
import scipy.stats

from cvtrain.analysis.learning_curve.points import CurvePoint, points_of
from cvtrain.analysis.learning_curve.spread import run_spread
from cvtrain.analysis.learning_curve.validation import (
    hold_out,
    log_linear,
    log_linear_prediction,
    predict_beyond,
)

SIZES = [10, 20, 50, 100, 200, 500, 1000, 2000]
TEST = {"chance_accuracy": 0.1, "num_test": 10_000, "num_curves": 150}


def power_law(n):
    return 0.95 - 1.6 * np.asarray(n, dtype=float) ** -0.4


def straight(n):
    return 0.25 + 0.07 * np.log2(np.asarray(n, dtype=float) / 10)


def measured(curve, *, sizes=SIZES, num_replicates=5, variance=0.01, seed=0):
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=(num_replicates, len(sizes))) * np.sqrt(variance / np.asarray(sizes))
    accuracies = np.clip(curve(sizes) + noise, 0, 1)
    return points_of([(n, r, float(accuracies[r, i])) for i, n in enumerate(sizes) for r in range(num_replicates)])


def test_each_number_of_held_out_sizes_is_fitted_and_predicted():
    points = measured(power_law)
    result = hold_out(points, **TEST)
    assert [(p.fitted_up_to, p.per_class) for p in result.predictions] == [(1000, 2000), (500, 1000), (500, 2000)]
    for p in result.predictions:
        assert p.measured == next(point.mean_accuracy for point in points if point.per_class == p.per_class)
        assert p.miss == pytest.approx(p.predicted - p.measured)
        assert p.is_hit == (p.low <= p.measured <= p.high)
    assert result.num_hits == sum(p.is_hit for p in result.predictions)
    assert result.rms_miss == pytest.approx(np.sqrt(np.mean([p.miss**2 for p in result.predictions])))
    assert result.reasons == ()


def test_what_is_held_out_does_not_reach_the_prediction():
    points = measured(power_law)
    spoilt = (*points[:-1], CurvePoint(2000, {0: 0.123}))
    before, after = (hold_out(p, num_held_out=(1,), **TEST).predictions[0] for p in (points, spoilt))
    assert (after.predicted, after.low, after.high) == (before.predicted, before.low, before.high)
    assert after.measured == 0.123
    assert not after.is_hit


def test_misses_of_the_baselines_agree_with_a_hand_calculation():
    points = measured(power_law, num_replicates=1)
    result = predict_beyond(points, up_to=500, **TEST)
    means = [point.mean_accuracy for point in points]
    slope, intercept = scipy.stats.linregress(np.log(SIZES[:6]), means[:6])[:2]
    last = [means[5] - mean for mean in means[6:]]
    line = [min(intercept + slope * np.log(n), 1) - mean for n, mean in zip(SIZES[6:], means[6:], strict=True)]
    assert [p.last_value_miss for p in result.predictions] == pytest.approx(last)
    assert [p.log_linear_miss for p in result.predictions] == pytest.approx(line)
    assert result.last_value_rms_miss == pytest.approx(np.sqrt(np.mean(np.square(last))))
    assert result.log_linear_rms_miss == pytest.approx(np.sqrt(np.mean(np.square(line))))


def test_curve_misses_less_than_the_baselines_and_its_interval_holds():
    results = [predict_beyond(measured(power_law, seed=seed), up_to=500, **TEST) for seed in range(15)]
    assert np.mean([p.is_hit for result in results for p in result.predictions]) >= 0.85
    rms = np.sqrt(np.mean([result.rms_miss**2 for result in results]))
    assert 3 * rms < min(np.median([[r.last_value_rms_miss, r.log_linear_rms_miss] for r in results], axis=0))


def test_straight_prediction_stays_an_accuracy():
    points = measured(straight, sizes=[10, 20, 50, 100], variance=1e-6)
    assert log_linear_prediction(points, np.array([10.0**6]))[0] == 1
    assert log_linear_prediction(points, np.array([400.0]))[0] == pytest.approx(straight(400), abs=0.005)


@pytest.mark.parametrize(
    ("sizes", "fragments"),
    [
        (SIZES[:2], ["without the largest 1 of 2", "without the largest 2 of 2"]),
        (SIZES[:4], ["up to 50 images per class: 3 of 3 sizes", "up to 20 images per class: 2 of 2 sizes"]),
    ],
)
def test_too_few_sizes_give_a_reason_each_and_no_figures(sizes, fragments):
    result = hold_out(measured(power_law, sizes=sizes), **TEST)
    assert (result.predictions, result.num_hits) == ((), 0)
    assert (result.rms_miss, result.last_value_rms_miss, result.log_linear_rms_miss) == (None, None, None)
    for reason, fragment in zip(result.reasons, fragments, strict=True):
        assert fragment in reason


def test_one_fit_may_predict_while_the_next_has_too_few_sizes():
    result = hold_out(measured(power_law, sizes=SIZES[:5], variance=1e-4), **TEST)
    assert [(p.fitted_up_to, p.per_class) for p in result.predictions] == [(100, 200)]
    assert len(result.reasons) == 1


def test_a_falling_curve_gives_the_reason_of_the_fit():
    points = measured(lambda n: 0.9 - 0.05 * np.log10(n), variance=1e-4)
    result = predict_beyond(points, up_to=500, **TEST)
    assert result.predictions == ()
    assert "up to 500 images per class: ill-behaved curve" in result.reasons[0]


def test_nothing_to_predict_or_to_fit():
    points = measured(power_law)
    with pytest.raises(ValueError, match="no size above 2000"):
        predict_beyond(points, up_to=2000, **TEST)
    with pytest.raises(ValueError, match="one size or more is held out"):
        hold_out(points, num_held_out=(0,), **TEST)
    assert "there are 1 sizes" in predict_beyond(points, up_to=10, **TEST).reasons[0]


def test_straight_line_agrees_with_weighted_least_squares_of_numpy():
    points = measured(straight, num_replicates=4)
    points = (replace(points[0], accuracies={0: 0.3}), *points[1:])  # sizes weigh by their runs
    spread = run_spread(points, 0.1)
    sds = np.sqrt(spread.per_size / [point.num_replicates for point in points])
    x, y = np.log2(SIZES), [point.mean_accuracy for point in points]
    (slope, offset), covariance = np.polyfit(x, y, 1, w=1 / sds, cov="unscaled")
    result = log_linear(points, chance_accuracy=0.1)
    assert result.gain == pytest.approx(slope)
    num_degrees = 4 + np.mean([0, *[3] * 7])
    half = scipy.stats.t.ppf(0.975, num_degrees) * np.sqrt(covariance[0, 0])
    assert (result.low, result.high) == pytest.approx((slope - half, slope + half))
    chi2 = (((y - offset - slope * x) / sds) ** 2).sum()
    assert result.p_value == pytest.approx(scipy.stats.f.sf(chi2 / 6, 6, num_degrees))


@pytest.mark.parametrize("num_replicates", [2, 5, 20])
def test_straight_lines_are_refuted_no_more_often_than_promised_and_bent_ones_are(num_replicates):
    refuted = [
        log_linear(measured(straight, num_replicates=num_replicates, seed=seed), chance_accuracy=0.1).p_value < 0.05
        for seed in range(300)
    ]
    assert np.mean(refuted) <= 0.07  # 0.05 but for luck
    bent = log_linear(measured(power_law, num_replicates=num_replicates), chance_accuracy=0.1)
    assert bent.p_value < 1e-4


def test_two_sizes_are_always_on_a_line():
    with pytest.raises(ValueError, match="seen from three sizes"):
        log_linear(measured(straight, sizes=[10, 20]), chance_accuracy=0.1)


def test_validation_can_be_written_as_json():
    result = hold_out(measured(power_law), **TEST)
    written = json.loads(json.dumps(asdict(result), allow_nan=False))
    assert written["predictions"] == [asdict(p) for p in result.predictions]
