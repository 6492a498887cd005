"""From the rows of a sample-size sweep to its curve, its answers, their plain values and their picture.

Knows figures; neither how they were trained nor how anything is worded.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from cvtrain.analysis.comparison import mean_interval
from cvtrain.analysis.learning_curve import answers, validation
from cvtrain.analysis.learning_curve.fit import CurveFit, fit_curve
from cvtrain.analysis.learning_curve.points import CurvePoint, points_of
from cvtrain.plain_text import finite
from cvtrain.report.curves import FittedCurve, MeasuredSizes
from cvtrain.sample_size.table import Row

AHEAD_FACTORS = (2.0, 4.0)
_DRAWN_SIZES = 160

SHOWN_FORMS = {"log_linear": "log-linear fit", "power": "power-law fit"}
"""Fits that are drawn beside the curve: what others would have drawn."""


@dataclass(frozen=True)
class Conclusion:
    """What a sweep shows.

    Args:
        points: The measured accuracies.
        chance_accuracy: 0..1, of always naming the most frequent class of the test images.
        num_test: Test images.
        fit: The curve; None where too few sizes are done.
        reason: Why there is no curve.
        target: The answer to `target=`, if that was asked.
        elbow: Where twice the images stop paying.
        ahead: The accuracy of two and four times the largest size.
        gains: What each step between sizes gives.
        validation: How well held-out sizes are predicted, if that was asked.
        train_accuracy: At the largest size; None where it is no sign of what the model can fit.
    """

    points: tuple[CurvePoint, ...]
    chance_accuracy: float
    num_test: int
    fit: CurveFit | None = None
    reason: str | None = None
    target: answers.TargetResult | None = None
    elbow: answers.ElbowResult | None = None
    ahead: tuple[answers.AheadResult, ...] = ()
    gains: tuple[answers.GainResult, ...] = ()
    validation: validation.ValidationResult | None = None
    train_accuracy: float | None = None

    @property
    def is_above_train_accuracy(self) -> bool:
        """Whether the curve is extended beyond what the model could fit of the images that it was trained on.

        With more images training accuracy falls and test accuracy rises towards the same limit, so what lies above
        the training accuracy of the largest size is doubtful, however well the curve fits.
        Source: Cortes et al. 1994, "Learning curves: asymptotic values and rate of convergence", NIPS 6.
        """
        ahead = [each.accuracy for each in self.ahead if each.accuracy is not None]
        return bool(ahead) and self.train_accuracy is not None and max(ahead) > self.train_accuracy


def conclude(
    rows: Sequence[Row],
    *,
    chance_accuracy: float,
    num_test: int,
    target: float | None,
    elbow: float,
    validate: bool,
    trains_to_the_end: bool = False,
) -> Conclusion:
    """Fits the curve and asks it everything.

    Args:
        rows: Of all trainings that are done.
        chance_accuracy: 0..1.
        num_test: Test images.
        target: An accuracy, 0..1, or None.
        elbow: The gain per doubling below which more images do not pay.
        validate: Whether to predict the largest sizes from the others.
        trains_to_the_end: Whether training accuracy shows what the model can fit: neither is training stopped early,
            nor are images mixed.
    """
    points = points_of([(row.per_class, row.replicate, row.test_accuracy) for row in rows])
    if len(points) < 2:
        reason = f"{len(points)} size{' is' if len(points) == 1 else 's are'} measured, and a curve needs two"
        return Conclusion(points, chance_accuracy, num_test, reason=reason)
    fit = fit_curve(points, chance_accuracy=chance_accuracy, num_test=num_test)
    return Conclusion(
        points,
        chance_accuracy,
        num_test,
        fit=fit,
        target=None if target is None else answers.images_for_accuracy(fit, target),
        elbow=answers.elbow(fit, gain=elbow),
        ahead=answers.ahead(fit, AHEAD_FACTORS),
        gains=answers.gains(fit),
        validation=validation.hold_out(points, chance_accuracy=chance_accuracy, num_test=num_test)
        if validate
        else None,
        train_accuracy=_train_accuracy(rows) if trains_to_the_end else None,
    )


def _train_accuracy(rows: Sequence[Row]) -> float | None:
    largest = max(row.per_class for row in rows)
    found = float(np.mean([row.train_accuracy for row in rows if row.per_class == largest]))
    return found if math.isfinite(found) else None


def json_text(conclusion: Conclusion, *, sentences: Sequence[str]) -> str:
    """The content of `learning_curve.json`: points, forms, curve and answers; accuracies are 0..1.

    Args:
        conclusion: What a sweep shows.
        sentences: The answers in words.
    """
    plain: dict[str, Any] = {
        "sentences": list(sentences),
        "chance_accuracy": conclusion.chance_accuracy,
        "num_test": conclusion.num_test,
        "train_accuracy": conclusion.train_accuracy,
        "points": [
            {**asdict(mean_interval(list(point.accuracies.values()))), **asdict(point)} for point in conclusion.points
        ],
        "refusal": conclusion.reason or (conclusion.fit.refusal if conclusion.fit else None),
    }
    if conclusion.fit is not None:
        curve = drawn_curve(conclusion.fit)
        plain |= {
            "notes": list(conclusion.fit.notes),
            "forms": [asdict(form) for form in conclusion.fit.forms],
            "curve": {
                "per_class": list(curve.per_class),
                "accuracy": list(curve.accuracies),
                "low": list(curve.low),
                "high": list(curve.high),
                "others": {name: list(values) for name, values in curve.others.items()},
            },
        }
    for name in ("target", "elbow", "validation"):
        answer = getattr(conclusion, name)
        plain[name] = None if answer is None else asdict(answer)
    for name in ("ahead", "gains"):
        plain[name] = [asdict(each) for each in getattr(conclusion, name)]
    return json.dumps(finite(plain), indent=1) + "\n"


def drawn_curve(fit: CurveFit) -> FittedCurve:
    """The curve at sizes that lie close together, up to four times the largest measured one unless it refuses."""
    first, last = fit.points[0].per_class, fit.points[-1].per_class
    sizes = np.geomspace(first, last * (1 if fit.refusal else AHEAD_FACTORS[-1]), _DRAWN_SIZES)
    low, high = fit.interval(sizes)
    others = {name: fit.form_accuracy(form, sizes).tolist() for form, name in SHOWN_FORMS.items() if _has(fit, form)}
    return FittedCurve(sizes.tolist(), fit.accuracy(sizes).tolist(), low.tolist(), high.tolist(), others)


def _has(fit: CurveFit, name: str) -> bool:
    return any(form.name == name for form in fit.forms)


def measured_sizes(points: Sequence[CurvePoint]) -> MeasuredSizes:
    """What was measured, as a picture shows it."""
    means = [mean_interval(list(point.accuracies.values())) for point in points]
    return MeasuredSizes(
        per_class=[point.per_class for point in points],
        accuracies=[list(point.accuracies.values()) for point in points],
        low=[mean.low for mean in means],
        high=[mean.high for mean in means],
        interval_name="95 % t interval",
    )
