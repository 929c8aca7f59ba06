"""CGT: the conditional transformer whose edge features carry distances, angles and torsions."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from omnicalc.models.scd.angular import DEGREES, RADIALS, Angles, angles_of, bessel, harmonics, zonal
from omnicalc.models.scd.attention import Attention, NeighborEmbedding
from omnicalc.models.scd.conditioning import DropCondition
from omnicalc.models.scd.config import SCDConfig
from omnicalc.models.scd.edges import Edges
from omnicalc.models.scd.radial import basis_of
from omnicalc.models.scd.whitening import Whitening

CLAMP = 1e4  # of the condition


def linear(c_in: int, c_out: int, bias: bool = True) -> nn.Linear:
    """Orthogonal weights of variance 2 / (c_in + c_out) and zero bias, as released."""
    made = nn.Linear(c_in, c_out, bias)
    nn.init.orthogonal_(made.weight)
    with torch.no_grad():
        made.weight.mul_((2 / ((c_in + c_out) * made.weight.var())).sqrt())
    if bias:
        nn.init.zeros_(made.bias)
    return made


class DistanceEmbedding(nn.Module):
    """(1/x - 28 x^5 + 48 x^6 - 21 x^7) sin(f_n x), x = r / cutoff; (P,) -> (P, 6)."""

    def __init__(self, cutoff: float):
        super().__init__()
        self.cutoff = cutoff
        self.freq = nn.Parameter(torch.arange(1, RADIALS + 1) * math.pi)

    def forward(self, r: Tensor) -> Tensor:
        x = (r / self.cutoff).unsqueeze(-1)
        return (1 / x - 28 * x**5 + 48 * x**6 - 21 * x**7) * (self.freq * x).sin()


class GeometryEmbedding(nn.Module):
    """Embeddings of distances (P, 6), angles (T, 18) and torsions (T, 54)."""

    def __init__(self, cutoff: float):
        super().__init__()
        self.cutoff = cutoff
        self.dist_emb = DistanceEmbedding(cutoff)

    def forward(self, angles: Angles) -> tuple[Tensor, Tensor, Tensor]:
        radial = bessel(angles.lengths / self.cutoff).index_select(0, angles.edge_kj)
        by_angle = radial * zonal(angles.angle).unsqueeze(-1)
        y = harmonics(angles.angle, angles.torsion).view(-1, DEGREES, DEGREES, 1)
        return self.dist_emb(angles.lengths), by_angle.flatten(1), (y * radial.unsqueeze(1)).flatten(1)


class EdgeStart(nn.Module):
    """First features of all edges, self loops included: e1 (E, D) and e2 (E, D)."""

    def __init__(self, config: SCDConfig):
        super().__init__()
        c, k = config.channels, config.n_basis
        self.distance_exp = basis_of(config)
        self.lin_rbf_0 = nn.Linear(k, c)
        self.lin = nn.Linear(3 * c, c)
        self.lin_rbf_1 = linear(k, c, bias=False)

    def forward(self, x: Tensor, edges: Edges) -> tuple[Tensor, Tensor]:
        basis = self.distance_exp(edges.lengths)
        ends = [x.index_select(0, edges.source), x.index_select(0, edges.target)]
        e1 = F.silu(self.lin(torch.cat([*ends, F.silu(self.lin_rbf_0(basis))], -1)))
        return e1, self.lin_rbf_1(basis) * e1


class Residual(nn.Module):
    """x + silu(Lin silu(Lin x))."""

    def __init__(self, channels: int):
        super().__init__()
        self.lin1, self.lin2 = linear(channels, channels), linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return x + F.silu(self.lin2(F.silu(self.lin1(x))))


class EdgeUpdate(nn.Module):
    """e1 (P, D) and the three embeddings -> new e1 and e2 of the edges between atoms."""

    def __init__(self, config: SCDConfig):
        super().__init__()
        c, width = config.channels, config.angle_width
        n_angle, n_torsion = DEGREES * RADIALS, DEGREES * DEGREES * RADIALS
        self.lin_rbf1 = linear(RADIALS, config.distance_basis_width, False)
        self.lin_rbf2 = linear(config.distance_basis_width, c, False)
        self.lin_sbf1 = linear(n_angle, config.angle_basis_width, False)
        self.lin_sbf2 = linear(config.angle_basis_width, width, False)
        self.lin_t1 = linear(n_torsion, config.torsion_basis_width, False)
        self.lin_t2 = linear(config.torsion_basis_width, width, False)
        self.lin_rbf = linear(RADIALS, c, False)
        self.lin_kj, self.lin_ji, self.lin = linear(c, c), linear(c, c), linear(c, c)
        self.lin_down, self.lin_up = linear(c, width, False), linear(width, c, False)
        self.layers_before_skip = nn.ModuleList(Residual(c) for _ in range(config.residuals_before))
        self.layers_after_skip = nn.ModuleList(Residual(c) for _ in range(config.residuals_after))
        self.e0_norm, self.e1_norm = nn.LayerNorm(c), nn.LayerNorm(c)

    def forward(self, e1: Tensor, embeddings: tuple[Tensor, Tensor, Tensor], angles: Angles) -> tuple[Tensor, Tensor]:
        distance, angle, torsion = embeddings
        kj = F.silu(self.lin_kj(e1)) * self.lin_rbf2(self.lin_rbf1(distance))
        kj = F.silu(self.lin_down(kj)).index_select(0, angles.edge_kj)
        kj = kj * self.lin_sbf2(self.lin_sbf1(angle)) * self.lin_t2(self.lin_t1(torsion))
        met = kj.new_zeros(len(e1), kj.shape[-1]).index_add(0, angles.edge_ji, kj)
        h = F.silu(self.lin_ji(e1)) + F.silu(self.lin_up(met))
        for layer in self.layers_before_skip:
            h = layer(h)
        h = F.silu(self.lin(h)) + e1
        for layer in self.layers_after_skip:
            h = layer(h)
        return self.e0_norm(h), self.e1_norm(self.lin_rbf(distance) * h)


class GeometricTransformer(nn.Module):
    """Edges and a condition (G, D) or None to scalars (N, D) and vectors (N, 3, D)."""

    def __init__(self, config: SCDConfig):
        super().__init__()
        self.config = config
        c = config.channels
        self.embedding = nn.Embedding(config.rows, c)
        self.distance_expansion = basis_of(config)
        self.neighbor_embedding = NeighborEmbedding(config) if config.neighbor_embedding else None
        self.attention_layers = nn.ModuleList(Attention(config, c, over_heads=True) for _ in range(config.layers))
        self.drop_cond = DropCondition(c, config.condition_dropout)
        if config.layer_whitening:
            self.vec_norms = nn.ModuleList(Whitening(c) for _ in range(config.layers))
            self.x_norms = nn.ModuleList(nn.LayerNorm(c) for _ in range(config.layers))  # unused, as released
        self.out_norm = nn.LayerNorm(c)
        if config.final_whitening:
            self.out_norm_vec = Whitening(c)
        self.init_e = EdgeStart(config)
        self.update_es = nn.ModuleList(EdgeUpdate(config) for _ in range(config.layers))
        self.emb = GeometryEmbedding(config.cutoff)
        self.ignore_condition = False

    def forward(self, edges: Edges, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        x = self.embedding(edges.numbers)
        e1, loops = self.init_e(x, edges)
        angles = angles_of(edges)
        embeddings = self.emb(angles)
        between = edges.between.nonzero()[:, 0]
        e1 = e1.index_select(0, between)
        if self.neighbor_embedding is not None:
            x = self.neighbor_embedding(x, edges, self.distance_expansion(edges.lengths))
        v = x.new_zeros(len(x), 3, x.shape[-1])
        per_atom = self.drop_cond(condition, edges.system, edges.n_systems).clamp(-CLAMP, CLAMP)
        per_atom = None if self.ignore_condition else per_atom
        directions = edges.directions(floor=0.0)
        for k, layer in enumerate(self.attention_layers):
            e1, e2 = self.update_es[k](e1, embeddings, angles)
            features = loops.index_copy(0, between, e2)  # self loops keep their first features
            dx, dv = layer(x, v, edges, features, directions, per_atom)
            x, v = x + dx, v + dv
            if self.config.layer_whitening:
                v = self.vec_norms[k](v)
        return self.out_norm(x), self.out_norm_vec(v) if self.config.final_whitening else v

    def frozen_in_pretraining(self) -> list[nn.Parameter]:
        return [self.embedding.weight, self.drop_cond.mask_token]
