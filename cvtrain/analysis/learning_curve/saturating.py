"""Forms of a learning curve that begin at chance: M4 and its special case, a logistic in log size.

Knows sizes, errors and how sure they are; not which form is to be believed.

`(error - e_inf) / (e_0 - error)**a = b * n**-c`, where e_0 is the error of guessing. With a = 0 it is a power law with
an offset, with a = 1 and e_inf = 0 a logistic in log n.
Source: Alabdulmohsin et al. 2022 (arXiv 2209.06640), section 4, the form M4.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from cvtrain.analysis.learning_curve.least_squares import least_squares

REFERENCE_SIZE = 100.0
"""Parameters are fitted around this many images per class, which keeps level and slope apart."""

NARROW = 1e-6
"""How close to its ends an error is taken where a first guess needs its logarithm."""

MAX_NEWTON_STEPS = 60
LARGEST_LOGIT = 40.0


@dataclass(frozen=True, eq=False)
class Saturating:
    """M4 with bounds and priors. Parameters: level (log b at the reference size), c, a, e_inf.

    Args:
        name: Of the form.
        chance_error: e_0, 0..1.
        lower: (4,) bounds of the parameters.
        upper: (4,).
        prior_mean: (4,).
        prior_sd: (4,); infinite where nothing is known beforehand.
        starts: (s, 3) first guesses of c, a, e_inf.
    """

    name: str
    chance_error: float
    lower: np.ndarray = field(repr=False)
    upper: np.ndarray = field(repr=False)
    prior_mean: np.ndarray = field(repr=False)
    prior_sd: np.ndarray = field(repr=False)
    starts: np.ndarray = field(repr=False)
    parameter_names: tuple[str, ...] = ("b", "c", "a", "e_inf")

    def fit(
        self, sizes: np.ndarray, errors: np.ndarray, sds: np.ndarray, *, start: np.ndarray | None = None
    ) -> np.ndarray:
        """The best of the starts, each followed downhill; from `start` (p,) alone where it is given."""
        guesses = self._starts(sizes, errors, sds) if start is None else np.broadcast_to(start, (1, len(errors), 4))
        num_starts, num_curves, _ = guesses.shape

        def residuals(parameters: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            curves = rows % num_curves
            return self._residuals(parameters, sizes, errors[curves], sds[curves])

        parameters, costs = least_squares(residuals, guesses.reshape(-1, 4), lower=self.lower, upper=self.upper)
        best = costs.reshape(num_starts, num_curves).argmin(axis=0)
        return parameters.reshape(num_starts, num_curves, 4)[best, np.arange(num_curves)]

    def errors_at(self, parameters: np.ndarray, sizes: np.ndarray) -> np.ndarray:
        """Errors (B, m) at sizes (m,)."""
        floor = parameters[:, 3:]
        return floor + (self.chance_error - floor) * _sigmoid(self._logits(parameters, sizes))

    def described(self, parameters: np.ndarray) -> dict[str, float]:
        """The parameters (p,) of one curve by name."""
        level, c, a, e_inf = parameters.tolist()
        of_m4 = {"b": float(np.exp(level + c * np.log(REFERENCE_SIZE))), "c": c, "a": a, "e_inf": e_inf}
        return {name: of_m4[name] for name in self.parameter_names}

    def _logits(self, parameters: np.ndarray, sizes: np.ndarray) -> np.ndarray:
        """Where the error stands between its two ends, as a logit (B, m): the root of a monotone function.

        With `error = e_inf + d * sigmoid(u)` and `d = e_0 - e_inf` the form reads `log_sigmoid(u) - a *
        log_sigmoid(-u) = right`. The left side rises and is concave or convex, so that Newton's steps come from one
        side and never overshoot from the second on.
        """
        level, c, a, floor = (column[:, None] for column in parameters.T)
        right = level - c * np.log(sizes / REFERENCE_SIZE) - (1 - a) * np.log(self.chance_error - floor)
        logits = np.where(right < 0, right, right / np.maximum(a, 0.05))
        for _ in range(MAX_NEWTON_STEPS):
            logits = np.clip(logits, -LARGEST_LOGIT, LARGEST_LOGIT)
            share = _sigmoid(logits)
            left = logits - (1 - a) * _softplus(logits)  # since softplus(-u) = softplus(u) - u
            steps = (right - left) / np.maximum(1 - share + a * share, 1e-12)
            logits = logits + steps
            if np.abs(steps).max(initial=0.0, where=np.abs(logits) < LARGEST_LOGIT) < 1e-9:
                break
        return np.clip(logits, -LARGEST_LOGIT, LARGEST_LOGIT)

    def _residuals(
        self, parameters: np.ndarray, sizes: np.ndarray, errors: np.ndarray, sds: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Residuals of sizes and priors (B, k + 4), and their derivatives (B, k + 4, 4) by implicit differentiation."""
        _, _, a, floor = (column[:, None] for column in parameters.T)
        logits = self._logits(parameters, sizes)
        share, gap = _sigmoid(logits), self.chance_error - floor
        rise = np.maximum(1 - share + a * share, 1e-12)
        by_level = gap * share * (1 - share) / rise
        slopes = np.empty((*errors.shape[:1], errors.shape[1] + 4, 4))
        by_parameter = (
            by_level,
            -np.log(sizes / REFERENCE_SIZE) * by_level,
            (np.log(gap) - _softplus(logits)) * by_level,
            (1 - share) / rise,
        )
        slopes[:, :-4] = np.stack(by_parameter, axis=2) / sds[:, :, None]
        slopes[:, -4:] = np.diag(1 / self.prior_sd)
        misses = (floor + gap * share - errors) / sds
        return np.concatenate([misses, (parameters - self.prior_mean) / self.prior_sd], axis=1), slopes

    def _starts(self, sizes: np.ndarray, errors: np.ndarray, sds: np.ndarray) -> np.ndarray:
        """First guesses (s, B, 4): the level is the weighted mean of what each size says."""
        weights = 1 / sds**2
        weights = weights / np.maximum(weights.sum(axis=1, keepdims=True), 1e-300)
        guesses = np.empty((len(self.starts), len(errors), 4))
        for guess, (c, a, floor) in zip(guesses, self.starts, strict=True):
            gap = self.chance_error - floor
            inside = np.clip(errors, floor + NARROW * gap, self.chance_error - NARROW * gap)
            levels = np.log(inside - floor) - a * np.log(self.chance_error - inside)
            guess[:, 0] = (weights * (levels + c * np.log(sizes / REFERENCE_SIZE))).sum(axis=1)
            guess[:, 1:] = c, a, floor
        return guesses


