"""How the linear layers of more than one family begin."""

from torch import nn


def xavier(layer: nn.Linear) -> nn.Linear:
    """The layer with Xavier uniform weights and zero bias."""
    nn.init.xavier_uniform_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer
