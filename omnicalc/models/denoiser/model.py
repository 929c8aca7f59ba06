"""A backbone of another family as a network that denoises: pooled embedding, condition, vector head, normaliser.

The condition, LN and a linear map of the pooled embedding, is added to the scalars that enter every block of the
backbone. Where it is absent or dropped nothing is added, so that the backbone, taken out for fine-tuning, is the
network of the clean pass.
"""

import torch
from torch import Tensor, nn

from omnicalc.errors import InputError
from omnicalc.models.denoiser.config import DenoiserConfig
from omnicalc.models.graph import Graph
from omnicalc.models.scd.heads import Denoising, EmbeddingHead, GatedHead, NoiseNormalizer
from omnicalc.systems import Systems

PREFIX = "backbone."  # of the backbone's tensors among the denoiser's


class PlainVectorHead(nn.Module):
    """For backbones without equivariant vectors: (N, D) -> (N, 3), learned like everything else they know of axes."""

    def __init__(self, channels: int):
        super().__init__()
        self.mlp = nn.Sequential(
            nn.LayerNorm(channels), nn.Linear(channels, channels), nn.SiLU(), nn.Linear(channels, 3)
        )

    def forward(self, x: Tensor, v: Tensor | None) -> tuple[None, Tensor]:
        return None, self.mlp(x)


class Denoiser(Denoising):
    """The network of one :class:`DenoiserConfig`."""

    conservative = False  # it gives no energies, see check

    def __init__(self, config: DenoiserConfig):
        from omnicalc.models import build_model

        super().__init__()
        self.config = config
        self.backbone = build_model(config.backbone, {**config.settings, "heads": list(config.heads)})
        equivariant = config.backbone == "e2former"
        c = self.backbone.config.channels if equivariant else self.backbone.config.width
        self.embedding_head = EmbeddingHead(c, config.embedding_pool)
        self.noise_head = GatedHead(c) if equivariant else PlainVectorHead(c)
        self.noise_normalizer = NoiseNormalizer()
        self.condition = nn.Sequential(nn.LayerNorm(c), nn.Linear(c, c))

    @property
    def cutoff(self) -> float:
        return self.backbone.cutoff

    @property
    def uses_positions(self) -> bool:
        return getattr(self.backbone, "uses_positions", False)

    @property
    def head_rows(self) -> dict[str, int]:
        """Tensors of the backbone with rows for each head, and how many."""
        return {PREFIX + name: rows for name, rows in getattr(self.backbone, "head_rows", {}).items()}

    @property
    def element_tables(self) -> dict[str, int]:
        """Tensors of the backbone with rows for each of ``elements`` (1) or for each pair of them (2)."""
        return {PREFIX + name: axes for name, axes in getattr(self.backbone, "element_tables", {}).items()}

    @property
    def elements(self) -> tuple[int, ...] | None:
        return getattr(self.backbone, "elements", None)

    def check(self, systems: Systems) -> None:
        raise InputError(
            "these weights are a denoiser: they give embeddings (omnicalc.embed) and denoising (omnicalc.denoise), no "
            f'energies; fine-tune their backbone for energies with family = "{self.config.backbone}" and start = '
            "their folder in a recipe of omnicalc train"
        )

    def forward(self, graph: Graph):
        self.check(None)

    def node_features(self, graph: Graph, condition: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Scalars (N, D), and vectors (N, 3, D) of equivariant backbones, under a condition (G, D) or none."""
        added = None if condition is None else self._added(condition)[graph.system]
        features = self.backbone.features(graph, added)
        if self.config.backbone == "e2former":
            return features[:, 0], features[:, 1:4]
        return features, None

    def _added(self, condition: Tensor) -> Tensor:
        added = self.condition(condition)
        if self.training and self.config.condition_dropout > 0:
            keep = torch.rand(len(added), 1, device=added.device) >= self.config.condition_dropout
            added = torch.where(keep, added, 0.0)
        return added

    def frozen_in_pretraining(self) -> list[nn.Parameter]:
        """Heads of the backbone that denoising does not reach, and its tables of elements."""
        heads = [p for n, p in self.backbone.named_parameters() if n.split(".")[0] in ("energy_heads", "force_heads")]
        if self.config.backbone == "allscaip":
            return [*heads, self.backbone.input.element.weight]
        tables = [p for n, p in self.backbone.named_parameters() if n.startswith("type_embedding.")]
        return [*heads, *tables]
