"""Running sums of training figures since the last evaluation, kept on the device so that nobody waits for them.

Knows losses and answers, not models.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from cvtrain.engine.metrics import predicted_classes


class RunningSums:
    """Sums over images.

    Args:
        device: Where the sums are kept.
    """

    def __init__(self, device: torch.device) -> None:
        dtype = torch.float32 if device.type == "mps" else torch.float64
        self.loss = torch.zeros((), dtype=dtype, device=device)
        self.num_correct = torch.zeros((), dtype=torch.int64, device=device)
        self.num_images = 0
        self.seconds = 0.0

    def add(self, loss: Tensor, logits: Tensor, part: Any) -> None:
        """Takes in images: the sum of their losses, their logits `(B, K)`, and the batch or part they are."""
        labels = part.labels
        if part.weight is not None:  # a mixed image counts as what it shows most of
            labels = torch.where(part.weight >= 0.5, part.labels, part.other_labels)
        self.loss += loss
        self.num_correct += (predicted_classes(logits) == labels).sum()
        self.num_images += len(labels)

    def state_dict(self) -> dict[str, Any]:
        """Plain values, for a checkpoint."""
        return {
            "loss": self.loss.item(),
            "num_correct": self.num_correct.item(),
            "num_images": self.num_images,
            "seconds": self.seconds,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes over a saved state; must be new."""
        self.loss += state["loss"]
        self.num_correct += state["num_correct"]
        self.num_images, self.seconds = state["num_images"], state["seconds"]
