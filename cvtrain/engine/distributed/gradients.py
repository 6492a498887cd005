"""The gradient of the global batch: the sum over all processes, in large pieces, while the backward pass still runs.

Knows parameters and a team; not losses or optimizers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from cvtrain.engine.distributed.team import Team

_BUCKET_BYTES = 25 * 2**20
"""As DistributedDataParallel. Source: Li et al. 2020 (arXiv 2006.15704), section 3.2.2."""


class _Bucket:
    """Parameters whose gradients are summed in one piece.

    Args:
        parameters: Of one dtype and device.
        num_extra: Numbers that travel behind them.
    """

    def __init__(self, parameters: list[nn.Parameter], num_extra: int) -> None:
        self.parameters = parameters
        num_numbers = sum(p.numel() for p in parameters)
        self.flat = torch.zeros(num_numbers + num_extra, dtype=parameters[0].dtype, device=parameters[0].device)
        self.extra = self.flat[num_numbers:]
        offsets = [0]
        for parameter in parameters:
            offsets.append(offsets[-1] + parameter.numel())
        self.views = [_view(self.flat, p, at) for p, at in zip(parameters, offsets, strict=False)]
        self.waiting: set[nn.Parameter] = set()

    def fill(self) -> None:
        """Copies the gradients in; a parameter without one counts as zero."""
        pairs = [(v, p.grad) for v, p in zip(self.views, self.parameters, strict=True) if p.grad is not None]
        if len(pairs) < len(self.views):
            torch._foreach_zero_([v for v, p in zip(self.views, self.parameters, strict=True) if p.grad is None])
        if pairs:
            views, gradients = zip(*pairs, strict=True)
            torch._foreach_copy_(list(views), list(gradients))


def _view(flat: Tensor, parameter: Tensor, offset: int) -> Tensor:
    """A piece of a bucket in the shape and the memory order of a parameter; dense ones are as long as their strides."""
    size, stride = parameter.size(), parameter.stride()
    span = 1 + sum((n - 1) * s for n, s in zip(size, stride, strict=True))
    if span != parameter.numel():
        return flat[offset : offset + parameter.numel()].view(size)
    return flat.as_strided(size, stride, offset)


class GradientSum:
    """Sums the gradients of all processes, and lets them agree on their wishes meanwhile.

    Buckets are sent in the same order by every process, from the last layers, whose gradients come first, to the first.
    A parameter that no process has a gradient for keeps none, so that an optimizer passes it over as in one process.

    Args:
        parameters: Those of the model; of these, the ones that are trained count.
        team: Who sums.
        bucket_bytes: Size of a piece.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], team: Team, *, bucket_bytes: int = _BUCKET_BYTES) -> None:
        self.team = team
        self._trained = [p for p in parameters if p.requires_grad]
        groups = _grouped(self._trained[::-1], bucket_bytes)
        self._buckets = [_Bucket(group, int(i == len(groups) - 1)) for i, group in enumerate(groups)]
        self._bucket_of = {p: bucket for bucket in self._buckets for p in bucket.parameters}
        self._started: list[Callable[[], None]] = []
        self._is_last = False
        for parameter in self._trained:
            parameter.register_post_accumulate_grad_hook(self._has_gradient)

    def expect(self, extra: Tensor) -> None:
        """Begins: the next backward pass is the last of this step. A number `extra` is summed along."""
        self._is_last, self._started = True, []
        self._buckets[-1].extra.copy_(extra)
        for bucket in self._buckets:
            bucket.waiting = set(bucket.parameters)

    def _has_gradient(self, parameter: nn.Parameter) -> None:
        if not self._is_last:
            return
        self._bucket_of[parameter].waiting.discard(parameter)
        while len(self._started) < len(self._buckets) - 1 and not self._buckets[len(self._started)].waiting:
            self._start_next()

    def _start_next(self) -> None:
        bucket = self._buckets[len(self._started)]
        bucket.fill()
        self._started.append(self.team.start_sum(bucket.flat))

    def finish(self) -> Tensor:
        """Ends: each gradient is the sum over the processes; sets `team.heard`.

        Returns:
            The sum of `extra`, on the device.
        """
        self._is_last = False
        known = [int(p.grad is not None) for p in self._trained]
        agree = self.team.start_largest([*(int(wish) for wish in self.team.ask()), *known])
        while len(self._started) < len(self._buckets):
            self._start_next()
        agreed = agree()
        self.team.heard = self.team.wishes_from(agreed)
        for wait in self._started:
            wait()
        self._started = []
        exists = dict(zip(self._trained, agreed[-len(known) :], strict=True))
        for bucket in self._buckets:
            for parameter, view in zip(bucket.parameters, bucket.views, strict=True):
                parameter.grad = view if exists[parameter] else None
        return self._buckets[-1].extra[0]


def _grouped(parameters: list[nn.Parameter], bucket_bytes: int) -> list[list[nn.Parameter]]:
    """Neighbours together, up to a size, each group of one dtype and device."""
    groups: list[list[nn.Parameter]] = []
    num_bytes = 0
    for parameter in parameters:
        last = groups[-1][0] if groups else None
        is_alike = last is not None and (last.dtype, last.device) == (parameter.dtype, parameter.device)
        if not is_alike or num_bytes + parameter.nbytes > bucket_bytes:
            groups.append([])
            num_bytes = 0
        groups[-1].append(parameter)
        num_bytes += parameter.nbytes
    return groups
