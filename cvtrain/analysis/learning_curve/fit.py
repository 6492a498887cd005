"""A learning curve through measured points: a mix of forms, its prediction interval, and when it must not be believed.

Knows points, the chance level and the number of test images; not what is asked of the curve.

Forms differ far from the sizes that they were fitted to, and no form is right for all curves. So three are mixed, each
believed as much as it predicted the largest sizes from those below; two more are fitted to be shown beside them.
Source: Viering & Loog 2022 (arXiv 2103.10948), section 4; Alabdulmohsin et al. 2022 (arXiv 2209.06640), section 3, for
judging a form by what it predicts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from statistics import NormalDist

import numpy as np

from cvtrain.analysis.learning_curve.forms import HOIEM, LOG_LINEAR, POWER, Form
from cvtrain.analysis.learning_curve.mixture import (
    FittedForm,
    Horizon,
    accuracies_ahead,
    fitted_forms,
    horizon_of,
)
from cvtrain.analysis.learning_curve.points import CurvePoint
from cvtrain.analysis.learning_curve.saturating import hill, saturating
from cvtrain.analysis.learning_curve.spread import (
    RunSpread,
    is_above_chance,
    key_of,
    resampled_errors,
    run_spread,
)

MIN_SIZES_TO_EXTRAPOLATE = 4

RISE_SDS = 2.0
"""An error that grows with the size by more than so many standard deviations makes a curve ill-behaved. That is for one
pair of sizes; for all pairs together the same probability is shared out."""

BLIND_AT_CHANCE = ("hoiem", "power")
"""Power laws do not know the chance level: sizes that did not leave it would bend them."""


@dataclass(frozen=True)
class FormFit:
    """One form of curve.

    Args:
        name: "hoiem", "saturating", "hill", "power" or "log_linear".
        parameters: Of its formula, by name.
        weight: 0..1, its share in the mix; 0 for "power" and "log_linear", which are only shown.
        rolling_miss: RMS miss of predicting the two largest sizes, each from those below it; accuracy units; None
            where there are too few sizes.
    """

    name: str
    parameters: Mapping[str, float]
    weight: float
    rolling_miss: float | None


@dataclass(frozen=True, eq=False)
class CurveFit:
    """A fitted learning curve.

    Args:
        points: What was measured, smallest size first.
        chance_accuracy: 0..1, what guessing scores.
        num_test: Test images.
        forms: All that could be fitted: power laws need two sizes that are better than chance.
        refusal: A sentence that says why the curve must not be used beyond the measured sizes; None where it may.
        notes: Sentences that whoever reads the figures must know.
    """

    points: tuple[CurvePoint, ...]
    chance_accuracy: float
    num_test: int
    forms: tuple[FormFit, ...]
    refusal: str | None
    notes: tuple[str, ...]
    _fitted: tuple[FittedForm, ...] = field(repr=False)
    _spread: RunSpread = field(repr=False)
    _horizon: Horizon = field(repr=False)
    _num_curves: int = field(repr=False)
    _seed: int = field(repr=False)

    def accuracy(self, per_class: np.ndarray) -> np.ndarray:
        """The mix (m,), 0..1, at sizes (m,)."""
        sizes = _checked_sizes(per_class)
        mixed = [fitted for fitted in self._fitted if fitted.weight > 0]
        return np.clip(sum(fitted.weight * (1 - fitted.errors_at(sizes)) for fitted in mixed), 0, 1)

    def form_accuracy(self, name: str, per_class: np.ndarray) -> np.ndarray:
        """One form (m,) at sizes (m,), as its formula says: all but the two that know chance may leave 0..1.

        Raises:
            ValueError: There is no such form.
        """
        for fitted in self._fitted:
            if fitted.form.name == name:
                return 1 - fitted.errors_at(_checked_sizes(per_class))
        raise ValueError(f"no form {name!r}: there are {', '.join(f.form.name for f in self._fitted)}")

    def curves(self, per_class: np.ndarray) -> np.ndarray:
        """Plausible whole curves (num_curves, m) of the accuracy that runs have in the mean, at sizes (m,).

        Each is one form, drawn by weight, through figures that could as well have been measured; beyond the largest
        size it strays by a normal share of the best form's miss. All stay in 0..1 and none falls.
        """
        sizes = _checked_sizes(per_class)
        curves = np.empty((self._num_curves, len(sizes)))
        for fitted, (rows, parameters) in zip(self._fitted, self._refits, strict=True):
            normals = self._draws.normals[rows]
            curves[rows] = accuracies_ahead(fitted.form, parameters, normals, sizes=sizes, horizon=self._horizon)
        return curves

    def interval(
        self, per_class: np.ndarray, *, level: float = 0.95, with_test_noise: bool = False
    ) -> tuple[np.ndarray, np.ndarray]:
        """Prediction interval (m,), (m,) of a new mean accuracy at sizes (m,), of as many runs as the largest size has.

        Args:
            per_class: Images per class.
            level: 0..1, share of such intervals that hold what is measured.
            with_test_noise: False for scores on the same test images, which share their luck with the points. True for
                the accuracy on all images of this kind: adds `sqrt(a * (1 - a) / num_test)`.

        Raises:
            ValueError: A size or the level is out of range.
        """
        if not 0 < level < 1:
            raise ValueError(f"level lies between 0 and 1, not {level}")
        sizes, curves = _checked_sizes(per_class), self.curves(per_class)
        variance = self._spread.at(sizes) / self.points[-1].num_replicates
        if with_test_noise:
            mix = self.accuracy(sizes)
            variance = variance + mix * (1 - mix) / self.num_test
        noise = self._draws.noise[:, None] * np.sqrt(variance)
        scores = np.concatenate([curves - noise, curves + noise])  # so that noise moves no middle
        low, high = np.quantile(scores, [0.5 - level / 2, 0.5 + level / 2], axis=0)
        mix = self.accuracy(sizes)
        return np.clip(np.minimum(low, mix), 0, 1), np.clip(np.maximum(high, mix), 0, 1)

    @cached_property
    def _draws(self) -> _Draws:
        weights = np.array([fitted.weight for fitted in self._fitted])
        rng = np.random.default_rng([self._seed, key_of(self.points), 1])
        # Every form gets its share of the curves to within one, so that a thin share is not left to luck.
        thresholds = (np.arange(self._num_curves) + rng.random()) / self._num_curves
        chosen = np.searchsorted(np.cumsum(weights), thresholds * weights.sum()).clip(max=len(weights) - 1)
        return _Draws(
            rng.permutation(chosen), rng.standard_normal(self._num_curves), rng.standard_normal(self._num_curves)
        )

    @cached_property
    def _refits(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Of each form the numbers of its curves, and their parameters."""
        sizes, _ = _means_of(self.points)
        sds = _standard_errors(self.points, self._spread)
        errors = resampled_errors(self.points, sds, num_curves=self._num_curves, seed=self._seed)
        usable = is_above_chance(self.points, chance_accuracy=self.chance_accuracy, num_test=self.num_test)
        refits = []
        for i, fitted in enumerate(self._fitted):
            rows = np.flatnonzero(self._draws.forms == i)
            of_form = np.broadcast_to(_sds_of(fitted.form, sds, usable), errors[rows].shape)
            refits.append((rows, fitted.form.fit(sizes, errors[rows], of_form, start=fitted.parameters)))
        return refits


