"""When a run is said not to learn: R1, and the rules that speak without it; each in one line with figures and remedy.

Knows figures, not how they are measured. The thresholds of causes stand in `causes.py`.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from torch import nn

from cvtrain.engine.diagnosis.causes import (
    TINY_GRADIENT,
    Cause,
    Evidence,
    clipped_away,
    name_cause,
    nothing_is_trained,
    smaller_lr,
    tiny_steps,
)
from cvtrain.engine.diagnosis.chance import chance_accuracy, is_above
from cvtrain.engine.diagnosis.facts import RunFacts
from cvtrain.engine.diagnosis.history import Block, History
from cvtrain.engine.diagnosis.measures import ProbeFigures, StepFigures
from cvtrain.engine.events import Evaluation

STUCK, DIVERGING = 0.99, 1.5
"""R1 and R6: shares of the loss of a constant answer."""

SLOW_FALL, SLOWEST_FALL, UNMOVED, SLOW_UPDATE, LEARNT = 0.02, 0.001, 0.98, 1e-4, 0.5
"""R5 alone: fall of the loss in 100 steps that is slow, and that is none; share of the first loss that is no progress;
change of the weights in a step; and the share of the loss of a constant answer below which all is well."""

KNOWS_TRAIN, EVALUATIONS, STEPS = 0.3, 2, 150
"""R7: how far the training accuracy must be from chance to 1, how often and how late validation must be at chance.

