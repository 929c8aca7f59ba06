"""Splines in place of the radial networks: at inference all they produce depends on (r, Z_i, Z_j) alone.

Every output becomes a spline of degree five (four times differentiable) on a uniform grid of distances from 0 to the
cutoff, fitted to the network by least squares. Its error falls with the sixth power of the spacing, that of its slope
with the fifth. Stored are its control points, the coefficients of uniform B-splines: one per interval and five more.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from ase.data import covalent_radii
from torch import Tensor

from omnicalc.models.e2former.config import E2FormerConfig
from omnicalc.models.e2former.layers import envelope

DEGREE = 5  # usually; on a GPU, where more points cost less than reading more of them, three
INTERVALS = 256  # slopes to about 1e-5 of the steepest for smooth networks, a Bessel basis of 10, a cutoff of 4.5 Å
MOST_INTERVALS = 2048
SLOPE_ERROR = 4e-5  # relative to the steepest; networks that learned from squeezed molecules need finer grids for it
_PER_INTERVAL = 3  # distances that the fit looks at
_NEAREST = 0.5  # Å; no two atoms are nearer, nor than this part of their covalent radii's sum. There networks that
_NEAREST_PART = 0.5  # nothing holds may be as steep as they like.
_STEP = 1e-4  # Å, of the differences that give the exact slopes
_FIRST = 1e-5  # Å; the networks are evaluated here in place of 0, where sin(r) / r is not defined

Function = Callable[[Tensor], Tensor]  # distances (M,) -> outputs (M, F)


@dataclass(frozen=True)
class RadialTables:
    """Splines of all element pairs, and how far they are from the networks."""

    points: np.ndarray  # (pairs, intervals + 5, F) float64, control points
    cutoff: float  # Å
    value_error: float  # largest error between the distances of the fit, relative to the largest value of the output
    slope_error: float  # the same of slopes
    degree: int = DEGREE

    @property
    def intervals(self) -> int:
        return self.points.shape[1] - self.degree


def tables_within(
    functions: list[Function],
    cutoff: float,
    nearest: np.ndarray | float = _NEAREST,
    slope_error: float = SLOPE_ERROR,
    degree: int = DEGREE,
    intervals: int = INTERVALS,
) -> RadialTables:
    """Splines on the coarsest grid, from ``intervals`` on, that keeps the error of slopes, or on the finest one."""
    while True:
        tables = build_tables(functions, cutoff, intervals, nearest, degree)
        if tables.slope_error <= slope_error or intervals >= MOST_INTERVALS:
            return tables
        intervals *= 2


def build_tables(
    functions: list[Function],
    cutoff: float,
    intervals: int = INTERVALS,
    nearest: np.ndarray | float = _NEAREST,
    degree: int = DEGREE,
) -> RadialTables:
    """Splines of one function per element pair, with their errors beyond ``nearest``, (pairs,) or one, in Å."""
    from scipy.interpolate import make_lsq_spline

    def exact(r: np.ndarray) -> np.ndarray:
        return torch.stack([f(torch.from_numpy(r)) for f in functions], 1).numpy()

    r = np.linspace(0, cutoff, _PER_INTERVAL * intervals + 1)
    knots = np.arange(-degree, intervals + degree + 1) * (cutoff / intervals)  # uniform, so they reach beyond both ends
    spline = make_lsq_spline(r, exact(np.maximum(r, _FIRST)), knots, k=degree, method="norm-eq")
    between = 0.5 * (r[1:] + r[:-1])
    between = between[between > np.min(nearest)]
    seen = (between[:, None] > nearest)[..., None]  # (M, pairs or 1, 1)
    slope = (exact(between + _STEP) - exact(between - _STEP)) / (2 * _STEP)
    errors = _relative(spline(between), exact(between), seen), _relative(spline(between, 1), slope, seen)
    return RadialTables(np.ascontiguousarray(spline.c.swapaxes(0, 1)), cutoff, *errors, degree)


def _relative(found: np.ndarray, exact: np.ndarray, seen: np.ndarray) -> float:
    """Largest difference (M, ...) where ``seen``, relative to the largest size of the same output."""
    scale, error = np.abs(exact * seen).max(0), np.abs((found - exact) * seen).max(0)
    return float((error[scale > 0] / scale[scale > 0]).max(initial=0.0))


def nearest_distances(numbers: list[int]) -> np.ndarray:
    """(pairs,) Å, in the order of :func:`pair_functions`: atoms of these elements do not come nearer to each other."""
    radii = covalent_radii[numbers]
    return np.maximum(_NEAREST, _NEAREST_PART * np.add.outer(radii, radii)).ravel()


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
