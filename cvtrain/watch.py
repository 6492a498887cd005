"""What a run does about its diagnosis: it says each finding once, and stops where it was asked to.

Knows settings and how to say something; the rules are those of `engine.diagnosis`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from cvtrain import build
from cvtrain.config import Config
from cvtrain.engine.diagnosis.facts import RunFacts
from cvtrain.engine.diagnosis.history import Totals
from cvtrain.engine.diagnosis.observer import Observer, Parts
from cvtrain.engine.diagnosis.rules import Finding
from cvtrain.engine.events import Evaluation, Step
from cvtrain.engine.trainer import Trainer
from cvtrain.errors import NotLearningError


class Watch:
    """Follows a run.

    Args:
        observer: Finds what is wrong.
        say: Takes a sentence for the user.
        stops: Whether a run that does not learn is ended.
    """

    def __init__(self, observer: Observer, *, say: Callable[[str], None], stops: bool) -> None:
        self.observer, self._say, self._stops = observer, say, stops
        self.verdict: Finding | None = None

    @property
    def messages(self) -> list[str]:
        """All that was said in this run, by earlier processes too."""
        return list(self.observer.given.values())

    def see(self, event: Step | Evaluation, totals: Callable[[], Totals]) -> None:
        """Takes in an event, before the state after it is saved; `totals` gives the sums since the last evaluation."""
        if isinstance(event, Evaluation):
            findings = self.observer.after_evaluation(event)
        else:
            findings = self.observer.after_step(event.step, totals)
        for finding in findings:
            self._say(finding.words)
            if finding.stops and self._stops:
                self.verdict = finding

    def error(self, *, resume: str) -> NotLearningError:
        """What ends a run that is told to stop; `resume` is the command that goes on all the same."""
        assert self.verdict is not None, "there is a reason"
        return NotLearningError(self.verdict.words, hint=f"or go on all the same: {resume}")

    def state_dict(self) -> dict[str, Any]:
        """Plain values, for a checkpoint."""
        return self.observer.state_dict()

    def load_state_dict(self, state: dict[str, Any] | None) -> None:
        """Takes over a saved state; None: that of a run that was not watched."""
        if state is not None:
            self.observer.load_state_dict(state)


def watch_over(
    config: Config,
    prepared: build.PreparedData,
    trainer: Trainer,
    *,
    init: str,
    say: Callable[[str], None],
) -> Watch:
    """The watch over a run that has not taken a step yet; it measures some steps from inside the trainer.

    Args:
        config: Its settings.
        prepared: Its data.
        trainer: New.
        init: The initialisation used.
        say: Takes a sentence for the user.
    """
    name, choice = build.model_name(config), str(config["choices"]["model"])
    facts = RunFacts(
        class_counts=prepared.facts.class_counts,
        num_val=len(prepared.split.val),
        total_steps=trainer.total_steps,
        steps_per_epoch=trainer.steps_per_epoch,
        evaluate_every=trainer.evaluate_every,
        lr_factor=trainer.schedule.factor,
        lr=trainer.optimizer.param_groups[0]["lr"],
        weight_decay=config["optimizer"].get("weight_decay", 0.0),
        grad_clip=config["trainer"]["grad_clip"],
        init=init,
        model=name,
        loss=str(config["choices"]["loss"]),
        freeze=tuple(config["trainer"]["freeze"]),
        model_options=tuple(config["model"]),
        better_model=f"{choice}_bn" if choice.startswith("vgg") and not choice.endswith("_bn") else None,
    )

    def images(count: int) -> Tensor:
        taken: list[Tensor] = []
        for batch in trainer.inputs.epoch(0):  # the same for the same epoch, and draws from no global generator
            taken.append(batch.images)
            if sum(map(len, taken)) >= count:
                break
        return torch.cat(taken)[:count]

    observer = Observer(facts, Parts(trainer.model, trainer.loss_fn, trainer.compute.autocast, images))
    trainer.measure = observer.measure
    return Watch(observer, say=say, stops=config["trainer"].get("on_not_learning") == "stop")
