"""Non-linear least squares within bounds, of many small problems at once.

Knows residuals and their derivatives; not what curve they belong to.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

MAX_ITERATIONS = 100

LEAST_DECREASE = 1e-9
"""A problem is solved when a step lowers its cost by less than this share of it (or of 1, a variance's worth)."""

LARGEST_DAMPING = 1e8
"""Where even a step as short as this damping makes it lowers nothing, there is nothing left to gain."""

Residuals = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
"""From parameters `(m, p)` and the numbers `(m,)` of their problems to residuals `(m, q)`, derivatives `(m, q, p)`."""


def least_squares(
    residuals: Residuals, start: np.ndarray, *, lower: np.ndarray, upper: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Minimises the sum of squared residuals of each problem by damped Gauss-Newton steps, clipped to the bounds.

    A parameter at a bound that its gradient pushes against is held there, so that the others move on.

    Source: Marquardt 1963, SIAM Journal 11, 431-441, with his scaling; Bertsekas 1982, SIAM Journal on Control and
    Optimization 20, 221-246, for the bounds.

    Args:
        residuals: Called with the problems that are not solved yet.
        start: (B, p), first guesses.
        lower: (p,), bounds; equal to `upper` where a parameter is fixed.
        upper: (p,).

    Returns:
        Parameters (B, p) and costs (B,).
    """
    parameters = np.clip(start, lower, upper)
    open_rows = np.arange(len(parameters))
    values, slopes = residuals(parameters, open_rows)
    costs = (values**2).sum(axis=1)
    damping = np.full(len(parameters), 1e-2)
    for _ in range(MAX_ITERATIONS):
        if not len(open_rows):
            break
        now = parameters[open_rows]
        tried = np.clip(now + _steps(now, values, slopes, damping[open_rows], lower, upper), lower, upper)
        new_values, new_slopes = residuals(tried, open_rows)
        new_costs = (new_values**2).sum(axis=1)
        decrease = costs[open_rows] - new_costs
        is_better = decrease > 0
        better_rows = open_rows[is_better]
        parameters[better_rows], costs[better_rows] = tried[is_better], new_costs[is_better]
        values[is_better], slopes[is_better] = new_values[is_better], new_slopes[is_better]
        damping[open_rows] *= np.where(is_better, 0.1, 8.0)
        is_solved = is_better & (decrease <= LEAST_DECREASE * (1 + new_costs)) | (damping[open_rows] > LARGEST_DAMPING)
        open_rows, values, slopes = open_rows[~is_solved], values[~is_solved], slopes[~is_solved]
    return parameters, costs


def _steps(
    parameters: np.ndarray,
    values: np.ndarray,
    slopes: np.ndarray,
    damping: np.ndarray,
    lower: np.ndarray,
    upper: np.ndarray,
) -> np.ndarray:
    """Damped Gauss-Newton steps (m, p) of the parameters that are free to move."""
    gradients = np.einsum("mqp,mq->mp", slopes, values)
    is_free = ~(((parameters <= lower) & (gradients >= 0)) | ((parameters >= upper) & (gradients <= 0)))
    slopes = slopes * is_free[:, None, :]
    curvatures = np.swapaxes(slopes, 1, 2) @ slopes
    diagonal = np.einsum("mpp->mp", curvatures)
    # A parameter that moves nothing (held, or without effect) gets a unit diagonal: its step is then 0, not 0 / 0.
    scales = np.where(diagonal > 1e-12, damping[:, None] * diagonal, 1.0)
    curvatures = curvatures + scales[:, :, None] * np.eye(parameters.shape[1])
    return -np.linalg.solve(curvatures, (gradients * is_free)[:, :, None])[:, :, 0]