@dataclass(frozen=True)
class _Draws:
    forms: np.ndarray
    normals: np.ndarray
    noise: np.ndarray


def fit_curve(
    points: Sequence[CurvePoint], *, chance_accuracy: float, num_test: int, num_curves: int = 2000, seed: int = 0
) -> CurveFit:
    """Fits accuracy as a function of images per class.

    Source: forms and their sources in `forms` and `saturating`; rolling origin: Tashman 2000, International Journal of
    Forecasting 16, 437-450.

    Args:
        points: Two sizes or more, in any order.
        chance_accuracy: 0..1, both excluded: 1 / K, or the share of the commonest class.
        num_test: Test images, at least 1.
        num_curves: Of `CurveFit.curves`; what they cost is spent when they are first asked for.
        seed: Of what is resampled. Fits of two curves with the same seed share the weights of their replicates.

    Raises:
        ValueError: Fewer than two sizes, a size twice or below 1, an accuracy outside of 0..1, or another argument out
            of range.
    """
    points = tuple(sorted(points, key=lambda point: point.per_class))
    _check(points, chance_accuracy=chance_accuracy, num_test=num_test, num_curves=num_curves)
    sizes, errors = _means_of(points)
    spread = run_spread(points, chance_accuracy)
    sds = _standard_errors(points, spread)
    usable = is_above_chance(points, chance_accuracy=chance_accuracy, num_test=num_test)
    mixed = (HOIEM, saturating(1 - chance_accuracy), hill(1 - chance_accuracy))
    shown = (POWER, LOG_LINEAR)
    fitted = fitted_forms(
        mixed,
        shown,
        sizes=sizes,
        errors=errors,
        sds={form.name: _sds_of(form, sds, usable) for form in (*mixed, *shown)},
    )
    return CurveFit(
        points,
        chance_accuracy,
        num_test,
        tuple(FormFit(f.form.name, f.form.described(f.parameters), f.weight, f.rolling_miss) for f in fitted),
        _refusal(points, errors, sds, usable),
        _notes(points, spread, usable),
        _fitted=fitted,
        _spread=spread,
        _horizon=horizon_of(fitted, sizes=sizes, sds=sds),
        _num_curves=num_curves,
        _seed=seed,
    )


