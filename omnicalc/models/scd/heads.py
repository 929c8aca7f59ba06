"""What is read off the features: scalars, vectors, pooled embeddings; and how noise is normalised."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from omnicalc.models.graph import Graph
from omnicalc.models.xavier import xavier


class UpdateNet(nn.Module):
    def __init__(self, c_in: int, hidden: int, c_out: int):
        super().__init__()
        self.layers = nn.Sequential(xavier(nn.Linear(c_in, hidden)), nn.SiLU(), xavier(nn.Linear(hidden, c_out)))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class GatedBlock(nn.Module):
    """Scalars and vectors (N, C), (N, 3, C) -> (N, C'), (N, 3, C').

    Scalars learn of vectors by sqrt(|v|^2 + s^2) - s. Without ``softening`` s, as released, that is the length, whose
    gradient jumps where symmetry makes vectors vanish (and is taken as zero there): forces then jump too.
    """

    def __init__(self, c_in: int, c_out: int, activate: bool, softening: float = 0.0):
        super().__init__()
        self.vec1_proj = xavier(nn.Linear(c_in, c_in, bias=False))
        self.vec2_proj = xavier(nn.Linear(c_in, c_out, bias=False))
        self.update_net = UpdateNet(2 * c_in, c_in, 2 * c_out)
        self.activate, self.softening = activate, softening

    def forward(self, x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        squared = self.vec1_proj(v).square().sum(1) + self.softening**2
        length = torch.where(squared > 0, squared, 1.0).sqrt() * (squared > 0) - self.softening
        x, gate = self.update_net(torch.cat([x, length], -1)).chunk(2, -1)
        v = gate.unsqueeze(1) * self.vec2_proj(v)
        return (F.silu(x) if self.activate else x), v


class GatedHead(nn.Module):
    """Two gated blocks D -> D/2 -> 1: scalars (N, 1) and vectors (N, 3)."""

    def __init__(self, channels: int, softening: float = 0.0):
        super().__init__()
        half = channels // 2
        blocks = GatedBlock(channels, half, True, softening), GatedBlock(half, 1, False, softening)
        self.output_network = nn.ModuleList(blocks)

    def forward(self, x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        for block in self.output_network:
            x, v = block(x, v)
        return x, v.squeeze(-1)


class EmbeddingHead(nn.Module):
    """Atoms (N, D) -> one vector per structure (G, D): the bottleneck that conditions the denoising pass."""

    def __init__(self, channels: int, pool_kind: str):
        super().__init__()
        self.pool_kind = pool_kind
        self.pre_proj = nn.Sequential(
            nn.LayerNorm(channels), xavier(nn.Linear(channels, channels)), nn.SiLU(), nn.LayerNorm(channels)
        )
        self.post_agg_mlp = nn.Sequential(
            nn.LayerNorm(channels),
            xavier(nn.Linear(channels, channels)),
            nn.SiLU(),
            nn.LayerNorm(channels),
            xavier(nn.Linear(channels, channels)),
        )

    def forward(self, x: Tensor, system: Tensor, n_systems: int) -> Tensor:
        return self.post_agg_mlp(pool(self.pre_proj(x), system, n_systems, self.pool_kind))


def pool(x: Tensor, system: Tensor, n_systems: int, kind: str) -> Tensor:
    """(N, ...) -> (G, ...). ``mean-plus-one``, ``min`` and ``max`` are those of the release, which count a zero."""
    if kind in ("min", "max"):
        rows = system.view(-1, *[1] * (x.dim() - 1)).expand_as(x)
        return x.new_zeros(n_systems, *x.shape[1:]).scatter_reduce(0, rows, x, f"a{kind}")
    total = x.new_zeros(n_systems, *x.shape[1:]).index_add(0, system, x)
    if kind == "sum":
        return total
    count = torch.bincount(system, minlength=n_systems) + (kind == "mean-plus-one")
    return total / count.to(x.dtype).view(-1, *[1] * (x.dim() - 1))


class NoiseNormalizer(nn.Module):
    """Running mean and deviation of noise over all atoms of training, per Cartesian component."""

    floor = 1e-8

    def __init__(self):
        super().__init__()
        self.register_buffer("acc_sum", torch.zeros(3))
        self.register_buffer("acc_squared_sum", torch.zeros(3))
        self.register_buffer("acc_count", torch.zeros(1))
        self.register_buffer("num_accumulations", torch.zeros(1))

    def forget(self) -> None:
        """Begin to count anew, for noise of another size."""
        for total in self.buffers():
            total.zero_()

    def update(self, noise: Tensor) -> None:
        """Count a batch of noise (N, 3); done before it is normalised, in training only."""
        self.acc_sum += noise.sum(0)
        self.acc_squared_sum += noise.square().sum(0)
        self.acc_count += len(noise)
        self.num_accumulations += 1

    @property
    def mean(self) -> Tensor:
        return self.acc_sum / self.acc_count.clamp(min=1)

    @property
    def std(self) -> Tensor:
        variance = self.acc_squared_sum / self.acc_count.clamp(min=1) - self.mean.square()
        return variance.clamp(min=self.floor).sqrt()

    def normalised(self, noise: Tensor) -> Tensor:
        return (noise - self.mean) / (self.std + self.floor)

    def displacement(self, prediction: Tensor) -> Tensor:
        """Noise in Å from what the vector head predicts."""
        return prediction * (self.std + self.floor) + self.mean


class Denoising(nn.Module):
    """A network with ``node_features``, ``embedding_head``, ``noise_head`` and ``noise_normalizer``, put to use."""

    def embed(self, graph: Graph, condition: Tensor | None = None) -> Tensor:
        """Pooled embeddings (G, D)."""
        x, _ = self.node_features(graph, condition)
        return self.embedding_head(x, graph.system, len(graph.head))

    def denoise(self, graph: Graph, condition: Tensor | None = None) -> Tensor:
        """Displacements (N, 3), Å, by which the atoms are off, as the vector head sees it."""
        _, noise = self.noise_head(*self.node_features(graph, condition))
        return self.noise_normalizer.displacement(noise)
