"""Attention of E2Former-V2 in the direct edge form: scores, radial gates, and aggregation of coupled values.

The release rotates values into edge frames with absolute positions (EAAS); this form works on unit edge vectors
alone, so it is translation-exact, has stress, and has no blind cone about the polar axis.
"""

from dataclasses import replace
from math import sqrt

import torch
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import get_proxy_mode
from torch.nn import functional as F

from omnicalc.kernels.edge_lists import EdgeLists, FlatEdges
from omnicalc.kernels.fused_attention import Form, available, fused_attention
from omnicalc.kernels.native.attention import why_not
from omnicalc.models.e2former import smooth
from omnicalc.models.e2former.aggregate import aggregate
from omnicalc.models.e2former.angular import coupling_matrix, coupling_paths, harmonics
from omnicalc.models.e2former.layers import ElementRadial, ScalarProjection, SO3Linear, split_degrees

SOFTMAX_EPS = 1e-3  # added to the denominator, so the value depends on the subtracted maximum


class FirstOrderValue(nn.Module):
    """m_i = sum_j alpha_ij C(v_j, rhat_ij), mixed per degree l3 over the paths that reach it.

    With the zero order, sum_j alpha_ij v_j is one more path of each degree.
    """

    def __init__(
        self, l_max: int, channels: int, heads: int, multiplicity: int, mirror_symmetric: bool, with_zero_order: bool
    ):
        super().__init__()
        self.order = Form(first=True, zero=with_zero_order)
        degrees = coupling_paths(l_max, mirror_symmetric)
        self.paths = {l3: len(sources) + int(with_zero_order) for l3, sources in degrees.items()}
        width = heads * multiplicity
        self.mix = nn.ModuleList(nn.Linear(channels * n, width, bias=False) for n in self.paths.values())
        self.project = SO3Linear(l_max, width, channels)
        matrix = coupling_matrix(l_max, mirror_symmetric, with_zero_order)
        self.register_buffer("coupling", matrix, persistent=False)

    def moments(self, alpha: Tensor, unit: Tensor, value: Tensor, index: Tensor) -> Tensor:
        """Weights (N, H, K), unit vectors (N, K, 3), values (N, rows, C), sources (N, K) -> (N, 3 or 4, rows, C)."""
        components = unit.transpose(1, 2)
        if self.order.zero:
            components = torch.cat([components, torch.ones_like(components[:, :1])], 1)
        weights = alpha.unsqueeze(2) * components.contiguous().unsqueeze(1)
        return aggregate(weights, value, index)

    def combine(self, moments: Tensor) -> Tensor:
        """Moments (N, 3 or 4, rows, C) -> (N, rows, C)."""
        coupled = torch.matmul(self.coupling, moments.flatten(1, 2))
        sizes = [(2 * l3 + 1) * n for l3, n in self.paths.items()]
        out = []
        for part, n, mix in zip(coupled.split(sizes, 1), self.paths.values(), self.mix, strict=True):
            part = part.reshape(len(moments), part.shape[1] // n, n * moments.shape[3])
            out.append(mix(part) / sqrt(n))
        return self.project(torch.cat(out, 1))


class ZeroOrderValue(nn.Module):
    """m_i = sum_j alpha_ij v_j, then one linear map per degree."""

    def __init__(self, l_max: int, channels: int):
        super().__init__()
        self.order = Form(first=False, zero=True)
        self.project = SO3Linear(l_max, channels, channels)

    def moments(self, alpha: Tensor, unit: Tensor, value: Tensor, index: Tensor) -> Tensor:
        return aggregate(alpha.unsqueeze(2), value, index)

    def combine(self, moments: Tensor) -> Tensor:
        """Moments (N, 1, rows, C) -> (N, rows, C)."""
        return self.project(moments.squeeze(1))


def attention_weights(score: Tensor, factor: Tensor, step: Tensor, mask: Tensor, kind: str) -> Tensor:
    """alpha_ij per head from scores and value factors (N, K, H), envelope u (N, K), mask (N, K).

    softmax: f exp(s - max s) u / (sum exp(s - max s) u + 1e-3), with the maximum over all neighbours, not detached.
    smooth-softmax: the same with the maximum of :mod:`omnicalc.models.e2former.smooth`.
    softplus, sigmoid: act(s) f u, no normalisation.
    """
    step = torch.where(mask, step, 0.0).unsqueeze(-1)
    if kind == "softplus":
        return F.softplus(score) * factor * step
    if kind == "sigmoid":
        return score.sigmoid() * factor * step
    if score.shape[1] == 0:
        return score
    if kind == smooth.KIND:
        held, step = smooth.fade(step)
        score = score + held
    masked = score.masked_fill(~mask.unsqueeze(-1), -torch.inf)
    top = masked.amax(1, keepdim=True)
    top = torch.where(top > -torch.inf, top, 0.0)  # no neighbour at all
    weight = torch.exp(masked - top) * step
    return factor * weight / (weight.sum(1, keepdim=True) + SOFTMAX_EPS)


class PublishedGate(nn.Module):
    """Radial gate and value factor of the release, with element tables and a radial network per block.

    ``qk``: both from one radial network. ``qkdot``: the gate also sees the target's features projected on the
    harmonics of the edge. ``qkdots``: the same with solid harmonics of the raw vector.
    """

    def __init__(self, kind: str, l_max: int, channels: int, heads: int, n_basis: int, table=(256, 128)):
        super().__init__()
        rows, width = table
        hidden = min(128, n_basis // 2)
        self.kind, self.heads, self.l_max = kind, heads, l_max
        self.target = nn.Embedding(rows, width)
        self.source = nn.Embedding(rows, width)
        outputs = heads if kind == "qkdot" else 2 * heads
        self.radial = ElementRadial(n_basis, width, hidden, outputs)
        if kind == "qkdot":
            self.project = SO3Linear(l_max, channels, n_basis)
            self.radial_project = ElementRadial(n_basis, width, hidden, n_basis * (l_max + 1))
            self.mix = nn.Linear(n_basis * (l_max + 1), heads)
        if kind == "qkdots":
            self.project = SO3Linear(l_max, channels, heads // (l_max + 1) + 1)
            self.direction = nn.Sequential(
                nn.Linear(heads, heads), nn.LayerNorm(heads), nn.SiLU(), nn.Linear(heads, heads)
            )

    def forward(self, y: Tensor, basis: Tensor, numbers: Tensor, index: Tensor, vectors: Tensor, unit: Tensor):
        """Gate and factor, each (N, K, H)."""
        target, source = self.target(numbers), self.source(numbers)[index]
        radial = self.radial(basis, target, source)
        if self.kind == "qk":
            return radial.chunk(2, -1)
        if self.kind == "qkdot":
            angular = harmonics(unit, self.l_max) / sqrt(4 * torch.pi)
            t = self._project(angular, y) * self.radial_project(basis, target, source)
            return self.mix(t), radial
        factor, gate = radial.chunk(2, -1)
        t = self._project(harmonics(vectors, self.l_max), y)[..., : self.heads]
        return self.direction(t * gate), factor

    def _project(self, angular: Tensor, y: Tensor) -> Tensor:
        """Projection of the target's features on the edge harmonics, one per degree: (N, K, degrees * width)."""
        pairs = zip(split_degrees(angular, 2), split_degrees(self.project(y), 1), strict=True)
        return torch.cat([torch.bmm(a, f) for a, f in pairs], -1)


class Attention(nn.Module):
    """Queries from targets, keys and values from sources; score = gate * (q . k) / sqrt(d).

    Fused kernels compute weights and moments: Triton's on a GPU, native ones on a CPU, where there are any. ``fused`` =
    True (Triton's, wherever it is) or False, on the class or on one module, forces the choice. ``storage`` (say
    torch.bfloat16) is how Triton's keep keys and values; None is the model's dtype.
    """

    fused: bool | None = None
    storage: torch.dtype | None = None

    def __init__(self, value: nn.Module, l_max: int, channels: int, heads: int, width: int, weights: str):
        super().__init__()
        self.heads, self.width, self.weights = heads, width, weights
        self.query = ScalarProjection(l_max, channels, heads, width)
        self.key = ScalarProjection(l_max, channels, heads, width)
        self.value = SO3Linear(l_max, channels, channels)
        self.aggregate = value

    def forward(
        self, y: Tensor, source: Tensor, gate: Tensor, factor: Tensor, step: Tensor, unit: Tensor, graph
    ) -> Tensor:
        """Features of targets and of sources (N, rows, C) -> (N, rows, C).

        What belongs to edges is (N, K, ...), or (E, ...) on the graph's ``flat_edges``.
        """
        return self.aggregate.combine(
            self.moments(self.query(y), self.key(source), self.value(source), gate, factor, step, unit, graph)
        )

    def moments(
        self, q: Tensor, keys: Tensor, value: Tensor, gate: Tensor, factor: Tensor, step: Tensor, unit: Tensor, graph
    ) -> Tensor:
        """Queries and keys (N, H * d) and values (N, rows, C) -> what the aggregation combines (N, W, rows, C)."""
        n, k = graph.index.shape
        q, keys = (x.view(n, self.heads, self.width) for x in (q, keys))
        edges = graph.flat_edges.alone if step.ndim == 1 else self.kernel_edges(value, graph)
        if edges is not None:
            form = replace(self.aggregate.order, kind=self.weights, storage=self.storage)
            return fused_attention(q, keys, value, gate, factor, step, unit, edges, form)
        keys = keys.index_select(0, graph.index.reshape(-1)).view(n, k, self.heads, self.width)
        score = gate * (q.unsqueeze(1) * keys).sum(-1) / sqrt(self.width)
        alpha = attention_weights(score, factor, step, graph.mask, self.weights).transpose(1, 2).contiguous()
        return self.aggregate.moments(alpha, unit, value, graph.index)

    def kernel_edges(self, y: Tensor, graph) -> EdgeLists | FlatEdges | None:
        """The edges as the kernel to be used reads them, or None for torch operations alone."""
        if self.weights == smooth.KIND:  # its scores have a term per edge, which the kernels do not know
            return None
        if self.fused is not None:
            return graph.edge_lists if self.fused else None
        traced = get_proxy_mode() is not None or torch.compiler.is_compiling()
        if traced or y.dtype not in (torch.float32, torch.float64):
            return None  # a trace records torch operations alone
        if y.is_cuda:  # float64 is for references, where plain torch is as good
            return graph.edge_lists if available() and y.dtype == torch.float32 else None
        return graph.flat_edges if y.device.type == "cpu" and why_not() is None else None
