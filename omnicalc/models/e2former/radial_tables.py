"""Splines in place of the radial networks: at inference all they produce depends on (r, Z_i, Z_j) alone.

Every output becomes a spline of degree five (four times differentiable) on a uniform grid of distances from 0 to the
cutoff, fitted to the network by least squares. Its error falls with the sixth power of the spacing, that of its slope
with the fifth. Stored are its control points, the coefficients of uniform B-splines: one per interval and five more.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

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
_STEP = 1e-4  # Å, of the differences that give the exact slopes where the grid of the fit ends
_AT_ONCE = 512  # distances, whose outputs stay in the caches
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
        found = []
        for tables in _tables_of_each(functions, cutoff, intervals, nearest, degree):
            found.append(tables)
            if tables.slope_error > slope_error and intervals < MOST_INTERVALS:
                break  # the others need not be looked at
        else:
            return _joined(found)
        intervals *= 2


def _joined(tables: list[RadialTables]) -> RadialTables:
    value, slope = (max(getattr(t, name) for t in tables) for name in ("value_error", "slope_error"))
    return replace(tables[0], points=np.concatenate([t.points for t in tables]), value_error=value, slope_error=slope)


def _tables_of_each(functions, cutoff: float, intervals: int, nearest, degree: int) -> Iterator[RadialTables]:
    """Tables of one pair after another: those of all together would need more memory than they are worth."""
    from scipy.interpolate import make_lsq_spline

    r = np.linspace(0, cutoff, _PER_INTERVAL * intervals + 1)
    knots = np.arange(-degree, intervals + degree + 1) * (cutoff / intervals)  # uniform, so they reach beyond both ends
    for function, beyond in zip(functions, np.broadcast_to(nearest, len(functions)), strict=True):
        exact = _evaluated(function, np.maximum(r, _FIRST))
        spline = make_lsq_spline(r, exact, knots, k=degree, method="norm-eq")
        errors = _errors(function, r, exact, spline, beyond)
        yield RadialTables(np.ascontiguousarray(spline.c)[None], cutoff, *errors, degree)


def _evaluated(function: Function, r: np.ndarray) -> np.ndarray:
    """(M, F) at distances (M,)."""
    return torch.cat([function(part) for part in torch.from_numpy(r).split(_AT_ONCE)]).numpy()


def _errors(function: Function, r: np.ndarray, exact: np.ndarray, spline, nearest: float) -> tuple[float, float]:
    """Largest error of values and of slopes between the distances ``r`` (M,), where the function is ``exact`` (M, F).

    Each is relative to the largest size of the same output.
    """
    between = 0.5 * (r[1:] + r[:-1])
    peaks = np.zeros((4, exact.shape[1]))
    ends = [*range(np.searchsorted(between, nearest, "right"), len(between) - 2, _AT_ONCE), len(between) - 2]
    for begin, end in pairwise([*ends, len(between)]):
        x = between[begin:end]
        value = _evaluated(function, x)
        if begin > 2 and end + 3 <= len(r):
            slope = _slopes(exact[begin - 2 : end + 3], r[1])
        else:
            slope = (_evaluated(function, x + _STEP) - _evaluated(function, x - _STEP)) / (2 * _STEP)
        for peak, y in zip(peaks, (value, spline(x) - value, slope, spline(x, 1) - slope), strict=True):
            np.maximum(peak, np.abs(y).max(0), out=peak)
    scale, error = peaks[0::2], peaks[1::2]
    return tuple(np.divide(error, scale, out=np.zeros_like(error), where=scale > 0).max(1).tolist())


def _slopes(y: np.ndarray, width: float) -> np.ndarray:
    """Derivatives in the middle between values (M + 5, F) on a uniform grid, each from the six nearest: (M, F).

    Their error is 5 / 7168 width^6 times the seventh derivative.
    """
    near, far, farthest = y[3:-2] - y[2:-3], y[4:-1] - y[1:-4], y[5:] - y[:-5]
    return (2250 * near - 125 * far + 9 * farthest) / (1920 * width)


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
    config, basis = model.config, basis.unsqueeze(1)  # one neighbour slot of M atoms, all of one kind
    if config.radial == "shared":
        rows = model.element_row[torch.tensor([target, source])]
        out = model.radial(basis, rows[:1], rows[1:].unsqueeze(1)).squeeze(1)
        size = (config.l_max + 1) * config.channels
        return out[:, :size], list(out[:, size:].split(2 * config.attention_heads, -1))
    z = torch.tensor([target, source])

    def run(tables, network) -> Tensor:
        return network(basis, tables.target(z[:1]), tables.source(z[1:]).unsqueeze(1)).squeeze(1)

    embedding = [run(model.edge_embedding, network) for network in model.edge_embedding.radial]
    return torch.cat(embedding, -1), [run(block.gate, block.gate.radial) for block in model.blocks]
