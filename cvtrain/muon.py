"""Muon: momentum whose matrix updates are made orthogonal, with AdamW for everything that is no matrix.

Knows nothing of models or configs; it sees parameters in the order in which their layers were made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import groupby
from typing import Any

import torch
from torch import Tensor
from torch.optim.adamw import adamw

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""The quintic a x + b x^3 + c x^5, steep at 0, that drives singular values to about 0.7..1.2.

Source: Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks" (kellerjordan.github.io).
"""


class Muon(torch.optim.Optimizer):
    """Orthogonalised momentum for matrices and convolution filters; AdamW for the rest, in one optimizer.

    A filter `(out, in, k, k)` is treated as the matrix `(out, in*k*k)`. With G the (Nesterov) momentum, the step is
    W <- W - lr * weight_decay * W - lr * sqrt(max(1, rows / columns)) * orthogonalise(G), the decay being decoupled.
    Norms and biases (one axis or none) always go to AdamW. Parameters are split into groups at construction, each
    with its own `lr`, so that a scheduler can scale all of them by one factor.

    Args:
        params: Parameters, or groups of them, in the order of the model's layers.
        lr: Of the orthogonalised step.
        weight_decay: Decoupled, as a share per step of the lr of the group: 1 - lr * weight_decay.
        momentum: In [0, 1).
        nesterov: Look one step ahead along the momentum.
        ns_steps: Newton-Schulz iterations, at least 1.
        normalise_weights: Before each step rescale every orthogonalised matrix to the Frobenius norm sqrt(rows);
            for convolutions that a norm follows.
        adamw_lr: The lr of AdamW's parameters.
        adamw_betas: Decay of AdamW's running means of the gradient and of its square.
        adamw_eps: Added to AdamW's denominator.
        adamw_first_layer: Give the first matrix to AdamW.
        adamw_last_layer: Give the last matrix, the classifier, to AdamW.

    Raises:
        ValueError: An option out of range, or no matrix left to orthogonalise.

    Source: Jordan et al. 2024 for the method; its use on convolutions and `normalise_weights` follow
    cifar10-airbench (Jordan 2024, arXiv 2404.00498, and its later Muon variant).
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float = 0.02,
        *,
        weight_decay: float = 0.01,
        momentum: float = 0.95,
        nesterov: bool = True,
        ns_steps: int = 5,
        normalise_weights: bool = False,
        adamw_lr: float = 0.001,
        adamw_betas: tuple[float, float] = (0.9, 0.999),
        adamw_eps: float = 1e-8,
        adamw_first_layer: bool = False,
        adamw_last_layer: bool = True,
    ) -> None:
        _check_at_least_zero(lr=lr, weight_decay=weight_decay, adamw_lr=adamw_lr, adamw_eps=adamw_eps)
        _check_share(momentum=momentum, **{f"adamw_betas[{i}]": beta for i, beta in enumerate(adamw_betas)})
        if ns_steps < 1:
            raise ValueError(f"ns_steps is {ns_steps}; at least one iteration is needed")
        defaults = {
            "lr": lr,
            "weight_decay": weight_decay,
            "method": "muon",
            "momentum": momentum,
            "nesterov": nesterov,
            "ns_steps": ns_steps,
            "normalise_weights": normalise_weights,
            "betas": tuple(adamw_betas),
            "eps": adamw_eps,
        }
        groups = _split_by_method(params, first=adamw_first_layer, last=adamw_last_layer)
        for group in groups:
            if group["method"] == "adamw":
                group["lr"] = adamw_lr
        super().__init__(groups, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:
        """One step on every parameter that has a gradient.

        Args:
            closure: Computes the loss and its gradients again, as `torch.optim.Optimizer` has it.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            params = [param for param in group["params"] if param.grad is not None]
            if group["method"] == "muon":
                self._muon_step(group, params)
            else:
                self._adamw_step(group, params)
        return loss

    def _muon_step(self, group: dict[str, Any], params: list[Tensor]) -> None:
        def matrix_shape(param: Tensor) -> tuple[int, int]:
            return param.shape[0], param[0].numel()

        # Matrices of one shape are orthogonalised together: a small network has many and each costs 5 x 3 products.
        for shape, same_shape in groupby(sorted(params, key=matrix_shape), key=matrix_shape):
            members = list(same_shape)
            updates = torch.stack([self._momentum(group, param).reshape(shape) for param in members])
            rows, columns = shape
            scale = max(1, rows / columns) ** 0.5
            for param, update in zip(members, orthogonalise(updates, group["ns_steps"]), strict=True):
                if group["normalise_weights"]:
                    param.mul_(rows**0.5 / param.norm().clamp_min(1e-12))
                param.mul_(1 - group["lr"] * group["weight_decay"])
                param.add_(update.view(param.shape), alpha=-group["lr"] * scale)

    def _momentum(self, group: dict[str, Any], param: Tensor) -> Tensor:
        """The running mean of the gradient, or Nesterov's look ahead from it, in the shape of the parameter."""
        state = self.state[param]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(param)
        mean = state["momentum_buffer"].lerp_(param.grad, 1 - group["momentum"])
        return param.grad.lerp(mean, group["momentum"]) if group["nesterov"] else mean

    def _adamw_step(self, group: dict[str, Any], params: list[Tensor]) -> None:
        for param in params:
            state = self.state[param]
            if not state:
                # "step" lives on the CPU: read on the device, each step would wait for the device.
                state["step"] = torch.tensor(0.0)
                state["exp_avg"] = torch.zeros_like(param)
                state["exp_avg_sq"] = torch.zeros_like(param)
        states = [self.state[param] for param in params]
        adamw(
            params,
            [param.grad for param in params],
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],
            [state["step"] for state in states],
            amsgrad=False,
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=False,
        )


