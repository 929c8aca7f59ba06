"""Adam with decoupled weight decay, gradient clipping, and the running average of the weights; on request Muon for
matrices.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from omnicalc.training.muon import step_of_matrices
from omnicalc.training.recipe import Optimiser


@dataclass
class Adam:
    """Kingma and Ba, arXiv:1412.6980; decay as in Loshchilov and Hutter, arXiv:1711.05101. Matrices by
    :mod:`omnicalc.training.muon` where the recipe says so; their momentum stands in ``first``.

    All of its state is in its fields; tensors are by parameter name.
    """

    first: dict[str, Tensor]  # running mean of the gradient
    second: dict[str, Tensor]  # and of its square
    averaged: dict[str, Tensor]  # exponential average of the weights
    norm: float = 0.0  # running mean of the gradient norm
    updates: int = 0
    names: tuple[str, ...] = field(default=())
    decaying: tuple[str, ...] = field(default=())  # of them, those that weight decay acts on
    matrices: tuple[str, ...] = field(default=())  # of them, those that take steps of Muon

    @classmethod
    def of(
        cls, model: nn.Module, chosen: Callable[[str, Tensor], bool] | None = None, matrices: str = "adam"
    ) -> "Adam":
        """For the parameters of ``model`` that are to be trained; ``chosen`` (name, parameter): which decay;
        ``matrices`` as in the recipe.
        """
        trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
        return cls(
            first={n: torch.zeros_like(p) for n, p in trained.items()},
            second={n: torch.zeros_like(p) for n, p in trained.items()},
            averaged={n: p.detach().clone() for n, p in trained.items()},
            names=tuple(trained),
            decaying=tuple(n for n, p in trained.items() if (chosen or decays)(n, p)),
            matrices=tuple(n for n, p in trained.items() if matrices == "muon" and _is_matrix(n, p)),
        )

    def clipped(self, norm: float, settings: Optimiser) -> float:
        """The factor for gradients of this ``norm``; takes it into the running mean."""
        self.norm = norm if self.updates == 0 else 0.98 * self.norm + 0.02 * min(norm, 5 * self.norm)
        limit = settings.clip * self.norm if settings.clip_norm is None else settings.clip_norm
        return min(1.0, limit / (norm + 1e-12))

    @torch.no_grad()
    def update(self, model: nn.Module, gradients: list[Tensor], rate: float, settings: Optimiser) -> None:
        """One step, in place. ``gradients`` in the order of ``names``."""
        parameters, gradient = dict(model.named_parameters()), dict(zip(self.names, gradients, strict=True))
        self.updates += 1
        t = self.updates
        if settings.weight_decay > 0:
            decayed = [parameters[n] for n in self.decaying]
            torch._foreach_mul_(decayed, 1 - rate * settings.weight_decay)
        if self.matrices:
            step_of_matrices(*([d[n] for n in self.matrices] for d in (parameters, self.first, gradient)), rate)
        matrices = set(self.matrices)
        others = [n for n in self.names if n not in matrices]
        if others:
            p, g, m, v = ([d[n] for n in others] for d in (parameters, gradient, self.first, self.second))
            _adam_step(p, m, v, g, rate, t, settings.betas)
        # the average starts short, so that it does not remember the random start
        e, p = ([d[n] for n in self.names] for d in (self.averaged, parameters))
        torch._foreach_lerp_(e, p, 1 - min(settings.ema, t / (t + 10)))

    def state(self) -> dict:
        return {k: v for k, v in vars(self).items() if k not in ("names", "decaying", "matrices")}

    def restore(self, state: dict) -> None:
        """Raises ``KeyError`` or ``RuntimeError`` for a state of another model."""
        for kind in ("first", "second", "averaged"):
            for name, tensor in getattr(self, kind).items():
                tensor.copy_(state[kind][name])
        self.norm, self.updates = state["norm"], state["updates"]


def decays(name: str, parameter: Tensor) -> bool:
    """Weight decay acts on matrices, not on biases, norms and embeddings."""
    return parameter.ndim > 1 and "embedding" not in name and "norm" not in name


def _adam_step(p: list, m: list, v: list, gradients: list, rate: float, t: int, betas: tuple[float, float]) -> None:
    """Step ``t``, in place, of parameters with the running means of their gradients and of the squares."""
    b1, b2 = betas
    torch._foreach_lerp_(m, gradients, 1 - b1)
    torch._foreach_mul_(v, b2)
    torch._foreach_addcmul_(v, gradients, gradients, 1 - b2)
    denominator = torch._foreach_sqrt(torch._foreach_div(v, 1 - b2**t))
    torch._foreach_add_(denominator, 1e-8)
    torch._foreach_addcdiv_(p, m, denominator, -rate / (1 - b1**t))


def _is_matrix(name: str, parameter: Tensor) -> bool:
    """What maps features to features: no table of elements or pairs, and no single row, which has no directions."""
    return decays(name, parameter) and "bias" not in name and min(parameter.shape[-2:]) > 1


def norm_of(gradients: list[Tensor]) -> float:
    squares = torch.stack([g.double().square().sum() for g in gradients])  # off a GPU in one transfer, not one by one
    return math.sqrt(sum(squares.tolist()))