def _check(points: Sequence[CurvePoint], *, chance_accuracy: float, num_test: int, num_curves: int) -> None:
    sizes = [point.per_class for point in points]
    if len(sizes) < 2 or len(set(sizes)) < len(sizes) or min(sizes) < 1:
        raise ValueError(f"a curve needs two different sizes or more, each at least 1, not {sizes}")
    for point in points:
        if not point.accuracies or not all(0 <= accuracy <= 1 for accuracy in point.accuracies.values()):
            raise ValueError(f"accuracies lie in 0..1, not {dict(point.accuracies)} at {point.per_class} per class")
    if not 0 < chance_accuracy < 1:
        raise ValueError(f"chance_accuracy lies between 0 and 1, not {chance_accuracy}")
    if num_test < 1 or num_curves < 1:
        raise ValueError(f"num_test and num_curves are at least 1, not {num_test} and {num_curves}")


def _checked_sizes(per_class: np.ndarray) -> np.ndarray:
    sizes = np.asarray(per_class, dtype=np.float64)
    if sizes.ndim != 1 or not (np.isfinite(sizes) & (sizes > 0)).all():
        raise ValueError(f"sizes are one row of numbers above 0, not {per_class}")
    return sizes


def _means_of(points: Sequence[CurvePoint]) -> tuple[np.ndarray, np.ndarray]:
    sizes = np.array([point.per_class for point in points], dtype=np.float64)
    return sizes, 1 - np.array([point.mean_accuracy for point in points])


def _standard_errors(points: Sequence[CurvePoint], spread: RunSpread) -> np.ndarray:
    return np.sqrt(spread.per_size / np.array([point.num_replicates for point in points]))


def _sds_of(form: Form, sds: np.ndarray, usable: np.ndarray) -> np.ndarray:
    return np.where(usable, sds, np.inf) if form.name in BLIND_AT_CHANCE else sds


def _refusal(points: Sequence[CurvePoint], errors: np.ndarray, sds: np.ndarray, usable: np.ndarray) -> str | None:
    """Why not to extrapolate; None where nothing speaks against it."""
    rises = errors[None, :] - errors[:, None]
    noise = np.sqrt(sds[None, :] ** 2 + sds[:, None] ** 2)
    excess = np.triu(rises / noise, k=1)
    small, large = np.unravel_index(excess.argmax(), excess.shape)
    num_pairs = len(points) * (len(points) - 1) // 2
    if excess[small, large] > -NormalDist().inv_cdf(NormalDist().cdf(-RISE_SDS) / num_pairs):
        return (
            f"ill-behaved curve: accuracy falls from {1 - errors[small]:.1%} at {points[small].per_class} images per"
            f" class to {1 - errors[large]:.1%} at {points[large].per_class},"
            f" {excess[small, large]:.1f} standard deviations"
        )
    if usable.sum() < MIN_SIZES_TO_EXTRAPOLATE:
        return (
            f"{usable.sum()} of {len(points)} sizes are better than chance: at least {MIN_SIZES_TO_EXTRAPOLATE} are"
            " needed to look beyond the largest"
        )
    return None


def _notes(points: Sequence[CurvePoint], spread: RunSpread, usable: np.ndarray) -> tuple[str, ...]:
    notes = []
    if not usable.all():
        at_chance = ", ".join(
            str(point.per_class) for point, is_usable in zip(points, usable, strict=True) if not is_usable
        )
        notes.append(f"no better than chance at {at_chance} images per class")
    if not spread.num_degrees:
        typical = np.sqrt(spread.at(np.array([points[0].per_class, points[-1].per_class])))
        notes.append(
            f"one run per size says nothing of how runs scatter: assumed are {100 * typical[0]:.1f} points at"
            f" {points[0].per_class} images per class and {100 * typical[1]:.1f} at {points[-1].per_class}"
        )
    elif spread.num_degrees < 5:
        notes.append(f"{spread.num_degrees} repeated runs in all: how runs scatter is partly assumed")
    return tuple(notes)
