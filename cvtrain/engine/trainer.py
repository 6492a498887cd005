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
from cvtrain.engine.device import Compute, memory_limit, step_memory_limit
from cvtrain.engine.diagnosis.history import Totals
from cvtrain.engine.diagnosis.measures import StepMeasure
from cvtrain.engine.distributed.shared_training import SharedTraining
from cvtrain.engine.evaluator import EvaluationResult, image_losses
from cvtrain.engine.events import Evaluation, Schedule, Step
from cvtrain.engine.sums import RunningSums
from cvtrain.errors import DivergedError
from cvtrain.seeding import derive_seed

CHECK_EVERY = 50
"""Steps between looks at whether losses on a GPU were finite: each look waits for the GPU."""


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
        accumulate: Parts that each batch is computed in.
        grad_clip: Largest norm of the gradient, or None.
        average: Averaged weights to keep and evaluate, or None.
        frozen: Modules that stay in evaluation mode.
        forward: The model to call, when it is not the model itself (compiled).
        shared: What several processes do together; all of them call everything here in the same order.

    Attributes:
        measure: Gives what watches the step of a number, from 1, or None for nearly all; may be replaced.
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
    ) -> None:
        self.model, self.loss_fn, self.optimizer, self.schedule = model, loss_fn, optimizer, schedule
        self.inputs, self.evaluate_fn, self.compute = inputs, evaluate_fn, compute
        self.total_steps, self.seed, self.evaluate_every = total_steps, seed, evaluate_every
        self.accumulate, self.grad_clip, self.average, self.frozen = accumulate, grad_clip, average, frozen
        self.forward, self.shared = forward or model, shared
        self.measure: Callable[[int], StepMeasure | None] = lambda _step: None
        self._tell_step = getattr(loss_fn, "set_step", lambda step: None)
        self._class_logits = getattr(loss_fn, "class_logits", lambda outputs: outputs)
        self.step = 0
        self._evaluated_at = 0
        self._base_lrs = [group["lr"] for group in optimizer.param_groups]
        self._scaler = torch.amp.GradScaler(compute.device.type, enabled=compute.precision == "fp16")
        self._sums = RunningSums(self.compute.device)
        self._bad_step = torch.zeros((), dtype=torch.int64, device=compute.device)

    @property
    def position(self) -> tuple[int, int]:
        """Steps taken, and the step of the last evaluation: the state is the same whenever these are."""
        return self.step, self._evaluated_at

    def totals(self) -> Totals:
        """Sums since the last evaluation; waits for the device."""
        sums = self._all_sums()
        return Totals(sums.loss.item(), sums.num_correct.item(), sums.num_images)

    def _all_sums(self) -> RunningSums:
        return self._sums if self.shared is None else self.shared.total(self._sums)

    @property
    def steps_per_epoch(self) -> int:
        """Batches in one pass over the training images."""
        return len(self.inputs)

    def run(self) -> Iterator[Step | Evaluation]:
        """Trains from where the trainer stands to the end.

        Between two yields the state is complete: it may be saved at any of them. An evaluation that was asked to
        stop is not yielded; it is made when the trainer runs again.

        Raises:
            DivergedError: A loss is not finite.
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
            yield batch

    def _take_step(self, inputs: Any) -> Step:
        lr = self._set_lr()
        self._tell_step(self.step)
        self._seed_step()
        with step_memory_limit(inputs.batch_size, self.accumulate):
            self._train_on(inputs)
        self.step += 1
        if self.average is not None:
            self.average.update()
        if self.compute.device.type == "cpu" or self.step % CHECK_EVERY == 0:
            self.check_finite_losses()
        self._sums.seconds += time.perf_counter() - self._batch_started
        return Step(self.step, lr)

    def _train_on(self, inputs: Any) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        measure = self.measure(self.step + 1)
        parts, shared = inputs.parts(self.accumulate), self.shared
        for part in parts:
            with self.compute.autocast(), shared.forward_pass(part) if shared else nullcontext():
                logits = self.forward(part.images)
            if measure:
                measure.outputs(part.images, logits)
            losses = image_losses(self.loss_fn, logits, part.labels)
            if part.weight is not None:
                others = image_losses(self.loss_fn, logits, part.other_labels)
                losses = part.weight * losses + (1 - part.weight) * others
            loss = losses.sum()
            if shared and part is parts[-1]:
                shared.expect_gradients(~torch.isfinite(loss.detach()) | (self._bad_step > 0))
            self._scaler.scale(loss / (inputs.batch_size * part.num_copies)).backward()
            self._add_to_sums(loss.detach(), logits.detach(), part)
        if shared:
            self._note_bad(shared.sum_gradients() > 0)
        self._scaler.unscale_(self.optimizer) if self._scaler.is_enabled() else None
        if measure:
            measure.gradients()
        if self.grad_clip is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.grad_clip)
        self._scaler.step(self.optimizer)
        self._scaler.update()
        if measure:
            measure.update()

    def _add_to_sums(self, loss: Tensor, logits: Tensor, part: Any) -> None:
        if self.shared is None or self.shared.counts(part):
            self._sums.add(loss, self._class_logits(logits), part)
        self._note_bad(~torch.isfinite(loss))

    def _note_bad(self, is_bad: Tensor) -> None:
        self._bad_step += (is_bad & (self._bad_step == 0)) * (self.step + 1)

    def _set_lr(self) -> float:
        factor = self.schedule.factor(self.step)
        for group, base_lr in zip(self.optimizer.param_groups, self._base_lrs, strict=True):
            group["lr"] = base_lr * factor
        return self._base_lrs[0] * factor

    def _seed_step(self) -> None:
        """Dropout draws from the global generators: each step, and each process, gives them a seed of its own."""
        process = self.shared.seed_parts if self.shared else ()
        seed = derive_seed(self.seed, "step", self.step, *process)
        torch.default_generator.manual_seed(seed)  # torch.manual_seed visits every backend: 75 times slower
        if self.compute.device.type == "cuda":
            torch.cuda.manual_seed(seed)
        elif self.compute.device.type == "mps":
            torch.mps.manual_seed(seed)

    # ------------------------------------------------------------------------------------------ evaluation

    def _evaluation_is_due(self) -> bool:
        at_mark = self.step % self.evaluate_every == 0 or self.step >= self.total_steps
        return self.step > self._evaluated_at and at_mark

    def _evaluate(self) -> Evaluation | None:
        started = time.perf_counter()
        self.check_finite_losses()  # waits for the steps that a GPU has still to do: they are training too
        self._sums.seconds += time.perf_counter() - started
        sums = self._all_sums()
        with self.average.applied() if self.average else nullcontext():
            result = self.evaluate_fn() if self.evaluate_fn else None
        if result is None and self.evaluate_fn:
            return None
        if result is not None and not torch.isfinite(torch.tensor(result.loss)):
            raise self._diverged("the validation loss", self.step)
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

    # -------------------------------------------------------------------------------------------- finite numbers

    def check_finite_losses(self) -> None:
        """Looks whether every loss so far was finite.

        Raises:
            DivergedError: One was not; the message names its step.
        """
        bad_step = int(self._bad_step)
        if bad_step:
            raise self._diverged("the loss", bad_step)

    def check_finite_weights(self) -> None:
        """Looks at every number that would be saved.

        Raises:
            DivergedError: One is not finite.
        """
        named = [(f"the weight {name}", tensor) for name, tensor in self.model.state_dict().items()]
        named += [("an averaged weight", tensor) for tensor in self.average.averages] if self.average else []
        of_optimizer = [tensor for state in self.optimizer.state.values() for tensor in state.values()]
        named += [("the state of the optimizer", t) for t in of_optimizer if isinstance(t, Tensor)]
        for name, tensor in named:
            if tensor.is_floating_point() and not torch.isfinite(tensor).all():
                raise self._diverged(name, self.step)

    def _diverged(self, what: str, step: int) -> DivergedError:
        lr = self.optimizer.param_groups[0]["lr"]
        return DivergedError(
            f"diverged: {what} is not a finite number at step {step} (lr {lr:g})",
            hint=f"try a smaller optimizer.lr such as optimizer.lr={self._base_lrs[0] / 10:.3g},"
            " scheduler.warmup_epochs=1 or trainer.grad_clip=1",
        )

    # -------------------------------------------------------------------------------------------- state

    def state_dict(self) -> dict[str, Any]:
        """Everything that a later process needs to go on exactly: tensors and plain values."""
        return {
            "step": self.step,
            "evaluated_at": self._evaluated_at,
            "sums": self._all_sums().state_dict(),
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "scaler": self._scaler.state_dict(),
            "average": self.average.state_dict() if self.average else None,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes over a saved state."""
        self.step, self._evaluated_at = state["step"], state["evaluated_at"]
        if self.shared is None or self.shared.team.is_first:
            self._sums.load_state_dict(state["sums"])
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self._scaler.load_state_dict(state["scaler"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
