import json

import numpy as np
import pytest

from omnicalc.analysis.vdos import WAVE, vibrational_spectrum
from omnicalc.errors import InputError

from .conftest import waters

DT = 0.002  # ps


def oscillators(write_traj, lines, masses=("H", "O"), n=3000, name="traj.dcd", box=None, amplitudes=None):
    """Pairs of atoms that stretch at given wavenumbers with thermal (equal) energies; trajectory path."""
    rng = np.random.default_rng(0)
    t = np.arange(n) * DT
    elements, columns = [], []
    weights = {"H": 1.008, "O": 15.999, "C": 12.011}
    for k, nu in enumerate(lines):
        a, b = weights[masses[0]], weights[masses[1]]
        omega = 2 * np.pi * WAVE * nu
        size = (0.02 if amplitudes is None else amplitudes[k]) * 300.0 / omega
        motion = size * np.cos(omega * t + rng.uniform(0, 6))
        centre = np.array([3.0 * k, 1.0, 1.0])
        x = np.zeros((n, 2, 3)) + centre
        x[:, 1, 0] += 1.0
        x[:, 0, 0] -= motion * b / (a + b)
        x[:, 1, 0] += motion * a / (a + b)
        elements += list(masses)
        columns.append(x)
    return write_traj(elements, np.concatenate(columns, axis=1), box, name=name)


def test_lines_lie_at_the_frequencies_of_the_oscillators(write_traj):
    path = oscillators(write_traj, [400.0, 1600.0, 3650.0])
    result = vibrational_spectrum(path, dt_ps=DT)
    bands = [q.value for q in result.quantities if q.name.startswith("band")]
    assert bands == pytest.approx([400.0, 1600.0, 3650.0], abs=1.0)
    spectrum = result.tables["spectrum"]
    nu, total = spectrum["wavenumber_cm-1"], spectrum["total"]
    for line in bands:
        near = abs(nu - line) < 60
        assert np.trapezoid(total[near], nu[near]) == pytest.approx(1 / 3, abs=0.01), "equal energies, equal areas"
    assert result["share of H"].value == pytest.approx(15.999 / 17.007, abs=2e-3)
    half = nu[total > total.max() / 2]
    assert np.ptp(half[abs(half - bands[0]) < 50]) < 1.6 * result.settings["resolution_cm-1"]
    # differences of positions damp a fast line; without the correction it would be too small
    raw = total * np.sinc(WAVE * nu * DT) ** 2
    fast, slow = (np.trapezoid(raw[abs(nu - line) < 60], nu[abs(nu - line) < 60]) for line in (3650.0, 400.0))
    assert fast / slow < 0.87


def test_repartitioned_masses_are_those_of_the_run(write_traj, tmp_path):
    """Free atoms of water with hydrogens of 3 amu, each with its share of the kinetic energy."""
    rng = np.random.default_rng(5)
    record = {"H": 3.0, "O": 18.015 - 6.0}
    elements = ["O", "H", "H"] * 100
    mass = np.array([record[e] for e in elements])
    steps = 0.02 * rng.normal(size=(400, len(elements), 3)) / np.sqrt(mass)[:, None]
    path = write_traj(elements, 40.0 + np.cumsum(steps, axis=0), None)
    (tmp_path / "run.json").write_text(json.dumps({"masses": record}))
    assert vibrational_spectrum(path, dt_ps=DT)["share of O"].value == pytest.approx(1 / 3, abs=0.01)
    (tmp_path / "run.json").unlink()  # the wrong variant: masses of the elements
    assert vibrational_spectrum(path, dt_ps=DT)["share of O"].value > 0.6


def test_frames_too_far_apart_are_noted_and_fold_the_line(write_traj):
    path = oscillators(write_traj, [3650.0])
    result = vibrational_spectrum(path, dt_ps=DT, step=3)
    nyquist = 1 / (2 * WAVE * 3 * DT)
    assert any("wrong places" in note for note in result.notes)
    bands = [q.value for q in result.quantities if q.name.startswith("band")]
    assert bands == pytest.approx([2 * nyquist - 3650.0], abs=2.0)


def test_velocities_of_the_file_give_the_same(write_traj, tmp_path):
    """The same motion as positions, and with velocities in an extended XYZ file."""
    from ase import Atoms, units
    from ase.io import write

    t = np.arange(400) * DT
    omega = 2 * np.pi * WAVE * 1000.0
    frames = []
    for time in t:
        atoms = Atoms("OH", positions=[[0.05 * np.cos(omega * time), 0, 0], [1 - 0.8 * np.cos(omega * time), 0, 0]])
        v = np.array([[-0.05, 0, 0], [0.8, 0, 0]]) * omega * np.sin(omega * time)  # Å/ps
        atoms.set_velocities(v / (1000.0 * units.fs))
        frames.append(atoms)
    write(tmp_path / "moving.traj", frames)
    given, differences = (
        vibrational_spectrum(tmp_path / "moving.traj", dt_ps=DT, positions=positions) for positions in (False, True)
    )
    assert given.settings["velocities"] == "from the file"
    assert differences.settings["velocities"] == "differences of positions"
    for result in (given, differences):
        assert [q.value for q in result.quantities if q.name.startswith("band")] == pytest.approx([1000.0], abs=3.0)
    curves = [r.tables["vacf"]["normalised"] for r in (given, differences)]
    assert np.abs(curves[0] - np.cos(omega * np.arange(len(curves[0])) * DT)).max() < 0.05
    assert np.abs(curves[0] - curves[1]).max() < 0.05


def test_crossing_a_boundary_is_no_vibration(write_traj):
    path = oscillators(write_traj, [500.0], name="free.dcd")
    inside = oscillators(write_traj, [500.0], name="box.dcd", box=(2.0, 9.0, 9.0, 90.0, 90.0, 90.0))
    curves = [vibrational_spectrum(p, dt_ps=DT).tables["spectrum"]["total"] for p in (path, inside)]
    assert np.allclose(curves[0], curves[1], atol=1e-3 * curves[0].max())


def test_white_noise_is_flat_with_honest_errors(write_traj):
    rng = np.random.default_rng(3)
    positions = np.cumsum(rng.normal(scale=0.01, size=(2000, 30, 3)), axis=0)
    result = vibrational_spectrum(write_traj(["O"] * 30, positions, None), dt_ps=DT, resolution=100.0)
    spectrum = result.tables["spectrum"]
    nu, flat = spectrum["wavenumber_cm-1"], spectrum["total"] * np.sinc(WAVE * spectrum["wavenumber_cm-1"] * DT) ** 2
    level = np.median(flat)
    error = spectrum["total_stderr"] * np.sinc(WAVE * nu * DT) ** 2
    assert 0.5 < np.mean(((flat - level) / error)[4:-4] ** 2) < 2.5
    assert not [q for q in result.quantities if q.name.startswith("band") and q.value < 3000]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"stop": 20}, "needs 50 frames or more, and 20"),
        ({"resolution": 0.0}, "--resolution 0.0"),
        ({"resolution": 1.0}, "--resolution 1 cm.*give .* or more"),
        ({"max_wavenumber": -1.0}, "--max-wavenumber -1.0"),
        ({"select": "N"}, "selects no atom"),
    ],
)
def test_bad_settings_name_what_is_allowed(write_traj, settings, message):
    elements, positions = waters(2, 8.0, np.random.default_rng(0))
    with pytest.raises(InputError, match=message):
        vibrational_spectrum(write_traj(elements, [positions] * 60, None), dt_ps=DT, **settings)
