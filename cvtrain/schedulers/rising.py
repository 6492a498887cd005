"""The schedule of a learning-rate range test: from very small to very large, by the same factor in every step.

Knows nothing of optimizers; no option of the group `scheduler` names it, for nobody trains so.
"""

from __future__ import annotations

from dataclasses import dataclass

from cvtrain.schedulers.schedule import Schedule, check


@dataclass(kw_only=True)
class Rising(Schedule):
    """A straight line over the logarithm of the lr, from `first_factor` in the first step to `last_factor` in the last.

    Args: those of `Schedule` and
        first_factor: Above 0.
        last_factor: Above 0.

    Source: Smith 2017 (arXiv 1506.01186), section 3.3, whose lr rises linearly; exponentially as in fastai's `lr_find`,
    so that every decade gets as many steps.
    """

    first_factor: float = 1e-3
    last_factor: float = 1e3

    def __post_init__(self) -> None:
        super().__post_init__()
        check("first_factor", self.first_factor, above=0)
        check("last_factor", self.last_factor, above=0)

    def _proper(self, step: int) -> float:
        progress = min(step / max(1, self._num_steps - 1), 1.0)
        return self.first_factor ** (1 - progress) * self.last_factor**progress
