"""A published network without its two jumps in energy: the neighbour cap, and the softmax's maximum.

The release keeps the nearest ``max_neighbors`` of an atom, so the energy jumps where two neighbours change places at
the end of that list. Its softmax, with the envelope u and eps = 1e-3,

    alpha_j = f_j exp(s_j - M) u_j / (sum_k exp(s_k - M) u_k + eps),   M = max_k s_k,

takes a maximum that knows nothing of u, so the energy jumps where the neighbour with the largest score leaves the
cutoff. Without the cap and with M = max_k (s_k + log phi_k), phi = 1 for u >= u0 = 0.01 (93 % of the cutoff and
nearer) and going to zero as sqrt(u) beyond, energy and forces are continuous where neighbours come and go, down to the
last one, whose weight still vanishes with u / phi. Energies are the published ones exactly as long as no cap cuts and
no neighbour farther than that has the largest score of an atom. What stays is the kink, in the forces alone, where two
scores change places.
"""

from dataclasses import replace

import torch
from torch import Tensor

from omnicalc.models.e2former.config import E2FormerConfig

KIND = "smooth-softmax"
ONSET = 0.01  # u0, envelope below which a neighbour's hold on the maximum fades


def smoothed(config: E2FormerConfig) -> E2FormerConfig:
    """The same network without cap, without the release's limit on lattice images, with the smooth maximum."""
    weights = KIND if config.weights == "softmax" else config.weights
    return replace(config, weights=weights, max_neighbors=None, long_max_neighbors=None, image_limit=None)


def changes(config: E2FormerConfig) -> list[str]:
    """What :func:`smoothed` changes of a published network, a line each."""
    lines = []
    if config.max_neighbors is not None:
        lines.append(
            f"neighbours: all within {config.cutoff:g} Å (published: the nearest {config.max_neighbors}); atoms with "
            "more neighbours than that get other energies than published"
        )
    if config.long_layers and config.long_max_neighbors is not None:
        lines.append(
            f"long range: all heavy atoms within {config.long_upper:g} Å (published: the nearest "
            f"{config.long_max_neighbors})"
        )
    if config.image_limit is not None and (config.max_neighbors is not None or config.long_layers):
        lines.append(f"lattice images: all within reach (published: at most {config.image_limit} shells)")
    if config.weights == "softmax":
        lines.append(
            "softmax: its maximum lets go of neighbours between 93 % of the cutoff and the cutoff (published: at "
            "the cutoff, with a jump of the energy)"
        )
    return lines


def fade(step: Tensor) -> tuple[Tensor, Tensor]:
    """log phi, -inf where the envelope is zero, and u / phi, from the envelope u of any shape.

    phi = sqrt(1 - (1 - u/u0)^3) below u0, 1 above: its first two derivatives are continuous at u0.
    """
    inside = step > 0
    u = torch.where(inside, step, ONSET)
    v = (u / ONSET).clamp(max=1.0)
    phi = (v * (3 - v * (3 - v))).sqrt()  # multiplied out: no digits are lost at small u
    return torch.where(inside, phi.log(), -torch.inf), torch.where(inside, u / phi, 0.0)
