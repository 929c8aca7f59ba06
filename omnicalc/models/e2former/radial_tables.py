"""Splines in place of the radial networks: at inference all they produce depends on (r, Z_i, Z_j) alone.

Every output is interpolated by a spline of degree five (four times differentiable) on a uniform grid of distances from
0 to the cutoff. Its error falls with the sixth power of the spacing, that of its slope with the fifth.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import factorial

import numpy as np
import torch
from torch import Tensor

from omnicalc.models.e2former.config import E2FormerConfig
from omnicalc.models.e2former.layers import envelope

INTERVALS = 256  # slopes to about 2e-5 of the steepest for a Bessel basis of 10 and a cutoff of 4.5 Å
_FIRST = 1e-5  # Å; the networks are evaluated here in place of 0, where sin(r) / r is not defined

Function = Callable[[Tensor], Tensor]  # distances (M,) -> outputs (M, F)


@dataclass(frozen=True)
class RadialTables:
    """Splines of all element pairs, and how far they are from the networks."""

    coefficients: np.ndarray  # (pairs, intervals, 6, F) float64, by powers of the position 0..1 within an interval
    cutoff: float  # Å
    value_error: float  # largest error half way between grid points, relative to the largest value of the same output
    slope_error: float  # the same of slopes, against a spline on half the spacing, whose own error is 32 times smaller

    @property
    def intervals(self) -> int:
        return self.coefficients.shape[1]


def build_tables(functions: list[Function], cutoff: float, intervals: int = INTERVALS) -> RadialTables:
    """Splines of one function per element pair, with their measured errors."""
    from scipy.interpolate import make_interp_spline

    r = np.linspace(0, cutoff, 2 * intervals + 1)
    safe = torch.from_numpy(np.maximum(r, _FIRST))
    h = cutoff / intervals
    coefficients, errors = [], np.zeros(2)
    for f in functions:
        value = f(safe).numpy()
        spline, finer = make_interp_spline(r[::2], value[::2], k=5), make_interp_spline(r, value, k=5)
        left = r[:-1:2]
        coefficients.append(np.stack([spline(left, nu=p) * (h**p / factorial(p)) for p in range(6)], 1))
        between = r[3::2]  # from the second interval on: no atoms are ever nearer than the first
        found = _relative(spline(between), value[3::2]), _relative(spline(between, 1), finer(between, 1))
        errors = np.maximum(errors, found)
    return RadialTables(np.stack(coefficients), cutoff, *errors.tolist())


def _relative(found: np.ndarray, exact: np.ndarray) -> float:
    """Largest difference (M, F), relative to the largest size of the same output; a zero output does not count."""
    scale = np.abs(exact).max(0)
    return float((np.abs(found - exact).max(0)[scale > 0] / scale[scale > 0]).max(initial=0.0))


def pair_functions(model: torch.nn.Module, numbers: list[int]) -> list[Function]:
    """One function per ordered pair (target, source) of ``numbers``, of an :class:`E2Former` in float64.

    Outputs, in this order: the radial factor of the initial features with envelope and scale, (l_max+1) * C; per block
    the gate, H, and the value factor, H, which for softplus and sigmoid weights includes the envelope.
    """
    return [_pair_function(model, target, source) for target in numbers for source in numbers]


def _pair_function(model: torch.nn.Module, target: int, source: int) -> Function:
    config: E2FormerConfig = model.config
    split = [config.attention_heads] * 2

    def outputs(r: Tensor) -> Tensor:
        basis = model.basis(r)
        step = envelope(r, config.cutoff, config.envelope).unsqueeze(-1)
        embedding, gates = _networks(model, basis, target, source)
        parts = [embedding * step / config.embedding_scale]
        for gate, factor in (g.split(split, -1) for g in gates):
            parts += [gate, factor if config.weights == "softmax" else factor * step]
        return torch.cat(parts, -1)

    return outputs


def _networks(model: torch.nn.Module, basis: Tensor, target: int, source: int) -> tuple[Tensor, list[Tensor]]:
    """(M, (l_max+1) * C) of the embedding and, per block, (M, 2 H) gate and factor."""
    config, m = model.config, len(basis)
    basis = basis.unsqueeze(1)  # one neighbour slot
    if config.radial == "shared":
        rows = model.element_row[torch.tensor([target, source])]
        out = model.radial(basis, rows[:1].expand(m), rows[1:].expand(m, 1)).squeeze(1)
        size = (config.l_max + 1) * config.channels
        return out[:, :size], list(out[:, size:].split(2 * config.attention_heads, -1))
    z = torch.tensor([target, source])

    def run(tables, network) -> Tensor:
        t, s = tables.target(z[:1]).expand(m, -1), tables.source(z[1:]).expand(m, 1, -1)
        return network(basis, t, s).squeeze(1)

    embedding = [run(model.edge_embedding, network) for network in model.edge_embedding.radial]
    return torch.cat(embedding, -1), [run(block.gate, block.gate.radial) for block in model.blocks]