def saturating(chance_error: float) -> Saturating:
    """M4 with priors that keep what few sizes cannot tell (c, a, e_inf) near what image classifiers show."""
    most_floor = min(0.6, 0.9 * chance_error)
    return Saturating(
        "saturating",
        chance_error,
        lower=np.array([-20.0, 0.03, 0.0, 0.0]),
        upper=np.array([20.0, 1.5, 1.2, most_floor]),
        prior_mean=np.array([0.0, 0.5, 0.5, 0.0]),
        prior_sd=np.array([np.inf, 0.15, 0.5, 0.15]),
        starts=np.array([[0.5, 0.5, 0.02], [0.3, 0.1, 0.0], [0.8, 1.0, 0.1 * chance_error]]),
    )


def hill(chance_error: float) -> Saturating:
    """`error = e_0 / (1 + n**c / b)`: the logit of the error is a line in log n.

    Source: the form MMF with nothing left at the end, Viering & Loog 2022 (arXiv 2103.10948).
    """
    return Saturating(
        "hill",
        chance_error,
        lower=np.array([-20.0, 0.0, 1.0, 0.0]),
        upper=np.array([20.0, 3.0, 1.0, 0.0]),
        prior_mean=np.zeros(4),
        prior_sd=np.full(4, np.inf),
        starts=np.array([[0.5, 1.0, 0.0]]),
        parameter_names=("b", "c"),
    )


def _sigmoid(logits: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-logits))


def _softplus(logits: np.ndarray) -> np.ndarray:
    return np.logaddexp(0.0, logits)
