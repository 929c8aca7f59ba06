"""What settings ask for, in whole runs: ramps, masses, fixed atoms, springs, moving cells; and resumed."""

import json
from dataclasses import replace
from pathlib import Path

import MDAnalysis
import numpy as np
import pytest
import torch
from ase import Atoms, units
from ase.build import molecule
from ase.constraints import FixAtoms, FixCartesian, FixScaled

from omnicalc.errors import InputError
from omnicalc.md.dynamics import Dynamics, fixed_atoms
from omnicalc.md.folder import RunFolder
from omnicalc.md.guards import Guards
from omnicalc.md.initial import initial_state
from omnicalc.md.masses import masses_of
from omnicalc.md.restart import Restart
from omnicalc.md.restraints import restraints
from omnicalc.md.run import run
from omnicalc.md.selection import select
from omnicalc.md.settings import Settings

from .conftest import bytes_of, log_of
from .statistics import mean_and_error
from .toy import argon, pairs_job

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:MDAnalysis")
SETTINGS = Settings(steps=24, timestep_fs=4.0, temperature_K=90.0, interval=4, restart_interval=6, seed=11)
NPT = replace(SETTINGS, ensemble="npt", pressure_bar=500.0, barostat_interval=3)


def started(settings: Settings, atoms: Atoms | None = None):
    job = pairs_job(atoms)
    dynamics = Dynamics(job, settings)
    guards = Guards(settings, job.atoms, Path(), print)
    return dynamics, initial_state(job.atoms, dynamics, settings, guards)


# resume


ENSEMBLES = {
    "bussi": replace(SETTINGS, thermostat="bussi"),
    "nhc": replace(SETTINGS, thermostat="nhc"),
    "qtb": replace(SETTINGS, thermostat="qtb", timestep_fs=1.0, fix="3"),
    "rescale": replace(NPT, thermostat="bussi", coupling="anisotropic"),
    "mc": replace(NPT, barostat="mc"),
    "ramps": replace(NPT, temperature_end_K=200.0, pressure_end_bar=2000.0, ramp_steps=24),
    "masses": replace(SETTINGS, fix="0-2", restraints="5,6:2"),
}


@pytest.mark.parametrize("first", [13])
@pytest.mark.parametrize("name", ENSEMBLES)
def test_an_extended_run_equals_a_long_one(tmp_path, name, first):
    settings = ENSEMBLES[name]
    long, short = RunFolder(tmp_path / "long"), RunFolder(tmp_path / "short")
    run(pairs_job(), settings, long)
    run(pairs_job(), replace(settings, steps=first), short)
    run(pairs_job(), settings, short, resume=True)
    assert bytes_of(short) == bytes_of(long)
    assert short.restart.read_bytes() == long.restart.read_bytes()


CHANGES = {
    "thermostat": {"thermostat": "bussi"},
    "pressure_bar": {"pressure_bar": 600.0},
    "barostat": {"barostat": "mc"},
    "coupling": {"coupling": "anisotropic"},
    "barostat_time_fs": {"barostat_time_fs": 999.0},
    "temperature_end_K": {"temperature_end_K": 100.0},
}


@pytest.mark.parametrize("field", CHANGES)
def test_resume_refuses_another_ensemble_and_names_the_field(tmp_path, field):
    folder = RunFolder(tmp_path / "run")
    run(pairs_job(), replace(NPT, steps=6), folder)
    with pytest.raises(InputError, match=f"{field} was .*, now .*--out"):
        run(pairs_job(), replace(NPT, **CHANGES[field]), folder, resume=True)


def test_fixed_atoms_of_the_file_are_part_of_the_structure(tmp_path):
    folder, atoms = RunFolder(tmp_path / "run"), argon()
    run(pairs_job(), SETTINGS, folder)
    atoms.set_constraint(FixAtoms([2]))
    with pytest.raises(InputError, match="structure was"):
        run(pairs_job(atoms), replace(SETTINGS, steps=40), folder, resume=True)