def orthogonalise(matrices: Tensor, steps: int = 5) -> Tensor:
    """Roughly replace every singular value by 1, by Newton-Schulz iterations.

    Args:
        matrices: Floating point `(..., rows, columns)`, any scale; a matrix of zeros stays so.
        steps: Iterations; 5 bring all but the tiniest singular values into about 0.7..1.2.

    Returns:
        Of the shape and dtype of `matrices`; on a GPU computed in bfloat16, which the iteration tolerates.

    Source: see `NEWTON_SCHULZ`.
    """
    a, b, c = NEWTON_SCHULZ
    x = matrices.bfloat16() if matrices.is_cuda else matrices.to(torch.promote_types(matrices.dtype, torch.float32))
    tall = x.shape[-2] > x.shape[-1]
    if tall:  # the smaller of the two Gram matrices has the same singular values
        x = x.mT
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp_min(1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.mT if tall else x).to(matrices.dtype)


def _split_by_method(
    params: Iterable[Tensor] | Iterable[dict[str, Any]], *, first: bool, last: bool
) -> list[dict[str, Any]]:
    """Each group in up to two, by the method that serves its parameters."""
    params = list(params)
    groups = params if params and isinstance(params[0], dict) else [{"params": params}]
    groups = [{**group, "params": list(group["params"])} for group in groups]
    matrices = [param for group in groups for param in group["params"] if param.ndim >= 2]
    for_muon = {id(param) for param in matrices[int(first) : len(matrices) - int(last)]}
    if not for_muon:
        raise ValueError(
            f"Muon has nothing to orthogonalise: the model has {len(matrices)} weight matrices, "
            f"and adamw_first_layer={first} and adamw_last_layer={last} leave none"
        )
    split = []
    for group in groups:
        for method in ("muon", "adamw"):
            chosen = [param for param in group["params"] if (id(param) in for_muon) == (method == "muon")]
            if chosen:
                split.append({**group, "params": chosen, "method": method})
    return split


def _check_at_least_zero(**options: float) -> None:
    for name, value in options.items():
        if not value >= 0:
            raise ValueError(f"{name} is {value}; it must be at least 0")


def _check_share(**options: float) -> None:
    for name, value in options.items():
        if not 0 <= value < 1:
            raise ValueError(f"{name} is {value}; it must be at least 0 and below 1")
