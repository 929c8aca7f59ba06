"""Loss terms of energies, forces and stress, each a mean over all that a step holds.

Energy: the error per atom, dE / N, unless the name says otherwise. e is an error, w its weight of 0 or 1:

==============  =======================================  ==========================================
name            energy term                              force term
==============  =======================================  ==========================================
``atoml2mae``   mean over structures of |dE| / N         mean over atoms of |dF|_2
``l2mae``       mean over structures of |dE|             sum over atoms of |dF|_2, per structure
``mae``         mean over structures of |dE| / N         mean over components of |dF|
``total-mae``   mean over structures of |dE|             mean over components of |dF|
``huber``       Huber of dE / N                          mean over components of Huber(dF)
``mse``         mean of (dE / N)^2                       mean over components of dF^2
==============  =======================================  ==========================================

``atoml2mae`` and ``l2mae`` are the release's names (UBio-MolFM notes). ``total-mae`` with ``per_structure`` is the loss
of OMNIMOL (eq. 12), with weights of 1/sigma and 10/sigma_F for its standardised labels.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from omnicalc.training.example import Batch, Totals
from omnicalc.training.predict import Prediction


def energy_term(kind: str, found: Prediction, batch: Batch, totals: Totals, delta: float) -> Tensor:
    error = found.energy - batch.energy
    if kind not in ("l2mae", "total-mae"):
        error = error / batch.systems.counts
    return (_size(kind, error, delta) * batch.energy_weight).sum() / max(1, totals.energies)


def force_term(
    kind: str, found: Prediction, batch: Batch, totals: Totals, delta: float, per_structure: bool = False
) -> Tensor:
    """``per_structure``: mean over the atoms of each structure first, so that every structure counts the same."""
    error = found.forces - batch.forces
    if kind in ("atoml2mae", "l2mae"):
        # the small constant keeps the gradient finite where a force is exact
        size = (error.square().sum(-1) + 1e-12).sqrt()
    else:
        size = _size(kind, error, delta).mean(-1)
    size = size * batch.force_weight
    if per_structure:
        size = size / batch.systems.counts[batch.systems.system]
    return size.sum() / max(1, force_count(kind, totals, per_structure))


def force_count(kind: str, totals: Totals, per_structure: bool = False) -> int:
    """What the force term is a mean over: structures or atoms."""
    return totals.force_structures if per_structure or kind == "l2mae" else totals.force_atoms


def stress_term(kind: str, found: Prediction, batch: Batch, totals: Totals, delta: float) -> Tensor:
    """Mean over the nine components; structures without a stress label count for nothing."""
    known = batch.stress_weight > 0
    error = torch.where(known[:, None, None], found.stress - batch.stress, 0.0)
    return _size(kind, error, delta).mean((1, 2)).sum() / max(1, totals.stresses)


def _size(kind: str, error: Tensor, delta: float) -> Tensor:
    if kind == "mse":
        return error.square()
    if kind == "huber":
        return F.huber_loss(error, torch.zeros_like(error), reduction="none", delta=delta)
    return error.abs()
