"""Two hidden layers with the same activation, the object itself included: a gated one has weights only once."""

from torch import Tensor, nn


class SwiGLU(nn.Module):
    """silu(gate(x)) * value(x), width-preserving."""

    def __init__(self, width: int):
        super().__init__()
        self.gate, self.value = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.silu(self.gate(x)) * self.value(x)


class SquaredReLU(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.relu().square()


def activation(name: str, width: int) -> nn.Module:
    makers = {"relu": nn.ReLU, "relu2": SquaredReLU, "gelu": nn.GELU, "silu": nn.SiLU}
    return SwiGLU(width) if name == "swiglu" else makers[name]()


class FeedForward(nn.Module):
    """Linear, activation, linear, the same activation, dropout, linear; ``widths``: in, hidden, hidden, out."""

    def __init__(self, name: str, widths: tuple[int, int, int, int], dropout: float):
        super().__init__()
        self.linear = nn.ModuleList(nn.Linear(a, b) for a, b in zip(widths, widths[1:], strict=False))
        self.activation = activation(name, widths[1])
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        first, second, last = self.linear
        x = self.activation(second(self.activation(first(x))))
        return last(self.dropout(x))
