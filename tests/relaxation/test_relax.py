"""Relaxations of many structures: equal to single ones, to ASE's, and the same after any kill."""

import csv
import os
import random
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from ase import units
from ase.constraints import FixAtoms, FixInternals
from ase.io import read

from omnicalc.errors import InputError, RunError
from omnicalc.relaxation.batch import Batch
from omnicalc.relaxation.folder import RelaxFolder
from omnicalc.relaxation.run import Relaxation
from omnicalc.relaxation.settings import RelaxSettings
from omnicalc.relaxation.walker import Walker
from omnicalc.structure_set import Member
from omnicalc.systems import Systems
from tests.forking import Forks
from tests.lennard_jones import lennard_jones
from tests.md.toy import argon


def members(count: int = 5) -> list[Member]:
    """Crystals of 4 and 32 atoms, shaken."""
    frames = []
    for k in range(count):
        atoms = argon(1 + k % 2, 5.2 + 0.1 * k)
        atoms.rattle(0.2, seed=k)
        frames.append(Member("set.xyz", k, atoms))
    return frames


def relax(folder: Path, which=None, resume: bool = False, save_every_s: float = 30.0, count: int = 5, **given):
    settings = RelaxSettings(**{"fmax": 0.002, "atoms_per_batch": 70} | given)
    relaxation = Relaxation(members(count) if which is None else which, lennard_jones(), settings)
    return relaxation.go(RelaxFolder(folder), resume=resume, save_every_s=save_every_s)


def table(folder: Path) -> list[dict]:
    with (folder / "summary.csv").open() as file:
        return list(csv.DictReader(file))


def result_of(folder: Path) -> tuple[bytes, bytes]:
    return (folder / "structures.xyz").read_bytes(), (folder / "summary.csv").read_bytes()


@pytest.mark.parametrize("given", [{}, {"optimizer": "fire"}, {"relax_cell": "anisotropic", "smax_GPa": 0.002}])
def test_a_batch_equals_single_relaxations(tmp_path, given):
    outcome = relax(tmp_path / "all", **given)
    assert (outcome.done, outcome.counts) == (5, {"converged": 5})
    together = read(tmp_path / "all" / "structures.xyz", ":")
    for k, member in enumerate(members()):
        relax(tmp_path / str(k), [member], **given)
        alone = read(tmp_path / str(k) / "structures.xyz")
        assert np.abs(alone.positions - together[k].positions).max() < 1e-6
        assert np.abs(alone.cell.array - together[k].cell.array).max() < 1e-6
        assert alone.get_potential_energy() == pytest.approx(together[k].get_potential_energy(), abs=1e-9)
        assert alone.info["steps"] == together[k].info["steps"] > 5


def test_what_is_written_is_what_was_found(tmp_path):
    relax(tmp_path / "run")
    rows, frames = table(tmp_path / "run"), read(tmp_path / "run" / "structures.xyz", ":")
    for row, frame, member in zip(rows, frames, members(), strict=True):
        assert frame.info["status"] == row["status"] == "converged"
        assert float(row["energy_eV"]) == pytest.approx(frame.get_potential_energy(), abs=1e-7)
        assert np.linalg.norm(frame.get_forces(), axis=1).max() < 0.002
        assert float(row["change_eV"]) < 0 and int(row["atoms"]) == len(member.atoms)
        systems = Systems.from_atoms(frame)
        assert float(lennard_jones().bind(systems)(systems.positions).energy) == pytest.approx(
            frame.get_potential_energy(), abs=1e-6
        )


def test_the_cell_relaxes_to_the_pressure(tmp_path):
    """And below that of any other volume: the enthalpy of the result is the least."""
    perfect = [Member("fcc", 0, argon(1, 5.6))]
    relax(tmp_path / "run", perfect, relax_cell="isotropic", pressure_bar=2000.0, smax_GPa=1e-4, fmax=1e-4)
    found = read(tmp_path / "run" / "structures.xyz")
    assert -found.get_stress()[:3].mean() / units.bar == pytest.approx(2000.0, abs=2.0)

    def enthalpy(scale: float) -> float:
        atoms = found.copy()
        atoms.set_cell(found.cell.array * scale, scale_atoms=True)
        systems = Systems.from_atoms(atoms)
        return float(lennard_jones().bind(systems)(systems.positions).energy) + 2000 * units.bar * atoms.get_volume()

    assert enthalpy(1.0) < min(enthalpy(0.998), enthalpy(1.002))