def test_atoms_held_along_some_axes_only_are_refused():
    """As extended XYZ and POSCAR files have them; held along all or along none is as good as FixAtoms or nothing."""
    atoms = argon()
    whole = [FixCartesian(2), FixCartesian(3, mask=[False, False, False]), FixAtoms([5])]
    atoms.set_constraint(whole)
    assert fixed_atoms(atoms, "7").tolist() == [2, 5, 7]
    for part in (FixCartesian(4, mask=[True, False, False]), FixScaled(4, [False, False, True])):
        atoms.set_constraint([*whole, part])
        with pytest.raises(InputError, match=rf"{type(part).__name__}.*only whole atoms.*--fix"):
            fixed_atoms(atoms, "")


def test_a_run_of_an_older_format_is_told_as_such(tmp_path):
    folder = RunFolder(tmp_path / "run")
    run(pairs_job(), SETTINGS, folder)
    record = json.loads(folder.record.read_text())
    folder.record.write_text(json.dumps(record | {"format": 1}))
    with pytest.raises(InputError, match=r"run\.json has format 1, this version reads 2.*--out"):
        run(pairs_job(), replace(SETTINGS, steps=40), folder, resume=True)


# a moving cell


@pytest.mark.parametrize("barostat", ["rescale", "mc"])
def test_volume_and_pressure_are_logged_and_the_trajectory_has_the_cell(tmp_path, barostat, with_plots):
    folder = RunFolder(tmp_path / "run")
    run(pairs_job(), replace(NPT, barostat=barostat, coupling="anisotropic", steps=60), folder)
    log, state = log_of(folder), Restart.read(folder.restart).state
    assert {"volume_A3", "pressure_bar"} <= log[0].keys()
    assert ("conserved_eV" in log[0]) == (barostat == "mc")
    universe = MDAnalysis.Universe(str(folder.topology), str(folder.trajectory))
    logged = [row["volume_A3"] for row in log]
    assert np.ptp(logged) > 1.0 and logged[0] == pytest.approx(10.6**3)
    assert [ts.volume for ts in universe.trajectory] == pytest.approx(logged, rel=1e-5)
    assert logged[-1] == pytest.approx(state.volume, abs=1e-5)
    wrapped = universe.trajectory[-1].positions / universe.dimensions[:3]
    assert wrapped.shape == (32, 3) and (folder.path / "cell.png").read_bytes()[:4] == b"\x89PNG"
    ideal = 32 * units.kB * 90.0 / state.volume
    assert log[-1]["pressure_bar"] == pytest.approx((ideal - float(state.stress.trace()) / 3) / units.bar, abs=1e-3)


def test_the_forces_follow_the_cell(tmp_path):
    """The restart's forces, energy and stress are those of a fresh evaluation in the restart's cell."""
    for barostat in ("rescale", "mc"):
        folder = RunFolder(tmp_path / barostat)
        run(pairs_job(), replace(NPT, barostat=barostat), folder)
        state = Restart.read(folder.restart).state
        atoms = argon()
        atoms.set_cell(state.cell.numpy())
        atoms.positions[:] = state.positions.numpy()
        fresh = pairs_job(atoms).bound(state.positions, stress=True)
        assert state.cell[0, 0] != 10.6
        assert torch.allclose(fresh.forces, state.forces, atol=1e-12)
        assert torch.allclose(fresh.stress[0], state.stress, atol=1e-12)
        assert float(fresh.energy) == pytest.approx(float(state.energy), abs=1e-12)


@pytest.mark.parametrize("barostat", ["rescale", "mc"])
def test_pressure_squeezes(barostat):
    sizes = []
    for bar in (0.0, 20_000.0):
        settings = replace(NPT, barostat=barostat, pressure_bar=bar, thermostat="bussi", barostat_time_fs=200.0)
        dynamics, state = started(settings)
        for _ in range(150):
            state = dynamics.step(state)
        sizes.append(state.volume)
    assert sizes[1] < 0.9 * sizes[0]


# ramps


def test_ramps_go_from_one_end_to_the_other_and_stay():
    settings = replace(NPT, temperature_end_K=190.0, pressure_end_bar=1500.0, ramp_steps=10)
    assert settings.at(0) == (90.0, 500.0) and settings.at(5) == (140.0, 1000.0)
    assert settings.at(10) == settings.at(1000) == (190.0, 1500.0)
    assert replace(SETTINGS, temperature_end_K=10.0).ramp_steps == 24
    assert settings.hottest_K == 190.0


