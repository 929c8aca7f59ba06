"""ATOM for our own weights: every layer turns with the molecule, and time is physical time.

The plan is the published one: lifting, attention of one query to three sources over all atoms of all frames, value
residual, several output heads with gates. What differs, and why:

- channels are vectors and scalars throughout, so that no orientation has to be learnt (:mod:`.equivariant`);
- positions count from the centre of mass, and velocities are those left when the rigid motion is taken off;
- the network predicts what a rigid-motion guess leaves over, in the frame that turns with that guess;
- rotary positions and a gate carry the time in femtoseconds, so that any number of frames at any times can be had;
- pairs of atoms are seen by distance, elements and approach: as bias of the attention, and as messages;
- copies along time are equal until time enters, so the first blocks run on one of them.
"""

import math
from dataclasses import asdict, dataclass, fields

import torch
from ase.data import atomic_masses
from torch import Tensor, nn

from omnicalc.errors import InputError, WeightsError
from omnicalc.models.atom import rigid
from omnicalc.models.atom.equivariant import FeedForward, Linear, Norm, Pair, added

GUESSES = ("rigid", "constant-rotation", "start", "ballistic")
_SPEED = 50.0  # fs/Å: velocities times this are near 1
_WAVES = (10.0, 2000.0)  # fs, shortest and longest period of the time features
_ONSET = 20.0  # fs, within which the output grows from zero


@dataclass(frozen=True)
class PhysicalConfig:
    """Numbers and choices that fix the network."""

    elements: tuple[int, ...] = (1, 6, 7, 8)
    vectors: int = 24
    scalars: int = 48
    spatial_layers: int = 3  # blocks on one copy of the atoms
    temporal_layers: int = 2  # blocks on atoms of all frames
    attention_heads: int = 4
    output_heads: int = 2
    radial: int = 16
    pair_width: int = 32
    cutoff: float = 7.0  # Å, reach of the messages; attention reaches everywhere
    guess: str = "rigid"
    horizon: float = 500.0  # fs, largest time of the training

    def __post_init__(self):
        object.__setattr__(self, "elements", tuple(self.elements))
        if self.guess not in GUESSES:
            raise WeightsError(f"guess = {self.guess!r}; one of {', '.join(GUESSES)} is needed")
        for name in ("vectors", "scalars"):
            if getattr(self, name) < 1 or getattr(self, name) % (2 * self.attention_heads):
                raise WeightsError(
                    f"{name} = {getattr(self, name)} with {self.attention_heads} attention heads: an even number of "
                    "channels per head, 2 or more, is needed"
                )

    @classmethod
    def from_dict(cls, table: dict) -> "PhysicalConfig":
        """Raises :class:`WeightsError` for keys that are not known, and for values of another kind than the default."""
        defaults = {f.name: f.default for f in fields(cls)}
        unknown = sorted(set(table) - set(defaults))
        if unknown:
            raise WeightsError(f"unknown settings of the atom decoder: {', '.join(unknown)}")
        for name, value in table.items():
            kinds = {float: (int, float), tuple: (list, tuple)}.get(type(defaults[name]), type(defaults[name]))
            if not isinstance(value, kinds) or isinstance(value, bool):
                raise WeightsError(f"atom decoder: {name} = {value!r}; a value such as {defaults[name]!r} is needed")
        return cls(**table)

    def to_dict(self) -> dict:
        return {**asdict(self), "elements": list(self.elements)}


@dataclass(frozen=True)
class Start:
    """B molecules at time 0, padded to N atoms."""

    numbers: Tensor  # (B, N) int64, 0 for padding
    x: Tensor  # (B, N, 3) Å
    v: Tensor  # (B, N, 3) Å/fs

    @property
    def mask(self) -> Tensor:
        """(B, N) bool: atoms that are there."""
        return self.numbers > 0


