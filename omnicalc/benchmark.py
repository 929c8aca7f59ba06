"""Speed of a potential on water boxes, with the force error of the very same evaluations beside it.

Each size is timed on distorted copies of one box: a force call at new positions, neighbour update included, as a step
of molecular dynamics makes it. Peers run on the same positions in the same process, turn by turn, so that a busy
machine slows all of them alike. A turn is several steps in a row, because steps of a run find in the processor's caches
what the step before left there; the first step of a turn, which finds what a peer left, is not timed. Before a turn
there is a pause, for threads of a peer (OpenMP's) go on spinning for some milliseconds after their work.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from ase import Atoms

from omnicalc.errors import InputError
from omnicalc.neighbors import flat_pairs, neighbors
from omnicalc.potential import Potential
from omnicalc.systems import Systems

Forces = Callable[[np.ndarray], np.ndarray]  # positions (N, 3), Å -> forces (N, 3), eV/Å

MAX_ATOMS = 1_000_000
MOST_CHECKED = 20_000  # atoms, up to which forces are compared with those in float64, on a CPU
PAUSE = 0.02  # s, before each turn
TURN = 5  # force calls in a row, the first of which is not timed
CLOSEST = np.array([[1.6, 1.5], [1.5, 2.5]])  # Å, between H and O of different waters at 300 K
MACE_SIZES = {"mace-32x0e+32x1o": "32x0e + 32x1o", "mace-96x0e": "96x0e"}


@dataclass(frozen=True)
class Timing:
    """One implementation on one box."""

    name: str
    atoms: int
    milliseconds: float  # median of the force calls that were timed
    force_error: float | None  # largest |F - F_float64|, eV/Å, over the calls that were timed; None: not compared
    memory_GiB: float | None = None  # noqa: N815 - of a GPU, at the most while it ran, what all hold included

    @property
    def microseconds_per_atom(self) -> float:
        return 1e3 * self.milliseconds / self.atoms

    @property
    def steps_per_s(self) -> float:
        return 1e3 / self.milliseconds

    def ns_per_day(self, timestep_fs: float = 0.5) -> float:
        return self.steps_per_s * timestep_fs * 86400e-6


def check_box(atoms: Atoms, sizes: Sequence[int]) -> None:
    """Raise :class:`InputError` when boxes of these sizes cannot be cut from ``atoms``."""
    if not atoms.pbc.all() or set(atoms.numbers[::3]) != {8} or set(atoms.numbers) != {1, 8} or len(atoms) % 3:
        raise InputError(
            f"{atoms.get_chemical_formula()} given; a water box with a periodic cell is needed, its atoms in the order "
            "O, H, H of each molecule, as in examples/water.xyz (--structure)"
        )
    for size in sizes:
        if size < 3 or size > MAX_ATOMS or size % 3:
            raise InputError(
                f"a water box of {size} atoms asked for; multiples of 3 from 3 to {MAX_ATOMS} are possible (--sizes)"
            )


def water_box(atoms: Atoms, n_atoms: int) -> Atoms:
    """Whole copies of a water box cut to at least ``n_atoms`` atoms: 192 is the box itself, 648 a cut of 2x2x1.

    The cell shrinks with the number of molecules along c, so that the density stays what it was, and molecules that the
    cut has put upon each other are moved apart. Errors as :func:`check_box`.
    """
    check_box(atoms, [n_atoms])
    copies = [1, 1, 1]
    while np.prod(copies) * len(atoms) < n_atoms:
        copies[int(np.argmin(copies))] += 1
    big = atoms.repeat(copies)
    if len(big) == n_atoms:
        return big
    oxygen = np.flatnonzero(big.numbers == 8)
    order = oxygen[np.argsort(big.get_scaled_positions()[oxygen, 2], kind="stable")][: n_atoms // 3]
    keep = np.sort(np.concatenate([order, order + 1, order + 2]))
    cut = big[keep]
    cell = cut.cell.array.copy()
    cell[2] *= n_atoms / len(big)
    cut.set_cell(cell)
    cut.positions = _moved_apart(cut)
    return cut


def _moved_apart(atoms: Atoms) -> np.ndarray:
    """Positions (N, 3), Å, of whole waters, moved until atoms of different ones are as far apart as in the liquid.

    It ends after 100 rounds where there is no room for that.
    """
    systems = Systems.from_atoms(atoms)
    positions, molecule, oxygen = atoms.positions.copy(), np.arange(len(atoms)) // 3, atoms.numbers == 8
    for _ in range(100):
        moved = systems.with_positions(torch.from_numpy(positions))
        i, j, shift = (t.numpy() for t in flat_pairs(moved, CLOSEST.max()))
        apart = positions[i] - positions[j] - shift @ atoms.cell.array
        length = np.linalg.norm(apart, axis=1)
        lacking = CLOSEST[oxygen[i].astype(int), oxygen[j].astype(int)] - length
        close = (lacking > 0.01) & ((molecule[i] != molecule[j]) | (shift != 0).any(1))
        if not close.any():
            break
        push = np.zeros((len(atoms) // 3, 3))
        np.add.at(push, molecule[i[close]], (0.5 * lacking / length)[close, None] * apart[close])
        positions += np.repeat(push, 3, axis=0)
    return positions


def time_all(calls: dict[str, Forces], references: dict[str, Forces], atoms: Atoms, rounds: int) -> list[Timing]:
    """Time every call on the same positions, in turns, after one round of warming up.

    ``references`` gives exact forces for those calls whose error is wanted; each turn's last step is compared.
    """
    rng = np.random.default_rng(0)
    spent, peak = {name: [] for name in calls}, {}
    error = dict.fromkeys(references, 0.0)
    for k in range(rounds + 1):
        steps = atoms.positions + np.cumsum(rng.normal(scale=0.005, size=(TURN, len(atoms), 3)), axis=0)
        for name, call in calls.items():
            if on_gpu := torch.cuda.is_available() and torch.cuda.is_initialized():
                torch.cuda.reset_peak_memory_stats()
            times, forces = _turn(call, steps)
            if on_gpu:
                peak[name] = max(peak.get(name, 0.0), torch.cuda.max_memory_allocated() / 2**30)
            if k == 0:
                continue
            spent[name] += times[1:]
            if name in references:
                error[name] = max(error[name], float(np.abs(forces - references[name](steps[-1])).max()))
    return [
        Timing(name, len(atoms), 1e3 * float(np.median(spent[name])), error.get(name), peak.get(name)) for name in calls
    ]


def _turn(call: Forces, steps: np.ndarray) -> tuple[list[float], np.ndarray]:
    """Seconds of each step, and the forces of the last one."""
    times = []
    time.sleep(PAUSE)
    for positions in steps:
        begun = time.perf_counter()
        forces = call(positions)
        times.append(time.perf_counter() - begun)
    return times, forces


def label(potential: Potential, atoms: Atoms) -> str:
    """Weights and the kernel that runs them."""
    kernel = potential.kernel.describe(potential, torch.from_numpy(atoms.numbers))
    return f"{potential.name_resolved} {kernel.replace(' (as asked)', '')}"


def call_of(potential: Potential, atoms: Atoms) -> Forces:
    """Forces by ``potential`` with its neighbour list and skin, as molecular dynamics calls it."""
    bound, device = potential.bind(Systems.from_atoms(atoms)), potential.device

    def forces(positions: np.ndarray) -> np.ndarray:
        return bound(torch.from_numpy(positions).to(device)).forces.cpu().numpy()

    return forces


def float64_reference(potential: Potential, atoms: Atoms) -> Forces:
    """Forces by the same weights in float64, with a fresh neighbour search at every call."""
    systems = Systems.from_atoms(atoms)
    head = potential.choose_head(systems)

    def forces(positions: np.ndarray) -> np.ndarray:
        moved = systems.with_positions(torch.from_numpy(positions))
        return potential(moved, neighbors(moved, potential.cutoff), head=head).forces.numpy()

    return forces


def check_mace() -> None:
    """Raise :class:`InputError` when MACE is not installed."""
    from importlib.util import find_spec

    if find_spec("mace") is None:
        raise InputError("MACE is not installed; type: pip install mace-torch")


def mace_call(irreps: str, atoms: Atoms, device: torch.device) -> Forces:
    """Forces by MACE (PyPI: mace-torch) with random weights: two layers, cutoff 4.5 Å, correlation 3, float32.

    Raises:
        InputError: MACE is not installed.
    """
    check_mace()
    # e3nn, which MACE builds on, keeps its tables in a pickle that torch's safe loader refuses
    os.environ.setdefault("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    from e3nn import o3
    from mace.calculators import MACECalculator
    from mace.modules import ScaleShiftMACE, gate_dict, interaction_classes

    interaction = interaction_classes["RealAgnosticResidualInteractionBlock"]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = ScaleShiftMACE(
            r_max=4.5,
            num_bessel=8,
            num_polynomial_cutoff=5,
            max_ell=2,
            interaction_cls=interaction,
            interaction_cls_first=interaction,
            num_interactions=2,
            num_elements=2,
            hidden_irreps=o3.Irreps(irreps),
            MLP_irreps=o3.Irreps("16x0e"),
            atomic_energies=np.zeros(2),
            avg_num_neighbors=38.0,
            atomic_numbers=[1, 8],
            correlation=3,
            gate=gate_dict["silu"],
            atomic_inter_scale=1.0,
            atomic_inter_shift=0.0,
        ).float()
    work = atoms.copy()
    work.calc = MACECalculator(models=[model.to(device)], device=str(device), default_dtype="float32")

    def forces(positions: np.ndarray) -> np.ndarray:
        work.positions = positions
        return work.get_forces()

    return forces