Before, the statistics of batch normalisation may not have followed the weights yet."""

FELL, ROSE = 0.98, 1.03
"""R7 from the first look on: training and validation loss as shares of that of a constant answer."""

KNOWS_ALL, RISES, RISE = 0.99, 3, 0.1
"""R9: training accuracy, evaluations that rise in a row, and by what share of the loss of a constant answer above the
best one."""


@dataclass(frozen=True)
class Finding:
    """Something to say.

    Args:
        kind: Each is said once in a run.
        words: One line: the rule in words, figures, the remedy to type.
        stops: Whether `trainer.on_not_learning=stop` ends the run here.
        remedy: What to type.
    """

    kind: str
    words: str
    remedy: str
    stops: bool = False


def is_at_chance(accuracy: float | None, facts: RunFacts) -> bool:
    """Whether a validation accuracy is none that chance would not reach."""
    if accuracy is None or not facts.num_val:
        return True
    return not is_above(round(accuracy * facts.num_val), facts.num_val, chance_accuracy(facts.class_counts))


def no_better_than_chance(recent: Block, chance_loss: float | None, facts: RunFacts) -> bool:
    """R1: accuracy and loss of late are those of a constant answer.

    Steps that see the same images again tell nothing new about them: at most as many count as there are.
    """
    if chance_loss is not None and recent.loss <= STUCK * chance_loss:
        return False
    num_images = min(recent.num_images, sum(facts.class_counts))
    return not is_above(round(recent.accuracy * num_images), num_images, chance_accuracy(facts.class_counts))


def not_learning(recent: Block, e: Evidence, *, step: int, is_last: bool) -> Finding | None:
    """R1 with its cause; a weak cause is told only when the learning rate has been high enough to learn."""
    cause = name_cause(e, step=step)
    has_peaked = e.facts.lr_has_peaked(step)
    if not cause.is_firm and not has_peaked and not is_last:
        return None
    accuracy = f"training accuracy {_percent(recent.accuracy)} of the last {recent.num_images:,} images"
    accuracy += f" (chance {_percent(chance_accuracy(e.facts.class_counts))})"
    loss = f"loss {recent.loss:.4g}" + (f" (a constant answer: {e.chance_loss:.4g})" if e.chance_loss else "")
    words = f"not learning after {step} steps: {accuracy}, {loss}; {cause.words}; remedy: {cause.remedy}"
    return Finding("not learning", words, cause.remedy, stops=cause.is_firm or is_last)


def at_the_start(cause: Cause) -> Finding:
    """What is wrong at the first step: R2, R3 or the inputs."""
    words = f"this model can hardly learn from its first step on: {cause.words}; remedy: {cause.remedy}"
    return Finding(f"{cause.rule} at the start", words, cause.remedy)


def activated_outputs(figures: StepFigures, loss_fn: nn.Module, facts: RunFacts) -> Finding | None:
    """R8 at the first step: a softmax before a loss that has its own, or a loss that is saturated from the start."""
    if not figures.in_unit_interval:
        return None
    if figures.sum_to_one and _has_softmax(loss_fn, len(facts.class_counts)):
        words = f"the model ends in a softmax, and loss={facts.loss} has its own: the loss cannot come near 0"
        words += f" (outputs between 0 and 1 that sum to 1, gradient norm {figures.gradient:.1e})"
    elif figures.gradient < TINY_GRADIENT:
        words = f"the loss is saturated: loss={facts.loss} on outputs between 0 and 1 has a gradient of norm"
        words += f" {figures.gradient:.1e}"
    else:
        return None
    remedy = "remove the last activation of the model, and take loss=cross_entropy"
    return Finding("R8", f"{words}; remedy: {remedy}", remedy)


def _has_softmax(loss_fn: nn.Module, num_classes: int) -> bool:
    """Whether a loss takes outputs for something else than the probabilities that they may be."""
    if not hasattr(loss_fn, "probabilities") or getattr(loss_fn, "num_outputs", num_classes) != num_classes:
        return False
    device = next((buffer.device for buffer in loss_fn.buffers()), torch.device("cpu"))
    certain = torch.eye(num_classes, device=device)
    return not torch.allclose(loss_fn.probabilities(certain), certain, atol=0.01)


def rising_loss(history: History, chance_loss: float | None, facts: RunFacts) -> Finding | None:
    """R6: over four times 50 steps the loss is far above that of a constant answer, and rises."""
    end = history.blocks[-1].end
    spans = [history.span(end - 50 * back, end - 50 * (back - 1)) for back in (4, 3, 2, 1)]
    losses = [span.loss for span in spans if span is not None and span.end - span.start == 50]
    if not chance_loss or len(losses) < 4 or min(losses) <= DIVERGING * chance_loss or losses != sorted(losses):
        return None
    if losses[-1] <= 1.02 * losses[0]:
        return None
    words = f"diverging: the loss rose from {losses[0]:.4g} to {losses[-1]:.4g} in 150 steps, a constant answer has"
    words += f" {chance_loss:.4g}; remedy: {smaller_lr(facts)}"
    return Finding("R6", words, smaller_lr(facts), stops=True)


def too_slow(
    history: History, recent: Block, figures: StepFigures, *, chance: float | None, facts: RunFacts, step: int
) -> Finding | None:
    """R5 in a run that is above chance, or whose untrained answers happen to be: it hardly moves.

    One that has come to rest after its loss fell is none: it has learnt what it can.
    """
    before = history.span(recent.start - 100, recent.start)
    if chance is None or recent.loss <= LEARNT * chance or before is None:
        return None
    fall = (before.loss - recent.loss) / before.loss * 100 / max(recent.end - before.end, 1)
    nobody = ProbeFigures(0, None, 0, 0, 0, 0.0)
    e = Evidence(facts, figures, figures, nobody, recent.loss, chance, 0.0)
    cause = nothing_is_trained(e) or clipped_away(e) or tiny_steps(e, step=step, limit=SLOW_UPDATE)
    is_at_rest = fall < SLOWEST_FALL and recent.loss < UNMOVED * (history.first_loss or 0)
    if cause is None or fall >= SLOW_FALL or is_at_rest:
        return None
    words = f"learning too slowly: the loss {recent.loss:.4g} falls by {_percent(max(fall, 0))} in 100 steps"
    return Finding("R5", f"{words}; {cause.words}; remedy: {cause.remedy}", cause.remedy)


def validation_at_chance(
    history: History, evaluation: Evaluation, facts: RunFacts, *, chance_loss: float | None, is_late: bool
) -> Finding | None:
    """R7: training images are learnt, and the validation images never known better than by chance."""
    if history.val_was_above_chance or history.num_evaluations < EVALUATIONS or evaluation.step < STEPS:
        return None
    accuracy, chance = evaluation.val_accuracy, chance_accuracy(facts.class_counts)
    if accuracy is None:
        return None
    drifts = is_late and _drifts_apart(history, evaluation, chance_loss)
    if not drifts and not _is_known_in_training_only(evaluation, accuracy, chance, facts):
        return None
    words = f"validation at chance: {_percent(accuracy)} of {facts.num_val:,} images (chance {_percent(chance)}), while"
    words += f" {_percent(evaluation.train_accuracy)} of the training images are right"
    remedy = "compare labels and preprocessing of both splits (are labels shuffled?), then more data or augment=strong"
    return Finding("R7", f"{words}; remedy: {remedy}", remedy)


def _is_known_in_training_only(evaluation: Evaluation, accuracy: float, chance: float, facts: RunFacts) -> bool:
    """Whether accuracies alone show it."""
    if evaluation.train_accuracy < chance + KNOWS_TRAIN * (1 - chance):
        return False
    # With few validation images chance reaches far: as many as half-way to the training accuracy must be ruled out too.
    half_way = (chance + evaluation.train_accuracy) / 2
    wrong = facts.num_val - round(accuracy * facts.num_val)
    return is_above(wrong, facts.num_val, 1 - half_way)


def _drifts_apart(history: History, evaluation: Evaluation, chance_loss: float | None) -> bool:
    """Whether the training loss has fallen below that of a constant answer, and the other has only risen above it."""
    if chance_loss is None or history.best_val_loss is None or len(history.val_losses) < 3:
        return False
    never_better = history.best_val_loss > STUCK * chance_loss and min(history.val_losses[-3:]) > chance_loss
    return never_better and evaluation.train_loss < FELL * chance_loss < ROSE * chance_loss < history.val_losses[-1]


def memorising(history: History, evaluation: Evaluation, chance_loss: float | None) -> Finding | None:
    """R9: the training images are known by heart, and the validation loss rises."""
    if evaluation.train_accuracy <= KNOWS_ALL or chance_loss is None or len(history.val_losses) <= RISES:
        return None
    losses, best = history.val_losses, history.best_val_loss
    assert best is not None, "there were evaluations"
    rises = all(later > earlier for earlier, later in itertools.pairwise(losses))
    if not rises or losses[-1] <= best + RISE * chance_loss:
        return None
    words = f"memorising: {_percent(evaluation.train_accuracy)} of the training images are right, and the validation"
    words += f" loss rose {RISES} times, to {losses[-1]:.4g} from {best:.4g} at its best"
    remedy = "trainer.early_stopping.patience=5, augment=flip_crop or optimizer.weight_decay=0.0005"
    return Finding("R9", f"{words}; remedy: {remedy}", remedy)


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
