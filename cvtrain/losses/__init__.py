"""The losses: functions of a model's outputs and the labels, one value per image.

Knows nothing of models, batches of images, or what is done with the values.
"""

from cvtrain.losses.distance import MeanAbsoluteError, MeanSquaredError
from cvtrain.losses.entropy import BinaryCrossEntropy, CrossEntropy, Focal, GeneralizedCrossEntropy, Squentropy
from cvtrain.losses.loss import ClassificationLoss
from cvtrain.losses.margin import AdditiveMarginSoftmax, LargeMarginSoftmax, SoftMarginSoftmax

__all__ = [
    "AdditiveMarginSoftmax",
    "BinaryCrossEntropy",
    "ClassificationLoss",
    "CrossEntropy",
    "Focal",
    "GeneralizedCrossEntropy",
    "LargeMarginSoftmax",
    "MeanAbsoluteError",
    "MeanSquaredError",
    "SoftMarginSoftmax",
    "Squentropy",
]
