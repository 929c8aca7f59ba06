"""The body of OMNIMOL: molecular encoders, pair features, local block and pair bias around PET's trunk (eq. 2-4, 8).

Parameter names are PET's wherever a tensor has the same meaning, so that its weights can be loaded by name and shape:
``embed`` takes positions in place of (eta, phi, ...), ``pid_embed`` atomic numbers, ``add_embed`` charge and spin.
"""

import torch
from torch import Tensor, nn

from omnicalc.errors import InputError
from omnicalc.models.omnimol.config import OmnimolConfig
from omnicalc.models.omnimol.layers import MLP
from omnicalc.models.omnimol.molecule import Padding
from omnicalc.models.omnimol.pairs import (
    PairScalar,
    cosines,
    distances_of,
    envelope,
    in_chunks,
    legendre,
    pair_features,
    upper,
)
from omnicalc.models.omnimol.pet import BiasBlock, InputBlock
from omnicalc.models.omnimol.transformer import LocalBlock, Trunk, nearest

N_ELEMENTS = 119  # rows of the table by atomic number; row 0 stands for no atom


class Adapter(nn.Module):
    """x + tanh(a) MLP(x) per atom (eq. 14); a starts at 0.1 and the last layer at zero, so it starts as nothing."""

    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.alpha = nn.Parameter(torch.tensor(0.1))
        self.mlp = MLP(width, hidden, width, norm=False)
        nn.init.zeros_(self.mlp.fc2.weight)

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.tanh(self.alpha) * self.mlp(x)


