"""A committee of last layers on one trunk: how sure a potential is of its energies and forces.

The energy is linear in the last layer's weights w: E(w) = w . H(x), H = sum_i (h_i, 1) the pooled last features and a
1 for the bias. Given training data with energy errors of size s_E (per atom) and force errors of size s_F (per
component), the weights are known up to a Gaussian with the covariance of least squares,

    C = a^2 [ sum_structures g g^T / s_E^2 + J^T J / s_F^2 + 1 / s_w^2 ]^-1,     g = H / N,  J = dH/dr  (3N rows),

(Bigi, Chong, Ceriotti, Grasselli, arXiv:2403.02251, extended to forces). Members are the weights plus draws from it, so
that energies and forces of each member belong together: F_m = -dE_m/dr. The factor a is set on validation structures,
such that the mean square of the spread of forces is the mean square of their errors.

========  ======================================================
symbol    variable
========  ======================================================
J^T J     estimated by a few random directions v: (J^T v)(J^T v)^T
a         ``scale``
s_w       root mean square of the last layer's weights
========  ======================================================
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from ase import Atoms
from torch import Tensor

from omnicalc.errors import InputError
from omnicalc.evaluation import Evaluation, evaluate
from omnicalc.gradients import geometry
from omnicalc.neighbors import neighbors
from omnicalc.potential import Potential
from omnicalc.systems import Systems

_DIRECTIONS = 4  # random directions per structure
_STEP = 1e-4  # Å, of the central differences along them, in float64
_LEAST = 1e-3  # meV per atom and meV/Å: errors that nothing but rounding makes smaller
_BINS = 10


@dataclass(frozen=True)
class Calibration:
    """Spread of forces against their errors, per atom (norms), on structures that set nothing."""

    spread: np.ndarray  # (atoms,) eV/Å
    error: np.ndarray  # (atoms,) eV/Å, norm of the force error

    def bins(self) -> tuple[np.ndarray, np.ndarray]:
        """Root mean squares of spread and error in bins of equally many atoms, by spread."""
        order = np.argsort(self.spread)
        parts = np.array_split(order, min(_BINS, len(order)))
        rms = [[float(np.sqrt(np.mean(x[p] ** 2))) for p in parts] for x in (self.spread, self.error)]
        return np.array(rms[0]), np.array(rms[1])

    def to_dict(self) -> dict:
        """``calibration_error``: mean of |error - spread| / spread over the bins; ``rank_correlation`` of Spearman;
        ``within``: part of the atoms whose error is below the spread (61 % were every error Gaussian, isotropic).
        """
        from scipy.stats import spearmanr

        spread, error = self.bins()
        return {
            "atoms": len(self.spread),
            "calibration_error": round(float(np.mean(np.abs(error - spread) / spread)), 3),
            "rank_correlation": round(float(spearmanr(self.spread, self.error).statistic), 3),
            "within": round(float(np.mean(self.error < self.spread)), 3),
        }


def fit_committee(
    potential: Potential,
    head: str,
    train: Sequence[Atoms],
    valid: Sequence[Atoms],
    members: int = 8,
    seed: int = 0,
    progress: Callable[[int, int], object] | None = None,
) -> tuple[Tensor, Calibration]:
    """Deviations (M, D) of the last layer's weights of ``head``, and their calibration.

    ``potential`` in float64. Every second structure of ``valid`` sets the scale, the others test it.

    Raises:
        InputError: a family without last features, fewer than 3 members, fewer than 4 validation structures, or labels
            that are the potential's own.
    """
    model = potential.model
    if not hasattr(model, "last_features") or not potential.conservative:
        raise InputError(f"{potential.name_resolved}: a committee needs an e2former with forces by gradients")
    if members < 3:
        raise InputError(f"{members} members given; a committee needs at least 3")
    if len(valid) < 4 or not train:
        raise InputError(f"{len(train)} training and {len(valid)} validation frames given; 1 and 4 are the least")
    rng = torch.Generator().manual_seed(seed)
    found = evaluate(potential, valid, head)
    errors = found.errors(found.frames[::2])
    if min(errors.energy_rmse, errors.force_rmse) < _LEAST:
        raise InputError(
            f"energies or forces of the validation frames differ by less than {_LEAST:g} meV from those of "
            f"{potential.name_resolved}: they look like its own, and a spread is scaled to errors; give frames "
            f"labelled by the method of head '{head}'"
        )
    size_e, size_f = 1e-3 * errors.energy_rmse, 1e-3 * errors.force_rmse
    precision: Tensor | float = 0.0
    for k, atoms in enumerate(train):
        g, rows = _rows(potential, head, atoms, rng)
        precision = precision + torch.outer(g, g) / size_e**2 + rows.T @ rows / len(rows) / size_f**2
        if progress is not None:
            progress(k + 1, len(train))
    known = model.energy_heads[head].last.double().square().mean()  # the prior: about as large as they are
    draws = _draws(precision, 1 / known, members, rng)
    spread = _spread(potential, head, valid, draws)
    errors = [c.force_errors for c in found.frames]
    scale = np.sqrt(np.mean(np.concatenate(errors[::2]) ** 2) / np.mean(np.concatenate(spread[::2]) ** 2))
    return scale * draws, Calibration(scale * np.concatenate(spread[1::2]), np.concatenate(errors[1::2]))


def _draws(precision: Tensor, prior: Tensor | float, members: int, rng: torch.Generator) -> Tensor:
    """(M, D) from the Gaussian whose precision is the data's (D, D) and the prior's: by eigenvalues, as what rounding
    makes of the small ones, beside those of small errors, may be below zero.

    Through the symmetric root, which does not depend on the signs and axes that a LAPACK chooses, so that a seed gives
    one committee everywhere.
    """
    stiffness, axes = torch.linalg.eigh(precision)
    normal = torch.randn(members, len(stiffness), generator=rng, dtype=torch.float64)
    return normal @ axes / (stiffness.clamp(min=0) + prior).sqrt() @ axes.T


def _rows(potential: Potential, head: str, atoms: Atoms, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """g = H / N (D,) of a structure, and (J^T v) (V, D) for random directions v of unit variance."""
    systems = Systems.from_atoms(atoms)
    pooled = _pooled(potential, head, systems)
    rows = []
    for _ in range(_DIRECTIONS):
        v = torch.randn(systems.positions.shape, generator=rng, dtype=torch.float64)
        ends = [_pooled(potential, head, systems.with_positions(systems.positions + s * _STEP * v)) for s in (1, -1)]
        rows.append((ends[0] - ends[1]) / (2 * _STEP))
    return pooled / systems.n_atoms, torch.stack(rows)


@torch.no_grad()
def _pooled(potential: Potential, head: str, systems: Systems) -> Tensor:
    """H (D,) of one structure."""
    index = potential.head_index(head, systems)
    at = geometry(potential.model, systems, neighbors(systems, potential.cutoff), potential.dtype, False)
    return potential.model.last_features(at.graph(index)).double().sum(0)


def _spread(potential: Potential, head: str, frames: Sequence[Atoms], draws: Tensor) -> list[np.ndarray]:
    """Spread of the forces (N,) of every frame over members that deviate by ``draws`` (M, D)."""
    found = []
    for atoms in frames:
        systems = Systems.from_atoms(atoms)
        index = potential.head_index(head, systems)
        with torch.enable_grad():
            at = geometry(potential.model, systems, neighbors(systems, potential.cutoff), potential.dtype, True)
            pooled = potential.model.last_features(at.graph(index)).double().sum(0)
            forces = [at.derivatives((pooled @ d)[None], virial=False, again=True)[0] for d in draws]
        found.append(torch.stack(forces).square().sum(-1).mean(0).sqrt().numpy())
    return found


def measured_spread(evaluation: Evaluation) -> dict | None:
    """Means of ``energy_std`` (meV/atom) and ``forces_std`` (meV/Å), and how well the latter fit the errors.

    None where there is none. It is zero on atoms that symmetry keeps free of forces, which calibrate nothing.
    """
    frames = evaluation.frames
    if any(c.forces_std is None for c in frames):
        return None
    spread, errors = (np.concatenate(x) for x in zip(*((c.forces_std, c.force_errors) for c in frames), strict=True))
    known = spread > 0
    if not known.any():
        return None
    numbers = Calibration(spread[known], errors[known]).to_dict()
    return {
        "energy_std": float(1e3 * np.mean([c.energy_std / len(c.atoms) for c in frames])),
        "forces_std": float(1e3 * spread.mean()),
        **{key: numbers[key] for key in ("atoms", "calibration_error", "within")},
    }


def draw_calibration(calibration: Calibration, path, title: str = "") -> None:
    """Root mean square error against spread, in bins of equally many atoms; the diagonal is perfect. PNG."""
    from matplotlib.figure import Figure

    from omnicalc.files import write_atomically

    figure = Figure(figsize=(4.6, 4.4), layout="constrained")
    axis = figure.subplots()
    thinned = slice(None, None, max(1, len(calibration.spread) // 5000))
    axis.loglog(calibration.spread[thinned], calibration.error[thinned], ".", ms=1.5, color="0.7", label="atoms")
    axis.loglog(*calibration.bins(), "o-", color="C0", label="root mean squares of a tenth each")
    ends = [*axis.get_xlim()]
    axis.loglog(ends, ends, color="black", lw=0.8)
    low = np.quantile(calibration.error, 0.001)
    axis.set_ylim(bottom=max(low, 1e-4))
    numbers = calibration.to_dict()
    axis.set_title(
        f"{title}calibration error {100 * numbers['calibration_error']:.0f} %, "
        f"rank correlation {numbers['rank_correlation']:.2f}",
        fontsize=9,
    )
    axis.set(xlabel="spread of the force on an atom (eV/Å)", ylabel="error of the force (eV/Å)")
    axis.legend(fontsize=8, frameon=False)
    write_atomically(path, lambda temporary: figure.savefig(temporary, format="png", dpi=140))
