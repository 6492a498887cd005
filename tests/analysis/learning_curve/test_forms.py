import numpy as np
import pytest
import scipy.optimize

from cvtrain.analysis.learning_curve.forms import HOIEM, LOG_LINEAR, POWER
from cvtrain.analysis.learning_curve.least_squares import least_squares
from cvtrain.analysis.learning_curve.saturating import hill, saturating

CHANCE_ERROR = 0.9
SIZES = np.array([10.0, 20, 50, 100, 200, 500, 1000])
M4, HILL = saturating(CHANCE_ERROR), hill(CHANCE_ERROR)


def random_curves(num, *, seed=0, noise=0.01):
    """Errors (num, 7) of noisy falling curves of all kinds, and standard errors (num, 7)."""
    rng = np.random.default_rng(seed)
    floor, exponent, at_100 = rng.uniform(0, 0.2, num), rng.uniform(0.1, 0.9, num), rng.uniform(0.1, 0.7, num)
    errors = np.minimum(floor + at_100 * (SIZES[:, None] / 100) ** -exponent, CHANCE_ERROR).T
    sds = noise * rng.uniform(0.3, 2, errors.shape)
    return np.clip(errors + sds * rng.normal(size=errors.shape), 0, 1), sds


def cost(form, parameters, errors, sds):
    return (((form.errors_at(parameters, SIZES) - errors) / sds) ** 2).sum(axis=1)


@pytest.mark.parametrize(("form", "penalty"), [(HOIEM, 5), (POWER, 0)], ids=["hoiem", "power"])
def test_power_laws_minimise_their_cost_over_all_exponents(form, penalty):
    errors, sds = random_curves(15)
    for parameters, row, sd in zip(form.fit(SIZES, errors, sds), errors, sds, strict=True):
        costs = {}
        for gamma in form.exponents:
            design = np.stack([np.ones_like(SIZES), SIZES**gamma], axis=1) / sd[:, None]
            (alpha, eta), norm = scipy.optimize.nnls(design, row / sd)
            costs[gamma] = norm**2 + penalty * abs(gamma + 0.5), alpha, eta
        best = min(costs, key=lambda gamma: costs[gamma][0])
        assert parameters == pytest.approx([*costs[best][1:], best], abs=1e-6)


@pytest.mark.parametrize("form", [M4, HILL], ids=lambda form: form.name)
def test_curves_from_chance_are_fitted_as_well_as_by_scipy(form):
    errors, sds = random_curves(30, seed=1)
    num_free = int((form.upper > form.lower).sum())
    bounds = form.lower[:num_free], form.upper[:num_free]
    excess = []
    for parameters, row, sd in zip(form.fit(SIZES, errors, sds), errors, sds, strict=True):

        def residuals(free, row=row, sd=sd):
            full = np.array([*free, 1.0, 0.0][:4])
            priors = (full - form.prior_mean) / form.prior_sd
            return np.concatenate([(form.errors_at(full[None], SIZES)[0] - row) / sd, priors])

        references = [
            scipy.optimize.least_squares(
                residuals, [0, *start][:num_free], bounds=bounds, x_scale=[1, 0.1, 0.3, 0.1][:num_free]
            )
            for start in form.starts
        ]
        ours = (residuals(parameters[:num_free]) ** 2).sum()
        excess.append(ours - 2 * min(reference.cost for reference in references))
    # Where a is all but 0, M4 has a long flat valley: what is left there is far less than one measurement's noise.
    assert np.quantile(excess, 0.9) < 1e-3
    assert max(excess) < 0.5


def test_m4_and_hill_solve_their_equations():
    rng = np.random.default_rng(2)
    parameters = np.stack([rng.uniform(-3, 3, 200), rng.uniform(0.03, 1.5, 200), rng.uniform(0, 1.2, 200)], axis=1)
    parameters = np.concatenate([parameters, rng.uniform(0, 0.6, (200, 1))], axis=1)
    for row, errors in zip(parameters, M4.errors_at(parameters, SIZES), strict=True):
        level, c, a, floor = row
        for size, error in zip(SIZES, errors, strict=True):

            def excess(e, size=size, level=level, c=c, a=a, floor=floor):
                return (e - floor) - np.exp(level) * (size / 100) ** -c * (CHANCE_ERROR - e) ** a

            # At a = 0 and many errors the root lies at or beyond the error of guessing, where the curve is cut off.
            expected = CHANCE_ERROR
            if excess(CHANCE_ERROR) > 0:
                expected = scipy.optimize.brentq(excess, floor, CHANCE_ERROR, xtol=1e-13)
            assert error == pytest.approx(expected, abs=1e-7)
    assert HILL.errors_at(np.array([[0.4, 0.6, 1, 0]]), SIZES)[0] == pytest.approx(
        CHANCE_ERROR / (1 + np.exp(-0.4) * (SIZES / 100) ** 0.6)
    )