@dataclass(frozen=True)
class Guess:
    """Where the molecule would be without a network; ``inner`` and ``frame`` say what is added to it."""

    frames: Tensor  # (B, T, N, 3) Å
    turn: Tensor  # (B, T, 3, 3): turns what the network predicts into the frame of each time
    x: Tensor  # (B, N, 3) Å, from the centre of mass
    inner: Tensor  # (B, N, 3) Å/fs, velocities without the rigid motion
    turning: Tensor  # (B, N, 3) Å/fs, velocities of the rotation


def masses_of(numbers: Tensor) -> Tensor:
    """Masses (B, N) amu in the dtype of positions' weights, 0 for padding."""
    table = torch.tensor(atomic_masses, dtype=torch.float64, device=numbers.device)
    return torch.where(numbers > 0, table[numbers], 0.0)


def first_guess(start: Start, times: Tensor, kind: str = "rigid") -> Guess:
    """Rigid, constant-rotation, start or ballistic motion to ``times`` (B, T) fs."""
    masses = masses_of(start.numbers).to(start.x.dtype)
    there = start.mask[..., None]
    middle, drift = rigid.centre(start.x, masses), rigid.centre(start.v, masses)
    x, v = (start.x - middle) * there, (start.v - drift) * there
    momentum, inverse = rigid.angular_momentum(x, v, masses), rigid.inertia_inverse(x, masses)
    omega = (inverse @ momentum[..., None])[..., 0]
    turning = torch.linalg.cross(omega[:, None].expand_as(x), x)
    later = times[..., None, None]
    turn = torch.eye(3, dtype=x.dtype, device=x.device).expand(*times.shape, 3, 3)
    if kind == "start":
        frames = start.x[:, None].expand(-1, times.shape[1], -1, -1)
    elif kind == "ballistic":
        frames = start.x[:, None] + later * start.v[:, None]
    else:
        turn = (rigid.free_rotation if kind == "rigid" else rigid.constant_rotation)(momentum, inverse, times)
        frames = x[:, None] @ turn.transpose(-1, -2) + middle[:, None] + later * drift[:, None]
    return Guess(frames, turn, x, v - turning, turning)


class Block(nn.Module):
    """Attention with a bias from pairs, messages between pairs (on one copy of the atoms), a feed-forward network."""

    def __init__(self, config: PhysicalConfig, messages: bool):
        super().__init__()
        channels = config.vectors, config.scalars
        self.norm = Norm(*channels)
        self.attention = Attention(config)
        self.messages = Messages(config) if messages else None
        self.feed_forward = FeedForward(*channels)
        self.mix = nn.Parameter(torch.tensor(0.5))

    def forward(
        self, state: Pair, sources: tuple[Pair, Pair], pairs: "Pairs", angles: tuple[Tensor, Tensor] | None,
        first: Pair | None,
    ) -> Pair:  # fmt: skip
        """``state`` (B, T, N, ...); ``sources``, velocities and queries, (B, 1, N, ...); ``first``: the first output,
        None in the first block.
        """
        velocities, query = (self.norm(s) for s in sources)
        out = added(state, self.attention(query, (self.norm(state), velocities, query), pairs, angles))
        if self.messages is not None:
            out = added(out, self.messages(self.norm(out), pairs))
        out = added(out, self.feed_forward(self.norm(out)))
        if first is None:
            return out
        share = self.mix.sigmoid()
        return tuple(share * a + (1 - share) * b for a, b in zip(out, first, strict=True))


