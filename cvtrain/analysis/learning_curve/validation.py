"""How well a learning curve predicts sizes that it has not seen, beside what two simple predictions would have said.

Knows measured points; neither how a fit works inside nor what the figures are used for. This is the honest score of an
extrapolation: forms are judged by what they predict, not by how well they fit.
Source: Alabdulmohsin et al. 2022 (arXiv 2209.06640), section 1; the last value as a baseline: Mohr et al. 2022 (LCDB).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cvtrain.analysis.learning_curve.fit import fit_curve
from cvtrain.analysis.learning_curve.points import CurvePoint
from cvtrain.analysis.learning_curve.spread import PRIOR_DEGREES, run_spread


@dataclass(frozen=True)
class LogLinearResult:
    """A straight line in the logarithm of the size, and whether the points refute it.

    Args:
        gain: Per doubling, accuracy 0..1.
        low: Lower end of its 95 % interval.
        high: Upper end.
        p_value: Of "the curve is such a line".
    """

    gain: float
    low: float
    high: float
    p_value: float


@dataclass(frozen=True)
class PredictionResult:
    """One held-out size. Accuracies are 0..1; a miss is predicted less measured.

    Args:
        fitted_up_to: Largest images per class that the fit saw.
        per_class: The held-out size.
        measured: Mean test accuracy there.
        predicted: By the curve.
        low: Lower end of the 95 % prediction interval.
        high: Upper end.
        is_hit: The interval holds what was measured.
        miss: Of the curve.
        last_value_miss: Of "it stays as good as at the last fitted size".
        log_linear_miss: Of a straight line in the logarithm of the size, least squares through the mean accuracies.
    """

    fitted_up_to: int
    per_class: int
    measured: float
    predicted: float
    low: float
    high: float
    is_hit: bool
    miss: float
    last_value_miss: float
    log_linear_miss: float


@dataclass(frozen=True)
class ValidationResult:
    """All held-out sizes together.

    Args:
        predictions: Of all fits, in the order in which they were asked for.
        num_hits: Predictions whose interval holds what was measured.
        rms_miss: Root of the mean squared miss; None without predictions.
        last_value_rms_miss: The same of the last value.
        log_linear_rms_miss: The same of the straight line.
        reasons: One for each fit that predicts nothing: too few sizes are left, or the fit refuses.
    """

    predictions: tuple[PredictionResult, ...]
    num_hits: int
    rms_miss: float | None
    last_value_rms_miss: float | None
    log_linear_rms_miss: float | None
    reasons: tuple[str, ...]


def hold_out(
    points: Sequence[CurvePoint],
    *,
    chance_accuracy: float,
    num_test: int,
    num_held_out: Sequence[int] = (1, 2),
    num_curves: int = 2000,
    seed: int = 0,
) -> ValidationResult:
    """Fits without the largest size, without the two largest, and so on, and predicts what was left out.

    Args:
        points: Smallest size first.
        chance_accuracy: 0..1, of a guess.
        num_test: Test images of each accuracy.
        num_held_out: How many of the largest sizes each fit does without.
        num_curves: Plausible curves of each fit.
        seed: Of the fits.

    Raises:
        ValueError: A number of held-out sizes is below 1, or the points are none that can be fitted.
    """
    if not all(number >= 1 for number in num_held_out):
        raise ValueError(f"one size or more is held out, not {list(num_held_out)}")
    predictions: list[PredictionResult] = []
    reasons: list[str] = []
    for number in num_held_out:
        if len(points) - number < 2:
            reasons.append(f"without the largest {number} of {len(points)} sizes nothing can be fitted")
            continue
        result = predict_beyond(
            points,
            up_to=points[-number - 1].per_class,
            chance_accuracy=chance_accuracy,
            num_test=num_test,
            num_curves=num_curves,
            seed=seed,
        )
        predictions += result.predictions
        reasons += result.reasons
    return _validation(predictions, reasons)


def predict_beyond(
    points: Sequence[CurvePoint],
    *,
    up_to: int,
    chance_accuracy: float,
    num_test: int,
    num_curves: int = 2000,
    seed: int = 0,
) -> ValidationResult:
    """Fits the sizes up to one, and predicts all that are larger.

    The prediction interval is that of a new mean accuracy; it is for the runs that the largest fitted size had.

    Args:
        points: Smallest size first.
        up_to: Largest images per class that the fit sees.
        chance_accuracy: 0..1, of a guess.
        num_test: Test images of each accuracy.
        num_curves: Plausible curves of the fit.
        seed: Of the fit.

    Raises:
        ValueError: No size is larger than `up_to`.
    """
    seen = [point for point in points if point.per_class <= up_to]
    unseen = [point for point in points if point.per_class > up_to]
    if not unseen:
        raise ValueError(f"no size above {up_to} images per class is there to be predicted")
    if len(seen) < 2:
        return _validation([], [f"up to {up_to} images per class there are {len(seen)} sizes, and a fit needs two"])
    fit = fit_curve(seen, chance_accuracy=chance_accuracy, num_test=num_test, num_curves=num_curves, seed=seed)
    if fit.refusal:
        return _validation([], [f"up to {seen[-1].per_class} images per class: {fit.refusal}"])
    at = np.asarray([point.per_class for point in unseen], dtype=np.float64)
    predicted = fit.accuracy(at)
    lows, highs = fit.interval(at, level=0.95)
    straight = log_linear_prediction(seen, at)
    return _validation(
        [
            _prediction(seen[-1], point, curve=float(curve), low=float(low), high=float(high), straight=float(line))
            for point, curve, low, high, line in zip(unseen, predicted, lows, highs, straight, strict=True)
        ],
        [],
    )


def log_linear_prediction(points: Sequence[CurvePoint], per_class: np.ndarray) -> np.ndarray:
    """Accuracy on the straight line in the logarithm of the size through the mean accuracies, kept within 0..1.

    Ordinary least squares: what a person draws through the points of a plot with a logarithmic axis.

    Args:
        points: Two or more.
        per_class: (m,), sizes at which to read the line.

    Returns:
        (m,).
    """
    logs = np.log([point.per_class for point in points])
    slope, offset = np.polyfit(logs, [point.mean_accuracy for point in points], 1)
    return np.clip(offset + slope * np.log(per_class), 0.0, 1.0)


def log_linear(points: Sequence[CurvePoint], *, chance_accuracy: float) -> LogLinearResult:
    """The straight line in the logarithm of the size, and its lack of fit against the scatter of the runs.

    Source: Draper & Smith 1998, Applied Regression Analysis, sections 2.1 and 9.2.

    Raises:
        ValueError: Fewer than three sizes are measured: through two there is always a line.
    """
    if len(points) < 3:
        raise ValueError(f"whether a curve is straight is seen from three sizes, not {len(points)}")
    from scipy.special import fdtrc, stdtrit

    spread = run_spread(points, chance_accuracy)
    weights = np.array([point.num_replicates for point in points]) / spread.per_size
    accuracies = np.array([point.mean_accuracy for point in points])
    doublings = np.log2([point.per_class for point in points])
    doublings = doublings - np.average(doublings, weights=weights)
    precision = (weights * doublings**2).sum()
    gain = float((weights * doublings * accuracies).sum() / precision)
    residuals = accuracies - np.average(accuracies, weights=weights) - gain * doublings
    # Each size is weighed by its own variance, known to its own degrees of freedom. With those of all sizes together,
    # straight lines are refuted twice as often as promised.
    num_degrees = PRIOR_DEGREES + float(np.mean([point.num_replicates - 1 for point in points]))
    num_free = len(points) - 2
    half = float(stdtrit(num_degrees, 0.5 + 0.95 / 2) / np.sqrt(precision))
    p_value = float(fdtrc(num_free, num_degrees, (weights * residuals**2).sum() / num_free))
    return LogLinearResult(gain, gain - half, gain + half, p_value)


def _prediction(
    last: CurvePoint, held_out: CurvePoint, *, curve: float, low: float, high: float, straight: float
) -> PredictionResult:
    measured = held_out.mean_accuracy
    return PredictionResult(
        fitted_up_to=last.per_class,
        per_class=held_out.per_class,
        measured=measured,
        predicted=curve,
        low=low,
        high=high,
        is_hit=low <= measured <= high,
        miss=curve - measured,
        last_value_miss=last.mean_accuracy - measured,
        log_linear_miss=straight - measured,
    )


def _validation(predictions: Sequence[PredictionResult], reasons: Sequence[str]) -> ValidationResult:
    return ValidationResult(
        predictions=tuple(predictions),
        num_hits=sum(p.is_hit for p in predictions),
        rms_miss=_rms([p.miss for p in predictions]),
        last_value_rms_miss=_rms([p.last_value_miss for p in predictions]),
        log_linear_rms_miss=_rms([p.log_linear_miss for p in predictions]),
        reasons=tuple(reasons),
    )


def _rms(misses: Sequence[float]) -> float | None:
    return float(np.sqrt(np.mean(np.square(misses)))) if misses else None
