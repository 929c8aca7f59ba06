"""Weights of E2Former-V2 as the kernels of a GPU use them: one matrix per feature row, neighbouring maps multiplied.

What enters a matrix product (maps, and biases that are added in it) may be of a 16-bit type.
"""

from collections.abc import Callable
from math import sqrt

import torch
from torch import Tensor

from omnicalc.kernels.device import Coupling
from omnicalc.models.e2former.attention import ZeroOrderValue
from omnicalc.models.e2former.layers import SIGMOID_GAIN, SILU_GAIN
from omnicalc.models.e2former.model import Block


class NormWeights:
    """Of one RMS norm."""

    def __init__(self, norm, put: Callable):
        self.gamma, self.beta, self.weight = put(norm.gamma), put(norm.beta), put(norm.row_weight)


class BlockWeights:
    """Weights of one block as the passes use them; maps are (rows, C_in, C_out), one per feature row."""

    def __init__(self, block: Block, config, gates: Tensor, put: Callable, put_map: Callable):
        """``put``, ``put_map``: bring a tensor to the device, in the type of sums and in that of matrix products."""
        attention, ffn = block.attention, block.ffn
        degree = ffn.linear_in.degree
        heads, d = config.attention_heads, config.query_width
        self.gates = gates
        self.norm_attention, self.norm_ffn = NormWeights(block.norm_attention, put), NormWeights(block.norm_ffn, put)
        first = [attention.query.first, attention.query.second, attention.key.first, attention.key.second]
        self.products = put_map(torch.cat([f.weight for f in first], 1).transpose(1, 2)[degree])  # (rows, C, 4 F)
        self.products_bias = put(torch.stack([attention.query.first.offset(), attention.key.first.offset()]))
        self.value = put_map(attention.value.weight.transpose(1, 2)[degree])
        self.value_bias = put(attention.value.offset())
        both = (attention.query.mlp, attention.key.mlp)
        self.first = put_map(torch.stack([m[0].weight.t() for m in both]))
        self.first_bias = put_map(torch.stack([m[0].bias for m in both]).unsqueeze(1))
        self.gamma, self.beta = (put(torch.stack([getattr(m[1], x) for m in both])) for x in ("weight", "bias"))
        order = torch.arange(heads * d).view(heads, d).t().flatten()  # (H, d) -> (d, H)
        scales = (1 / sqrt(d), 1.0)
        self.last = put_map(torch.stack([s * m[3].weight[order].t() for s, m in zip(scales, both, strict=True)]))
        biases = [s * m[3].bias[order] for s, m in zip(scales, both, strict=True)]
        self.last_bias = put_map(torch.stack(biases).unsqueeze(1))
        value = attention.aggregate
        if isinstance(value, ZeroOrderValue):
            matrix = torch.eye(len(degree))
            self.mix = [put_map(value.project.weight.transpose(1, 2)[degree])]
            self.parts = [(slice(None), slice(None), 1)]
        else:
            matrix = value.coupling
            self.mix, self.parts, begin = [], [], 0
            for l, n in value.paths.items():
                merged = (value.project.weight[l] @ value.mix[l].weight / sqrt(n)).t()
                self.mix.append(put_map(merged.expand(2 * l + 1, -1, -1)))
                end = begin + (2 * l + 1) * n
                self.parts.append((slice(l * l, (l + 1) ** 2), slice(begin, end), n))
                begin = end
        self.coupling = Coupling(value.order.first, value.order.zero, tuple(matrix.flatten().tolist()), len(matrix))
        self.mix_bias = put(value.project.offset())
        # the scalars of linear_in reach nothing but the gate
        self.gate = put_map((ffn.gate.weight @ ffn.linear_in.weight[0]).t())
        self.gate_bias = put_map(ffn.gate.weight @ ffn.linear_in.offset() + ffn.gate.bias)
        self.ffn_in = put_map(ffn.linear_in.weight.transpose(1, 2)[degree[1:]])
        gains = torch.full((len(degree), 1, 1), SIGMOID_GAIN, dtype=torch.float64)
        gains[0] = SILU_GAIN
        self.ffn_out = put_map(gains * ffn.linear_out.weight.transpose(1, 2)[degree])
        self.ffn_bias = put(ffn.linear_out.offset())
