"""Which forms to believe, by how well each predicted the largest sizes from those below, and how far they miss ahead.

Knows forms and measured errors; not what is asked of the curve.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cvtrain.analysis.learning_curve.forms import Form

MISS_SCALE = 0.015
"""A form that misses by so much more than another is believed exp(-1/2) as much."""

NUM_ROLLED = 2
"""The largest sizes, each predicted from those below it."""

UNTESTED_MISS = 0.05
"""Miss per step ahead where there are too few sizes to predict any."""

NUM_GRID_STEPS_PER_DOUBLING = 8


@dataclass(frozen=True)
class FittedForm:
    """One form through the mean errors.

    Args:
        form: Its formula.
        parameters: (p,).
        weight: 0..1, its share in the mix; 0 for a form that is only shown.
        rolling_miss: RMS, accuracy units; None where no size could be predicted.
    """

    form: Form
    parameters: np.ndarray
    weight: float
    rolling_miss: float | None

    def errors_at(self, sizes: np.ndarray) -> np.ndarray:
        """Errors (m,)."""
        return self.form.errors_at(self.parameters[None, :], sizes)[0]


@dataclass(frozen=True)
class Horizon:
    """How an error grows beyond the largest size.

    Args:
        largest: Size, images per class.
        log_step: A step ahead, in ln n.
        miss: Expected after one step, accuracy units; it grows in proportion to the steps.
    """

    largest: float
    log_step: float
    miss: float

    def misses(self, sizes: np.ndarray) -> np.ndarray:
        """(m,), 0 up to the largest size."""
        return self.miss * np.maximum(np.log(sizes / self.largest), 0) / self.log_step


def fitted_forms(
    mixed: Sequence[Form],
    shown: Sequence[Form],
    *,
    sizes: np.ndarray,
    errors: np.ndarray,
    sds: Mapping[str, np.ndarray],
) -> tuple[FittedForm, ...]:
    """Fits every form that has at least two sizes, and weighs those that are to be mixed.

    Args:
        mixed: Forms to mix.
        shown: Forms to fit and show.
        sizes: (k,), rising.
        errors: (k,), means.
        sds: (k,) of each form by name; infinite at sizes that it cannot use.
    """
    forms = [form for form in (*mixed, *shown) if np.isfinite(sds[form.name]).sum() >= 2]
    rolled = [fit_and_roll(form, sizes=sizes, errors=errors, sds=sds[form.name]) for form in forms]
    num_mixed = sum(form in mixed for form in forms)
    weights = [*weights_of([miss for _, miss in rolled[:num_mixed]]), *([0.0] * (len(forms) - num_mixed))]
    return tuple(
        FittedForm(form, parameters, float(weight), miss)
        for form, (parameters, miss), weight in zip(forms, rolled, weights, strict=True)
    )


def fit_and_roll(
    form: Form, *, sizes: np.ndarray, errors: np.ndarray, sds: np.ndarray
) -> tuple[np.ndarray, float | None]:
    """Parameters (p,) of the fit to all sizes, and the RMS miss of predicting each of the last from those below it."""
    num_sizes = len(sizes)
    targets = [j for j in range(num_sizes - NUM_ROLLED, num_sizes) if j >= 2 and np.isfinite(sds[:j]).sum() >= 2]
    below = np.stack([sds, *(np.where(np.arange(num_sizes) < j, sds, np.inf) for j in targets)])
    parameters = form.fit(sizes, np.broadcast_to(errors, below.shape), below)
    if not targets:
        return parameters[0], None
    predicted = form.errors_at(parameters[1:], sizes[targets])
    misses = np.diagonal(predicted) - errors[targets]
    return parameters[0], float(np.sqrt((misses**2).mean()))


def weights_of(misses: Sequence[float | None]) -> np.ndarray:
    """Weights that sum to 1; equal where nothing was predicted, and 0 for a form that alone predicted nothing."""
    if all(miss is None for miss in misses):
        return np.full(len(misses), 1 / max(len(misses), 1))
    squares = np.array([np.inf if miss is None else (miss / MISS_SCALE) ** 2 for miss in misses])
    weights = np.exp(-0.5 * (squares - squares.min()))
    return weights / weights.sum()


def horizon_of(forms: Sequence[FittedForm], *, sizes: np.ndarray, sds: np.ndarray) -> Horizon:
    """What the mixed forms' misses say of the sizes beyond the largest: the best of them, per step.

    A part of a miss is the noise of the mean that was to be predicted. It does not grow ahead, so it is taken off.

    Args:
        forms: Fitted and weighted.
        sizes: (k,), rising.
        sds: (k,), standard errors of the means.
    """
    misses = [fitted.rolling_miss for fitted in forms if fitted.weight > 0 and fitted.rolling_miss is not None]
    num_steps = min(NUM_ROLLED, max(len(sizes) - 2, 1))
    log_step = float(np.log(sizes[-1] / sizes[-1 - num_steps])) / num_steps
    if not misses:
        return Horizon(float(sizes[-1]), log_step, UNTESTED_MISS)
    noise_variance = float((sds[-num_steps:] ** 2).mean())
    return Horizon(float(sizes[-1]), log_step, float(np.sqrt(max(min(misses) ** 2 - noise_variance, 0.0))))


def accuracies_ahead(
    form: Form, parameters: np.ndarray, normals: np.ndarray, *, sizes: np.ndarray, horizon: Horizon
) -> np.ndarray:
    """Accuracies (B, m) of whole curves that go astray beyond the largest size, each by its own share of the miss.

    More images do not make a curve fall: one that strays downwards stays where it was highest.

    Args:
        form: Of all B curves.
        parameters: (B, p).
        normals: (B,), standard normal: how far each curve strays, in misses.
        sizes: (m,), in any order.
        horizon: Of the fit.
    """
    accuracies = 1 - form.errors_at(parameters, np.minimum(sizes, horizon.largest))
    is_ahead = sizes > horizon.largest
    if is_ahead.any():
        # A grid that does not depend on the sizes asked for: the same size always gets the same answer.
        places = NUM_GRID_STEPS_PER_DOUBLING * np.log2(sizes[is_ahead] / horizon.largest)
        grid = horizon.largest * 2 ** (np.arange(int(places.max()) + 2) / NUM_GRID_STEPS_PER_DOUBLING)
        strayed = 1 - form.errors_at(parameters, grid) + normals[:, None] * horizon.misses(grid)
        highest = np.maximum.accumulate(strayed, axis=1)
        below = places.astype(int)
        share = places - below
        accuracies[:, is_ahead] = (1 - share) * highest[:, below] + share * highest[:, below + 1]
    return np.clip(accuracies, 0, 1)
