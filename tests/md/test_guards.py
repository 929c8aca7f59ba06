"""Guards: what trips them, what they say, what they leave behind."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from ase.io import read

from omnicalc.errors import InputError, RunError
from omnicalc.known_surroundings import Unlike
from omnicalc.md.folder import RunFolder
from omnicalc.md.guard_settings import GUARDS, guard_rules
from omnicalc.md.guards import Guards
from omnicalc.md.restart import Restart
from omnicalc.md.run import run
from omnicalc.md.settings import Settings
from omnicalc.systems import Systems

from .toy import Failing, Pairs, argon, job, pairs_job, state_of, thermal

SETTINGS = Settings(steps=20, timestep_fs=4.0, temperature_K=90.0, interval=4, restart_interval=6, seed=11)


def watched(tmp_path, guards: str = "", **given):
    """Guards over argon atoms, a state of theirs, and what the guards tell."""
    atoms, told = argon(), []
    settings = replace(SETTINGS, guards=guards, **given)
    masses, positions = torch.tensor(atoms.get_masses()), torch.tensor(atoms.positions)
    cell = torch.tensor(atoms.cell.array)
    bound = Pairs(Systems.from_atoms(atoms))
    state = state_of(positions, thermal(32, 39.95, 90), masses, bound, cell=cell)
    return Guards(settings, atoms, tmp_path, told.append), replace(state, step=8), told


def shifted(state, atom: int, towards: int, distance: float):
    """The state with one atom at ``distance`` from another."""
    positions = state.positions.clone()
    away = positions[atom] - positions[towards]
    positions[atom] = positions[towards] + distance * away / away.norm()
    return replace(state, positions=positions)


BEADS = {  # changes of the energies of two beads, eV, or a force on an atom of the second, eV/Å
    "calm": ((15.0, -15.0), 999.0),
    "jump": ((0.0, -16.0), 0.0),
    "jumps that cancel": ((16.0, -16.0), 0.0),
    "energy": ((0.0, float("nan")), 0.0),
    "infinite energy": ((0.0, float("inf")), 0.0),
    "force": ((0.0, 0.0), 1001.0),
    "infinite force": ((0.0, 0.0), float("-inf")),
    "no force": ((0.0, 0.0), float("nan")),
}


@pytest.mark.parametrize("case", BEADS)
def test_beads_are_looked_at_together_as_each_by_itself(tmp_path, case):
    guards, one, _ = watched(tmp_path)
    change, force = BEADS[case]
    forces = [one.forces, one.forces.clone()]
    forces[1][5, 1] = force
    energy = one.energy.repeat(2)
    before = replace(one, forces=torch.cat([one.forces] * 2), energy=energy)
    now = replace(before, forces=torch.cat(forces), energy=energy + torch.tensor(change))
    assert guards.check_beads(now, before) == (case == "calm")
    for k in range(2):
        bead = replace(one, forces=forces[k], energy=now.energy[k : k + 1])
        if case == "calm" or (k == 0 and case != "jumps that cancel"):
            guards.check_step(bead, one)
        else:
            with pytest.raises(RunError):
                guards.check_step(bead, one)


def test_nothing_trips_in_a_good_state(tmp_path):
    guards, state, told = watched(tmp_path)
    guards.check_step(state, state)
    guards.check_frame(state, 90.0, 0.0)
    assert told == [] and list(tmp_path.iterdir()) == []


def test_atoms_too_close_are_named_with_their_distance(tmp_path):
    guards, state, _ = watched(tmp_path)
    with pytest.raises(RunError, match=r"at step 8 atom 4 \(Ar\) and atom 7 \(Ar\) are 0\.900 Å apart"):
        guards.check_frame(shifted(state, 7, 4, 0.9), 90.0)
    guards.check_frame(shifted(state, 7, 4, 1.2), 90.0)  # argon has a covalent radius of 1.06 Å
    across = replace(state, positions=state.positions + torch.tensor([10.6, 0.0, -21.2]))  # whole cells away
    guards.check_frame(across, 90.0)
    with pytest.raises(RunError, match=r"are 0\.900 Å apart"):
        positions = shifted(state, 7, 4, 0.9).positions.clone()
        positions[7, 0] += 10.6
        guards.check_frame(replace(state, positions=positions), 90.0)


def test_large_forces_name_the_atom_and_its_neighbour(tmp_path):
    guards, state, _ = watched(tmp_path)
    state = shifted(state, 7, 4, 0.9)
    forces = state.forces.clone()
    forces[7, 2] = -2000.0
    with pytest.raises(RunError, match=r"step 8 the force on atom 7 .*-2000.*nearest to it atom 4 \(Ar\) at 0\.900 Å"):
        guards.check_step(replace(state, forces=forces), state)
    watched(tmp_path, "force=stop:3000")[0].check_step(replace(state, forces=forces), state)
    with pytest.raises(RunError, match="exceeds 1500"):
        watched(tmp_path, "force=stop:1500")[0].check_step(replace(state, forces=forces), state)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_stop_whatever_is_configured(tmp_path, value):
    guards, state, _ = watched(tmp_path, ",".join(f"{name}=off" for name in GUARDS))
    forces = state.forces.clone()
    forces[3, 1] = value
    with pytest.raises(RunError, match=r"atom 3 \(Ar\) is not finite"):
        guards.check_step(replace(state, forces=forces), state)
    with pytest.raises(RunError, match="energy is not finite"):
        guards.check_step(replace(state, energy=value * state.energy), state)


@pytest.mark.parametrize("given, tells", [("", 1), ("surroundings=warn:3", 0), ("surroundings=off", 0)])
def test_surroundings_are_told_once(tmp_path, given, tells):
    """At every tenth frame, that is step; what is over and comes back is not told again."""
    guards, state, told = watched(tmp_path, given)
    guards.unlike = lambda positions, cell: found
    for step, bad in enumerate([0, 2, 0, 2, 2], start=1):
        found = Unlike(np.arange(bad), 5, "has 9 Ar near, none had more than 3") if bad else None
        guards.check_surroundings(replace(state, step=40 * step + 4))  # between them
        assert len(told) == (tells and step > 2)
        guards.check_surroundings(replace(state, step=40 * step))
    assert told == tells * ["warning: at step 80 atom 5 (Ar) has 9 Ar near, none had more than 3"]


def test_surroundings_that_stop_a_run(tmp_path):
    guards, state, _ = watched(tmp_path, "surroundings=stop")
    guards.unlike = lambda positions, cell: Unlike(np.arange(2), 5, "has 9 Ar near")
    with pytest.raises(RunError, match=r"atom 5 \(Ar\) has 9 Ar near \(guard surroundings"):
        guards.check_surroundings(replace(state, step=0))


def test_a_jump_of_the_energy(tmp_path):
    guards, state, _ = watched(tmp_path)
    guards.check_step(replace(state, energy=state.energy - 15.0), state)
    with pytest.raises(RunError, match=r"changed by -16 eV in one step, more than 15\.66 eV"):
        guards.check_step(replace(state, energy=state.energy - 16.0), state)
    hot, _, _ = watched(tmp_path, temperature_K=600.0)
    hot.check_step(replace(state, energy=state.energy - 16.0), state)


def test_a_temperature_spike(tmp_path):
    guards, state, _ = watched(tmp_path)
    with pytest.raises(RunError, match=r"is 1\.01e\+04 K, above 10000 K; the fastest atom is atom \d+ \(Ar\)"):
        guards.check_frame(state, 10_100.0)
    with pytest.raises(RunError, match="above 400 K"):
        watched(tmp_path, "temperature=stop:400")[0].check_frame(state, 401.0)
    watched(tmp_path, temperature_K=1000.0)[0].check_frame(state, 19_000.0)


def test_a_collapsed_or_exploded_box(tmp_path):
    guards, state, _ = watched(tmp_path)
    for scale, seen in ((0.65, True), (0.75, False), (1.4, False), (1.5, True)):
        moved = replace(state, cell=scale * state.cell)
        if seen:
            with pytest.raises(RunError, match=r"the volume is .* times that of the start"):
                guards.check_step(moved, state)
        else:
            guards.check_step(moved, state)


@pytest.mark.parametrize("way", ["edges", "shear"])
def test_a_cell_that_changes_its_shape_alone(tmp_path, way):
    """At constant volume, as that of a fluid may under anisotropic coupling: edges, or one face slid along another."""
    guards, state, _ = watched(tmp_path)
    for factor, seen in ((2.9, False), (3.1, True)):
        change = torch.diag(torch.tensor([factor**0.5, factor**0.5, 1 / factor], dtype=torch.float64))
        if way == "shear":  # edges are as long as ever, or longer, and yet a height is lost
            change = torch.eye(3, dtype=torch.float64)
            change[2, 0] = (factor**2 - 1) ** 0.5
        moved = replace(state, cell=state.cell @ change)
        if seen:
            with pytest.raises(RunError, match=r"high along [ac], 0.323 times as at the start.*--coupling isotropic"):
                guards.check_step(moved, state)
        else:
            guards.check_step(moved, state)


def test_drift_is_warned_of_once_until_it_is_over(tmp_path):
    guards, state, told = watched(tmp_path)
    for drift in (0.1, 1.0, 1.1, 0.0, -1.0, -1.0):  # 32 atoms: the limit is 0.64 eV
        guards.check_frame(state, 90.0, drift)
    assert len(told) == 2 and told[0].startswith("warning: at step 8 the conserved energy has drifted by 1 eV")
    with pytest.raises(RunError, match="drifted"):
        watched(tmp_path, "drift=stop:0.001")[0].check_frame(state, 90.0, 0.04)


def test_a_disk_nearly_full(tmp_path, monkeypatch):
    guards, state, _ = watched(tmp_path)
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=99e6))
    with pytest.raises(RunError, match="has 99 MB left, less than 100 MB"):
        guards.check_frame(state, 90.0)
    watched(tmp_path, "disk=stop:50")[0].check_frame(state, 90.0)


def test_saving_keeps_the_structure_and_goes_on(tmp_path):
    guards, state, told = watched(tmp_path, "distance=save")
    state = shifted(state, 7, 4, 0.9)
    guards.check_frame(state, 90.0)
    guards.check_frame(replace(state, step=12), 90.0)
    saved = read(tmp_path / "guard_distance_8.xyz")
    assert saved.get_distance(4, 7, mic=True) == pytest.approx(0.9)
    assert np.allclose(saved.get_velocities(), state.velocities.numpy(), atol=1e-6)
    assert np.allclose(saved.get_forces(), state.forces.numpy(), atol=1e-6)
    assert len(told) == 1 and "guard_distance_8.xyz" in told[0]
    assert [p.name for p in tmp_path.iterdir()] == ["guard_distance_8.xyz"]


def test_what_is_seen_at_the_start_is_saved_with_the_run(tmp_path):
    """Nothing is written before the run has its folder, and then what was seen, once."""
    told, folder = [], RunFolder(tmp_path / "run")
    run(pairs_job(), replace(SETTINGS, guards="temperature=save:1,force=save:1e-9"), folder, say=told.append)
    saved = sorted(path.name for path in folder.path.glob("guard_*"))
    assert saved == ["guard_force_0.xyz", "guard_temperature_0.xyz"] and len(told) == 2
    assert all(any(f"saved as {folder.path / name}" in text for text in told) for name in saved)
    assert np.array_equal(read(folder.path / saved[0]).positions.round(6), argon().positions.round(6))
    with pytest.raises(RunError, match="guard force"):
        run(pairs_job(), replace(SETTINGS, guards="temperature=save:1,force=stop:1e-9"), RunFolder(tmp_path / "no"))
    assert not (tmp_path / "no").exists()


def test_several_beads_of_one_step_have_files_of_their_own(tmp_path):
    guards, state, told = watched(tmp_path, "force=save:1e-9")
    calm = replace(state, forces=torch.zeros_like(state.forces))
    for bead in (state, calm, state, calm, state):  # the guard is over in between
        guards.check_step(bead, bead)
    names = [f"guard_force_{state.step}{end}.xyz" for end in ("", "_2", "_3")]
    assert sorted(p.name for p in tmp_path.glob("guard_*")) == names
    assert [text.rsplit("/", 1)[1] for text in told] == names


def test_off_does_not_look(tmp_path):
    guards, state, told = watched(tmp_path, "distance=off,force=off")
    state = shifted(state, 7, 4, 0.9)
    guards.check_frame(state, 90.0)
    guards.check_step(replace(state, forces=3000 * torch.ones_like(state.forces)), state)
    assert told == []


# in a run


class Falling(Pairs):
    """An atom is pulled into another from some call on: a hole in the energy, as bad models have them."""

    calls = 0

    def __call__(self, positions, **keywords):
        found = super().__call__(positions, **keywords)
        self.calls += 1
        if self.calls > 5:
            away = positions[7] - positions[4]
            found.forces[7] -= 40.0 * away / away.norm()
            found.forces[4] += 40.0 * away / away.norm()
        return found


def test_a_run_that_falls_into_a_hole_keeps_its_last_good_frame(tmp_path):
    good, folder = RunFolder(tmp_path / "good"), RunFolder(tmp_path / "run")
    settings = replace(SETTINGS, steps=200, guards="distance=stop:1.2,jump=off,force=off")
    run(pairs_job(), replace(settings, steps=20), good)
    atoms = argon()
    with pytest.raises(RunError, match=r"at step \d+ atom 4 .* and atom 7 .* are .* Å apart.*is kept") as error:
        run(job(atoms, Falling(Systems.from_atoms(atoms))), settings, folder)
    step = int(str(error.value).split()[2])
    assert Restart.read(folder.restart).state.step == step - 1
    frames = Restart.read(folder.restart).frames
    assert frames == step // 4  # the frames before the one that was refused
    assert len(folder.log.read_text().splitlines()) == frames + 1
    same = min(frames, 2)
    assert folder.log.read_text().splitlines()[: same + 1] == good.log.read_text().splitlines()[: same + 1]


def test_drift_in_nve_is_watched_and_a_resumed_run_warns_alike(tmp_path):
    said: list[str] = []
    settings = replace(SETTINGS, ensemble="nve", guards="drift=warn:1e-9", timestep_fs=10.0)
    run(pairs_job(), settings, RunFolder(tmp_path / "long"), say=said.append)
    assert sum("drifted" in line for line in said) >= 1
    again: list[str] = []
    run(pairs_job(), replace(settings, steps=12), RunFolder(tmp_path / "short"), say=lambda text: None)
    run(pairs_job(), settings, RunFolder(tmp_path / "short"), resume=True, say=again.append)
    spoken = sum("drifted" in line for line in again)
    assert spoken <= sum("drifted" in line for line in said)
    assert any("beyond the limit since before this restart: guard drift" in line for line in again) != spoken
    quiet: list[str] = []
    run(pairs_job(), replace(settings, guards="", ensemble="nvt"), RunFolder(tmp_path / "nvt"), say=quiet.append)
    assert quiet == []


SAVING = replace(SETTINGS, interval=2, guards="temperature=save:1,force=save:1e-9,drift=warn")


def saved_in(folder: RunFolder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.path.glob("guard_*")}


@pytest.mark.parametrize("stops", [(5,), (2, 7, 14)])
def test_a_guard_that_is_still_tripped_is_silent_after_a_restart(tmp_path, stops):
    whole, folder = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "run")
    run(pairs_job(), SAVING, whole)
    for steps in (*stops, 20):
        guards = ",".join(reversed(SAVING.guards.split(",")))  # the same ones
        settings = replace(SAVING, steps=steps, guards=guards)
        run(pairs_job(), settings, folder, resume=True, say=(said := []).append)
    assert saved_in(folder) == saved_in(whole) and len(saved_in(whole)) == 2
    assert said[1] == "warning: beyond the limit since before this restart: guard force, temperature"
    assert Restart.read(folder.restart).tripped == {"force", "temperature"}


def test_a_restart_file_that_knows_nothing_of_guards_and_other_guards_look_afresh(tmp_path):
    old, other = RunFolder(tmp_path / "old"), RunFolder(tmp_path / "other")
    for folder in (old, other):
        run(pairs_job(), replace(SAVING, steps=6), folder)
    with np.load(old.restart) as file:
        arrays = {name: file[name] for name in file.files if name != "guards_tripped"}
    np.savez(old.restart, **arrays)
    run(pairs_job(), SAVING, old, resume=True)
    assert {"guard_force_7.xyz", "guard_temperature_8.xyz"} <= saved_in(old).keys()
    run(pairs_job(), replace(SAVING, guards="temperature=save:2,force=off"), other, resume=True)
    assert saved_in(other).keys() == {f"guard_{name}.xyz" for name in ("force_0", "temperature_0", "temperature_8")}


def test_what_tripped_in_a_step_that_stopped_is_not_remembered(tmp_path):
    """The step is made again, with all that its guards say."""
    atoms, folder, said = argon(), RunFolder(tmp_path / "run"), []
    settings = replace(SETTINGS, guards="force=warn:500,jump=off,bond=off")
    bound = Failing(Pairs(Systems.from_atoms(atoms)), 8, value=900.0)
    with pytest.raises(RunError, match="guard temperature"):
        run(job(atoms, bound), settings, folder, say=said.append)
    assert len(said) == 1 and "at step 8 the force" in said[0]
    assert Restart.read(folder.restart).tripped == frozenset()


def test_guards_may_change_on_resume(tmp_path):
    folder = RunFolder(tmp_path / "run")
    run(pairs_job(), replace(SETTINGS, steps=12), folder)
    run(pairs_job(), replace(SETTINGS, guards="distance=warn"), folder, resume=True)
    assert folder.read_record()["settings"]["guards"] == "distance=warn"


# how they are given


def test_rules_are_read():
    rules = guard_rules("drift=stop:0.005, distance=warn")
    assert rules["drift"] == ("stop", 0.005) and rules["distance"] == ("warn", None)
    assert rules["force"] == ("stop", None)


@pytest.mark.parametrize("text", ["drift", "nose=stop", "drift=maybe", "drift=stop:0", "drift=stop:x", "disk=stop:inf"])
def test_rules_that_cannot_be(text):
    with pytest.raises(InputError, match="--guard"):
        Settings(guards=text)
