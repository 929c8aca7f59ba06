"""CT and ET: the conditional equivariant transformer, and its ancestor without condition."""

from torch import Tensor, nn

from omnicalc.models.scd.attention import Attention, NeighborEmbedding
from omnicalc.models.scd.conditioning import DropCondition, JointDropPath
from omnicalc.models.scd.config import SCDConfig
from omnicalc.models.scd.edges import Edges
from omnicalc.models.scd.radial import basis_of
from omnicalc.models.scd.whitening import Whitening


class Transformer(nn.Module):
    """Edges and a condition (G, D) or None to scalars (N, D) and vectors (N, 3, D)."""

    def __init__(self, config: SCDConfig):
        super().__init__()
        self.config = config
        c = config.channels
        self.embedding = nn.Embedding(config.rows, c)
        self.distance_expansion = basis_of(config)
        self.neighbor_embedding_module = NeighborEmbedding(config) if config.neighbor_embedding else None
        self.attention_layers = nn.ModuleList(Attention(config, config.n_basis) for _ in range(config.layers))
        self.ignore_condition = False
        if config.backbone == "ct":
            self.drop_cond = DropCondition(c, config.condition_dropout)
            # as released, norms exist where they are not used
            self.x_post_norm = nn.ModuleList(nn.LayerNorm(c) for _ in range(config.layers))
            self.v_post_norm = nn.ModuleList(Whitening(c) for _ in range(config.layers))
        else:
            self.out_norm = nn.LayerNorm(c)
            if config.final_whitening:
                self.vec_norm = Whitening(c)

    def forward(self, edges: Edges, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        basis = self.distance_expansion(edges.lengths)
        x = self.embedding(edges.numbers)
        if self.neighbor_embedding_module is not None:
            x = self.neighbor_embedding_module(x, edges, basis)
        v = x.new_zeros(len(x), 3, x.shape[-1])
        per_atom = self._condition(condition, edges)
        directions = edges.directions()
        for k, layer in enumerate(self.attention_layers):
            x, v = self._clamped(x), self._clamped(v)
            dx, dv = layer(x, v, edges, basis, directions, per_atom)
            x, v = x + self._clamped(dx), v + self._clamped(dv)
            if self.config.backbone == "ct":
                x, v = self._post_norm(k, x, v)
        return self._final_norm(x, v)

    def _condition(self, condition: Tensor | None, edges: Edges) -> Tensor | None:
        if self.config.backbone == "et" or self.ignore_condition:
            return None
        return self._clamped(self.drop_cond(condition, edges.system, edges.n_systems))

    def _clamped(self, x: Tensor) -> Tensor:
        limit = self.config.clamp
        return x if limit is None or self.config.backbone == "et" else x.clamp(-limit, limit)

    def _post_norm(self, k: int, x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        x = self.x_post_norm[k](x) if self.config.scalar_post_norm else x
        return x, self.v_post_norm[k](v) if self.config.vector_post_norm else v

    def _final_norm(self, x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        config = self.config
        if config.backbone == "et":
            return self.out_norm(x), self.vec_norm(v) if config.final_whitening else v
        x = x if config.scalar_post_norm else self.x_post_norm[-1](x)
        whiten = config.final_whitening and not config.vector_post_norm
        return x, self.v_post_norm[-1](v) if whiten else v

    def frozen_in_pretraining(self) -> list[nn.Parameter]:
        """Tables that pretraining leaves as they are: element embedding and mask token."""
        return [self.embedding.weight, *([self.drop_cond.mask_token] if self.config.backbone == "ct" else [])]


def drop_path(module: nn.Module, p: float) -> None:
    """Set the drop-path probability of every block below ``module``."""
    for part in module.modules():
        if isinstance(part, JointDropPath):
            part.p = p
