"""Forms of a learning curve with a closed fit: power laws on a grid of exponents, and accuracy linear in log size.

Knows sizes, errors and how sure they are; not which form is to be believed.

Every form fits many curves at once: errors (B, k) and standard errors (B, k) at k sizes give parameters (B, p). A size
whose standard error is infinite is left out.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

HOIEM_EXPONENTS = -np.arange(1, 100) / 100
POWER_EXPONENTS = -np.arange(1, 201) / 100


class Form(Protocol):
    """A formula with parameters, for the error 0..1 as a function of the size."""

    name: str
    parameter_names: tuple[str, ...]

    def fit(
        self, sizes: np.ndarray, errors: np.ndarray, sds: np.ndarray, *, start: np.ndarray | None = None
    ) -> np.ndarray:
        """Parameters (B, p) of the curves through errors (B, k) at sizes (k,)."""

    def errors_at(self, parameters: np.ndarray, sizes: np.ndarray) -> np.ndarray:
        """Errors (B, m) at sizes (m,)."""

    def described(self, parameters: np.ndarray) -> dict[str, float]:
        """The parameters (p,) of one curve by name, as its formula is usually written."""


@dataclass(frozen=True, eq=False)
class PowerLaw:
    """`error = alpha + eta * n**gamma`, alpha and eta not negative, gamma from a grid.

    Source: Hoiem et al. 2021 (arXiv 2010.11029), sections 3 and 4, with their penalty on gamma; without it the power
    law with an offset of Hestness et al. 2017 (arXiv 1712.00409), section 2.

    Args:
        name: Of the form.
        exponents: Candidates for gamma, below 0.
        penalty: Added to the sum of squared, weighted residuals: this times `|gamma + 0.5|`.
    """

    name: str
    exponents: np.ndarray = field(repr=False)
    penalty: float
    parameter_names: tuple[str, ...] = ("alpha", "eta", "gamma")

    def fit(
        self, sizes: np.ndarray, errors: np.ndarray, sds: np.ndarray, *, start: np.ndarray | None = None
    ) -> np.ndarray:
        """The best of the grid: for a given gamma, alpha and eta are a linear least-squares fit."""
        powers = sizes[None, :] ** self.exponents[:, None]
        weights = 1 / sds**2
        sum_w = weights.sum(axis=1, keepdims=True)
        sum_x, sum_xx = weights @ powers.T, weights @ (powers**2).T
        sum_e, sum_xe = (weights * errors).sum(axis=1, keepdims=True), (weights * errors) @ powers.T
        determinant = sum_w * sum_xx - sum_x**2
        is_line = determinant > 1e-12 * sum_w * sum_xx  # at least two sizes
        determinant = np.where(is_line, determinant, 1.0)
        alpha = (sum_xx * sum_e - sum_x * sum_xe) / determinant
        eta = (sum_w * sum_xe - sum_x * sum_e) / determinant
        # Where one would be negative, the best is at 0 and the other alone fits; one size alone is a constant.
        is_flat = (eta < 0) | ~is_line
        is_pure = (alpha < 0) & ~is_flat
        alpha = np.where(is_flat, sum_e / np.maximum(sum_w, 1e-300), np.where(is_pure, 0.0, alpha))
        eta = np.where(is_flat, 0.0, np.where(is_pure, sum_xe / np.maximum(sum_xx, 1e-300), eta))
        costs = alpha**2 * sum_w + eta**2 * sum_xx + 2 * (alpha * eta * sum_x - alpha * sum_e - eta * sum_xe)
        best = (costs + self.penalty * np.abs(self.exponents + 0.5)).argmin(axis=1)
        rows = np.arange(len(errors))
        return np.stack([alpha[rows, best], eta[rows, best], self.exponents[best]], axis=1)

    def errors_at(self, parameters: np.ndarray, sizes: np.ndarray) -> np.ndarray:
        """Errors (B, m) at sizes (m,)."""
        alpha, eta, gamma = (column[:, None] for column in parameters.T)
        return alpha + eta * sizes**gamma

    def described(self, parameters: np.ndarray) -> dict[str, float]:
        """The parameters (p,) of one curve by name."""
        return dict(zip(self.parameter_names, parameters.tolist(), strict=True))


@dataclass(frozen=True)
class LogLinear:
    """`accuracy = intercept + slope * ln(n)`: every doubling gains the same. May leave 0..1 far from the sizes."""

    name: str = "log_linear"
    parameter_names: tuple[str, ...] = ("intercept", "slope")

    def fit(
        self, sizes: np.ndarray, errors: np.ndarray, sds: np.ndarray, *, start: np.ndarray | None = None
    ) -> np.ndarray:
        """The weighted least-squares line."""
        weights = 1 / sds**2
        weights = weights / np.maximum(weights.sum(axis=1, keepdims=True), 1e-300)
        accuracies, logs = 1 - errors, np.log(sizes)
        mean_log = (weights * logs).sum(axis=1, keepdims=True)
        mean_accuracy = (weights * accuracies).sum(axis=1, keepdims=True)
        centred = logs - mean_log
        spread = (weights * centred**2).sum(axis=1)
        slope = (weights * centred * accuracies).sum(axis=1) / np.where(spread > 0, spread, 1.0)
        return np.stack([mean_accuracy[:, 0] - slope * mean_log[:, 0], slope], axis=1)

    def errors_at(self, parameters: np.ndarray, sizes: np.ndarray) -> np.ndarray:
        """Errors (B, m) at sizes (m,)."""
        return 1 - parameters[:, :1] - parameters[:, 1:] * np.log(sizes)

    def described(self, parameters: np.ndarray) -> dict[str, float]:
        """The parameters (p,) of one curve by name."""
        return dict(zip(self.parameter_names, parameters.tolist(), strict=True))


HOIEM = PowerLaw("hoiem", HOIEM_EXPONENTS, penalty=5.0)
POWER = PowerLaw("power", POWER_EXPONENTS, penalty=0.0)
LOG_LINEAR = LogLinear()
