"""PET v2, the network of OmniLearned (commit 922355d, MIT), on clouds of particles; the backbone of OMNIMOL.

A cloud x (B, M, F) holds (delta eta, delta phi, log pT, log E, ...), zero-padded. Validity is an explicit mask; the
release reads it off channels that are not exactly zero, which is the same, and masks the time token at time 0 by it.
"""

from dataclasses import dataclass, fields
from math import inf, pi

import torch
from torch import Tensor, nn

from omnicalc.errors import WeightsError
from omnicalc.models.config_table import check_choice
from omnicalc.models.omnimol.layers import MLP, DynTanh, TokenAttBlock, WholeDrop
from omnicalc.models.omnimol.transformer import EntryHead, LocalBlock, Trunk, nearest
from omnicalc.models.xavier import xavier

MODES = ("classifier", "generator", "pretrain", "ftag")


@dataclass(frozen=True)
class PETConfig:
    """Settings by their published names."""

    input_dim: int
    use_int: bool = True  # pair bias, and three more features in the local block
    conditional: bool = False
    cond_dim: int = 3
    pid: bool = False
    pid_dim: int = 9
    add_info: bool = False
    add_dim: int = 4
    mode: str = "classifier"
    num_classes: int = 2
    num_gen_classes: int = 1  # 1: the generator gives back the input's features
    base_dim: int = 128
    num_transformers: int = 2
    num_transformers_head: int = 2  # blocks of the heads, and of the local block
    num_tokens: int = 4
    num_heads: int = 4
    mlp_ratio: float = 2
    mlp_drop: float = 0.0
    attn_drop: float = 0.0
    feature_drop: float = 0.0
    K: int = 15
    skip: bool = False

    def __post_init__(self):
        for field in fields(self):
            _check_kind(field.name, getattr(self, field.name), field.default)
        check_choice("mode", self.mode, MODES)
        if self.base_dim % self.num_heads:
            raise WeightsError(f"base_dim = {self.base_dim} must be a multiple of num_heads = {self.num_heads}")
        if self.skip and self.num_transformers % 2:
            raise WeightsError(f"num_transformers = {self.num_transformers} must be even with skip = true")
        if self.input_dim < 3:
            raise WeightsError(f"input_dim = {self.input_dim} given; the first three are delta eta, delta phi, log pT")

    @classmethod
    def from_dict(cls, table: dict) -> "PETConfig":
        """Strict: a key that is not a setting is an error that names it."""
        known = [f.name for f in fields(cls)]
        unknown = sorted(set(table) - set(known))
        if unknown or "input_dim" not in table:
            what = f"unknown PET settings: {', '.join(unknown)}" if unknown else "input_dim is missing"
            raise WeightsError(f"{what}; known: {', '.join(known)}")
        return cls(**table)

    @property
    def uses_time(self) -> bool:
        return self.mode in ("generator", "pretrain")

    @property
    def extra_tokens(self) -> int:
        return int(self.conditional) + int(self.uses_time)

    @property
    def drops(self) -> dict[str, float]:
        return {"mlp_drop": self.mlp_drop, "attn_drop": self.attn_drop}


def _check_kind(name: str, value: object, default: object) -> None:
    """Raise :class:`WeightsError` unless a setting is of the kind of its default; without one it is a whole number."""
    if isinstance(default, bool):
        fits, wanted = isinstance(value, bool), "true or false"
    elif name.endswith("_drop"):
        fits, wanted = type(value) in (int, float) and 0 <= value < 1, "a probability below 1"
    elif name == "mlp_ratio":
        fits, wanted = type(value) in (int, float) and 0 < value < inf, "a number above 0"
    elif isinstance(default, str):
        fits, wanted = isinstance(value, str), "a text"
    else:
        fits, wanted = type(value) is int and value > 0, "a whole number above 0"
    if not fits:
        raise WeightsError(f"{name} = {value!r} given; {wanted} is needed")


