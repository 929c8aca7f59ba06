"""Spacing of frames in time."""

import warnings

import numpy as np
import pytest

from omnicalc.analysis import as_trajectory, coordination_numbers, diffusion, vibrational_spectrum
from omnicalc.analysis.times import evenness
from omnicalc.analysis.trajectory import open_trajectory
from omnicalc.errors import InputError

CUBE = (12.0, 12.0, 12.0, 90.0, 90.0, 90.0)
STEPS = {
    "even": np.ones(79),
    "coarser": np.where(np.arange(79) < 40, 1.0, 5.0),
    "twice": np.where(np.arange(79) == 10, 0.0, 1.0),  # a frame that a restart wrote again
}


@pytest.fixture
def timed(tmp_path):
    """timed(steps (F - 1,) in ps, name) -> path of a random walk of argon atoms with D = 1e-9 m²/s; topology beside."""

    def write(steps, name="traj.xtc", dt=0.02, start=0.0):
        from ase import Atoms
        from ase.io import write as ase_write

        steps = np.asarray(steps, dtype=float) * dt
        rng = np.random.default_rng(0)
        moves = rng.normal(size=(len(steps), 12, 3)) * np.sqrt(0.2 * steps)[:, None, None]
        positions = rng.random((12, 3)) * 12 + np.concatenate([np.zeros((1, 12, 3)), np.cumsum(moves, axis=0)])
        ase_write(tmp_path / "topology.pdb", Atoms("Ar12", positions=positions[0]))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import MDAnalysis

            universe = MDAnalysis.Universe.empty(12, trajectory=True)
            universe.dimensions = CUBE
            with MDAnalysis.Writer(str(tmp_path / name), 12) as writer:
                for time, x in zip(start + np.concatenate([[0.0], np.cumsum(steps)]), positions, strict=True):
                    universe.atoms.positions = x
                    universe.trajectory.ts.time = time
                    writer.write(universe.atoms)
        return tmp_path / name

    return write


@pytest.mark.parametrize("name", ["traj.xtc", "traj.trr", "traj.ncdf"])
def test_frames_that_are_not_evenly_spaced_have_no_spacing(timed, name):
    assert open_trajectory(timed(STEPS["even"], name)).dt_ps == pytest.approx(0.02, rel=1e-6)
    for kind, said in (("coarser", "frame 41 comes 0.1 ps after frame 40"), ("twice", "frame 11 comes 0 ps after")):
        path = timed(STEPS[kind], f"{kind}-{name}")
        trajectory = open_trajectory(path)
        assert trajectory.dt_ps is None and said in evenness(trajectory.times)[1]
        for function in (diffusion, vibrational_spectrum):
            with pytest.raises(InputError, match=rf"not evenly spaced in time \({said}.*--dt"):
                function(path)
        numbers = coordination_numbers(path, ["Ar-Ar"], cutoff=4.0)
        assert any(said in note for note in numbers.notes) and "time_ps" not in numbers.tables["series"]
        told = coordination_numbers(path, ["Ar-Ar"], cutoff=4.0, dt_ps=0.02).notes
        assert any(f"--dt takes them as if they were: {said}" in note for note in told)
    for some, spacing in ((slice(None, 41), 0.02), (slice(40, None), 0.1)):  # parts that are even
        part = diffusion(timed(STEPS["coarser"], name), start=some.start, stop=some.stop)
        assert part.settings["dt_ps"] == pytest.approx(spacing, rel=1e-4)
        assert not any("evenly" in note for note in part.notes)


def test_times_late_in_a_long_run_are_even_within_their_digits(timed):
    """A time of 50 ns in single precision is known to 4 fs only, one of 1 µs to 60 fs."""
    trajectory = open_trajectory(timed(STEPS["even"], start=5e4))
    assert trajectory.times is None and trajectory.dt_ps == pytest.approx(0.02, rel=0.01)
    late = open_trajectory(timed(STEPS["even"], "late.xtc", start=1e6))
    assert late.times is None and late.dt_ps is None


@pytest.mark.parametrize(
    ("start", "dt", "known"), [(0, 0.1, True), (1e4, 0.1, True), (1e6, 0.1, False), (1e7, 2, False)]
)
def test_a_missing_frame_shows_wherever_times_are_written_finely_enough(start, dt, known):
    frames = np.arange(12)
    whole, gap = ((start + dt * f).astype(np.float32).astype(float) for f in (frames, np.delete(frames, 6)))
    found, uneven = evenness(whole)
    assert uneven is None and (found == pytest.approx(dt, rel=0.01) if known else found is None)
    assert evenness(gap)[0] is None and ("comes" in (evenness(gap)[1] or "")) >= known


