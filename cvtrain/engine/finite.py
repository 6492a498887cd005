"""Whether every number of a training is finite and, where one is not, in words which one, when, and for which images.

Knows tensors and what to call them; not how they are computed.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from cvtrain.engine.averaging import WeightAverage
from cvtrain.errors import DivergedError

CHECK_EVERY = 50
"""Steps between looks at numbers on a GPU: each look waits for the GPU. On a CPU every step is looked at."""

SMALLEST_SCALE = 2.0**-24
"""A loss scaler that has come down to this has met infinite gradients at every scale that fp16 could need."""

_SMALL = 2**14
_SHOWN_IMAGES = 3


@torch.no_grad()
def all_finite(tensors: Iterable[Tensor]) -> bool:
    """Whether all floating-point numbers of some tensors on one device are finite; costs about one pass over them."""
    together: list[Tensor] = []
    for tensor in tensors:
        if not tensor.is_floating_point():
            continue
        if tensor.dtype is torch.float32 and (tensor.is_cuda or (tensor.is_cpu and tensor.numel() <= _SMALL)):
            together.append(tensor)
        # A sum is fast, and finite for finite numbers unless they are huge: only then each is looked at.
        elif not math.isfinite(tensor.sum().item()) and not torch.isfinite(tensor).all():
            return False
    if not together:
        return True
    # What loss scaling looks for, at a scale of 1: one call for all, where a call for each took 3 to 7 times longer.
    found, one = torch.zeros((), device=together[0].device), torch.ones((), device=together[0].device)
    torch._amp_foreach_non_finite_check_and_unscale_(together, found, one)
    return not found.item()


def finite_rows(tensor: Tensor) -> Tensor:
    """bool `(N,)`: of which rows of `(N, ...)` all numbers are finite."""
    return torch.isfinite(tensor.detach().flatten(1)).all(1) if tensor.ndim > 1 else torch.isfinite(tensor.detach())


class _Seen(NamedTuple):
    """A step: its number, from 1, which images it held, and on a CPU their pixels `(B, ...)` and losses by part."""

    step: int
    indices: Tensor
    images: Tensor | None
    losses: tuple[Tensor, ...]


class FiniteCheck:
    """Follows a training, and ends it at the first number that is not finite.

    On a GPU losses are noted without waiting for it, and all is looked at every `CHECK_EVERY` steps and whenever
    something is to be kept.

    Args:
        modules: The model that is trained and its loss.
        optimizer: Of its parameters.
        average: Averaged weights, or None.
        scaler: The loss scaler; while it is at work it skips steps with infinite gradients, which is no divergence.
        device: Where all of these are.
        name_images: What to call the images with some indices.
    """

    def __init__(
        self,
        modules: tuple[nn.Module, nn.Module],
        *,
        optimizer: torch.optim.Optimizer,
        average: WeightAverage | None,
        scaler: torch.amp.GradScaler,
        device: torch.device,
        name_images: Callable[[Tensor], Sequence[str]],
    ) -> None:
        self.modules, self.optimizer, self.average, self.scaler = modules, optimizer, average, scaler
        self._looks_always, self._name_images = device.type == "cpu", name_images
        self._base_lr = optimizer.param_groups[0]["lr"]
        self._bad_step = torch.zeros((), dtype=torch.int64, device=device)
        self._seen: deque[_Seen] = deque(maxlen=1 if self._looks_always else CHECK_EVERY)

    # ---------------------------------------------------------------------------------------- what happens

    @property
    def has_seen_bad(self) -> Tensor:
        """bool, on the device: whether a loss was not finite."""
        return self._bad_step > 0

    def see_losses(self, step: int, inputs: Any, losses: Sequence[Tensor], *, is_bad: Tensor) -> None:
        """Takes in a step that is about to change the weights.

        Args:
            step: Its number, from 1.
            inputs: Has `indices` and `images`.
            losses: Of its images, part by part.
            is_bad: bool: whether one of them is not finite, in any process.

        Raises:
            DivergedError: One is not; on a GPU that is seen later.
        """
        self._bad_step += (is_bad & (self._bad_step == 0)) * step
        if self._looks_always:
            self._seen.append(_Seen(step, inputs.indices, inputs.images, tuple(losses)))
            self.check_losses()
        else:
            self._seen.append(_Seen(step, inputs.indices, None, ()))

    def is_time(self, step: int) -> bool:
        """Whether to look at all numbers after a step."""
        return self._looks_always or step % CHECK_EVERY == 0

    def check_losses(self) -> None:
        """Looks whether every loss so far was finite.

        Raises:
            DivergedError: One was not; the message names its step.
        """
        bad_step = int(self._bad_step)
        if bad_step:
            raise self.error("the loss", bad_step)

    def check_norm(self, norm: Tensor, step: int) -> None:
        """Looks at the norm of the gradient before it is clipped; on a GPU what comes of it is seen later.

        Raises:
            DivergedError: It is not finite, and no loss scaler is at work, which would skip the step.
        """
        if self._looks_always and not self.scaler.is_enabled() and not math.isfinite(norm.item()):
            raise self.error(self._bad_gradient() or "the norm of the gradient", step)

    def check_all(self, step: int) -> None:
        """Looks at all that would be saved after a step, and at all losses so far.

        Raises:
            DivergedError: A number is not finite.
        """
        self.check_losses()
        if not all_finite(self._tensors()):
            raise self.error(self._bad_gradient() or self._bad_state(), step)
        if self.scaler.is_enabled() and self.scaler.get_scale() < SMALLEST_SCALE:
            raise self.error("the gradient, in fp16 at any scale,", step)

    # ---------------------------------------------------------------------------------------- which one

    def _tensors(self) -> Iterator[Tensor]:
        for module in self.modules:
            yield from module.parameters()
            yield from module.buffers()
        for state in self.optimizer.state.values():
            yield from (value for value in state.values() if isinstance(value, Tensor))
        if self.average:
            yield from self.average.averages

    def _bad_gradient(self) -> str | None:
        if self.scaler.is_enabled():
            return None
        named = ((name, p.grad) for name, p in self.modules[0].named_parameters() if p.grad is not None)
        return next((f"the gradient of {name}" for name, grad in named if not all_finite([grad])), None)

    def _bad_state(self) -> str:
        named = [(f"the weight {name}", tensor) for name, tensor in self.modules[0].named_parameters()]
        named += [(f"the statistic {name}", tensor) for name, tensor in self.modules[0].named_buffers()]
        named += [(f"{name} of the loss", tensor) for name, tensor in self.modules[1].state_dict().items()]
        named += [("an averaged weight", tensor) for tensor in (self.average.averages if self.average else ())]
        return next((name for name, tensor in named if not all_finite([tensor])), "the state of the optimizer")

    def error(self, what: str, step: int) -> DivergedError:
        """What to raise.

        Args:
            what: The number that is not finite.
            step: Of which one, from 1; the images of that step are named where they are still known.
        """
        lr, images, hint = self.optimizer.param_groups[0]["lr"], "", None
        seen = next((seen for seen in self._seen if seen.step == step), None)
        if seen is not None:
            good_pixels = finite_rows(seen.images) if seen.images is not None else None
            if good_pixels is not None and not good_pixels.all():
                what, images = "a pixel", self._named(seen.indices[~good_pixels], "in")
                hint = "mend these images, or leave them out"
            else:
                bad = ~finite_rows(torch.cat(seen.losses)) if seen.losses else torch.zeros(1, dtype=torch.bool)
                some = bool(bad.any()) and not bool(bad.all())
                images = self._named(seen.indices[bad] if some else seen.indices, "for" if some else "its batch:")
        return DivergedError(
            f"diverged: {what} is not a finite number at step {step} (lr {lr:g}){images}",
            hint=hint
            or f"try a smaller optimizer.lr such as optimizer.lr={self._base_lr / 10:.3g},"
            " scheduler.warmup_epochs=1 or trainer.grad_clip=1",
        )

    def _named(self, indices: Tensor, word: str) -> str:
        names = ", ".join(self._name_images(indices[:_SHOWN_IMAGES]))
        more = len(indices) - _SHOWN_IMAGES
        return f"; {word} {names}" + (f" and {more} more" if more > 0 else "")
