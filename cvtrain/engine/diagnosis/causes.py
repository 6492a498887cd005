"""Why a run is not learning: each cause as a function of figures, which says it in words with the remedy to type.

Knows figures and settings, not how they are measured nor when they are asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from cvtrain.engine.diagnosis.facts import RunFacts
from cvtrain.engine.diagnosis.measures import ProbeFigures, StepFigures

SPREAD, GRADIENT_RATIO = 1e-4, 1e-3
"""R2: outputs that differ less between images than by this share of their size do not depend on the image; nor do
gradients reach the first layer whose norm is below this share of the last layer's."""

GRADIENT_RATIO_AT_CHANCE = 1e-2
"""R2, in a run that is known to be at chance."""

DEAD = 0.9
"""R3: share of the units of a ReLU."""

ONE_CLASS = 0.95
"""R4: share of the answers."""

UPDATE, CLIPPED = 1e-5, 1000
"""R5: change of the weights in a step, in proportion to their norm, where about 1e-3 is healthy; norm of a gradient in
proportion to what it is cut to."""

TINY_GRADIENT = 1e-4
"""R8: norm of the gradient of all parameters at which a loss is saturated."""

DROPOUT, SHRUNK, FAINT, LOUD = 0.8, 0.1, 1e-3, 30.0
"""Dropout that leaves too little; weights that decayed to this share; inputs that hardly differ, or are too large."""


@dataclass(frozen=True)
class Evidence:
    """What is known at a look.

    Args:
        facts: The settings.
        first: Figures of the first step.
        now: Of this step.
        probe: What the model answers.
        loss: Mean training loss of late.
        chance_loss: That of a constant output, or None.
        dropout: Largest share that a dropout layer leaves out.
        began_badly: Whether signals had vanished, or units were dead, at the first step already.
    """

    facts: RunFacts
    first: StepFigures
    now: StepFigures
    probe: ProbeFigures
    loss: float
    chance_loss: float | None
    dropout: float = 0.0
    began_badly: bool = False


@dataclass(frozen=True)
class Cause:
    """A named cause.

    Args:
        rule: Its number, as in the documentation.
        words: What was found, with figures.
        remedy: What to type.
        is_firm: Whether it explains by itself that nothing is learnt; a weak one is a symptom of slow starts too.
    """

    rule: str
    words: str
    remedy: str
    is_firm: bool = True


def smaller_lr(facts: RunFacts) -> str:
    """Words for a learning rate ten times smaller, and a gentle start."""
    return f"optimizer.lr={facts.lr / 10:.3g} scheduler.warmup_epochs=1 trainer.grad_clip=1"


def better_start(facts: RunFacts) -> str:
    """Words for an initialisation, or a model, that lets signals through."""
    words = "trainer.init=he scheduler.warmup_epochs=1" if facts.init != "he" else "scheduler.warmup_epochs=1"
    return words + (f", or model={facts.better_model}" if facts.better_model else ", or a model with BatchNorm")


def inputs_say_nothing(e: Evidence) -> Cause | None:
    """Images that do not differ, or whose values are far from 1."""
    now = e.now
    if now.input_spread <= FAINT * max(now.input_size, 1e-12) or now.input_size < FAINT:
        words = f"the images hardly differ: {now.input_spread:.1e} between images at a size of {now.input_size:.1e}"
        return Cause("inputs", words, "look at the images of data.root, and at how they are read")
    if now.input_size > LOUD:
        words = f"the model is fed values of size {now.input_size:.1e} where 1 is right"
        return Cause("inputs", words, "normalise the images (data.statistics, or the model's own preprocessing)")
    return None


def too_much_dropout(e: Evidence) -> Cause | None:
    """Nearly every unit is left out of every step."""
    if e.dropout <= DROPOUT:
        return None
    key = "model.dropout=0.5" if "dropout" in e.facts.model_options else "a dropout of 0.5 in the model"
    return Cause("dropout", f"dropout leaves out {e.dropout:.0%} of a layer", key)


def nothing_is_trained(e: Evidence) -> Cause | None:
    """All weights but a few are frozen."""
    if e.now.trained_share >= 0.01:
        return None
    words = f"only {e.now.trained_share:.1%} of the weights are trained, trainer.freeze=[{','.join(e.facts.freeze)}]"
    return Cause("frozen", words, "trainer.freeze=[], or model.weights that are pretrained")


def weights_decay(e: Evidence) -> Cause | None:
    """Weight decay has eaten the weights."""
    if not e.facts.weight_decay or not e.first.weight or e.now.weight > SHRUNK * e.first.weight:
        return None
    words = f"the weights have shrunk to {e.now.weight / max(e.first.weight, 1e-12):.1e} of what they were"
    words += f" under optimizer.weight_decay={e.facts.weight_decay:g}"
    return Cause("decay", words, "optimizer.weight_decay=0.0005")


def diverging(e: Evidence) -> Cause | None:
    """R6: far worse than a constant answer."""
    if not e.chance_loss or e.loss <= 1.5 * e.chance_loss:
        return None
    words = (
        f"the loss {e.loss:.4g} is {e.loss / e.chance_loss:.1f} times that of a constant answer: the steps are too long"
    )
    return Cause("R6", words, smaller_lr(e.facts))


