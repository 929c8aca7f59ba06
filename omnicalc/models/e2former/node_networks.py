"""What a block does on each atom alone, before and after its attention, as networks for the native loops."""

import torch
from torch import nn

from omnicalc.kernels.native.nodes import NodeNetwork
from omnicalc.models.e2former.layers import SIGMOID_GAIN, SILU_GAIN, ScalarProjection


def before_attention(norm: nn.Module, attention: nn.Module, with_embedding: bool) -> NodeNetwork:
    """Features (N, rows, C), and a vector (N, C) that is added to their scalars once they are normalised, to queries
    and keys (N, H * d) and values (N, rows, C)."""
    network = NodeNetwork()
    rows, channels = len(norm.degree), norm.gamma.shape[1]
    x = network.input(rows, channels)
    added = network.input(channels) if with_embedding else -1
    y = network.norm(x, norm, ("gamma", "beta"), norm.row_weight, added)
    hidden = attention.query.first.weight.shape[1]
    maps = network.register(rows, 4 * hidden)
    for k, projection in enumerate((attention.query, attention.key)):
        network.per_degree(y, projection.first, out=maps, offset=2 * k * hidden)
        network.per_degree(y, projection.second, out=maps, offset=(2 * k + 1) * hidden)
        product = network.product(maps, 2 * k * hidden, (2 * k + 1) * hidden, hidden)
        network.outputs.append(_mlp(network, product, projection))
    network.outputs.append(network.per_degree(y, attention.value))
    return network


def _mlp(network: NodeNetwork, x: int, projection: ScalarProjection) -> int:
    first, norm, _, last = projection.mlp
    x = network.linear(x, first)
    width = network.sizes[x]
    return network.linear(network.silu(network.norm(x, norm, ("weight", "bias"), torch.tensor([1 / width]))), last)


def after_attention(attention: nn.Module, norm: nn.Module, ffn: nn.Module) -> NodeNetwork:
    """Features (N, rows, C) and moments (N, W, rows, C) to the features that leave the block."""
    network, value = NodeNetwork(), attention.aggregate
    rows, channels = len(norm.degree), norm.gamma.shape[1]
    x = network.input(rows, channels)
    moments = network.input(value.order.width * rows, channels)
    if value.order.first:
        sizes = torch.tensor([n for l, n in value.paths.items() for _ in range((2 * l + 1) * n)])
        coupled = network.couple(moments, value.coupling.cpu().double() / sizes.double().sqrt().unsqueeze(1), channels)
        moments = network.paths(coupled, value.mix, list(value.paths.values()))
    x = network.add(x, network.per_degree(moments, value.project))
    y = network.per_degree(network.norm(x, norm, ("gamma", "beta"), norm.row_weight), ffn.linear_in)
    y = network.gate(y, network.linear(y, ffn.gate), SILU_GAIN, SIGMOID_GAIN)
    network.outputs.append(network.add(x, network.per_degree(y, ffn.linear_out)))
    return network