class Attention(nn.Module):
    """One query, shared key and value maps for three sources; products of vectors count as those of scalars."""

    def __init__(self, config: PhysicalConfig):
        super().__init__()
        channels, self.heads = (config.vectors, config.scalars), config.attention_heads
        self.query, self.key, self.value, self.out = (Linear(channels, channels) for _ in range(4))
        self.source_weights = nn.Parameter(0.1 * torch.randn(3))
        self.bias = nn.Linear(config.pair_width, self.heads)

    def forward(
        self, query: Pair, sources: tuple[Pair, ...], pairs: "Pairs", angles: tuple[Tensor, Tensor] | None
    ) -> Pair:
        """Copies along time of the first source, the state, decide those of the query and of the result."""
        copies, atoms = sources[0][1].shape[1:3]
        bias = self.bias(pairs.features).movedim(-1, 1).masked_fill(~pairs.keys[:, None, None], -1e4)
        # a query of one copy is turned to all times
        turned = self._tokens(self.query(query), angles, copies)
        mixed = 0.0
        for weight, source in zip(self.source_weights.softmax(0), sources, strict=True):
            own = source[1].shape[1]
            key = self._tokens(self.key(source), angles if own == copies else None, own)
            mask = bias.repeat(1, 1, copies, own)
            value = self._tokens(self.value(source), None, own)
            mixed = mixed + weight * nn.functional.scaled_dot_product_attention(turned, key, value, attn_mask=mask)
        tokens = mixed.transpose(1, 2).unflatten(1, (copies, atoms))
        split = 3 * (query[0].shape[-2] // self.heads)
        vectors = tokens[..., :split].unflatten(-1, (-1, 3)).flatten(3, 4)
        return self.out((vectors, tokens[..., split:].flatten(3)))

    def _tokens(self, pair: Pair, angles: tuple[Tensor, Tensor] | None, copies: int) -> Tensor:
        """(B, heads, copies * N, d): vectors and scalars of each head, turned by time where angles are given."""
        parts = []
        for x, k in zip((pair[0], pair[1][..., None]), (0, 1), strict=True):
            x = x.unflatten(3, (self.heads, -1)).expand(-1, copies, -1, -1, -1, -1)
            parts.append((x if angles is None else rotary(x, angles[k])).flatten(-2))
        return torch.cat(parts, -1).flatten(1, 2).transpose(1, 2)


def rotary(x: Tensor, angles: Tensor) -> Tensor:
    """Channels 2i and 2i + 1 of ``x`` (B, T, N, H, C, D) turned into each other by ``angles`` (B, T, C / 2)."""
    even, odd = x.unflatten(4, (-1, 2)).unbind(5)
    angles = angles[:, :, None, None, :, None]
    cos, sin = angles.cos(), angles.sin()
    return torch.stack([even * cos - odd * sin, even * sin + odd * cos], 5).flatten(4, 5)


def wave_rates(count: int) -> Tensor:
    """(count,) rad/fs, from the fastest to the slowest, evenly spaced on a logarithmic scale."""
    return 2 * math.pi / torch.logspace(math.log10(_WAVES[0]), math.log10(_WAVES[1]), count)


@dataclass(frozen=True)
class Pairs:
    """What is known of every pair of atoms."""

    features: Tensor  # (B, N, N, P)
    unit: Tensor  # (B, N, N, 3) from j to i
    reach: Tensor  # (B, N, N, 1): 1 near, 0 at the cutoff, for padding and for an atom with itself
    keys: Tensor  # (B, N) bool: atoms that are there


class PairFeatures(nn.Module):
    """Distance, elements and approach of every pair."""

    def __init__(self, config: PhysicalConfig):
        super().__init__()
        self.cutoff, width = config.cutoff, config.pair_width
        self.elements = nn.Embedding(len(config.elements) + 1, 8)
        self.register_buffer("centres", torch.linspace(0.8, 5.0, config.radial), persistent=False)
        self.first = nn.Linear(config.radial + 18, width)
        self.second = nn.Linear(width, width)

    def forward(self, species: Tensor, x: Tensor, v: Tensor, mask: Tensor) -> Pairs:
        """``species`` (B, N); ``x`` Å and scaled ``v`` (B, N, 3)."""
        apart, moving = (t[:, :, None] - t[:, None] for t in (x, v))
        distance = apart.square().sum(-1, keepdim=True).clamp_min(1e-12).sqrt()
        unit = apart / distance.clamp_min(0.1)
        width = float(self.centres[1] - self.centres[0])
        radial = torch.exp(-0.5 * ((distance - self.centres) / width) ** 2)
        a, b = self.elements(species)[:, :, None], self.elements(species)[:, None]
        elements = torch.cat([(a + b).expand_as(apart[..., :1] + a + b), a * b], -1)
        features = torch.cat([radial, distance / self.cutoff, (moving * unit).sum(-1, keepdim=True), elements], -1)
        features = nn.functional.silu(self.second(nn.functional.silu(self.first(features))))
        reach = 0.5 * (1 + torch.cos(math.pi * (distance / self.cutoff).clamp_max(1.0)))
        other = ~torch.eye(x.shape[1], dtype=torch.bool, device=x.device)
        return Pairs(features, unit, reach * (mask[:, :, None] & mask[:, None] & other)[..., None], mask)


class Messages(nn.Module):
    """Sums over the other atoms of directions, vectors and scalars, each weighted by what the pair looks like."""

    def __init__(self, config: PhysicalConfig):
        super().__init__()
        self.sizes = [config.vectors, config.vectors, config.scalars]
        self.weights = nn.Linear(config.pair_width, sum(self.sizes))
        self.into = Linear((config.vectors, config.scalars), (config.vectors, config.scalars))
        self.out = Linear((config.vectors, config.scalars), (config.vectors, config.scalars))

    def forward(self, pair: Pair, pairs: Pairs) -> Pair:
        """(B, 1, N, ...) -> the same."""
        vectors, scalars = self.into(pair)
        a, b, c = (self.weights(pairs.features) * pairs.reach).split(self.sizes, -1)
        moved = torch.einsum("bijv,bijx->bivx", a, pairs.unit) + torch.einsum("bijv,bjvx->bivx", b, vectors[:, 0])
        seen = torch.einsum("bijs,bjs->bis", c, scalars[:, 0])
        return self.out((moved[:, None], seen[:, None]))


class Lift(nn.Module):
    """Channels of one set of vectors per atom, mixed in a way of each element's own."""

    def __init__(self, config: PhysicalConfig, inputs: int):
        super().__init__()
        species, V, S = len(config.elements) + 1, config.vectors, config.scalars
        self.mix = nn.Parameter(torch.randn(species, inputs * V) / math.sqrt(inputs))
        self.element = nn.Embedding(species, S)
        self.products = nn.Linear(inputs * inputs, S)
        self.out = nn.Linear(S, S)

    def forward(self, species: Tensor, *inputs: Tensor) -> Pair:
        """``inputs`` (B, N, 3) each -> vectors (B, 1, N, V, 3), scalars (B, 1, N, S)."""
        given = torch.stack(inputs, 2)
        weights = self.mix[species].unflatten(-1, (len(inputs), -1))
        vectors = torch.einsum("bnuv,bnux->bnvx", weights, given)
        products = (given @ given.transpose(-1, -2)).flatten(-2)
        products = products / (1 + products.abs()).sqrt()  # lengths rather than squares, where they are large
        scalars = self.out(nn.functional.silu(self.element(species) + self.products(products)))
        return vectors[:, None], scalars[:, None]


class PhysicalAtom(nn.Module):
    """From :class:`Start` and times to positions; turns, shifts and permutes with its input."""

    def __init__(self, config: PhysicalConfig):
        super().__init__()
        self.config, V, S = config, config.vectors, config.scalars
        row = torch.full((119,), -1)
        row[list(config.elements)] = torch.arange(1, 1 + len(config.elements))
        row[0] = 0
        self.register_buffer("row", row, persistent=False)
        self.lift_state, self.lift_velocities = Lift(config, 3), Lift(config, 2)
        self.product = FeedForward(V, S)
        self.pairs = PairFeatures(config)
        self.spatial = nn.ModuleList(Block(config, messages=True) for _ in range(config.spatial_layers))
        self.temporal = nn.ModuleList(Block(config, messages=False) for _ in range(config.temporal_layers))
        self.clock = nn.Linear(32, V + 2 * S)
        self.last = FeedForward(V, S)
        self.norm = Norm(V, S)
        self.heads = nn.Linear(V, config.output_heads, bias=False)
        self.gate = nn.Sequential(nn.Linear(S, S // 2), nn.SiLU(), nn.Linear(S // 2, config.output_heads))
        nn.init.normal_(self.heads.weight, std=0.02)
        for name, count in (("clock_rates", 16), *((f"rates_{k}", n) for k, n in enumerate(self._rotary_counts()))):
            self.register_buffer(name, wave_rates(count), persistent=False)

    def _rotary_counts(self) -> tuple[int, int]:
        config = self.config
        return tuple(n // config.attention_heads // 2 for n in (config.vectors, config.scalars))

    def forward(self, start: Start, times: Tensor) -> Tensor:
        """Positions (B, T, N, 3) Å at ``times`` (B, T) fs, above 0 and not falling; padding stays where the guess is.

        Raises:
            InputError: an element that the network does not know.
        """
        guess = first_guess(start, times, self.config.guess)
        left_over = self.left_over(start, guess, times)
        return guess.frames + left_over @ guess.turn.transpose(-1, -2)

    def left_over(self, start: Start, guess: Guess, times: Tensor) -> Tensor:
        """(B, T, N, 3) Å: what the guess leaves over, in the orientation of the start, without motion as a whole."""
        species, mask = self._species(start.numbers), start.mask
        x, inner, turning = guess.x, _SPEED * guess.inner, _SPEED * guess.turning
        pairs = self.pairs(species, x, inner, mask)
        state = self.lift_state(species, x, inner, turning)
        velocities = self.lift_velocities(species, inner, turning)
        query = self.product(added(state, velocities))
        state = self._stage(self.spatial, state, (velocities, query), pairs, None)
        waves = times[..., None] * self.clock_rates
        clock = self.clock(torch.cat([waves.sin(), waves.cos()], -1))[:, :, None]
        scale, shift, factor = clock.split([self.config.vectors, self.config.scalars, self.config.scalars], -1)
        state = state[0] * (1 + scale[..., None]), state[1] * (1 + factor) + shift
        angles = tuple(times[..., None] * rates for rates in (self.rates_0, self.rates_1))
        state = self._stage(self.temporal, state, (velocities, query), pairs, angles)
        vectors, scalars = added(state, self.last(self.norm(state)))
        per_head = self.heads(vectors.transpose(-1, -2))
        there = mask[:, None, :, None]
        mean = (scalars * there).sum((1, 2)) / (there.sum((1, 2)) * scalars.shape[1])
        found = (per_head * self.gate(mean).softmax(-1)[:, None, None, None]).sum(-1)
        found = found * (times / (times + _ONSET))[..., None, None] * there
        weights = masses_of(start.numbers).to(found.dtype)
        middle = (found * weights[:, None, :, None]).sum(2, keepdim=True) / weights.sum(1)[:, None, None, None]
        return (found - middle) * there

    def _stage(self, blocks: nn.ModuleList, state: Pair, sources: tuple[Pair, Pair], pairs: Pairs, angles) -> Pair:
        first = None
        for block in blocks:
            state = block(state, sources, pairs, angles, first)
            first = state if first is None else first
        return state

    def _species(self, numbers: Tensor) -> Tensor:
        species = self.row[numbers]
        if (species < 0).any():
            from ase.data import chemical_symbols

            unknown = sorted({chemical_symbols[z] for z in numbers[species < 0].tolist()})
            known = ", ".join(chemical_symbols[z] for z in self.config.elements)
            raise InputError(f"this decoder does not know {', '.join(unknown)}; it was trained on {known}")
        return species
