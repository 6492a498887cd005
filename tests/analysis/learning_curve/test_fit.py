import numpy as np
import pytest

from cvtrain.analysis.learning_curve.fit import fit_curve
from cvtrain.analysis.learning_curve.forms import HOIEM, LOG_LINEAR
from cvtrain.analysis.learning_curve.mixture import (
    Horizon,
    accuracies_ahead,
    fit_and_roll,
    fitted_forms,
    horizon_of,
    weights_of,
)
from cvtrain.analysis.learning_curve.points import CurvePoint
from cvtrain.analysis.learning_curve.saturating import hill, saturating
from cvtrain.analysis.learning_curve.spread import run_spread

SIZES = (10, 20, 50, 100, 200, 500)
ERRORS = np.array([0.70, 0.62, 0.50, 0.41, 0.33, 0.24])
WIDE = np.geomspace(5, 20_000, 50)


def points_through(accuracies, *, sizes=SIZES, num_runs=3, sd=0.005, seed=0):
    """Runs that scatter by `sd` at 100 images per class, and less at more."""
    rng = np.random.default_rng(seed)
    return [
        CurvePoint(
            size,
            dict(enumerate(np.clip(accuracy + sd * (100 / size) ** 0.5 * rng.normal(size=num_runs), 0, 1).tolist())),
        )
        for size, accuracy in zip(sizes, accuracies, strict=True)
    ]


def fit(points, **changes):
    return fit_curve(points, **({"chance_accuracy": 0.1, "num_test": 10_000, "num_curves": 300} | changes))


def assert_is_sound(result):
    """Whatever the points: finite, within 0..1, ordered, and no curve that falls."""
    mix, (low, high), curves = result.accuracy(WIDE), result.interval(WIDE), result.curves(WIDE)
    for figures in (mix, low, high, curves):
        assert np.isfinite(figures).all()
        assert figures.min() >= 0
        assert figures.max() <= 1
    assert ((low <= mix) & (mix <= high)).all()
    assert (np.diff(mix) >= -1e-12).all()
    assert (np.diff(curves, axis=1) >= -1e-12).all()
    assert curves.shape == (300, len(WIDE))
    assert sum(form.weight for form in result.forms) == pytest.approx(1)


def test_a_fit_says_what_was_fitted():
    points = points_through(1 - ERRORS)
    result = fit(reversed(points))
    assert result.points == tuple(points)
    assert [form.name for form in result.forms] == ["hoiem", "saturating", "hill", "power", "log_linear"]
    assert [form.weight for form in result.forms][3:] == [0, 0]
    assert (result.refusal, result.notes) == (None, ())
    assert_is_sound(result)
    forms = {form.name: form for form in result.forms}
    mix = sum(form.weight * result.form_accuracy(form.name, WIDE) for form in result.forms)
    assert result.accuracy(WIDE) == pytest.approx(np.clip(mix, 0, 1))
    hoiem = forms["hoiem"].parameters
    by_hand = 1 - hoiem["alpha"] - hoiem["eta"] * WIDE ** hoiem["gamma"]
    assert result.form_accuracy("hoiem", WIDE) == pytest.approx(by_hand)
    with pytest.raises(ValueError, match="no form 'cubic': there are hoiem, "):
        result.form_accuracy("cubic", WIDE)


def test_rolling_misses_and_weights_agree_with_fits_one_by_one():
    sizes, sds = np.array(SIZES, float), np.full(6, 0.003)
    forms = (HOIEM, saturating(0.9), hill(0.9))
    misses = []
    for form in forms:
        squares = []
        for j in (4, 5):
            parameters = form.fit(sizes[:j], ERRORS[None, :j], sds[None, :j])
            squares.append((form.errors_at(parameters, sizes[j : j + 1])[0, 0] - ERRORS[j]) ** 2)
        misses.append(np.sqrt(np.mean(squares)))
        assert fit_and_roll(form, sizes=sizes, errors=ERRORS, sds=sds)[1] == pytest.approx(misses[-1], abs=1e-5)
    expected = np.exp(-0.5 * (np.array(misses) / 0.015) ** 2)
    fitted = fitted_forms(
        forms,
        (LOG_LINEAR,),
        sizes=sizes,
        errors=ERRORS,
        sds=dict.fromkeys(["hoiem", "saturating", "hill", "log_linear"], sds),
    )
    assert [form.weight for form in fitted] == pytest.approx([*expected / expected.sum(), 0], abs=1e-3)
    horizon = horizon_of(fitted, sizes=sizes, sds=sds)
    assert horizon.miss == pytest.approx(np.sqrt(max(min(misses) ** 2 - 0.003**2, 0)), abs=1e-5)
    assert horizon.misses(np.array([100, 500, 500 * np.sqrt(5)])) == pytest.approx([0, 0, horizon.miss])


