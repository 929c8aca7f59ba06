"""Neighbour embedding and the attention block shared by ET, CT and CGT."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from omnicalc.models.scd.conditioning import AdaptiveNorm, JointDropPath, VectorPreNorm
from omnicalc.models.scd.config import SCDConfig
from omnicalc.models.scd.edges import Edges
from omnicalc.models.scd.radial import CosineCutoff
from omnicalc.models.xavier import xavier


class NeighborEmbedding(nn.Module):
    """x_s <- Lin[x_s, sum over edges s -> t of C(r) (Lin rbf) * Emb(z_t)].

    Summed onto the source with the element of the target, as released: the usual form on symmetric edges, another one
    where truncation made them asymmetric.
    """

    def __init__(self, config: SCDConfig):
        super().__init__()
        c = config.channels
        self.embedding = nn.Embedding(config.rows, c)
        self.distance_proj = xavier(nn.Linear(config.n_basis, c))
        self.combine = xavier(nn.Linear(2 * c, c))
        self.envelope = CosineCutoff(config.cutoff, config.cutoff_power)

    def forward(self, x: Tensor, edges: Edges, basis: Tensor) -> Tensor:
        filters = self.distance_proj(basis) * self.envelope(edges.lengths).unsqueeze(-1)
        filters = torch.where(edges.between.unsqueeze(-1), filters, 0.0)
        messages = filters * self.embedding(edges.numbers).index_select(0, edges.target)
        gathered = torch.zeros_like(x).index_add(0, edges.source, messages)
        return self.combine(torch.cat([x, gathered], -1))


class Attention(nn.Module):
    """One block: updates of scalars (N, D) and vectors (N, 3, D) from edge features (E, F).

        A_e = silu(sum_h q_t k_s dk_e),   m_e = val_s C(r_e) dv_e,   x_t = sum A_e m0_e,
        V_t = sum_e (v_s m1_e + u_e (x) m2_e),   dx = (dot * o2 + o3) gate,   dv = v3 o1 + V

    ``over_heads`` (CGT): softmax of A_e C(r_e) over the heads, no cutoff on the values, means instead of sums.
    """

    def __init__(self, config: SCDConfig, edge_width: int, *, over_heads: bool = False):
        super().__init__()
        c = config.channels
        self.heads, self.width = config.attention_heads, c // config.attention_heads
        self.vector_cutoff, self.over_heads = config.vector_cutoff, over_heads
        self.conditional = config.backbone != "et"
        if self.conditional:
            self.conditional_ln = AdaptiveNorm(c, config.detach_modulation)
            self.joint_droppath = JointDropPath(config.drop_path)
            self.use_prenorm = config.vector_prenorm != "none"
            # the release keeps these parameters where they are not used
            self.vec_norm = VectorPreNorm(c, config.vector_prenorm == "equivariant")
        else:
            self.layernorm = nn.LayerNorm(c)
        self.q_proj, self.k_proj = xavier(nn.Linear(c, c)), xavier(nn.Linear(c, c))
        self.v_proj, self.o_proj = xavier(nn.Linear(c, 3 * c)), xavier(nn.Linear(c, 3 * c))
        self.vec_proj = xavier(nn.Linear(c, 3 * c, bias=False))
        keys = config.distance_influence in ("both", "keys")
        values = config.distance_influence in ("both", "values")
        self.dk_proj = xavier(nn.Linear(edge_width, c)) if keys else None
        self.dv_proj = xavier(nn.Linear(edge_width, 3 * c)) if values else None
        self.envelope = CosineCutoff(config.cutoff, config.cutoff_power)

    def forward(
        self, x: Tensor, v: Tensor, edges: Edges, features: Tensor, directions: Tensor, condition: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        gate: Tensor | float = 1.0
        if self.conditional:
            x, gate = self.conditional_ln(x, condition)
            v = self.vec_norm(v) if self.use_prenorm else v
        else:
            x = self.layernorm(x)
        v1, v2, v3 = self.vec_proj(v).chunk(3, -1)
        scalars, vectors = self._messages(x, v, edges, features, directions)
        scalars, vectors = edges.sum_to_target(scalars), edges.sum_to_target(vectors)
        if self.over_heads:
            incoming = torch.bincount(edges.target, minlength=edges.n_atoms).to(x.dtype)
            scalars, vectors = scalars / incoming.view(-1, 1, 1), vectors / incoming.view(-1, 1, 1, 1)
        o1, o2, o3 = self.o_proj(scalars.flatten(1)).chunk(3, -1)
        dx = ((v1 * v2).sum(1) * o2 + o3) * gate
        dv = v3 * o1.unsqueeze(1) + vectors.flatten(2)
        return self.joint_droppath(dx, dv) if self.conditional else (dx, dv)

    def _messages(self, x, v, edges: Edges, features: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
        """Scalars (E, H, h) and vectors (E, 3, H, h) that travel along the edges."""
        per_head = (-1, self.heads, self.width)
        q = self.q_proj(x).view(per_head).index_select(0, edges.target)
        k = self.k_proj(x).view(per_head).index_select(0, edges.source)
        value = self.v_proj(x).view(-1, self.heads, 3 * self.width).index_select(0, edges.source)
        if self.dk_proj is not None:
            k = k * F.silu(self.dk_proj(features)).view(per_head)
        weight = F.silu((q * k).sum(-1))
        step = self.envelope(edges.lengths).unsqueeze(-1)
        if self.over_heads:
            weight = (weight * step).softmax(-1)
        elif self.vector_cutoff:
            value = value * step.unsqueeze(-1)
        else:
            weight = weight * step
        if self.dv_proj is not None:
            value = value * F.silu(self.dv_proj(features)).view(-1, self.heads, 3 * self.width)
        m0, m1, m2 = value.chunk(3, -1)
        carried = v.view(-1, 3, self.heads, self.width).index_select(0, edges.source)
        return m0 * weight.unsqueeze(-1), carried * m1.unsqueeze(1) + directions[:, :, None, None] * m2.unsqueeze(1)
