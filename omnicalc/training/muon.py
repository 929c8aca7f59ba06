"""Muon: momentum made orthogonal for matrices, Adam for everything else.

For a weight W of two or more dimensions (later ones flattened) with gradient G, momentum M, rate a and decay d:

    M <- b M + (1 - b) G
    U  = orthogonalised((1 - b) G + b M)
    W <- (1 - a d) W - 0.2 a sqrt(max(rows, columns)) U

with the factor that gives U the root mean square of an Adam step (Jordan et al., https://kellerjordan.github.io/posts/muon;
Liu et al., arXiv:2502.16982). Vectors and scalars get Adam at 0.3 of the rate, without decay.
"""

from collections.abc import Iterable, Sequence
from math import sqrt

import torch
from torch import Tensor

MOMENTUM = 0.95
ADAM_RATIO = 0.3  # rate of vectors and scalars by the rate of matrices
_ADAM_BETAS, _ADAM_EPS = (0.9, 0.95), 1e-8
_QUINTIC = (3.4445, -4.7750, 2.0315)
_SCALE = 0.2  # root mean square of a step of Adam, in units of its rate


def orthogonalised(matrix: Tensor, rounds: int = 5, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    """The nearest semi-orthogonal matrices of ``matrix`` (..., rows, columns), roughly: singular values near 1.

    ``rounds`` of the Newton-Schulz iteration X <- a X + (b A + c A A) X, A = X X^T, in ``dtype``.
    """
    a, b, c = _QUINTIC
    x = matrix.to(dtype)
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    tall = x.shape[-2] > x.shape[-1]
    if tall:
        x = x.mT
    for _ in range(rounds):
        square = x @ x.mT
        x = a * x + (b * square + c * square @ square) @ x
    return (x.mT if tall else x).to(matrix.dtype)


def step_of_matrices(weights: Sequence[Tensor], momenta: Sequence[Tensor], gradients: Sequence[Tensor], rate: float):
    """One step, in place, of weights (..., rows, columns), stacks of matrices that are orthogonalised each by itself.

    Without decay. Those of one shape go through the iteration together: alone they are too small to be worth a call.
    """
    torch._foreach_lerp_(momenta, gradients, 1 - MOMENTUM)
    updates = torch._foreach_lerp(gradients, momenta, MOMENTUM)
    shapes: dict[tuple[int, ...], list[int]] = {}
    for k, update in enumerate(updates):
        shapes.setdefault(tuple(update.shape[-2:]), []).append(k)
    for shape, chosen in shapes.items():
        stacks = [updates[k].reshape(-1, *shape) for k in chosen]
        whole = orthogonalised(torch.cat(stacks), dtype=stacks[0].dtype)
        for k, part in zip(chosen, whole.split([len(s) for s in stacks]), strict=True):
            weights[k].add_(part.view_as(weights[k]), alpha=-_SCALE * rate * sqrt(max(shape)))


class Muon(torch.optim.Optimizer):
    """Takes parameters or groups of them; ``state_dict`` holds all that a resumed run needs."""

    def __init__(self, parameters: Iterable, lr: float, weight_decay: float):
        super().__init__(parameters, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure=None):
        """One step for every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    (self._matrix if p.ndim >= 2 else self._vector)(p, group)
        return loss

    def _matrix(self, p: Tensor, group: dict) -> None:
        state, rate = self.state[p], group["lr"]
        if not state:
            state["momentum"] = torch.zeros_like(p)
        m = state["momentum"].lerp_(p.grad, 1 - MOMENTUM)
        update = orthogonalised(p.grad.lerp(m, MOMENTUM).flatten(1))
        p.mul_(1 - rate * group["weight_decay"])
        p.add_(update.view_as(p), alpha=-_SCALE * rate * sqrt(max(update.shape)))

    def _vector(self, p: Tensor, group: dict) -> None:
        state, (b1, b2) = self.state[p], _ADAM_BETAS
        if not state:
            state.update(first=torch.zeros_like(p), second=torch.zeros_like(p), step=0)
        state["step"] += 1
        t = state["step"]
        first = state["first"].lerp_(p.grad, 1 - b1)
        second = state["second"].lerp_(p.grad.square(), 1 - b2)
        denominator = (second / (1 - b2**t)).sqrt_().add_(_ADAM_EPS)
        p.addcdiv_(first, denominator, value=-group["lr"] * ADAM_RATIO / (1 - b1**t))