def test_fixed_atoms_stay(tmp_path):
    atoms = members()[1].atoms
    atoms.set_constraint(FixAtoms([0, 1, 2]))
    relax(tmp_path / "run", [Member("a", 0, atoms)], fix="5-8")
    found = read(tmp_path / "run" / "structures.xyz")
    moved = np.linalg.norm(found.positions - atoms.positions, axis=1)
    assert moved[[0, 1, 2, 5, 6, 7, 8]].max() < 1e-7 and np.delete(moved, [0, 1, 2, 5, 6, 7, 8]).min() > 1e-3
    assert np.linalg.norm(found.get_forces(apply_constraint=False), axis=1)[0] > 0.002
    assert table(tmp_path / "run")[0]["status"] == "converged"


def test_too_few_steps_are_told(tmp_path):
    outcome = relax(tmp_path / "run", steps=2)
    assert outcome.counts == {"unconverged": 5}
    assert all(row["steps"] == "2" for row in table(tmp_path / "run"))


def test_a_structure_that_explodes_harms_no_other(tmp_path):
    bad = members(3)
    bad[1].atoms.positions[1] = bad[1].atoms.positions[0] + [0.3, 0, 0]
    outcome = relax(tmp_path / "run", bad)
    assert outcome.counts == {"converged": 2, "failed": 1} and table(tmp_path / "run")[1]["status"] == "failed"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"optimizer": "bfgs"}, "lbfgs, fire"),
        ({"relax_cell": "all"}, "anisotropic"),
        ({"fmax": 0.0}, "--fmax"),
        ({"steps": -1}, "--steps"),
        ({"pressure_bar": 10.0}, "--relax-cell"),
        ({"fix": "0", "relax_cell": "isotropic"}, "--fix"),
        ({"max_step": 3.0}, "--max-step"),
        ({"atoms_per_batch": 0}, "--batch-atoms"),
    ],
)
def test_settings_that_cannot_be(change, words):
    with pytest.raises(InputError, match=words):
        RelaxSettings(**change)


def test_structures_that_cannot_be(tmp_path):
    slab, held = members(2), members(2)
    slab[1].atoms.pbc = [True, True, False]
    with pytest.raises(InputError, match="set.xyz, frame 1: .*--cell"):
        Relaxation(slab, lennard_jones(), RelaxSettings(relax_cell="isotropic"))
    held[0].atoms.set_constraint(FixInternals(bonds=[[5.0, [0, 1]]]))
    with pytest.raises(InputError, match="frame 0: .*FixInternals"):
        Relaxation(held, lennard_jones(), RelaxSettings())
    direct = lennard_jones()
    direct.model.conservative = False
    with pytest.raises(InputError, match="--relax-cell"):
        Relaxation(members(), direct, RelaxSettings(relax_cell="isotropic"))


def test_only_the_same_relaxation_is_resumed(tmp_path):
    relax(tmp_path / "run")
    with pytest.raises(InputError, match="fmax was 0.002, now 0.001"):
        relax(tmp_path / "run", resume=True, fmax=0.001)
    with pytest.raises(InputError, match="structures"):
        relax(tmp_path / "run", members(4), resume=True)
    with pytest.raises(InputError, match="--resume"):
        relax(tmp_path / "run")
    before = result_of(tmp_path / "run")
    assert relax(tmp_path / "run", resume=True).done == 5 and result_of(tmp_path / "run") == before
    (tmp_path / "run" / "restart.npz").write_bytes(b"torn")
    with pytest.raises(RunError, match="cannot be read"):
        relax(tmp_path / "run", resume=True)


