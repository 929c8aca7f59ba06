"""Settings of the published ATOM architecture."""

import warnings
from dataclasses import dataclass
from math import inf

from omnicalc.errors import WeightsError

CHOICES = {
    "norm": ("rms", "layer"),
    "activation": ("relu", "relu2", "gelu", "silu", "swiglu"),
    "attention": ("heterogeneous", "self"),
    "lifting": ("tensor-product", "linear", "affine"),
    "value_residual": ("learnable", "none"),
}


@dataclass(frozen=True)
class AtomConfig:
    """Numbers and choices that fix the network; ``frames`` is a default that a call may override."""

    width: int = 128  # channels: width // 3 vectors, the rest scalars
    layers: int = 5
    attention_heads: int = 8
    output_heads: int = 1
    frames: int = 8
    rrwp: int = 0  # return probabilities of random walks among the inputs of each atom
    norm: str = "rms"
    activation: str = "swiglu"
    attention: str = "heterogeneous"
    lifting: str = "tensor-product"
    value_residual: str = "learnable"
    rope: bool = True
    rope_base: float = 1000.0
    harmonics: bool = False  # additive attention bias from directions between pseudo-coordinates
    learnable_denominator: bool = False  # of the attention logits, one per head
    displacement: bool = False  # the output is added to the start positions
    attention_dropout: float = 0.2
    dropout: float = 0.1

    def __post_init__(self):
        for name, allowed in CHOICES.items():
            if getattr(self, name) not in allowed:
                raise WeightsError(f"{name} = {getattr(self, name)!r}; one of {', '.join(allowed)} is needed")
        for name in ("width", "layers", "attention_heads", "output_heads", "frames"):
            if getattr(self, name) < 1:
                raise WeightsError(f"{name} = {getattr(self, name)}; 1 or more is needed")
        if not 0 < self.rope_base < inf:
            raise WeightsError(f"rope_base = {self.rope_base}; a number above 0 is needed")
        if self.width < 3 or self.width % self.attention_heads or (self.rope and self.head_width % 2):
            raise WeightsError(
                f"width {self.width} with {self.attention_heads} attention heads: channels per head must be a whole "
                "number, even where rotary positions are used, and the width at least 3"
            )
        if self.lifting == "tensor-product" and self.scalars == 0:
            warnings.warn(
                f"width {self.width} leaves no scalar channel: the tensor product is zero and queries carry no "
                "content; give a width that is not divisible by 3",
                stacklevel=2,
            )

    @property
    def vectors(self) -> int:
        return self.width // 3

    @property
    def scalars(self) -> int:
        return self.width - 3 * self.vectors

    @property
    def head_width(self) -> int:
        return self.width // self.attention_heads

    @property
    def features(self) -> int:
        """Width of the concatenated input: x, |x|, v, |v|, Z, return probabilities."""
        return 9 + self.rrwp