def test_written_parameters_give_the_curve_by_the_written_formula():
    parameters = np.array([-0.7, 0.55, 0.6, 0.03])
    named = M4.described(parameters)
    errors = M4.errors_at(parameters[None], SIZES)[0]
    left = (errors - named["e_inf"]) / (CHANCE_ERROR - errors) ** named["a"]
    assert left == pytest.approx(named["b"] * SIZES ** -named["c"])
    assert set(HILL.described(np.array([0.1, 0.5, 1, 0]))) == {"b", "c"}
    assert HOIEM.described(np.array([0.1, 2.0, -0.4])) == {"alpha": 0.1, "eta": 2.0, "gamma": -0.4}


def test_hill_returns_the_curve_that_it_is_given():
    truth = np.array([[0.3, 0.7, 1, 0], [-1.5, 0.4, 1, 0]])
    errors = HILL.errors_at(truth, SIZES)
    assert HILL.fit(SIZES, errors, np.full_like(errors, 0.01)) == pytest.approx(truth, abs=1e-5)


def test_log_linear_agrees_with_numpy():
    errors, sds = random_curves(5)
    for parameters, row, sd in zip(LOG_LINEAR.fit(SIZES, errors, sds), errors, sds, strict=True):
        slope, intercept = np.polyfit(np.log(SIZES), 1 - row, 1, w=1 / sd)
        assert parameters == pytest.approx([intercept, slope])
        assert LOG_LINEAR.errors_at(parameters[None], np.array([77.0]))[0, 0] == pytest.approx(
            1 - intercept - slope * np.log(77)
        )


@pytest.mark.parametrize("form", [HOIEM, POWER, LOG_LINEAR, M4, HILL], ids=lambda form: form.name)
def test_a_size_of_infinite_standard_error_is_as_if_it_were_not_there(form):
    errors, sds = random_curves(6, seed=3)
    errors[:, 2] = 0.99
    left_out = sds.copy()
    left_out[:, 2] = np.inf
    kept = np.arange(len(SIZES)) != 2
    expected = form.fit(SIZES[kept], errors[:, kept], sds[:, kept])
    assert form.errors_at(form.fit(SIZES, errors, left_out), SIZES) == pytest.approx(
        form.errors_at(expected, SIZES), abs=1e-4
    )


@pytest.mark.parametrize("form", [HOIEM, POWER, LOG_LINEAR, M4, HILL], ids=lambda form: form.name)
def test_a_batch_is_fitted_as_its_curves_one_by_one(form):
    errors, sds = random_curves(5, seed=4)
    together = form.fit(SIZES, errors, sds)
    alone = np.concatenate([form.fit(SIZES, errors[i : i + 1], sds[i : i + 1]) for i in range(5)])
    assert together == pytest.approx(alone, abs=1e-7)


@pytest.mark.parametrize("form", [M4, HILL], ids=lambda form: form.name)
def test_a_refit_from_near_by_finds_what_a_fit_from_scratch_finds(form):
    errors, sds = random_curves(1, seed=5)
    again = np.repeat(errors, 50, axis=0) + sds * np.random.default_rng(0).normal(size=(50, len(SIZES)))
    sds = np.repeat(sds, 50, axis=0)
    start = form.fit(SIZES, errors, sds[:1])[0]
    near, scratch = form.fit(SIZES, again, sds, start=start), form.fit(SIZES, again, sds)
    assert form.errors_at(near, SIZES) == pytest.approx(form.errors_at(scratch, SIZES), abs=2e-3)


@pytest.mark.parametrize("form", [HOIEM, POWER, M4, HILL], ids=lambda form: form.name)
def test_curves_do_not_rise_even_where_the_figures_do(form):
    rising = np.array([np.linspace(0.1, 0.5, len(SIZES)), np.full(len(SIZES), 0.0), np.full(len(SIZES), 1.0)])
    parameters = form.fit(SIZES, rising, np.full_like(rising, 0.01))
    assert np.isfinite(parameters).all()
    assert (np.diff(form.errors_at(parameters, np.geomspace(1, 1e5, 60)), axis=1) <= 1e-12).all()


def test_least_squares_holds_a_parameter_at_its_bound_and_moves_the_others():
    x = np.linspace(0, 1, 20)
    y = 2 + 3 * x

    def residuals(parameters, rows):
        slopes = np.broadcast_to(np.stack([np.ones_like(x), x], axis=1), (len(rows), 20, 2))
        return parameters[:, :1] + parameters[:, 1:] * x - y, slopes.copy()

    lower, upper = np.array([-10.0, -10.0]), np.array([10.0, 2.5])
    parameters, costs = least_squares(residuals, np.array([[0.0, 0.0], [9.0, -9.0]]), lower=lower, upper=upper)
    reference = scipy.optimize.lsq_linear(np.stack([np.ones_like(x), x], axis=1), y, (lower, upper))
    assert parameters == pytest.approx(np.stack([reference.x] * 2), abs=1e-4)
    assert costs == pytest.approx([2 * reference.cost] * 2)
