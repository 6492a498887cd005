"""The training loop: a generator that yields every step and every evaluation, and leaves decisions to its caller.

Knows a model, a loss, an optimizer and batches of tensors; not where they come from, nor files, consoles or configs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from cvtrain.engine.averaging import WeightAverage
from cvtrain.engine.device import Compute, memory_limit
from cvtrain.engine.diagnosis.history import Totals
from cvtrain.engine.diagnosis.measures import StepMeasure
from cvtrain.engine.distributed.shared_training import SharedTraining
from cvtrain.engine.evaluator import EvaluationResult
from cvtrain.engine.events import Evaluation, RunningFigures, Schedule, Step
from cvtrain.engine.finite import FiniteCheck
from cvtrain.engine.plain_state import check_fits_optimizer
from cvtrain.engine.step import TrainingStep
from cvtrain.engine.sums import RunningSums


class Trainer:
    """Trains a model step by step.

    Args:
        model: Maps float images `(B, C, H, W)` to logits; already on the device.
        loss_fn: Maps logits and labels to one loss per image. Where it has `set_step`, it is told each step; where it
            has `class_logits`, these are the logits among the model's outputs.
        optimizer: Over the model's parameters; its learning rates are the base of the schedule.
        schedule: Gives the factor of the learning rate at each step.
        inputs: Has a length (batches per epoch) and `epoch(number, start=)`.
        evaluate_fn: Evaluates the model on the validation images; None as a result means it was asked to stop.
            None as a function: there is no validation.
        compute: Device and number format.
        total_steps: When training is over.
        seed: Of everything random inside a step (dropout).
        evaluate_every: Steps between evaluations.
        accumulate: Parts that each batch is computed in; more where memory does not suffice.
        grad_clip: Largest norm of the gradient, or None.
        average: Averaged weights to keep and evaluate, or None.
        frozen: Modules that stay in evaluation mode.
        forward: The model to call, when it is not the model itself (compiled).
        shared: What several processes do together; all of them call everything here in the same order.
        warn: Takes a sentence for the user.
        name_images: What to call the training images with some indices; None: by these.

    Attributes:
        measure: Gives what watches the step of a number, from 1, or None for nearly all; may be replaced.
        step: Steps taken.
        training_seconds: That steps of this process took, with the preparation of their batches.
        waiting_seconds: Those of them in which nothing was done but to prepare a batch, or to wait for one.
        is_whole: Whether the state is that after these steps; False after an error that came while weights changed.
    """

    def __init__(
        self,
        model: nn.Module,
        loss_fn: nn.Module,
        *,
        optimizer: torch.optim.Optimizer,
        schedule: Schedule,
        inputs: Any,
        evaluate_fn: Callable[[], EvaluationResult | None] | None,
        compute: Compute,
        total_steps: int,
        seed: int,
        evaluate_every: int,
        accumulate: int = 1,
        grad_clip: float | None = None,
        average: WeightAverage | None = None,
        frozen: Sequence[nn.Module] = (),
        forward: Callable[[Tensor], Tensor] | None = None,
        shared: SharedTraining | None = None,
        warn: Callable[[str], None] = lambda _sentence: None,
        name_images: Callable[[Tensor], Sequence[str]] | None = None,
    ) -> None:
        self.model, self.loss_fn, self.optimizer, self.schedule = model, loss_fn, optimizer, schedule
        self.inputs, self.evaluate_fn, self.compute = inputs, evaluate_fn, compute
        self.total_steps, self.seed, self.evaluate_every = total_steps, seed, evaluate_every
        self.average, self.frozen, self.shared = average, frozen, shared
        self.measure: Callable[[int], StepMeasure | None] = lambda _step: None
        self._tell_step = getattr(loss_fn, "set_step", lambda step: None)
        self._class_logits = getattr(loss_fn, "class_logits", lambda outputs: outputs)
        self.step, self.is_whole = 0, True
        self.training_seconds = self.waiting_seconds = 0.0
        self._evaluated_at = 0
        self._base_lrs = [group["lr"] for group in optimizer.param_groups]
        self._sums = RunningSums(self.compute.device)
        self._step_maker = TrainingStep(
            model,
            loss_fn,
            optimizer,
            compute=compute,
            forward=forward or model,
            seed=seed,
            accumulate=accumulate,
            grad_clip=grad_clip,
            shared=shared,
            warn=warn,
        )
        self._finite = FiniteCheck(
            (model, loss_fn),
            optimizer=optimizer,
            average=average,
            scaler=self._step_maker.scaler,
            device=compute.device,
            name_images=name_images or (lambda indices: [f"image {i}" for i in indices.tolist()]),
        )

    @property
    def position(self) -> tuple[int, int]:
        """Steps taken, and the step of the last evaluation: the state is the same whenever these are."""
        return self.step, self._evaluated_at

    def totals(self) -> Totals:
        """Sums since the last evaluation; waits for the device."""
        sums = self._all_sums()
        return Totals(sums.loss.item(), sums.num_correct.item(), sums.num_images)

    def running_figures(self) -> RunningFigures | None:
        """Figures since the last evaluation, for whoever looks on; None where it would be to wait for the device."""
        sums = self._sums
        if not sums.num_images or not sums.seconds or not self._finite.is_time(self.step):
            return None  # on a GPU they are there after the steps at which it was waited for anyway
        num_processes = 1 if self.shared is None else self.shared.team.size
        return RunningFigures(
            train_loss=sums.loss.item() / sums.num_images,
            images_per_second=num_processes * sums.num_images / sums.seconds,
        )

    def _all_sums(self) -> RunningSums:
        return self._sums if self.shared is None else self.shared.total(self._sums)

    @property
    def num_parts(self) -> int:
        """Parts that each batch is computed in now."""
        return self._step_maker.parted.num_parts

    @property
    def data_wait_share(self) -> float | None:
        """Of the time that this process trained, the share in which it did nothing but wait for batches, 0..1."""
        return self.waiting_seconds / self.training_seconds if self.training_seconds else None

    @property
    def steps_per_epoch(self) -> int:
        """Batches in one pass over the training images."""
        return len(self.inputs)

    def run(self) -> Iterator[Step | Evaluation]:
        """Trains from where the trainer stands to the end.

        Between two yields the state is complete: it may be saved at any of them. An evaluation that was asked to
        stop is not yielded; it is made when the trainer runs again.

        Raises:
            DivergedError: A number is not finite: on a CPU after the step that made it so, on a GPU within
                `finite.CHECK_EVERY` steps, and on both before it is yielded in an evaluation.
            MemoryLimitError: The device has no room.
        """
        self._set_mode()
        while True:
            if self._evaluation_is_due():
                evaluation = self._evaluate()
                if evaluation is None:
                    return
                yield evaluation
            if self.step >= self.total_steps:
                return
            epoch, position = divmod(self.step, self.steps_per_epoch)
            for inputs in self._timed(self.inputs.epoch(epoch, start=position)):
                yield self._take_step(inputs)
                if self._evaluation_is_due():
                    evaluation = self._evaluate()
                    if evaluation is None:
                        return
                    yield evaluation
                if self.step >= self.total_steps:
                    return

    def _set_mode(self) -> None:
        self.model.train()
        for module in self.frozen:
            module.training = False  # not eval(), which would reach its children

    def _timed(self, batches: Iterator) -> Iterator:
        """Starts the clock before each batch is prepared; `_take_step` stops it."""
        while True:
            self._batch_started = time.perf_counter()
            with memory_limit("out of memory while preparing a batch", hint="type a smaller trainer.batch_size"):
                batch = next(batches, None)
            if batch is None:
                return
            self.waiting_seconds += time.perf_counter() - self._batch_started
            yield batch

    def _take_step(self, inputs: Any) -> Step:
        lr, number = self._set_lr(), self.step + 1
        self._tell_step(self.step)
        results, measure, is_bad = self._step_maker.compute_gradient(
            inputs,
            step=self.step,
            measure=lambda: self.measure(number),
            has_seen_bad=self._finite.has_seen_bad,
        )
        self._finite.see_losses(number, inputs, [result.losses for result in results], is_bad=is_bad)
        self.is_whole = False
        self._step_maker.change_weights(measure, check=self._finite, step=number)
        for result in results:
            if self.shared is None or self.shared.counts(result.part):
                self._sums.add(result.losses.sum(), self._class_logits(result.logits), result.part)
        if self.average is not None:
            self.average.update()
        self.step, self.is_whole = number, True
        if self._finite.is_time(number):
            self._finite.check_all(number)
        self._count_seconds(since=self._batch_started)
        return Step(number, lr)

    def _count_seconds(self, *, since: float) -> None:
        seconds = time.perf_counter() - since
        self._sums.seconds += seconds
        self.training_seconds += seconds

    def _set_lr(self) -> float:
        factor = self.schedule.factor(self.step)
        for group, base_lr in zip(self.optimizer.param_groups, self._base_lrs, strict=True):
            group["lr"] = base_lr * factor
        return self._base_lrs[0] * factor

    # ------------------------------------------------------------------------------------------ evaluation

    def _evaluation_is_due(self) -> bool:
        at_mark = self.step % self.evaluate_every == 0 or self.step >= self.total_steps
        return self.step > self._evaluated_at and at_mark

    def _evaluate(self) -> Evaluation | None:
        started = time.perf_counter()
        self.check_finite()  # waits for the steps that a GPU has still to do: they are training too
        self._count_seconds(since=started)
        sums = self._all_sums()
        with self.average.applied() if self.average else nullcontext():
            result = self.evaluate_fn() if self.evaluate_fn else None
        if result is None and self.evaluate_fn:
            return None
        if result is not None and not result.is_finite:
            raise self._finite.error("the validation loss", self.step)
        epoch = self.step / self.steps_per_epoch
        evaluation = Evaluation(
            epoch=int(epoch) if epoch == int(epoch) else round(epoch, 4),
            step=self.step,
            train_loss=sums.loss.item() / sums.num_images,
            train_accuracy=sums.num_correct.item() / sums.num_images,
            val_loss=result.loss if result else None,
            val_accuracy=result.accuracy if result else None,
            lr=self.optimizer.param_groups[0]["lr"],
            seconds=sums.seconds,
            images_per_second=sums.num_images / sums.seconds if sums.seconds else 0.0,
            val_cross_entropy=result.cross_entropy if result else None,
        )
        if result is not None:
            self.schedule.observe(result.loss)
        self._evaluated_at = self.step
        self._sums = RunningSums(self.compute.device)
        self._set_mode()
        return evaluation

    def check_finite(self) -> None:
        """Looks at every number that would be saved, and at every loss so far.

        Raises:
            DivergedError: One is not finite.
        """
        self._finite.check_all(self.step)

    # -------------------------------------------------------------------------------------------- state

    def state_dict(self) -> dict[str, Any]:
        """Everything that a later process needs to go on exactly: tensors and plain values."""
        return {
            "step": self.step,
            "evaluated_at": self._evaluated_at,
            "sums": self._all_sums().state_dict(),
            "model": self.model.state_dict(),
            "loss": self.loss_fn.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "scaler": self._step_maker.scaler.state_dict(),
            "average": self.average.state_dict() if self.average else None,
            "num_parts": self.num_parts,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes over a saved state."""
        self.step, self._evaluated_at = state["step"], state["evaluated_at"]
        if self.shared is None or self.shared.team.is_first:
            self._sums.load_state_dict(state["sums"])
        self.model.load_state_dict(state["model"])
        self.loss_fn.load_state_dict(state.get("loss", {}))  # which checkpoints of earlier versions lack
        check_fits_optimizer(state["optimizer"], self.optimizer)
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self._step_maker.scaler.load_state_dict(state["scaler"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        parted = self._step_maker.parted
        parted.num_parts = max(parted.num_parts, state.get("num_parts", 1))
