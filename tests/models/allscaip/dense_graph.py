"""The neighbour graph by the letter: all atoms times all images in one table, nothing left out. Slow and simple."""

import math

import torch
from torch import Tensor

_FAR = 400  # candidates beyond so many are farther than twice the cutoff in the structures at hand


def dense_graph(positions: Tensor, cell: Tensor, pbc: Tensor, config, images: int | None = None) -> dict:
    """Edges (i, j, image) -> (e, g) of one structure whose positions lie in the cell.

    ``images``: how many cells to look at along periodic axes; None: the release's ceil(cutoff / height).
    """
    shifts, reach = [], []
    for axis in range(3):
        a, b, c = cell[axis], cell[(axis + 1) % 3], cell[(axis + 2) % 3]
        normal = torch.linalg.cross(b, c)
        height = float((a @ normal).abs() / normal.norm()) if pbc[axis] else 1.0
        reach.append((math.ceil(config.cutoff / height) if images is None else images) if pbc[axis] else 0)
    for x in range(-reach[0], reach[0] + 1):
        for y in range(-reach[1], reach[1] + 1):
            shifts += [(x, y, z) for z in range(-reach[2], reach[2] + 1)]
    n = torch.tensor(shifts, dtype=positions.dtype)
    r = (positions[None, :, None] + (n @ cell)[None, None] - positions[:, None, None]).norm(dim=-1)  # (N, N, M)
    size, count = len(positions), len(shifts)
    rank_out = _ranks(r.reshape(size, -1), config).reshape(r.shape)
    back = r.transpose(0, 1).reshape(size, -1)
    rank_in = _ranks(back, config).reshape(size, size, count).transpose(0, 1)
    three = torch.stack([rank_out / config.neighbors, rank_in / config.neighbors, r / config.cutoff])
    if config.ranking == "hard":
        e = three.amax(0)
    else:
        e = config.limit_scale * torch.logsumexp(three / config.limit_scale, 0)
    found = {}
    for i, j, m in (e < 1).nonzero().tolist():
        if r[i, j, m] > 0:
            value = float(e[i, j, m])
            found[i, j, shifts[m]] = (value, -(value**2) / (1 - value**2) if config.envelope else 0.0)
    return found


def _ranks(r: Tensor, config) -> Tensor:
    """(N, C) ranks of all candidates of each atom."""
    if config.ranking == "hard":
        return r.argsort(1).argsort(1).to(r.dtype)
    if config.ranking == "all":
        return torch.sigmoid((r[:, :, None] - r[:, None, :]) / config.rank_scale).sum(-1)
    nearest = min(_FAR if config.smooth else config.neighbors + 20, r.shape[1])
    values, places = r.sort(1)
    top = values[:, :nearest]
    x = (top[:, :, None] - top[:, None, :]) / config.rank_scale / 4  # the bump in the form of the release
    inside = x.abs() < 1
    y = torch.where(inside, x, 0.0)
    left, right = torch.exp(-2 / (y + 1)), torch.exp(-2 / (1 - y))
    steps = torch.where(inside, left / (left + right), (x > 0).to(r.dtype))
    return torch.full_like(r, torch.inf).scatter(1, places[:, :nearest], steps.sum(-1))