def test_a_ramped_bath_heats(tmp_path):
    for thermostat in ("langevin", "bussi", "nhc"):
        settings = replace(
            SETTINGS, temperature_end_K=400.0, ramp_steps=200, thermostat=thermostat, friction_per_fs=0.05,
            thermostat_time_fs=20.0,
        )  # fmt: skip
        dynamics, state = started(settings)
        kelvin = []
        for _ in range(450):
            state = dynamics.step(state)
            kinetic = 0.5 * float((state.masses[:, None] * state.velocities.square()).sum())
            kelvin.append(2 * kinetic / (state.degrees_of_freedom * units.kB))
        assert np.mean(kelvin[280:]) == pytest.approx(400.0, rel=0.12), thermostat
        assert np.mean(kelvin[:40]) < 200.0


# degrees of freedom


@pytest.mark.parametrize(
    ("given", "freedom", "rests"),
    [
        ({"ensemble": "nve"}, 93, True),
        ({}, 96, False),
        ({"thermostat": "bussi"}, 93, True),
        ({"thermostat": "nhc"}, 93, True),
        ({"thermostat": "bussi", "fix": "0-3"}, 84, False),
        ({"fix": "Ar", "ensemble": "nve"}, 0, False),
        ({"thermostat": "nhc", "restraints": "0:5"}, 96, False),
    ],
)
def test_degrees_of_freedom(given, freedom, rests):
    settings = replace(SETTINGS, **given)
    if freedom == 0:
        with pytest.raises(InputError, match="all 32 atoms are fixed"):
            Dynamics(pairs_job(), settings)
        return
    dynamics, state = started(settings)
    assert dynamics.degrees_of_freedom == state.degrees_of_freedom == freedom
    assert dynamics.com_removed == rests


def test_one_atom():
    atom = Atoms("Ar", [[1.0, 2.0, 3.0]], cell=[12.0] * 3, pbc=True)
    assert started(SETTINGS, atom)[1].degrees_of_freedom == 3
    assert started(replace(SETTINGS, ensemble="nve"), atom)[1].degrees_of_freedom == 0
    with pytest.raises(InputError, match="one atom .*--thermostat langevin"):
        started(replace(SETTINGS, thermostat="bussi"), atom)


class Pushed:
    """A bound potential whose forces are no gradient: they do not add up to zero."""

    def __init__(self, inner):
        self.inner, self.systems = inner, inner.systems

    def __call__(self, positions):
        found = self.inner(positions)
        found.forces = found.forces + torch.tensor([0.1, 0.0, 0.0])
        return found


@pytest.mark.parametrize("direct", [True, False], ids=["direct", "the wrong variant: not known to be"])
def test_a_centre_of_mass_at_rest_stays_so_under_direct_forces(direct):
    settings = replace(SETTINGS, ensemble="nve")
    given = pairs_job(conservative=not direct)
    dynamics = Dynamics(replace(given, bound=Pushed(given.bound)), settings)
    state = initial_state(given.atoms, dynamics, settings, Guards(settings, given.atoms, Path(), print))
    for _ in range(10):
        state = dynamics.step(state)
    momentum = (state.masses[:, None] * state.velocities).sum(0).abs().max()
    assert (momentum < 1e-9) == direct


# fixed atoms and springs


@pytest.mark.parametrize("thermostat", ["langevin", "bussi", "nhc"])
def test_fixed_atoms_stay_and_the_others_have_the_temperature(thermostat):
    atoms = argon()
    atoms.set_constraint(FixAtoms([31]))
    settings = replace(
        SETTINGS, fix="0-3", thermostat=thermostat, friction_per_fs=0.05, thermostat_time_fs=40.0, temperature_K=60.0
    )
    dynamics, state = started(settings, atoms)
    fixed, kelvin = [0, 1, 2, 3, 31], []
    for k in range(500):
        state = dynamics.step(state)
        kinetic = 0.5 * float((state.masses[:, None] * state.velocities.square()).sum())
        if k > 50:
            kelvin.append(2 * kinetic / (81 * units.kB))
    assert np.array_equal(state.positions[fixed].numpy(), atoms.positions[fixed])
    assert not state.velocities[fixed].any() and not state.forces[fixed].any()
    mean, error = mean_and_error(kelvin)
    assert abs(mean - 60.0) < 4 * error + 1.0