# kills, in a process of its own that forks children


@pytest.fixture(scope="module")
def runner():
    if not hasattr(os, "fork"):
        pytest.skip("needs fork")
    runner = Forks("tests.relaxation.killable")
    yield runner
    runner.close()


WAYS = {
    "lbfgs": {"steps": 30},
    "fire": {"optimizer": "fire", "steps": 30},
    "cell": {"relax_cell": "anisotropic", "steps": 20},
}


def check_kills(runner, tmp_path, name: str, trials: int) -> None:
    request = WAYS[name] | {"save_every_s": 0.0, "count": 3}
    start = time.perf_counter()
    assert runner.run(folder=str(tmp_path / "whole"), **request) == 0
    duration = time.perf_counter() - start
    expected, moments, struck = result_of(tmp_path / "whole"), random.Random(4), 0
    for k in range(trials):
        out = tmp_path / str(k)
        for _ in range(2):
            after = moments.uniform(0, duration)
            struck += runner.run(after, folder=str(out), resume=out.exists(), **request) == -signal.SIGKILL
        assert runner.run(folder=str(out), resume=out.exists(), **request) == 0
        assert result_of(out) == expected, f"trial {k}"
    assert struck >= trials // 2


@pytest.mark.parametrize("name", WAYS)
def test_killed_at_random_moments(runner, tmp_path, name):
    check_kills(runner, tmp_path, name, 2)


@pytest.mark.slow
@pytest.mark.parametrize("name", WAYS)
def test_killed_at_many_random_moments(runner, tmp_path, name):
    check_kills(runner, tmp_path, name, 100)


def test_killed_at_some_file_operations(runner, tmp_path):
    request = {"save_every_s": 0.0, "steps": 4, "count": 3}
    assert runner.run(folder=str(tmp_path / "whole"), **request) == 0
    for count in [*range(1, 40, 4)]:
        out = tmp_path / str(count)
        assert runner.run(folder=str(out), die_at=count, **request) == -signal.SIGKILL
        assert runner.run(folder=str(out), resume=out.exists(), **request) == 0
        assert result_of(out) == result_of(tmp_path / "whole"), f"killed at operation {count}"


def test_a_signal_finishes_the_step_and_saves(runner, tmp_path):
    assert runner.run(folder=str(tmp_path / "whole"), optimizer="fire") == 0
    status = runner.run(0.3, signal.SIGTERM, folder=str(tmp_path / "run"), optimizer="fire")
    if status != 0:  # else it was faster
        assert status == 128 + signal.SIGTERM
        assert runner.run(folder=str(tmp_path / "run"), resume=True, optimizer="fire") == 0
    assert result_of(tmp_path / "run") == result_of(tmp_path / "whole")


def test_progress_is_told_after_every_step(tmp_path):
    """A large structure relaxes for hours, and is one of one."""
    told = []
    relaxation = Relaxation(members(1), lennard_jones(), RelaxSettings(fmax=0.002))
    relaxation.go(RelaxFolder(tmp_path / "run"), progress=lambda *given: told.append(given))
    steps = int(table(tmp_path / "run")[0]["steps"])
    assert told == [(0, 1, f"step {k}") for k in range(1, steps + 1)] + [(1, 1, "")]


def test_restoring_looks_at_each_array_once():
    """Batches of thousands of structures have tens of thousands of arrays."""

    class Looked(dict):
        times = 0

        def items(self):
            self.times += 1
            return super().items()

    def batch():
        walkers = [Walker(member.atoms, np.zeros(0, dtype=int), RelaxSettings()) for member in members()]
        return Batch(walkers, [Systems.from_atoms(m.atoms) for m in members()], lennard_jones(), "lj")

    arrays, restored = Looked(batch().to_arrays()), batch()
    restored.restore(arrays)
    assert arrays.times == 1
    found = restored.to_arrays()
    for name, value in arrays.items():
        np.testing.assert_array_equal(found[name], value)  # which takes NaN for equal
