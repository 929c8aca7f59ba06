"""Infrared spectra of oscillators whose bands are known."""

import numpy as np
import pytest

from omnicalc.analysis.ir import infrared_spectrum
from omnicalc.analysis.vdos import WAVE, vibrational_spectrum
from omnicalc.errors import InputError

DT = 0.002  # ps
BOX = (12.0, 12.0, 12.0, 90.0, 90.0, 90.0)


def carbon_dioxide(write_traj, symmetric: float, antisymmetric: float, box=None, shift: float = 0.0):
    """O-C-O along x that stretches in both ways; trajectory and dipoles by charges of -1, 2, -1 (F, 3)."""
    t = np.arange(1500) * DT
    s, a = (0.05 * np.cos(2 * np.pi * WAVE * nu * t) for nu in (symmetric, antisymmetric))
    x = np.zeros((len(t), 3, 3)) + [[[4.8, 6, 6], [6.0, 6, 6], [7.2, 6, 6]]]
    x[:, 0, 0] += -s + a
    x[:, 1, 0] += -2.0 * 15.999 / 12.011 * a
    x[:, 2, 0] += s + a
    x[:, :, 0] += shift
    if box is not None:
        x %= np.array(box[:3])
    dipole = np.zeros((len(t), 3))
    dipole[:, 0] = -2 * a - 4.0 * 15.999 / 12.011 * a
    return write_traj(["O", "C", "O"], x, box), dipole


def bands(result):
    return [q.value for q in result.quantities if q.name.startswith("band")]


def test_only_what_moves_the_dipole_absorbs(write_traj):
    path, _ = carbon_dioxide(write_traj, 1300.0, 2300.0)
    result = infrared_spectrum(path, charges="O=-1,C=2", dt_ps=DT)
    assert bands(result) == pytest.approx([2300.0], abs=2.0)
    assert bands(vibrational_spectrum(path, dt_ps=DT)) == pytest.approx([1300.0, 2300.0], abs=2.0)
    spectrum = result.tables["spectrum"]
    assert np.trapezoid(spectrum["intensity"], spectrum["wavenumber_cm-1"]) == pytest.approx(1.0, abs=0.01)
    assert result.plot().axes


def test_crossing_a_boundary_makes_no_band(write_traj):
    path, _ = carbon_dioxide(write_traj, 1300.0, 2300.0, box=BOX, shift=7.1)  # one oxygen leaves by the face
    assert bands(infrared_spectrum(path, charges="O=-1,C=2", dt_ps=DT)) == pytest.approx([2300.0], abs=2.0)


def test_dipoles_of_a_table_give_the_same(write_traj, tmp_path):
    path, dipole = carbon_dioxide(write_traj, 1300.0, 2300.0)
    table = tmp_path / "dipoles.csv"
    np.savetxt(table, dipole, delimiter=",", header="dipole_x,dipole_y,dipole_z", comments="")
    found, wanted = (infrared_spectrum(path, dt_ps=DT, **how) for how in ({"dipoles": table}, {"charges": "O=-1,C=2"}))
    a, b = (r.tables["spectrum"]["intensity"] for r in (found, wanted))
    assert a == pytest.approx(b, abs=1e-4 * b.max())


@pytest.mark.parametrize(("settings", "words"), [
    ({}, "needs either --charges"),
    ({"charges": "O=-1,C=2", "dipoles": "x.csv"}, "needs either --charges"),
    ({"charges": "O=-1"}, "names no charge for C"),
    ({"charges": "O=-1,C"}, "'C' is no charge"),
    ({"charges": "O=-1,C=1"}, "add up to -1 e"),
    ({"charges": "O=0,C=0"}, "never changes"),
    ({"dipoles": "nowhere.csv"}, "nowhere.csv does not exist"),
])  # fmt: skip
def test_bad_input(write_traj, settings, words):
    path, _ = carbon_dioxide(write_traj, 1300.0, 2300.0)
    with pytest.raises(InputError, match=words):
        infrared_spectrum(path, dt_ps=DT, **settings)


def test_a_table_that_does_not_fit(write_traj, tmp_path):
    path, dipole = carbon_dioxide(write_traj, 1300.0, 2300.0)
    (tmp_path / "short.csv").write_text("dipole_x,dipole_y,dipole_z\n1,2,3\n")
    (tmp_path / "other.csv").write_text("x,y,z\n1,2,3\n")
    for name, words in (("short", "has 1 rows and the trajectory 1500 frames"), ("other", "no column dipole_x")):
        with pytest.raises(InputError, match=words):
            infrared_spectrum(path, dt_ps=DT, dipoles=tmp_path / f"{name}.csv")
