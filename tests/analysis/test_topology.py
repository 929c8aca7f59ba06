import numpy as np
import pytest
from ase import Atoms
from ase.io import write

from omnicalc.analysis.topology import element_of, read_atoms
from omnicalc.analysis.trajectory import open_trajectory

_DATA = """LAMMPS data

3 atoms
2 atom types
0 10 xlo xhi
0 10 ylo yhi
0 10 zlo zhi

Masses

1 15.999
2 2.014

Atoms # full

1 1 1 -0.8 5 5 5
2 1 2 0.4 5.757 5.586 5
3 1 2 0.4 4.243 5.586 5
"""


@pytest.mark.parametrize(
    ("given", "name", "residue", "mass", "element"),
    [
        ("O", "OW", "SOL", 0.0, "O"),
        ("NA", "NA", "NA", 0.0, "Na"),
        ("", "OW", "SOL", 0.0, "O"),
        ("", "HW1", "SOL", 0.0, "H"),
        ("", "1HB", "ALA", 0.0, "H"),
        ("", "CA", "ALA", 0.0, "C"),
        ("", "CA", "CA", 0.0, "Ca"),
        ("", "NA+", "Na+", 0.0, "Na"),
        ("", "CL", "ION", 0.0, "Cl"),
        ("", "SOD", "SOD", 0.0, "Na"),
        ("", "CLA", "CLA", 35.45, "Cl"),
        ("", "CAL", "CAL", 40.08, "Ca"),
        ("", "CAL", "LIG", 0.0, "C"),
        ("", "CAL", "LIG", 12.011, "C"),
        ("", "NA", "SOD", 0.0, "Na"),
        ("", "POT", "K", 0.0, "K"),
        ("", "CLA", "", 0.0, "Cl"),
        ("", "", "", 15.999, "O"),
        ("", "OH2", "TIP3", 15.9994, "O"),
        ("", "OW", "HOH", 12.011, "O"),  # hydrogen mass repartitioned: not carbon
        ("", "MW", "SOL", 0.0, "X"),
        ("", "EPW", "WAT", 0.0, "X"),
        ("", "MG", "MG", 24.305, "Mg"),
        ("", "CL2", "LIG", 0.0, "Cl"),
    ],
)
def test_element_of_an_atom(given, name, residue, mass, element):
    assert element_of(given, name, residue, mass) == element


def test_gro_names_give_elements(tmp_path):
    path = tmp_path / "box.gro"
    lines = ["water and salt", "    5"]
    atoms = [("SOL", "OW"), ("SOL", "HW1"), ("SOL", "HW2"), ("NA", "NA"), ("CL", "CL")]
    for k, (residue, name) in enumerate(atoms, start=1):
        lines.append(f"{k:5d}{residue:<5s}{name:>5s}{k:5d}{k / 10:8.3f}{0.1:8.3f}{0.1:8.3f}")
    path.write_text("\n".join([*lines, "   2.0   2.0   2.0", ""]))
    assert list(read_atoms(path)[0]) == ["O", "H", "H", "Na", "Cl"]


def test_a_topology_tells_its_own_masses(tmp_path, write_traj):
    (tmp_path / "heavy.data").write_text(_DATA)
    path = write_traj(["O", "H", "H"], np.zeros((2, 3, 3)), (10.0, 10.0, 10.0, 90.0, 90.0, 90.0))
    heavy, usual = open_trajectory(path, tmp_path / "heavy.data"), open_trajectory(path)
    assert heavy.masses.tolist() == [15.999, 2.014, 2.014] and heavy.labels.masses is heavy.masses
    assert usual.masses.tolist() == [15.999, 1.008, 1.008]


def test_structure_files_tell_theirs(tmp_path):
    atoms = Atoms("OH2", np.eye(3), masses=[15.999, 2.014, 2.014])
    write(tmp_path / "heavy.xyz", [atoms] * 2, format="extxyz")
    found = open_trajectory(tmp_path / "heavy.xyz")
    assert found.masses.tolist() == [15.999, 2.014, 2.014] and found.counts == {"O": 1, "D": 2}
