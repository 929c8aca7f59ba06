"""Bonds of the start: which they are, when one counts as open, and what a run then does."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import MDAnalysis
import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule
from ase.data import covalent_radii
from ase.io import read

from omnicalc.errors import RunError
from omnicalc.md.bond_watch import BondWatch
from omnicalc.md.folder import RunFolder
from omnicalc.md.guards import Guards
from omnicalc.md.replicas import run_replicas
from omnicalc.md.restart import Restart
from omnicalc.md.run import run
from omnicalc.md.settings import Settings

from .toy import job

WATER = Path(__file__).parents[2] / "examples" / "water.xyz"
OH = covalent_radii[1] + covalent_radii[8]


def opened(watch: BondWatch, atoms: Atoms, positions=None):
    positions = atoms.positions if positions is None else positions
    return watch.opened(torch.tensor(positions), torch.tensor(atoms.cell.array))


def stretched(atoms: Atoms, i: int, j: int, length: float) -> np.ndarray:
    """Positions with ``j`` moved along its bond to ``i``, taken at its nearest image."""
    bond = atoms.get_distance(i, j, mic=True, vector=True)
    positions = atoms.positions.copy()
    positions[j] += (length / np.linalg.norm(bond) - 1.0) * bond
    return positions


def waters(first: float = 0.0) -> Atoms:
    """Two waters with a hydrogen bond, in a box; ``first`` moves them along x, through its wall."""
    one, other = molecule("H2O"), molecule("H2O")
    other.positions += [0.0, 2.0, -2.0]
    atoms = one + other
    atoms.set_cell([9.0, 8.0, 7.0])
    atoms.pbc = True
    atoms.positions += [first, 1.0, 4.0]
    return atoms


def test_bonds_of_liquid_water_hold_until_one_is_stretched():
    atoms = read(WATER)
    watch = BondWatch(atoms, 1.5)
    assert opened(watch, atoms) is None
    allowed = 1.5 * max(OH, atoms.get_distance(3, 5, mic=True))
    assert opened(watch, atoms, stretched(atoms, 3, 5, allowed - 0.001)) is None
    found = opened(watch, atoms, stretched(atoms, 3, 5, allowed + 0.001))
    assert (found.i, found.j, found.others) == (3, 5, 0)
    assert found.length == pytest.approx(allowed + 0.001) and found.allowed == pytest.approx(allowed)
    both = stretched(atoms, 3, 5, 1.9)
    both[7] = stretched(atoms, 6, 7, 2.0)[7]
    found = opened(watch, atoms, both)
    assert (found.i, found.j, found.others) == (6, 7, 1)  # the worst is named


def test_bonds_through_the_walls_of_a_cell_that_moves():
    atoms = waters()
    atoms.positions[:, 1] -= 1.6  # hydrogens of the first leave through the wall at y = 0
    atoms.wrap()
    assert np.ptp(atoms.positions[:3, 1]) > 4.0
    watch = BondWatch(atoms, 1.5)
    larger = atoms.copy()
    larger.set_cell(1.1 * atoms.cell.array, scale_atoms=True)
    assert opened(watch, atoms) is None and opened(watch, larger) is None
    assert opened(watch, larger, atoms.positions) is not None  # a cell that left its atoms behind


def test_heavy_atoms_through_a_wall():
    """Nothing but the image of the bond says that these are neighbours: no hydrogen that might have moved."""
    atoms = Atoms("C2", [[0.3, 4.0, 4.0], [8.0 - 1.2, 4.0, 4.0]], cell=[8.0] * 3, pbc=True)
    assert opened(BondWatch(atoms, 1.5), atoms) is None
    apart = atoms.positions + [[1.0, 0, 0], [0, 0, 0]]
    assert opened(BondWatch(atoms, 1.5), atoms, apart).length == pytest.approx(2.5)


def test_ions_and_neighbours_are_not_bonded():
    atoms = waters() + Atoms("NaCl", [[4.5, 1.0, 4.0], [4.5, 4.0, 4.0]])
    watch = BondWatch(atoms, 1.5)
    away = atoms.positions.copy()
    away[3:6, 0] += 3.0
    away[6, 0] += 4.0
    assert opened(watch, atoms, away) is None
    assert opened(BondWatch(Atoms("Na4", np.eye(4, 3) * 3.0), 1.5), Atoms("Na4", np.eye(4, 3) * 30.0)) is None


def test_a_hydrogen_may_move_within_its_molecule_only():
    """Malonaldehyde's proton goes from oxygen to oxygen; a water's that goes to another water is lost."""
    enol = Atoms(
        "OCCCOHHHH",
        [[0, 0, 0], [0.2, 1.28, 0], [1.45, 1.9, 0], [2.6, 1.15, 0], [2.55, -0.12, 0], [0.98, -0.25, 0],
         [-0.7, 1.85, 0], [1.5, 2.98, 0], [3.55, 1.7, 0]],
    )  # fmt: skip
    watch = BondWatch(enol, 1.5)
    over = enol.positions.copy()
    over[5] = [1.58, -0.27, 0]
    assert np.linalg.norm(over[5] - over[0]) > 1.5 * OH and opened(watch, enol, over) is None
    over[5] = [1.0, -1.9, 0]  # away from both
    assert (opened(watch, enol, over).i, opened(watch, enol, over).j) == (0, 5)
    ring = enol.positions.copy()
    ring[3:5] += [3.0, 0, 0]  # a bond of heavy atoms opens: no way round
    assert opened(watch, enol, ring) is not None

    two = waters()
    between = two.positions.copy()
    bond = between[3] - between[0]
    between[1] = between[3] - bond / np.linalg.norm(bond)  # as near to the other oxygen
    assert (opened(BondWatch(two, 1.5), two, between).i, opened(BondWatch(two, 1.5), two, between).j) == (0, 1)


def test_a_start_caught_in_a_vibration_is_allowed_for():
    atoms = waters()
    atoms.positions = stretched(atoms, 0, 1, 1.18)
    watch = BondWatch(atoms, 1.5)
    assert opened(watch, atoms, stretched(atoms, 0, 1, 1.76)) is None
    assert opened(watch, atoms, stretched(atoms, 0, 1, 1.78)).allowed == pytest.approx(1.5 * 1.18)
    assert opened(BondWatch(waters(), 1.5), atoms, stretched(atoms, 0, 1, 1.76)) is not None  # from another start


def test_atoms_without_bonds_cost_nothing():
    assert opened(BondWatch(Atoms("Ar2", np.eye(2, 3)), 1.5), Atoms("Ar2", 9 * np.eye(2, 3))) is None


# in a run

SETTINGS = Settings(steps=40, timestep_fs=0.5, temperature_K=300.0, interval=10, restart_interval=10, seed=3)


class Losing:
    """Two waters, springs between all atoms of each; from some call on the first pushes a hydrogen 1.8 Å away."""

    head = "toy"

    def __init__(self, atoms: Atoms, calls: int):
        self.start, self.calls, self.done = torch.tensor(atoms.positions), calls, 0
        self.pairs = [(m + a, m + b) for m in (0, 3) for a, b in ((0, 1), (0, 2), (1, 2))]

    def __call__(self, positions, *, stress: bool = False):
        forces, energy = torch.zeros_like(positions), positions.new_zeros(1)
        self.done += 1
        for i, j in self.pairs:
            bond, length = positions[i] - positions[j], (self.start[i] - self.start[j]).norm()
            free = self.done > self.calls and 1 in (i, j)
            push = 3.0 if (i, j) == (0, 1) and bond.norm() < 1.8 else 0.0  # eV/Å
            size = -push if free else 40.0 * (bond.norm() - length)
            energy = energy + (0.0 if free else 20.0 * (bond.norm() - length) ** 2)
            forces[i] -= size * bond / bond.norm()
            forces[j] += size * bond / bond.norm()
        return SimpleNamespace(energy=energy, forces=forces, stress=None)


def losing(calls: int = 10):
    atoms = waters()
    atoms.positions[3:, 0] += 3.0  # out of the way
    return job(atoms, Losing(atoms, calls))


SAID = r"atom 0 \(O\) and atom 1 \(H\), bonded at the start, are 1\.\d{3} Å apart, more than 1\.455 Å: a molecule has"


def test_a_run_that_loses_a_hydrogen_stops_and_one_that_does_not_goes_on(tmp_path):
    folder = RunFolder(tmp_path / "run")
    remedy = r"--guard bond=off \(guard bond; --guard bond=warn"
    with pytest.raises(RunError, match=rf"at step \d+ {SAID}.*{remedy}") as error:
        run(losing(), SETTINGS, folder)
    step = int(str(error.value).split()[2])
    assert 12 <= step <= 28 and (step % 4 == 0 or step % 10 == 0)
    assert Restart.read(folder.restart).state.step == step - 1
    assert Restart.read(folder.restart).frames == (step - 1) // 10 + 1  # none with a molecule in pieces
    assert run(losing(calls=10**6), SETTINGS, RunFolder(tmp_path / "whole")).finished
    assert run(losing(), replace(SETTINGS, guards="bond=off"), RunFolder(tmp_path / "off")).finished


def test_a_resumed_run_stops_at_the_same_step(tmp_path):
    with pytest.raises(RunError) as alone:
        run(losing(), SETTINGS, RunFolder(tmp_path / "alone"))
    folder, toy = RunFolder(tmp_path / "cut"), losing()
    run(toy, replace(SETTINGS, steps=10), folder)
    with pytest.raises(RunError) as cut:
        run(toy, SETTINGS, folder, resume=True)
    assert str(cut.value).replace("cut", "alone") == str(alone.value)


def test_a_warning_is_given_once_and_the_structure_kept(tmp_path):
    said: list[str] = []
    folder = RunFolder(tmp_path / "run")
    run(losing(), replace(SETTINGS, guards="bond=save"), folder, say=said.append)
    assert sum("bonded at the start" in line for line in said) == 1
    saved = read(next(folder.path.glob("guard_bond_*.xyz")))
    assert saved.get_distance(0, 1, mic=True) > 1.455


def test_each_replica_is_watched_as_the_run_that_it_would_be_alone(tmp_path):
    said: list[str] = []
    warned = replace(SETTINGS, guards="bond=warn")
    run_replicas(losing(), warned, RunFolder(tmp_path / "both"), 2, say=said.append)
    for k in range(2):
        alone: list[str] = []
        run(losing(), replace(warned, seed=3 + k), RunFolder(tmp_path / f"alone{k}"), say=alone.append)
        assert alone[0] in [line.removeprefix(f"replica {k}: ") for line in said]
    assert len(said) == 2


def test_rings_are_judged_by_their_centres(tmp_path):
    """A bead may be where a nucleus seldom is; when its ring has gone there, a proton is lost."""
    settings = replace(SETTINGS, beads=4, guards="bond=stop:1.2,force=off,jump=off,temperature=off")
    guards = Guards(settings, waters(), tmp_path, print)
    bead = stretched(waters(), 0, 1, 2.0)
    state = SimpleNamespace(step=8, cell=torch.tensor(waters().cell.array), positions=torch.tensor(bead))
    centre = (torch.tensor(bead) + 7 * torch.tensor(waters().positions)) / 8
    guards.check_bonds(state, lambda: centre)
    with pytest.raises(RunError, match="bonded at the start"):
        guards.check_bonds(state, lambda: state.positions)
    with pytest.raises(RunError, match="bonded at the start"):
        run(losing(), replace(SETTINGS, beads=4), RunFolder(tmp_path / "run"))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_centres_are_what_a_run_hands_over(tmp_path, monkeypatch):
    handed = []
    monkeypatch.setattr(BondWatch, "opened", lambda self, positions, cell: handed.append(positions.numpy().copy()))
    folder = RunFolder(tmp_path / "run")
    run(losing(calls=10**6), replace(SETTINGS, beads=4, steps=8, interval=4), folder)
    for file, same in ((folder.centroids, True), (folder.trajectory, False)):
        frames = MDAnalysis.Universe(str(folder.topology), str(file)).trajectory
        frames = [frame.positions.copy() for frame in frames]
        assert len(frames) == len(handed) == 3
        assert np.allclose(frames[2], handed[2], atol=1e-5) is same


def test_when_it_looks_and_what_it_allows(tmp_path):
    atoms = waters()
    lost = torch.tensor(stretched(atoms, 0, 1, 1.6))
    cell = torch.tensor(atoms.cell.array)

    def looked(step: int, guards: str = "", **more) -> bool:
        watching = Guards(replace(SETTINGS, guards=guards, **more), atoms, tmp_path, print)
        try:
            watching.check_bonds(SimpleNamespace(step=step, cell=cell), lambda: lost)
        except RunError:
            return True
        return False

    assert [step for step in range(12) if looked(step)] == [0, 4, 8, 10]  # every frame is one of 10 steps
    assert not looked(8, "bond=off") and not looked(8, "bond=stop:1.7") and looked(8, "bond=stop:1.6")
    assert not looked(8, thermostat="qtb") and looked(8, "bond=stop:1.5", thermostat="qtb")
    assert looked(8, thermostat="qtb", ensemble="nve")  # no bath