def test_weights_survive_misses_that_are_all_large_or_unknown():
    assert weights_of([0.9, 0.9, 0.915]) == pytest.approx([0.5, 0.5, 0], abs=1e-9)
    assert weights_of([None, None]) == pytest.approx([0.5, 0.5])
    assert weights_of([None, 0.3]) == pytest.approx([0, 1])


def test_a_curve_that_strays_downwards_stays_where_it_was_highest():
    horizon = Horizon(largest=500, log_step=np.log(2), miss=0.02)
    parameters, normals = np.array([[0.1, 1.2, -0.35]] * 3), np.array([-3.0, 0.0, 3.0])
    sizes = np.geomspace(100, 50_000, 40)
    curves = accuracies_ahead(HOIEM, parameters, normals, sizes=sizes, horizon=horizon)
    plain = 1 - HOIEM.errors_at(parameters, sizes)
    assert (np.diff(curves, axis=1) >= 0).all()
    assert curves[1] == pytest.approx(plain[1], abs=2e-5)  # between the grid, lines
    assert curves[2] == pytest.approx(np.minimum(plain[2] + 3 * horizon.misses(sizes), 1), abs=2e-5)
    assert curves[0, sizes > 500] == pytest.approx(plain[0].max(where=sizes <= 500, initial=0), abs=0.02)
    alone = accuracies_ahead(HOIEM, parameters, normals, sizes=sizes[[30, 7]], horizon=horizon)
    assert (alone == curves[:, [30, 7]]).all()


def test_the_interval_is_the_spread_of_the_curves_and_of_a_new_mean():
    points = points_through(1 - ERRORS)
    result = fit(points, num_curves=2000)
    sizes = np.array([100.0, 500, 1000, 2000])
    curves = result.curves(sizes)
    low, high = result.interval(sizes, level=0.9)
    inner_low, inner_high = np.quantile(curves, [0.05, 0.95], axis=0)
    assert (low < inner_low + 0.0005).all()
    assert (high > inner_high - 0.0005).all()
    assert (high - low < 2.5 * (inner_high - inner_low)).all()
    half = 1.645 * np.sqrt(run_spread(points, 0.1).at(sizes) / 3 + curves.var(axis=0))
    assert (high - low)[:2] == pytest.approx(2 * half[:2], rel=0.15)  # where the curves are about normal
    widths = {level: np.subtract(*result.interval(sizes, level=level)[::-1]) for level in (0.5, 0.9, 0.99)}
    assert (widths[0.5] < widths[0.9]).all()
    assert (widths[0.9] < widths[0.99]).all()
    few_images = fit(points_through(1 - ERRORS), num_test=200)
    with_noise = np.subtract(*few_images.interval([500.0], with_test_noise=True)[::-1])
    assert with_noise[0] == pytest.approx(2 * 1.96 * np.sqrt(0.24 * 0.76 / 200), rel=0.25)
    with pytest.raises(ValueError, match="level lies between 0 and 1"):
        result.interval(sizes, level=95)


def test_the_interval_widens_ahead_and_the_same_seed_repeats_it():
    points = points_through(1 - ERRORS)
    result = fit(points)
    low, high = result.interval(500 * 2.0 ** np.arange(4))
    assert (np.diff(high - low) > 0).all()
    assert (fit(points).curves(WIDE) == result.curves(WIDE)).all()
    assert (fit(points, seed=1).curves(WIDE) != result.curves(WIDE)).any()


@pytest.mark.parametrize("chance", [0.5, 0.1, 0.001])
@pytest.mark.parametrize("num_runs", [1, 3])
@pytest.mark.parametrize(
    ("accuracies", "is_refused"),
    [
        ([1.0] * 6, False),
        ([0.7] * 6, False),
        ([0.0] * 6, True),
        ([0.0, 1.0, 0.0, 1.0, 0.0, 1.0], True),
        ([0.55, 0.7, 0.8, 0.9, 0.96, 0.99], False),
        ([0.55, 0.7, 0.9, 1.0, 1.0, 1.0], False),
    ],
    ids=["perfect", "flat", "nothing", "zigzag", "two classes", "solved"],
)
def test_odd_curves_are_fitted_without_a_crash_or_a_warning(accuracies, is_refused, num_runs, chance):
    result = fit(points_through(accuracies, num_runs=num_runs, sd=0.0), chance_accuracy=chance)
    assert_is_sound(result)
    assert (result.refusal is not None) == is_refused


def test_all_at_chance_is_refused_and_stays_at_chance():
    result = fit(points_through([0.1, 0.1, 0.101, 0.099, 0.1, 0.1], sd=0.001))
    assert result.refusal.startswith("0 of 6 sizes are better than chance")
    assert result.notes[0] == "no better than chance at 10, 20, 50, 100, 200, 500 images per class"
    assert [form.name for form in result.forms] == ["saturating", "hill", "log_linear"]
    assert result.accuracy([500.0])[0] == pytest.approx(0.1, abs=0.005)
    assert_is_sound(result)


