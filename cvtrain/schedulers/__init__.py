"""Learning-rate schedules: for each training step, the factor that multiplies the optimizer's lr.

Knows nothing of optimizers; only `Plateau` remembers anything, all others are functions of the step.
"""

from cvtrain.schedulers.courses import Constant, Cosine, Exponential, Linear, Multistep, OneCycle, Step
from cvtrain.schedulers.plateau import Plateau
from cvtrain.schedulers.schedule import Schedule

__all__ = [
    "Constant",
    "Cosine",
    "Exponential",
    "Linear",
    "Multistep",
    "OneCycle",
    "Plateau",
    "Schedule",
    "Step",
]