class InputBlock(nn.Module):
    """MLP(norm(x)) of the raw features; the norm can be left out."""

    def __init__(self, n_in: int, hidden: int, width: int, norm: bool = True):
        super().__init__()
        self.norm = DynTanh(n_in) if norm else nn.Identity()
        self.mlp = MLP(n_in, hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.mlp(self.norm(x))


class BiasBlock(nn.Module):
    """Pair features (..., n_in) -> bias per attention head (..., H)."""

    def __init__(self, n_in: int, hidden: int, heads: int):
        super().__init__()
        self.mlp = MLP(n_in, hidden, heads, norm=False)

    def forward(self, features: Tensor) -> Tensor:
        return self.mlp(features)


class TimeFourier(nn.Module):
    """sqrt(2) cos(freqs t + phases) t, in float32 always, as released; (B,) -> (B, d)."""

    def __init__(self, width: int):
        super().__init__()
        self.register_buffer("freqs", 2 * pi * torch.randn(width))
        self.register_buffer("phases", 2 * pi * torch.rand(width))

    def forward(self, time: Tensor) -> Tensor:
        angle = torch.outer(time.float(), self.freqs.float()) + self.phases.float()
        return time.unsqueeze(-1) * (angle.cos() * 2**0.5).to(time.dtype)


class PETBody(Trunk):
    """Cloud -> tokens and particles, (B, T + A + M, d)."""

    def __init__(self, config: PETConfig):
        d, hidden = config.base_dim, int(config.mlp_ratio * config.base_dim)
        super().__init__(
            d, config.num_transformers, config.num_heads, config.num_tokens, config.mlp_ratio, skip=config.skip,
            **config.drops,
        )  # fmt: skip
        self.config = config
        self.embed = InputBlock(config.input_dim, hidden, d)
        n_local = config.input_dim + (3 if config.use_int else 0)
        self.local_physics = LocalBlock(
            n_local, d, hidden, config.num_heads, config.num_transformers_head, **config.drops
        )
        if config.use_int:
            self.interaction = BiasBlock(3, 2 * d, config.num_heads)
        if config.conditional:
            self.cond_embed = nn.Sequential(MLP(config.cond_dim, d, d))
        if config.uses_time:
            self.MPFourier = TimeFourier(d)
            self.time_embed = MLP(d, hidden, d, bias=False)
        if config.add_info:
            extra = MLP(config.add_dim, hidden, d, bias=False)
            self.add_embed = nn.Sequential(extra, WholeDrop(config.feature_drop))
        if config.pid:
            self.pid_embed = nn.Sequential(
                nn.Embedding(config.pid_dim, d, padding_idx=0), WholeDrop(config.feature_drop)
            )

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        *,
        cond: Tensor | None = None,
        pid: Tensor | None = None,
        add_info: Tensor | None = None,
        time: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Cloud (B, M, F) -> features (B, T + A + M, d) and their mask.

        ``cond`` (B, C), ``pid`` (B, M) int64, ``add_info`` (B, M, A), ``time`` (B,); those that the settings do not
        ask for are ignored. ``mask`` (B, M): real particles; None: those whose third feature is not 0.
        """
        config = self.config
        mask = x[..., 2] != 0 if mask is None else mask
        real = mask.unsqueeze(-1).to(x.dtype)
        h = self.embed(x) * real + self.local(x, mask)
        if config.pid and pid is not None:
            h = h + self.pid_embed(pid) * real
        if config.add_info and add_info is not None:
            h = h + self.add_embed(add_info) * real
        front, front_mask = [], []
        if config.uses_time:
            front.append(self.time_embed(self.MPFourier(time)))
            front_mask.append(time != 0)  # the token is exactly 0 then
        if config.conditional and cond is not None:
            front.append(self.cond_embed(cond))
            front_mask.append(torch.ones_like(mask[:, 0]))
        if front:
            h = torch.cat([torch.stack(front, 1), h], 1)
            mask = torch.cat([torch.stack(front_mask, 1), mask], 1)
        return self.transform(h, mask, self.pair_bias(x, real) if config.use_int else None)

    def neighbors(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Index and mask (B, M, K) of the nearest in the (eta, phi) plane."""
        eta, phi = x[..., 0], x[..., 1]
        squared = _differences(eta).square() + _differences(phi).square()
        others = ~torch.eye(x.shape[1], dtype=torch.bool, device=x.device)
        return nearest(squared, mask.unsqueeze(1) & others, self.config.K)

    def local(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B, M, d): what each particle sees of its K nearest."""
        index, keep = self.neighbors(x, mask)
        cloud = torch.arange(len(x), device=x.device)[:, None, None]
        near = x[cloud, index]
        center = x.unsqueeze(2).expand_as(near)
        features = center - near
        if self.config.use_int:
            features = torch.cat([features, pair_physics(center, near)], -1)
        features = features * keep.unsqueeze(-1).to(x.dtype)
        out = self.local_physics(features.flatten(0, 1), keep.flatten(0, 1), 1e-9 * self.config.K)
        return out.unflatten(0, x.shape[:2]) * mask.unsqueeze(-1).to(x.dtype)

    def pair_bias(self, x: Tensor, real: Tensor) -> Tensor:
        """(B, H, M, M) from the pair functions, ``real`` (B, M, 1) 0 or 1; 0 at pairs with a padded member."""
        pairs = (real * real.transpose(1, 2)).unsqueeze(-1)
        bias = self.interaction(pair_physics(x.unsqueeze(2), x.unsqueeze(1)) * pairs) * pairs
        return bias.permute(0, 3, 1, 2)


def pair_physics(one: Tensor, other: Tensor) -> Tensor:
    """log m^2, log dR and log kT of pairs of massless particles, (..., F) each -> (..., 3); log 0 counts as 0.

    m^2 = 2 pT pT' (cosh d_eta - cos d_phi) = 4 pT pT' (sinh^2(d_eta/2) + sin^2(d_phi/2)), kT = min(pT) dR.
    """
    d_eta, d_phi = one[..., 0] - other[..., 0], one[..., 1] - other[..., 1]
    pt, other_pt = one[..., 2].exp(), other[..., 2].exp()
    mass2 = 4 * pt * other_pt * ((d_eta / 2).sinh().square() + (d_phi / 2).sin().square())
    distance2 = d_eta.square() + d_phi.square()
    apart = distance2 > 0
    log_distance = 0.5 * torch.where(apart, distance2, 1.0).log()
    log_kt = torch.where(apart, torch.minimum(one[..., 2], other[..., 2]) + log_distance, 0.0)
    return torch.stack([torch.where(mass2 > 0, mass2, 1.0).log(), log_distance, log_kt], -1)


def _differences(y: Tensor) -> Tensor:
    return y.unsqueeze(2) - y.unsqueeze(1)


class Classifier(nn.Module):
    """Tokens (after token attention) -> logits of classes, (B, T + A + M, d) -> (B, classes)."""

    def __init__(self, config: PETConfig):
        super().__init__()
        d, flat = config.base_dim, config.num_tokens * config.base_dim
        self.tokens = config.num_tokens
        self.in_blocks = nn.ModuleList(
            TokenAttBlock(d, config.num_heads, config.num_tokens, config.mlp_ratio, **config.drops)
            for _ in range(config.num_transformers_head)
        )
        self.fc = MLP(flat, int(config.mlp_ratio * flat), flat, drop=config.mlp_drop)
        self.out = xavier(nn.Linear(flat, config.num_classes))

    def forward(self, y: Tensor, mask: Tensor) -> Tensor:
        for block in self.in_blocks:
            y = block(y, mask)
        return self.out(self.fc(y[:, : self.tokens].flatten(1)))


class PET(nn.Module):
    """Body and the heads of a mode: classifier (not in "generator"), generator (not in "classifier")."""

    def __init__(self, config: PETConfig):
        super().__init__()
        self.config = config
        self.body = PETBody(config)
        self.classifier = Classifier(config) if config.mode != "generator" else None
        self.generator = None
        if config.mode != "classifier":
            n_out = config.input_dim if config.num_gen_classes == 1 else config.num_gen_classes
            self.generator = EntryHead(
                config.base_dim, config.num_transformers_head, config.num_heads, n_out, config.mlp_ratio,
                labels=config.num_classes if config.num_classes > 1 else None, **config.drops,
            )  # fmt: skip
