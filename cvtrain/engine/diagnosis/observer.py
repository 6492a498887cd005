"""Follows a run by the sums that the trainer keeps anyway, and says once of each kind what is wrong.

Knows when to look, and keeps what a resumed run must know; what a finding means is decided elsewhere. Nothing it does
changes a number of the training.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor, nn

from cvtrain.engine.diagnosis import rules
from cvtrain.engine.diagnosis.causes import DEAD, GRADIENT_RATIO, Evidence, dead_units, inputs_say_nothing, vanishing
from cvtrain.engine.diagnosis.chance import chance_loss
from cvtrain.engine.diagnosis.facts import RunFacts
from cvtrain.engine.diagnosis.history import History, Totals
from cvtrain.engine.diagnosis.measures import ProbeFigures, StepFigures, StepMeasure, probe
from cvtrain.engine.events import Evaluation

READ_EVERY = 50
"""Steps between readings of the sums: the trainer waits for the device at the same steps."""

FIRST_LOOK, LATEST_FIRST_LOOK, SHORTEST_RUN = 300, 1000, 100
"""Steps of the first look, or one epoch where that is longer, but not later than so many; a shorter run is looked at
when it ends, if it has at least so many."""

PROBE_IMAGES = 512


@dataclass(frozen=True)
class Parts:
    """What the observer may look at, and must leave as it is.

    Args:
        model: The one that is trained; not compiled.
        loss_fn: The loss; may have `class_logits`.
        autocast: Gives the number format of products.
        images: Gives some images `(B, C, H, W)` as the model is fed them, the same each time.
    """

    model: nn.Module
    loss_fn: nn.Module
    autocast: Callable[[], AbstractContextManager[None]]
    images: Callable[[int], Tensor]

    def class_logits(self, outputs: Tensor) -> Tensor:
        """The logits of the classes among the outputs."""
        return getattr(self.loss_fn, "class_logits", lambda rows: rows)(outputs)

    def dropout(self) -> float:
        """The largest share that a dropout layer leaves out."""
        shares = [m.p for m in self.model.modules() if isinstance(m, nn.modules.dropout._DropoutNd) and m.training]
        return max(shares, default=0.0)


class Observer:
    """Looks at a run now and then.

    Args:
        facts: The settings.
        parts: Model, loss and images.
    """

    def __init__(self, facts: RunFacts, parts: Parts) -> None:
        self.facts, self.parts = facts, parts
        self.given: dict[str, str] = {}
        self.history = History()
        self._first: StepFigures | None = None
        self._measure: StepMeasure | None = None
        self._chance_loss: float | None = None
        self._knows_chance = False

    # ---------------------------------------------------------------------------------------- when

    @property
    def looks(self) -> set[int]:
        """The steps after which the run is judged."""
        facts = self.facts
        first = min(max(facts.steps_per_epoch, FIRST_LOOK), LATEST_FIRST_LOOK)
        end = {facts.total_steps} if facts.total_steps >= SHORTEST_RUN else set()
        return {first, 3 * first} | end

    def measure(self, step: int) -> StepMeasure | None:
        """What watches the step of this number, from 1, from inside; None for nearly all steps."""
        self._measure = StepMeasure(self.parts.model, self.parts.class_logits) if step in {1} | self.looks else None
        return self._measure

    # ---------------------------------------------------------------------------------------- what happens

    def after_step(self, step: int, totals: Callable[[], Totals]) -> list[rules.Finding]:
        """Takes in a step; gives what there is to say for the first time.

        Args:
            step: Steps taken so far.
            totals: Gives the sums since the last evaluation; asked every `READ_EVERY` steps.
        """
        facts, findings = self.facts, []
        is_look = step in self.looks
        if is_look or step % READ_EVERY == 0 or step % facts.evaluate_every == 0 or step >= facts.total_steps:
            self.history.read(step, totals())
            if step % READ_EVERY == 0:
                findings.append(rules.rising_loss(self.history, self.chance_loss, facts))
        figures = self._figures()
        if figures and step == 1:
            self._first = figures
            findings.append(self._at_first_sight(figures))
        if figures and is_look:
            findings.append(self._look(step, figures))
        return self._new(findings)

    def after_evaluation(self, evaluation: Evaluation) -> list[rules.Finding]:
        """Takes in an evaluation; gives what there is to say for the first time."""
        self.history.evaluated(evaluation, rules.is_at_chance(evaluation.val_accuracy, self.facts))
        is_late = evaluation.step >= min(self.looks)
        found = [
            rules.validation_at_chance(
                self.history, evaluation, self.facts, chance_loss=self.chance_loss, is_late=is_late
            ),
            rules.memorising(self.history, evaluation, self.chance_loss),
        ]
        return self._new(found)

    def _figures(self) -> StepFigures | None:
        measure, self._measure = self._measure, None
        return measure.figures() if measure else None

    def _new(self, findings: list[rules.Finding | None]) -> list[rules.Finding]:
        fresh = []
        for finding in findings:
            if finding is not None and finding.kind not in self.given:
                self.given[finding.kind] = finding.words
                fresh.append(finding)
        return fresh

    # ---------------------------------------------------------------------------------------- judgements

    @property
    def chance_loss(self) -> float | None:
        """The loss of a constant output; computed when it is first needed."""
        if not self._knows_chance:
            self._chance_loss = chance_loss(self.parts.loss_fn, self.facts.class_counts)
            self._knows_chance = True
        return self._chance_loss

    def _evidence(self, now: StepFigures, probed: ProbeFigures, loss: float) -> Evidence:
        chance = self.chance_loss
        began_badly = now is self._first or bool({"R2 at the start", "R3 at the start"} & self.given.keys())
        return Evidence(self.facts, self._first or now, now, probed, loss, chance, self.parts.dropout(), began_badly)

    def _probe(self) -> ProbeFigures:
        parts = self.parts
        images = parts.images(PROBE_IMAGES)
        return probe(parts.model, images, autocast=parts.autocast(), class_logits=parts.class_logits)

    def _at_first_sight(self, figures: StepFigures) -> rules.Finding | None:
        """What is wrong before anything is learnt: R2, R3 or R8."""
        activated = rules.activated_outputs(figures, self.parts.loss_fn, self.facts)
        if activated:
            return activated
        if figures.size == 0 and figures.last_gradient:
            return None  # a last layer that starts at zero is healthy: it learns first, and the others after it
        nobody = ProbeFigures(0, None, 0, 0, 0, 0.0)
        evidence = self._evidence(figures, nobody, 0.0)
        cause = inputs_say_nothing(evidence)
        if cause:
            return rules.at_the_start(cause)
        cause = vanishing(evidence, limit=GRADIENT_RATIO)
        if cause is None:
            return None
        probed = self._probe()
        if probed.dead is not None and probed.dead > DEAD:
            cause = dead_units(self._evidence(figures, probed, 0.0)) or cause
        return rules.at_the_start(cause)

    def _look(self, step: int, figures: StepFigures) -> rules.Finding | None:
        """R1 and its cause, or R5 alone."""
        recent = self.history.recent()
        if recent is None:
            return None
        if not rules.no_better_than_chance(recent, self.chance_loss, self.facts):
            return rules.too_slow(self.history, recent, figures, chance=self.chance_loss, facts=self.facts, step=step)
        evidence = self._evidence(figures, self._probe(), recent.loss)
        is_last = step >= min(3 * min(self.looks), self.facts.total_steps)
        return rules.not_learning(recent, evidence, step=step, is_last=is_last)

    # ---------------------------------------------------------------------------------------- state

    def state_dict(self) -> dict[str, Any]:
        """Plain values, for a checkpoint."""
        return {
            "given": dict(self.given),
            "history": self.history.state_dict(),
            "first": asdict(self._first) if self._first else None,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes over a saved state."""
        self.given = dict(state["given"])
        self.history.load_state_dict(state["history"])
        self._first = StepFigures(**state["first"]) if state["first"] else None