def test_a_universe_tells_its_spacing_only_where_it_knows_it(timed, tmp_path):
    import MDAnalysis

    path = timed(STEPS["even"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        universe = MDAnalysis.Universe(str(tmp_path / "topology.pdb"), str(path))
        x = np.array([ts.positions.copy() for ts in universe.trajectory])
        with MDAnalysis.Writer(str(tmp_path / "many.pdb"), multiframe=True) as writer:
            for _ in universe.trajectory:
                writer.write(universe.atoms)
        told = as_trajectory(universe)
        unknown = [MDAnalysis.Universe(str(tmp_path / "many.pdb")), MDAnalysis.Universe(str(tmp_path / "many.pdb"), x)]
        given = MDAnalysis.Universe(str(tmp_path / "many.pdb"), dt=0.02)
    assert told.dt_ps == pytest.approx(0.02) and as_trajectory(given).dt_ps == 0.02
    for universe in unknown:
        assert as_trajectory(universe).dt_ps is None
        with pytest.raises(InputError, match="does not say how far apart its frames are"):
            diffusion(universe)
        assert diffusion(universe, dt_ps=0.02).settings["dt_ps"] == 0.02
    uneven = timed(STEPS["twice"], "twice.xtc")
    assert as_trajectory(MDAnalysis.Universe(str(tmp_path / "topology.pdb"), str(uneven))).times is not None
    top, two = str(tmp_path / "topology.pdb"), [str(path), str(path)]
    assert as_trajectory(MDAnalysis.Universe(top, str(path), dt=2.0)).dt_ps == 2.0  # as its owner says
    assert as_trajectory(MDAnalysis.Universe(top, two)).dt_ps == pytest.approx(0.02)
    assert as_trajectory(MDAnalysis.Universe(top, [str(path), str(uneven)])).dt_ps is None


@pytest.mark.parametrize(
    ("title", "delta", "interval", "dt"),
    [
        ("REMARKS FILENAME=eq3.dcd CREATED BY NAMD", 0.0409097, 10, 0.02),
        ("Created by OpenMM", 1.0, 10, 0.4888821),
        ("Created by DCD plugin", 1.0, 1, None),  # VMD, catdcd and mdtraj fill in 1
        ("Written by LAMMPS", 2.0, 250, None),  # in the units of the run, fs or ps or others
        ("REMARK CORD DCD file created by CP2K version 2023.1", 0.5, 10, None),
    ],
)
def test_a_dcd_file_tells_its_spacing_only_in_units_of_charmm(timed, title, delta, interval, dt):
    import struct

    path = timed(STEPS["even"], "traj.dcd")
    data = bytearray(path.read_bytes())
    data[16:20] = struct.pack("<i", interval)
    data[44:48] = struct.pack("<f", delta)
    data[100:180] = title.encode().ljust(80)
    path.write_bytes(data)
    trajectory = open_trajectory(path)
    assert trajectory.dt_ps == (None if dt is None else pytest.approx(dt, rel=1e-4))
    if dt is None:
        with pytest.raises(InputError, match="does not say how far apart its frames are in time.*--dt"):
            diffusion(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import MDAnalysis

        told = MDAnalysis.Universe(str(path.with_name("topology.pdb")), str(path), dt=0.5)
    assert as_trajectory(told).dt_ps == 0.5


@pytest.mark.parametrize("name", ["frames.xyz", "frames.traj"])
def test_frames_of_a_run_say_when_they_are(tmp_path, name):
    """Those with velocities or forces: every frame names its time in fs."""
    from ase import Atoms
    from ase.io import write

    frames = [Atoms("Ar", [[k, 0, 0]]) for k in range(4)]
    for when, dt in (([0.0, 2.5, 5.0, 7.5], 0.0025), ([0.0, 2.5, 5.0, 10.0], None), ([0.0, 2.5, 5.0, None], None)):
        for atoms, time in zip(frames, when, strict=True):
            atoms.info = {} if time is None else {"time_fs": time}
        write(tmp_path / name, frames, format="traj" if name.endswith("traj") else "extxyz")
        trajectory = open_trajectory(tmp_path / name)
        assert trajectory.dt_ps == (None if dt is None else pytest.approx(dt))
        assert (trajectory.times is not None) == (when[-1] == 10.0)