def saturated(e: Evidence) -> Cause | None:
    """R8: a loss, or an activation before it, that lets no gradient through."""
    facts, now = e.facts, e.now
    if e.first.in_unit_interval and now.in_unit_interval:
        what = "a softmax" if e.first.sum_to_one else "a sigmoid"
        words = f"the outputs all lie between 0 and 1: the model ends in {what}, under loss={facts.loss}"
        words += f" (gradient norm {e.first.gradient:.1e} at the start, {now.gradient:.1e} now)"
        return Cause("R8", words, "remove the last activation of the model, and take loss=cross_entropy")
    if facts.loss == "mae":
        words = f"loss=mae is least for an answer that is the same for all images (gradient norm {now.gradient:.1e})"
        return Cause("R8", words, "loss=cross_entropy, or loss=gce for wrong labels")
    return None


def dead_units(e: Evidence) -> Cause | None:
    """R3: a layer whose ReLUs are zero for every image."""
    dead = e.probe.dead
    if dead is None or dead <= DEAD:
        return None
    where = f"ReLU {e.probe.dead_index} of {e.probe.num_relus}"
    words = f"dead ReLUs: {dead:.0%} of the units of {where} are zero on all of {e.probe.num_images} images"
    return Cause("R3", words, better_start(e.facts) if e.began_badly else smaller_lr(e.facts))


def vanishing(e: Evidence, *, limit: float = GRADIENT_RATIO_AT_CHANCE) -> Cause | None:
    """R2: outputs that do not depend on the image, or gradients that do not reach the first layer."""
    now, found = e.now, []
    # Half types are too coarse for a small spread, but not for none at all; at the start that may be chance.
    limit_of_spread = (0.0 if now is not e.first else -1.0) if now.is_half else SPREAD * now.size
    if now.spread <= limit_of_spread:
        found.append(f"outputs differ between images by {_share(now.spread, now.size)} of their size")
    first, last = now.first_gradient, now.last_gradient
    if first is not None and last is not None and first <= limit * last:
        found.append(f"the gradient of the first layer is {_share(first, last)} of the last layer's")
    if not found:
        return None
    return Cause("R2", "the signal vanishes: " + ", ".join(found), better_start(e.facts))


def tiny_steps(e: Evidence, *, step: int, limit: float = UPDATE) -> Cause | None:
    """R5: weights that hardly move."""
    update = e.facts.at_peak(e.now.update, step)
    if update >= limit:
        return None
    words = f"a step changes the weights by {update:.1e} of their norm, where 1e-3 is usual"
    return Cause("R5", words, f"optimizer.lr={e.facts.lr * 10:.3g}")


def clipped_away(e: Evidence) -> Cause | None:
    """R5 by the clip of the gradient; weight decay may move the weights all the same."""
    clip = e.facts.grad_clip
    if clip is None or e.now.gradient <= CLIPPED * clip:
        return None
    words = f"trainer.grad_clip={clip:g} leaves {clip / e.now.gradient:.1e} of a gradient of norm {e.now.gradient:.2g}"
    return Cause("R5", words, "trainer.grad_clip=1")


def one_class(e: Evidence) -> Cause | None:
    """R4: the same answer for nearly all images."""
    if e.probe.top_share <= ONE_CLASS:
        return None
    words = f"class {e.probe.top_class} is the answer to {e.probe.top_share:.0%} of {e.probe.num_images} images"
    return Cause("R4", words, _remedy_of_slow_start(e), is_firm=False)


def _remedy_of_slow_start(e: Evidence) -> str:
    """Initial weights first, where little of the signal came through them; else shorter steps."""
    first, last = e.first.first_gradient, e.first.last_gradient
    is_weak = first is not None and last is not None and first <= GRADIENT_RATIO_AT_CHANCE * last
    return better_start(e.facts) if is_weak and e.facts.init != "he" else smaller_lr(e.facts)


def no_cause(e: Evidence) -> Cause:
    """None of the others: signals and steps are healthy, and a loss that stays where it is tells of neither side."""
    words = f"signals and steps look healthy (gradient norm {e.now.gradient:.1e})"
    either = f"optimizer.lr={e.facts.lr * 10:.3g} and optimizer.lr={e.facts.lr / 10:.3g}"
    return Cause("R1", words, f"check that labels belong to their images; try {either}", is_firm=False)


def _share(part: float, whole: float) -> str:
    return f"{part / whole:.1e}" if whole else "0"


def name_cause(e: Evidence, *, step: int) -> Cause:
    """The first cause that holds: what a user has done before what a net does, and firm ones before weak ones."""
    asked: list[Callable[[Evidence], Cause | None]] = [
        inputs_say_nothing,
        too_much_dropout,
        nothing_is_trained,
        weights_decay,
        saturated,
        diverging,
        clipped_away,
        dead_units,
        vanishing,
    ]
    for cause in asked:
        found = cause(e)
        if found:
            return found
    return tiny_steps(e, step=step) or one_class(e) or no_cause(e)