class MoleculeBody(Trunk):
    """Atoms of a batch of molecules -> tokens and atoms, (S, T + M, d)."""

    def __init__(self, config: OmnimolConfig):
        d, hidden, heads = config.width, int(config.mlp_ratio * config.width), config.attention_heads
        super().__init__(d, config.layers, heads, config.tokens, config.mlp_ratio, **config.drops)
        self.config = config
        if config.positions:
            self.embed = InputBlock(3, hidden, d, norm=config.input_norm)
        self.pid_embed = nn.Sequential(nn.Embedding(N_ELEMENTS, d, padding_idx=0))
        if config.separate_charge_spin:
            self.charge_embed = nn.Sequential(MLP(1, hidden, d, bias=False))
            self.spin_embed = nn.Sequential(MLP(1, hidden, d, bias=False))
        else:
            self.add_embed = nn.Sequential(MLP(2, hidden, d, bias=False))
        self.pair_scalar = PairScalar(d, 2 * d)
        if not config.shared_pair_scalar:
            self.local_pair_scalar = PairScalar(d, 2 * d)
        self.local_physics = LocalBlock(config.n_local_features, d, hidden, heads, config.local_layers, **config.drops)
        if config.angles == "bias":
            self.angle_bias = BiasBlock(config.angle_degree, config.angle_width, heads)
        self.interaction = BiasBlock(config.n_pair_features, 2 * d, config.n_biases)
        if config.adapter:
            self.adapter = Adapter(d, hidden)
        sigmas = torch.linspace(config.sigma_min, config.sigma_max, config.n_rbf, dtype=torch.float64)
        self.register_buffer("sigmas", sigmas, persistent=False)

    def forward(
        self, positions: Tensor, numbers: Tensor, charge: Tensor, spin: Tensor, padding: Padding, system: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Centred positions (N, 3), numbers (N,), total charge and multiplicity (S,) -> (S, T + M, d) and its mask."""
        identity = self.identity(numbers, charge, spin, system)
        x = identity + self.local(positions, identity, padding)
        if self.config.positions:
            x = x + self.embed(positions)
        if self.config.adapter:
            x = self.adapter(x)
        bias = self.pair_bias(padding.pad(positions), padding.pad(identity), padding.mask)
        return self.transform(padding.pad(x), padding.mask, bias)

    def identity(self, numbers: Tensor, charge: Tensor, spin: Tensor, system: Tensor) -> Tensor:
        """(N, d): what an atom is, E[Z] + MLP(charge, multiplicity - 1), the latter of its molecule."""
        dtype = self.token.dtype
        extra = torch.stack([charge.to(dtype), (spin - 1).to(dtype)], -1)
        if self.config.separate_charge_spin:
            added = self.charge_embed(extra[:, :1]) + self.spin_embed(extra[:, 1:])
        else:
            added = self.add_embed(extra)
        return self.pid_embed(numbers) + added[system]

    def features(self, delta: Tensor, keep: Tensor, g: Tensor) -> Tensor:
        """Pair features (..., 41 or 38) by the settings."""
        config = self.config
        return pair_features(
            delta, keep, g, self.sigmas.to(delta.dtype), core=config.soft_core, with_vector=config.positions
        )

    def pair_bias(self, positions: Tensor, identity: Tensor, mask: Tensor) -> Tensor:
        """(S, M, 3), (S, M, d), (S, M) -> (S, H or 1, M, M), for every ordered pair; 0 where there is none."""
        left, right = self.pair_scalar.halves(identity)
        others = ~torch.eye(mask.shape[1], dtype=torch.bool, device=mask.device)

        def rows(part: slice) -> Tensor:
            keep = mask[:, part, None] & mask[:, None] & others[part]
            delta = positions[:, part, None] - positions[:, None]
            g = self.pair_scalar.join(left[:, part, None], right[:, None])
            both = (mask[:, part, None] & mask[:, None]).unsqueeze(-1)
            return self.interaction(self.features(delta, keep, g)) * both

        n_systems, width = mask.shape
        bias = in_chunks(rows, width, self.config.pair_chunk // (n_systems * width), dim=1)
        return bias.permute(0, 3, 1, 2)

    def neighbors(self, positions: Tensor, padding: Padding) -> tuple[Tensor, Tensor]:
        """Flat numbers and mask (N, K) of the neighbours of every atom, in order of distance."""
        config = self.config
        with torch.no_grad():
            padded = padding.pad(positions)
            distances = padding.flat(torch.cdist(padded, padded, compute_mode="donot_use_mm_for_euclid_dist"))
            columns = torch.arange(distances.shape[1], device=positions.device)
            keep = padding.flat(padding.mask.unsqueeze(1).expand(*padding.mask.shape, -1))
            keep = keep & (columns != padding.column.unsqueeze(1))
            k = config.k
            if config.neighbors == "cutoff":
                keep = keep & (distances < config.cutoff)
                k = int(keep.sum(1).max())
                self._check_neighbors(k)
            index, mask = nearest(distances, keep, k)
            return torch.where(mask, index + padding.first.unsqueeze(1), 0), mask

    def _check_neighbors(self, found: int) -> None:
        limit = self.config.max_neighbors
        if limit is not None and found > limit:
            raise InputError(
                f"an atom has {found} neighbours within {self.config.cutoff:g} Å, but these weights allow "
                f"{limit} (max_neighbors); look for atoms that are far too close to each other"
            )

    def local(self, positions: Tensor, identity: Tensor, padding: Padding) -> Tensor:
        """(N, 3), (N, d) -> (N, d): what each atom sees of its neighbours; 0 for atoms that have none."""
        index, keep = self.neighbors(positions, padding)
        n, k = index.shape
        if k == 0:
            return torch.zeros_like(identity)
        scalar = self.pair_scalar if self.config.shared_pair_scalar else self.local_pair_scalar
        left, right = scalar.halves(identity)

        def centres(part: slice) -> Tensor:
            near, real = index[part], keep[part]
            delta = positions[part].unsqueeze(1) - positions[near]
            g = scalar.join(left[part].unsqueeze(1), right[near])
            return self._local_rows(self.features(delta, real, g), delta, real)

        return in_chunks(centres, n, self.config.centre_chunk(k), dim=0)

    def _local_rows(self, features: Tensor, delta: Tensor, keep: Tensor) -> Tensor:
        """Local block of R centres: pair features (R, K, F), delta (R, K, 3) -> (R, d)."""
        config, weight, bias = self.config, None, None
        if config.angles != "none":
            cos = cosines(delta, keep)
            if config.angles == "bias":
                bias = self.angle_bias(legendre(cos, config.angle_degree)).permute(0, 3, 1, 2)
            else:
                features = torch.cat([features, self._ranked_angles(cos)], -1) * keep.unsqueeze(-1)
        if config.neighbors == "cutoff":
            weight = torch.where(keep, envelope(distances_of(delta, keep), config.cutoff), 0.0)
        return self.local_physics(features, keep, config.epsilon, weight, bias)

    def _ranked_angles(self, cos: Tensor) -> Tensor:
        """(R, K', K') with K' <= K neighbours present -> what is appended to each of them, (R, K', K or K(K-1)/2)."""
        present, k = cos.shape[-1], self.config.k
        if self.config.angles == "row":
            return nn.functional.pad(cos, (0, k - present))
        cos = nn.functional.pad(cos, (0, k - present, 0, k - present))
        return upper(cos).unsqueeze(1).expand(-1, present, -1)
