"""The layer table of a model: output shapes, parameters and floating-point operations.

Does not know how a table is printed, and never computes with real numbers: everything runs on the meta device.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cvtrain.models.meta import on_meta


@dataclass(frozen=True)
class LayerSummary:
    """One layer.

    Args:
        name: Dotted name in the model, as in its state_dict; empty for the model itself.
        kind: Name of the class.
        output_shape: Shape of the output for one image, without the batch axis; empty if the layer never ran by
            itself (its owner used its weights).
        num_parameters: Parameters that the layer itself holds; one that is shared counts where it is first met.
        flops: Floating-point operations per image, a multiply-add counted as two; 0 for layers without products
            (normalisation, activation, pooling).
    """

    name: str
    kind: str
    output_shape: tuple[int, ...]
    num_parameters: int
    flops: int


@dataclass(frozen=True)
class ModelSummary:
    """A model's layers, in the order in which they run, and their sums.

    Args:
        layers: Every layer that has no layers inside, or that holds parameters itself.
        num_parameters: All parameters.
        num_trainable: Those that are not frozen.
        flops: Floating-point operations of one forward pass per image: convolutions and matrix products, a
            multiply-add counted as two.
    """

    layers: tuple[LayerSummary, ...]
    num_parameters: int
    num_trainable: int
    flops: int


def summarise(model: nn.Module, *, in_channels: int, image_size: int) -> ModelSummary:
    """Summarise `model` for one float image `(1, in_channels, image_size, image_size)`, in evaluation mode.

    The model itself is neither run nor changed, and its weights are not copied.

    Raises:
        RuntimeError: The model cannot take such images; see `cvtrain.models.fit.check_image_size`.
    """
    from torch.utils.flop_counter import FlopCounterMode  # 0.3 s to import

    twin = on_meta(model).eval()
    layers = {name: module for name, module in twin.named_modules() if _is_layer(module)}
    counter = FlopCounterMode(display=False)
    recorder = _Recorder(counter.get_total_flops)
    for name, module in layers.items():
        recorder.watch(name, module)
    with torch.no_grad(), counter:
        twin(torch.empty(1, in_channels, image_size, image_size, device="meta"))
    parameters = list(twin.parameters())
    return ModelSummary(
        layers=_rows(layers, recorder),
        num_parameters=sum(p.numel() for p in parameters),
        num_trainable=sum(p.numel() for p in parameters if p.requires_grad),
        flops=counter.get_total_flops(),
    )


class _Recorder:
    """Notes, for each watched layer in order of its first call, the output shape and the operations of its own."""

    def __init__(self, total_flops_fn: Callable[[], int]) -> None:
        self.output_shapes: dict[str, tuple[int, ...]] = {}
        self.flops: dict[str, int] = {}
        self._total_flops_fn = total_flops_fn
        self._open: list[tuple[str, int]] = []

    def watch(self, name: str, module: nn.Module) -> None:
        def enter(module: nn.Module, inputs: tuple) -> None:
            self.output_shapes.setdefault(name, ())
            self._open.append((name, self._total_flops_fn()))

        def leave(module: nn.Module, inputs: tuple, output: object) -> None:
            self.output_shapes[name] = _shape_of_one(output)
            _, before = self._open.pop()
            flops = self._total_flops_fn() - before
            self.flops[name] = self.flops.get(name, 0) + flops
            if self._open:
                # A layer inside another has a row of its own: what it did is not its owner's.
                owner, _ = self._open[-1]
                self.flops[owner] = self.flops.get(owner, 0) - flops

        module.register_forward_pre_hook(enter)
        module.register_forward_hook(leave)


def _is_layer(module: nn.Module) -> bool:
    has_children = next(module.children(), None) is not None
    return not has_children or next(module.parameters(recurse=False), None) is not None


def _shape_of_one(output: object) -> tuple[int, ...]:
    while isinstance(output, tuple | list) and output:
        output = output[0]
    return tuple(output.shape[1:]) if isinstance(output, Tensor) else ()


def _rows(layers: dict[str, nn.Module], recorder: _Recorder) -> tuple[LayerSummary, ...]:
    counted: set[int] = set()
    rows = []
    silent = [name for name in layers if name not in recorder.output_shapes]
    for name in [*recorder.output_shapes, *silent]:
        own = {id(p): p.numel() for p in layers[name].parameters(recurse=False) if id(p) not in counted}
        counted |= own.keys()
        if name in silent and not own:
            continue
        rows.append(
            LayerSummary(
                name=name,
                kind=type(layers[name]).__name__,
                output_shape=recorder.output_shapes.get(name, ()),
                num_parameters=sum(own.values()),
                flops=recorder.flops.get(name, 0),
            )
        )
    return tuple(rows)
