"""Figures of a model at one training step, and of what it answers to a few images.

Knows tensors and modules, and leaves all of them as they were; not what the figures mean.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from cvtrain.engine.metrics import predicted_classes


@dataclass(frozen=True)
class StepFigures:
    """What one training step shows; a figure that cannot be had is None.

    Args:
        spread: Standard deviation of the outputs over the images, mean over the outputs.
        size: Mean absolute output.
        is_half: Whether outputs are of a half type, too coarse for a small spread.
        in_unit_interval: Whether all outputs lie in [0, 1].
        sum_to_one: Whether, besides, each row sums to 1.
        input_spread: Standard deviation over the images, mean over the pixels.
        input_size: Root mean square of the pixels.
        first_gradient: Norm of the gradient of the first layer's weights, before clipping.
        last_gradient: Of the last layer's.
        gradient: Of all parameters.
        update: Norm of the change of all weight matrices and filters, divided by their norm.
        weight: That norm.
        trained_share: Share of the weights that are trained at all.
    """

    spread: float
    size: float
    is_half: bool
    in_unit_interval: bool
    sum_to_one: bool
    input_spread: float
    input_size: float
    first_gradient: float | None
    last_gradient: float | None
    gradient: float
    update: float
    weight: float
    trained_share: float


class StepMeasure:
    """Watches one training step from inside; the trainer calls its methods in turn.

    Args:
        model: The one that is trained, about to take the step.
        class_logits: Gives the logits of the classes among outputs.
    """

    def __init__(self, model: nn.Module, class_logits: Callable[[Tensor], Tensor]) -> None:
        self._class_logits = class_logits
        self._parameters = [p for p in model.parameters() if p.requires_grad]
        self._weights = [p for p in self._parameters if p.ndim > 1]
        self._num_weights = sum(p.numel() for p in model.parameters() if p.ndim > 1)
        self._before = [p.detach().clone() for p in self._weights]
        self._found: dict[str, Any] = {}

    def part_begins(self) -> None:
        """The batch, or the next part of it, is about to go through the model; others measure how long that takes."""

    @torch.no_grad()
    def outputs(self, images: Tensor, outputs: Tensor) -> None:
        """Takes in what the model made of images; of a batch in parts the first counts."""
        if self._found:
            return
        pixels, rows = images.flatten(1).float(), self._class_logits(outputs.detach()).float()
        many = len(rows) > 1
        self._found = {
            "spread": rows.std(0).mean() if many else rows.abs().mean(),
            "size": rows.abs().mean(),
            "in_unit_interval": ((rows >= 0) & (rows <= 1)).all(),
            "sum_to_one": ((rows.sum(1) - 1).abs() < 0.01).all(),
            "input_spread": pixels.std(0).mean() if many else pixels.std(),
            "input_size": pixels.square().mean().sqrt(),
        }
        self._is_half = outputs.dtype in (torch.float16, torch.bfloat16)

    @torch.no_grad()
    def gradients(self) -> None:
        """Takes in the gradients, as they are before clipping."""
        norms = [p.grad.norm() for p in self._weights if p.grad is not None]
        if len(norms) > 2:  # of fewer layers no signal vanishes
            self._found |= {"first_gradient": norms[0], "last_gradient": norms[-1]}
        self._found["gradient"] = _norm([p.grad for p in self._parameters if p.grad is not None])

    @torch.no_grad()
    def update(self) -> None:
        """Takes in the weights after the step."""
        weight = _norm(self._before)
        change = _norm([p - before for p, before in zip(self._weights, self._before, strict=True)])
        self._found |= {"weight": weight, "update": change / weight.clamp_min(1e-12)}
        self._before = []

    def figures(self) -> StepFigures:
        """All of them; waits for the device."""
        found = {name: value.item() for name, value in self._found.items()}
        return StepFigures(
            **{"first_gradient": None, "last_gradient": None} | found,
            is_half=self._is_half,
            trained_share=sum(p.numel() for p in self._weights) / max(self._num_weights, 1),
        )


def _norm(tensors: list[Tensor]) -> Tensor:
    if not tensors:
        return torch.zeros(())
    return torch.stack([t.float().norm() for t in tensors]).norm()


@dataclass(frozen=True)
class ProbeFigures:
    """What a model answers to a few images.

    Args:
        num_images: How many.
        dead: Of the ReLU with the largest share of units that are zero on every image, this share; None without any.
        dead_index: Which one that is, from 1.
        num_relus: How many there are.
        top_class: The class that is answered most often.
        top_share: How often, 0..1.
    """

    num_images: int
    dead: float | None
    dead_index: int
    num_relus: int
    top_class: int
    top_share: float


_RELUS = (F.relu, F.relu_, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_, F.relu6)


class _ReluWatch(TorchFunctionMode):
    """Counts the units of each ReLU, as a module or as a function, that are zero on every image."""

    def __init__(self) -> None:
        super().__init__()
        self.shares: list[Tensor] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func in _RELUS and result.ndim > 1:
            places = [d for d in range(result.ndim) if d != 1]  # a unit is a channel
            self.shares.append((result.amax(places) <= 0).float().mean())
        return result


def probe(
    model: nn.Module,
    images: Tensor,
    *,
    autocast: AbstractContextManager[None],
    class_logits: Callable[[Tensor], Tensor],
) -> ProbeFigures:
    """Asks a model about images, without dropout, and with batch normalisation as in training.

    Neither modes, buffers nor global generators are changed.

    Args:
        model: Maps `(B, C, H, W)` to outputs.
        images: Float `(B, C, H, W)`, B at least 2.
        autocast: The number format of products.
        class_logits: Gives the logits of the classes among outputs.
    """
    with torch.no_grad(), torch.random.fork_rng(devices=[]), _asked(model), _ReluWatch() as relus, autocast:
        outputs = model(images)
    predicted = predicted_classes(class_logits(outputs)).cpu()
    top_class = int(predicted.bincount().argmax())
    shares = [share.item() for share in relus.shares]
    worst = max(range(len(shares)), key=shares.__getitem__, default=0)
    return ProbeFigures(
        num_images=len(images),
        dead=shares[worst] if shares else None,
        dead_index=worst + 1,
        num_relus=len(shares),
        top_class=top_class,
        top_share=(predicted == top_class).float().mean().item(),
    )


@contextlib.contextmanager
def _asked(model: nn.Module) -> Iterator[None]:
    """Evaluation mode but for batch normalisation that is trained: early in a run its statistics mean nothing."""
    modes = [(module, module.training) for module in model.modules()]
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    norms = {m for m, trains in modes if trains and isinstance(m, nn.modules.batchnorm._BatchNorm)}
    tracked = {norm: norm.track_running_stats for norm in norms}
    try:
        for module, _ in modes:
            module.training = module in norms
        for norm in norms:
            norm.track_running_stats = False
        yield
    finally:
        for norm, tracks in tracked.items():
            norm.track_running_stats = tracks
        for module, trains in modes:
            module.training = trains
        for buffer, before in buffers:
            buffer.copy_(before)
