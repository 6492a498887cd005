"""What a trainer does differently as one of several processes: all of it, in one place.

Knows a model and a team; not the loop that calls it.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from cvtrain.engine.distributed.gradients import GradientSum
from cvtrain.engine.distributed.sync_norm import SharedStatistics
from cvtrain.engine.distributed.team import Team
from cvtrain.engine.sums import RunningSums


class SharedTraining:
    """One model, trained by several processes.

    Args:
        model: With the weights of this process; takes those of the first one.
        team: The processes.
    """

    def __init__(self, model: nn.Module, team: Team) -> None:
        self.team = team
        self.statistics = SharedStatistics(model, team)
        self.gradients = GradientSum(model.parameters(), team)
        team.spread(model)

    @property
    def seed_parts(self) -> tuple[str, int]:
        """What makes the random numbers of this process others than those of any other."""
        return "process", self.team.rank.number

    def forward_pass(self, part: Any) -> AbstractContextManager[None]:
        """The context of a forward pass; a part that every process computes whole needs nobody's statistics."""
        return self.statistics.on(part.num_copies == 1)

    def counts(self, part: Any) -> bool:
        """Whether this process counts the images of a part: of those that all compute, one does."""
        return part.num_copies == 1 or self.team.is_first

    def total(self, sums: RunningSums) -> RunningSums:
        """The sums of all processes; the seconds are this one's."""
        figures = torch.stack([sums.loss, sums.num_correct.to(sums.loss.dtype), sums.loss.new_tensor(sums.num_images)])
        self.team.sum(figures)
        total = RunningSums(figures.device)
        loss, num_correct, num_images = figures.tolist()
        total.load_state_dict(
            {"loss": loss, "num_correct": int(num_correct), "num_images": int(num_images), "seconds": sums.seconds}
        )
        return total

    def expect_gradients(self, is_bad: Tensor) -> None:
        """Before the last backward pass of a step; `is_bad` says whether a loss of this process is not finite."""
        self.gradients.expect(is_bad)

    def sum_gradients(self) -> Tensor:
        """After it; returns how many processes have a loss that is not finite."""
        return self.gradients.finish()
