"""A trained model with all that stands between plain inputs and probabilities.

Knows models, losses and how inputs are prepared; not files.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from cvtrain.data.facts import DataFacts
from cvtrain.data.permutation import permutation_of

EXAMPLE_BATCH_SIZE = 2
"""Of the inputs that a graph is drawn from: with one alone it would be drawn for one alone."""


class ExportedModel(nn.Module):
    """Plain inputs to probabilities: normalisation, order of pixels and the loss's own probabilities are inside.

    Maps float32 images `(N, C, H, W)` in 0..1, or points `(N, D)`, to float32 `(N, K)`. Computes on the CPU in float32.

    Args:
        model: With its trained weights; it is copied.
        loss_fn: The loss that it was trained with, which knows how outputs become probabilities.
        facts: Of the data that it was trained on.
    """

    def __init__(self, model: nn.Module, loss_fn: nn.Module, facts: DataFacts) -> None:
        super().__init__()
        self.model = copy.deepcopy(model).cpu().to(memory_format=torch.contiguous_format)
        self.facts, self.is_point = facts, facts.preprocessing.is_point
        self._probabilities = copy.deepcopy(loss_fn).cpu().probabilities  # the rule alone, without the loss's buffers
        # Long names: exporters call what an operator gives by its name, and two tensors called `mean` make no graph.
        self.register_buffer("channel_mean", torch.tensor(facts.statistics.mean).view(-1, 1, 1))
        self.register_buffer("channel_std", torch.tensor(facts.statistics.std).view(-1, 1, 1))
        self.permute = permutation_of(facts.preprocessing, device=torch.device("cpu"))
        self.eval().requires_grad_(False)

    @property
    def input_name(self) -> str:
        """What the inputs are."""
        return "points" if self.is_point else "images"

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Of one input."""
        size, channels = self.facts.image_size, self.facts.in_channels
        return (channels,) if self.is_point else (channels, size, size)

    def forward(self, inputs: Tensor) -> Tensor:
        """See the class."""
        images = inputs[:, :, None, None] if self.is_point else inputs
        images = (images - self.channel_mean) / self.channel_std
        if self.permute is not None:
            images = self.permute(images)
        return self._probabilities(self.model(images))

    def program(self) -> torch.export.ExportedProgram:
        """The graph of all this, for any number of inputs, without the names of files that it was made from.

        Raises:
            Exception: Of any kind, where a model does what no graph can tell.
        """
        example = torch.zeros(EXAMPLE_BATCH_SIZE, *self.input_shape)
        num_inputs = torch.export.Dim("N", min=1)
        program = torch.export.export(self, (example,), dynamic_shapes=({0: num_inputs},))
        for node in program.graph.nodes:
            node.meta.pop("stack_trace", None)
        return program