def test_sizes_at_chance_do_not_bend_the_power_laws():
    alone = fit(points_through(1 - ERRORS))
    both = fit(points_through([0.1, 0.1, *(1 - ERRORS)], sizes=(2, 4, *SIZES), sd=0.0))
    clean = fit(points_through(1 - ERRORS, sd=0.0))
    for name in ("hoiem", "power"):
        assert both.form_accuracy(name, WIDE) == pytest.approx(clean.form_accuracy(name, WIDE), abs=0.01)
    assert abs(both.form_accuracy("hill", [10.0]) - clean.form_accuracy("hill", [10.0])) > 0.005
    assert both.notes == ("no better than chance at 2, 4 images per class",)
    assert alone.notes == ()


def test_a_curve_that_falls_is_refused_with_its_figures():
    accuracies = 1 - ERRORS
    accuracies[4] = accuracies[3] - 0.05
    result = fit(points_through(accuracies, sd=0.0001))
    assert result.refusal.startswith(
        "ill-behaved curve: accuracy falls from 59.0% at 100 images per class to 54.0% at 200"
    )
    assert_is_sound(result)
    assert fit(points_through(1 - ERRORS)).refusal is None


def test_a_plateau_is_seldom_taken_for_a_fall():
    plateau = [0.5, 0.6, 0.7, 0.8, 0.9, 0.9, 0.9, 0.9, 0.9]
    sizes = (*SIZES, 1000, 2000, 5000)
    curves = [points_through(plateau, sizes=sizes, num_runs=5, seed=seed) for seed in range(60)]
    assert sum(fit(points).refusal is not None for points in curves) <= 3


@pytest.mark.parametrize("num_sizes", [2, 3, 4])
def test_fewer_than_four_sizes_are_fitted_but_not_to_be_extrapolated(num_sizes):
    result = fit(points_through((1 - ERRORS)[:num_sizes], sizes=SIZES[:num_sizes], sd=0.001))
    assert_is_sound(result)
    assert (result.refusal is None) == (num_sizes == 4)
    assert result.accuracy(np.array(SIZES[:num_sizes])) == pytest.approx((1 - ERRORS)[:num_sizes], abs=0.03)
    assert all((form.rolling_miss is None) == (num_sizes == 2) for form in result.forms)


def test_one_run_per_size_is_said_and_repeats_that_are_few_too():
    once = fit(points_through(1 - ERRORS, num_runs=1))
    assert once.notes[0].startswith("one run per size says nothing of how runs scatter: assumed are 3.2 points at 10 ")
    points = points_through(1 - ERRORS, num_runs=1)
    points[0] = CurvePoint(10, {0: 0.30, 1: 0.31})
    assert fit(points).notes == ("1 repeated runs in all: how runs scatter is partly assumed",)


def test_uneven_sizes_and_a_replicate_that_is_missing_at_one_size_are_taken_as_they_are():
    points = points_through([0.30, 0.36, 0.55, 0.58, 0.78], sizes=(10, 17, 80, 100, 700), num_runs=5)
    points[2] = CurvePoint(80, {r: a for r, a in points[2].accuracies.items() if r != 3})
    result = fit(points)
    assert result.refusal is None
    assert_is_sound(result)


@pytest.mark.parametrize(
    ("points", "changes", "message"),
    [
        ([CurvePoint(10, {0: 0.5})], {}, "two different sizes or more"),
        ([CurvePoint(10, {0: 0.5}), CurvePoint(10, {0: 0.6})], {}, "two different sizes or more"),
        ([CurvePoint(0, {0: 0.5}), CurvePoint(10, {0: 0.6})], {}, "each at least 1"),
        ([CurvePoint(5, {0: 50.0}), CurvePoint(10, {0: 0.6})], {}, r"accuracies lie in 0\.\.1, not .* at 5 per class"),
        ([CurvePoint(5, {0: float("nan")}), CurvePoint(10, {0: 0.6})], {}, r"accuracies lie in 0\.\.1"),
        ([CurvePoint(5, {}), CurvePoint(10, {0: 0.6})], {}, r"accuracies lie in 0\.\.1"),
        (points_through(1 - ERRORS), {"chance_accuracy": 1.0}, "chance_accuracy lies between 0 and 1"),
        (points_through(1 - ERRORS), {"num_test": 0}, "num_test and num_curves are at least 1"),
        (points_through(1 - ERRORS), {"num_curves": 0}, "num_test and num_curves are at least 1"),
    ],
)
def test_what_cannot_be_fitted_is_an_error(points, changes, message):
    with pytest.raises(ValueError, match=message):
        fit(points, **changes)


@pytest.mark.parametrize("sizes", [[0.0], [[10.0]], [float("inf")], 10.0])
def test_sizes_that_are_none_are_an_error(sizes):
    with pytest.raises(ValueError, match="one row of numbers above 0"):
        fit(points_through(1 - ERRORS)).accuracy(sizes)
