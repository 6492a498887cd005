"""One optimizer step: the gradient of a batch, computed in as many parts as memory asks for, and what it changes.

Knows a model, a loss and an optimizer; not schedules, evaluations or how many steps there are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from cvtrain.engine.device import Compute, memory_limit
from cvtrain.engine.diagnosis.measures import StepMeasure
from cvtrain.engine.distributed.shared_training import SharedTraining
from cvtrain.engine.evaluator import image_losses
from cvtrain.engine.finite import FiniteCheck
from cvtrain.engine.memory import TRAINING, PartedWork
from cvtrain.seeding import derive_seed, seed_generators


class PartResult(NamedTuple):
    """What the model made of a part of a batch, all of it detached.

    Args:
        losses: `(B,)`, of its images.
        logits: `(B, ...)`, the outputs.
        part: The part itself.
    """

    losses: Tensor
    logits: Tensor
    part: Any


class TrainingStep:
    """Computes gradients and takes steps.

    Args:
        model: The one that is trained.
        loss_fn: Maps outputs and labels to losses.
        optimizer: Over the model's parameters.
        compute: Device and number format.
        forward: The model to call.
        seed: Of everything random inside a step.
        accumulate: Parts that each batch is computed in, at least.
        grad_clip: Largest norm of the gradient, or None.
        shared: What several processes do together, or None.
        warn: Takes a sentence for the user.
    """

    def __init__(
        self,
        model: nn.Module,
        loss_fn: nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        compute: Compute,
        forward: Callable[[Tensor], Tensor],
        seed: int,
        accumulate: int,
        grad_clip: float | None,
        shared: SharedTraining | None,
        warn: Callable[[str], None],
    ) -> None:
        self.model, self.loss_fn, self.optimizer, self.compute = model, loss_fn, optimizer, compute
        self.forward, self.seed, self.grad_clip, self.shared = forward, seed, grad_clip, shared
        self.parted = PartedWork(TRAINING, compute.device, num_parts=accumulate, smallest=2, warn=warn)
        self.scaler = torch.amp.GradScaler(compute.device.type, enabled=compute.precision == "fp16")
        self._statistics = _Statistics((model, loss_fn))

    def compute_gradient(
        self, inputs: Any, *, step: int, measure: Callable[[], StepMeasure | None], has_seen_bad: Tensor
    ) -> tuple[list[PartResult], StepMeasure | None, Tensor]:
        """Puts the gradient of the mean loss of a batch into the parameters.

        Where memory does not suffice it is computed again in smaller parts, as if nothing had been computed before.

        Args:
            inputs: The batch.
            step: Steps taken before this one.
            measure: Gives what watches this step, or None.
            has_seen_bad: bool: whether a loss before this step was not finite.

        Returns:
            The results of the parts; what has watched; bool on the device: whether a loss of any process is not finite.

        Raises:
            MemoryLimitError: Nor does it for the smallest parts.
        """
        if self.shared:  # the others would wait for the gradients of the first attempt
            with _shared_memory_limit(inputs.batch_size, self.parted.num_parts):
                return self._gradient_in(self.parted.num_parts, inputs, step, measure, has_seen_bad)
        self._statistics.remember()
        return self.parted.compute(
            lambda num_parts: self._gradient_in(num_parts, inputs, step, measure, has_seen_bad),
            batch_size=inputs.batch_size,
            undo=self._undo,
        )

    def _undo(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        self._statistics.restore()

    def _gradient_in(
        self,
        num_parts: int,
        inputs: Any,
        step: int,
        make_measure: Callable[[], StepMeasure | None],
        has_seen_bad: Tensor,
    ) -> tuple[list[PartResult], StepMeasure | None, Tensor]:
        self.optimizer.zero_grad(set_to_none=True)
        self.seed_step(step)
        measure, parts, results = make_measure(), inputs.parts(num_parts), []
        for part in parts:
            if measure:
                measure.part_begins()
            losses, logits = self._losses(part, measure)
            loss = losses.sum()
            results.append(PartResult(losses.detach(), logits.detach(), part))
            if self.shared and part is parts[-1]:
                self.shared.expect_gradients(_any_bad(results) | has_seen_bad)
            self.scaler.scale(loss / (inputs.batch_size * part.num_copies)).backward()
        is_bad = self.shared.sum_gradients() > 0 if self.shared else _any_bad(results)
        return results, measure, is_bad

    def _losses(self, part: Any, measure: StepMeasure | None) -> tuple[Tensor, Tensor]:
        shared = self.shared
        with self.compute.autocast(), shared.forward_pass(part) if shared else nullcontext():
            logits = self.forward(part.images)
        if measure:
            measure.outputs(part.images, logits)
        losses = image_losses(self.loss_fn, logits, part.labels)
        if part.weight is not None:
            others = image_losses(self.loss_fn, logits, part.other_labels)
            losses = part.weight * losses + (1 - part.weight) * others
        return losses, logits

    def change_weights(self, measure: StepMeasure | None, *, check: FiniteCheck, step: int) -> None:
        """Takes the step that the gradient tells.

        Args:
            measure: What watches this step.
            check: Looks at the norm of the gradient, where that is needed anyhow.
            step: The number of this step, from 1.

        Raises:
            DivergedError: The norm is not finite.
            MemoryLimitError: There is no room for the optimizer's state: smaller parts would need as much.
        """
        with memory_limit(
            "out of memory while the optimizer changed the weights", hint="type optimizer=sgd, or a smaller model"
        ):
            if self.scaler.is_enabled():
                self.scaler.unscale_(self.optimizer)
            if measure:
                measure.gradients()
            if self.grad_clip is not None:
                parameters = list(self.model.parameters())
                norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
                check.check_norm(norm, step)
                nn.utils.clip_grads_with_norm_(parameters, self.grad_clip, norm)
            self.scaler.step(self.optimizer)
            self.scaler.update()
            if measure:
                measure.update()

    def seed_step(self, step: int) -> None:
        """Dropout draws from the global generators: each step, and each process, gives them a seed of its own."""
        process = self.shared.seed_parts if self.shared else ()
        seed_generators(derive_seed(self.seed, "step", step, *process), device_type=self.compute.device.type)


def _any_bad(results: Sequence[PartResult]) -> Tensor:
    """bool, on the device: whether the sum of the losses of a part is not finite."""
    return ~torch.isfinite(torch.stack([result.losses.sum() for result in results])).all()


def _shared_memory_limit(batch_size: int, num_parts: int) -> Any:
    in_parts = f" in {num_parts} parts" if num_parts > 1 else ""
    return memory_limit(
        f"out of memory in a step of {batch_size} images{in_parts}",
        hint=f"type trainer.accumulate={num_parts * 2} (the same step in less memory; one process alone finds that out"
        f" itself) or trainer.batch_size={max(batch_size // 2, 1)}",
    )


class _Statistics:
    """The buffers of modules, which forward passes change, as they were before a step."""

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        self.modules = modules
        self._kept: list[list[Tensor]] = []

    @torch.no_grad()
    def remember(self) -> None:
        """Copies them."""
        found = self._found()
        if [[b.shape for b in kind] for kind in found] != [[b.shape for b in kind] for kind in self._kept]:
            self._kept = [[torch.empty_like(buffer) for buffer in kind] for kind in found]
        for kept, kind in zip(self._kept, found, strict=True):
            if kind:
                torch._foreach_copy_(kept, kind)

    @torch.no_grad()
    def restore(self) -> None:
        """Puts them back."""
        for kept, kind in zip(self._kept, self._found(), strict=True):
            if kind:
                torch._foreach_copy_(kind, kept)

    def _found(self) -> list[list[Tensor]]:
        """Those of floating-point numbers, which one operation copies all at once, and the others."""
        buffers = [buffer for module in self.modules for buffer in module.buffers()]
        return [[b for b in buffers if b.is_floating_point() == is_float] for is_float in (True, False)]