def test_springs_pull_back_with_the_gradient_of_their_energy():
    atoms = argon()
    (spring,) = restraints(atoms, "3-5,Ar:2.5")
    x = torch.tensor(atoms.positions + 0.1 * np.random.default_rng(0).normal(size=(32, 3))).requires_grad_()
    energy, forces = spring(x)
    assert torch.allclose(forces, -torch.autograd.grad(energy, x)[0], atol=1e-12) and len(spring.atoms) == 32
    one, two = restraints(atoms, "0:1; 7-8:3")
    assert one.atoms.tolist() == [0] and two.atoms.tolist() == [7, 8] and two.stiffness == 3.0
    energy, forces = one(torch.tensor(atoms.positions + 1.0))
    assert float(energy) == pytest.approx(1.5) and forces.count_nonzero() == 3


def test_springs_act_in_a_run():
    loose, held = (started(replace(SETTINGS, restraints=text))[0] for text in ("", "0-31:50"))
    away = torch.tensor(argon().positions + 0.1)
    assert float(held.forces(away).energy - loose.forces(away).energy) == pytest.approx(0.5 * 50 * 96 * 0.01)


@pytest.mark.parametrize("text", ["0-3", "0-3:", "0:-1", "0:x", ":5", "40:1", "Na:1", "O!:2"])
def test_springs_that_cannot_be(text):
    with pytest.raises(InputError, match="--restrain"):
        restraints(argon(), text)


def test_atoms_are_chosen():
    salt = Atoms("NaClNaClO", np.arange(15).reshape(5, 3))
    assert select(salt, "Cl, 4,0-1", "--fix").tolist() == [0, 1, 3, 4]
    assert select(salt, "", "--fix").tolist() == []
    for wrong in ("5", "3-1", "-1", "K", "Xx", "0-", "a"):
        with pytest.raises(InputError, match="--fix"):
            select(salt, wrong, "--fix")


# masses


def test_hydrogens_take_their_mass_from_their_partners():
    water = molecule("H2O", cell=[8.0] * 3, pbc=True)
    water.positions += [0.0, 0.0, 7.9]
    water.wrap()  # in pieces
    atoms = water + Atoms("NaHH", [[4, 4, 4], [1, 4, 4], [1.74, 4, 4]])
    before, after = masses_of(atoms), masses_of(atoms, 3.0)
    assert after[1] == after[2] == 3.0 and after[0] == pytest.approx(before[0] - 2 * (3.0 - before[1]))
    assert after.sum() == pytest.approx(before.sum()) and np.array_equal(after[3:], before[3:])
    with pytest.raises(InputError, match=r"atom 0 \(O\) would be left with .*--hmr"):
        masses_of(atoms, 9.0)


def test_repartitioned_masses_are_those_of_the_run():
    atoms = argon()
    atoms += Atoms("OH", [[5.3, 5.3, 2.2], [5.3, 5.3, 3.17]])
    dynamics, state = started(replace(SETTINGS, hydrogen_mass=4.0, guards="force=off"), atoms)
    assert float(state.masses[-1]) == 4.0 and torch.equal(state.masses, dynamics.masses)


# what is conserved


@pytest.mark.parametrize(
    "given", [{"thermostat": "nhc"}, {"thermostat": "bussi"}, {"ensemble": "nve"}, {"barostat": "mc"}]
)
def test_the_conserved_energy_of_the_log(tmp_path, given):
    """It stays where the total energy does not, but in nve."""
    settings = replace(SETTINGS, steps=80, timestep_fs=2.0, thermostat_time_fs=20.0, **given)
    if "barostat" in given:
        settings = replace(settings, ensemble="npt", barostat_interval=2, friction_per_fs=0.05)
    run(pairs_job(), settings, folder := RunFolder(tmp_path / "run"))
    log = log_of(folder)
    conserved, total = (np.ptp([row[name] for row in log]) for name in ("conserved_eV", "total_eV"))
    assert conserved < 5e-4 and (total > 50 * conserved or settings.ensemble == "nve")
