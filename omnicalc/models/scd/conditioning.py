"""How a vector per structure conditions the network: its norm and dropout, adaptive layer norm, vector pre-norm."""

import torch
from torch import Tensor, nn

SMALLEST_ALPHA = 1e-5


class DropCondition(nn.Module):
    """Condition (G, D), or none, to one row per atom (N, D): learned mask token where absent or dropped, then LN."""

    def __init__(self, channels: int, p: float):
        super().__init__()
        self.p = p
        self.mask_token = nn.Parameter(nn.init.xavier_uniform_(torch.empty(1, channels)))
        self.norm = nn.LayerNorm(channels)

    def forward(self, condition: Tensor | None, system: Tensor, n_systems: int) -> Tensor:
        masked = self.mask_token.expand(n_systems, -1)
        if condition is None:
            condition = masked
        elif self.training and self.p > 0:
            drop = torch.rand(n_systems, 1, device=system.device) < self.p
            condition = torch.where(drop, masked, condition)
        return self.norm(condition).index_select(0, system)


class Modulate(nn.Module):
    """tanh(a x)(1 + scale) / a + shift with a = max(|alpha|, 1e-5)."""

    def __init__(self):
        super().__init__()
        self.alpha = nn.Parameter(torch.tensor(0.2))

    def forward(self, x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
        a = self.alpha.abs().clamp(min=SMALLEST_ALPHA)
        return (a * x).tanh() * (1 + scale) / a + shift


class AdaptiveNorm(nn.Module):
    """Layer norm whose result is modulated by a condition and by itself; (N, D), (N, D) -> (N, D) and a gate (N, D).

    ``detach``: no gradient through the branch that makes shift, scale and gate, as released; forces then lack a term.
    """

    def __init__(self, channels: int, detach: bool):
        super().__init__()
        self.detach = detach
        self.x_norm = nn.LayerNorm(channels)
        self.fc = nn.Sequential(
            nn.Linear(2 * channels, channels), nn.SiLU(), nn.LayerNorm(channels), nn.Linear(channels, 3 * channels)
        )
        nn.init.xavier_uniform_(self.fc[3].weight)
        nn.init.zeros_(self.fc[3].bias)
        self.x_modulate = Modulate()
        self.alpha_x = nn.Parameter(torch.tensor(0.2))

    def forward(self, x: Tensor, condition: Tensor | None) -> tuple[Tensor, Tensor | float]:
        x = self.x_norm(x)
        if condition is None:
            return x, 1.0
        seen = x.detach() if self.detach else x
        shift, scale, gate = self.fc(torch.cat([condition, seen], -1)).chunk(3, -1)
        return self.x_modulate(x, shift, scale), (gate * self.alpha_x).tanh()


class VectorPreNorm(nn.Module):
    """Saturation of vectors (N, 3, D) before attention.

    Component-wise as released, tanh(alpha v) * gamma + beta, which is not rotation equivariant; or by length,
    v tanh(alpha |v|) / (alpha |v|) * gamma, which is.
    """

    def __init__(self, channels: int, equivariant: bool):
        super().__init__()
        self.equivariant = equivariant
        self.norm_alpha = nn.Parameter(torch.tensor(0.2))
        self.norm_gamma = nn.Parameter(torch.full((channels,), 1.0 if equivariant else 5.0))
        if not equivariant:
            self.norm_beta = nn.Parameter(torch.zeros(channels))

    def forward(self, v: Tensor) -> Tensor:
        if not self.equivariant:
            return (self.norm_alpha * v).tanh() * self.norm_gamma + self.norm_beta
        # the small constant makes the length smooth at zero; the factor is 1 there
        x = (self.norm_alpha.square() * v.square().sum(1, keepdim=True) + 1e-12).sqrt()
        return v * (x.tanh() / x * self.norm_gamma)


class JointDropPath(nn.Module):
    """In training, one draw per atom drops the updates of its scalars and vectors together."""

    def __init__(self, p: float):
        super().__init__()
        self.p = p

    def forward(self, x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        if not self.training or self.p == 0:
            return x, v
        kept = (torch.rand(len(x), 1, dtype=x.dtype, device=x.device) >= self.p) / (1 - self.p)
        return x * kept, v * kept.unsqueeze(-1)
