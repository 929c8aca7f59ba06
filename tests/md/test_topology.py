import ase.io
import MDAnalysis
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule

from omnicalc.md.topology import write_topology
from omnicalc.structure_file import read_structure

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")


def read(tmp_path, atoms: Atoms):
    write_topology(tmp_path / "topology.pdb", atoms)
    return MDAnalysis.Universe(str(tmp_path / "topology.pdb"))


def salt_water(edge: float = 30.0, n: int = 6) -> Atoms:
    """Waters, ions and a methanol; some waters lie across the cell's faces."""
    atoms = Atoms(cell=[edge] * 3, pbc=True)
    for k in range(n):
        water = molecule("H2O")
        water.rotate(37 * k, (1, 2, 3))
        water.translate([5.0 * k, 0.1, 0.2])
        atoms += water
    atoms += Atoms("NaClMg", [[2.4, 2, 2], [10, 10, 10], [20, 20, 20]])
    methanol = molecule("CH3OH")
    methanol.translate([15, 15, 5])
    atoms += methanol
    atoms.wrap()
    return atoms


def test_waters_ions_and_the_rest(tmp_path):
    atoms = salt_water()
    u = read(tmp_path, atoms)
    assert list(u.atoms.elements) == [s.upper() if len(s) == 1 else s for s in atoms.symbols]
    assert list(u.residues.resnames) == ["HOH"] * 6 + ["NA", "CL", "MG", "MOL"]
    assert list(u.residues[0].atoms.names) == ["O", "H1", "H2"]
    assert sorted(u.residues[-1].atoms.names) == ["C1", "H1", "H2", "H3", "H4", "O1"]
    assert u.atoms.positions == pytest.approx(atoms.positions, abs=6e-4)
    assert u.dimensions == pytest.approx([30, 30, 30, 90, 90, 90])


def test_sodium_next_to_water_is_not_bonded(tmp_path):
    atoms = molecule("H2O") + Atoms("Na", [[0, 0, 2.3]])
    assert list(read(tmp_path, atoms).residues.resnames) == ["HOH", "NA"]


@pytest.mark.parametrize(
    ("symbols", "positions"),
    [("OH", [[0, 0, 0], [0, 0, 0.97]]), ("HOO", [[0, 0, 1], [0, 0, 0], [1.3, 0, 0]])],
)
def test_what_is_not_water_is_not_called_so(tmp_path, symbols, positions):
    assert set(read(tmp_path, Atoms(symbols, positions)).residues.resnames) == {"MOL"}


def test_atom_order_never_changes(tmp_path):
    """All oxygens first, then all hydrogens: atoms stay in place, a molecule has one residue number."""
    atoms = salt_water()[:18]
    atoms = atoms[[*range(0, 18, 3), *(k for k in range(18) if k % 3)]]
    u = read(tmp_path, atoms)
    assert u.atoms.positions == pytest.approx(atoms.positions, abs=6e-4)
    assert list(u.atoms.resnames) == ["HOH"] * 18
    assert list(u.atoms.resids) == [*range(1, 7), *np.repeat(range(1, 7), 2)]


def test_columns_of_two_lines(tmp_path):
    write_topology(tmp_path / "a.pdb", Atoms("NaO", [[1, -22.5, 333.25], [8, 8, 8]]))
    first, second = (tmp_path / "a.pdb").read_text().splitlines()[:2]
    assert first == "HETATM    1 NA    NA     1       1.000 -22.500 333.250  1.00  0.00          NA  "
    assert second[12:16] == " O  " and second[76:78] == " O" and len(second) == 80


PEPTIDE = """\
HETATM    1  CH3 ACE A  -1      -1.429  -0.738   1.762  1.00  0.00           C
HETATM    2  C   ACE A  -1      -1.194   0.057   0.481  1.00  0.00           C
ATOM      3  N   ALA A   0       0.024  -0.103  -0.101  1.00  0.00           N
ATOM      4  CA  ALA A   0       1.224   0.103   0.701  1.00  0.00           C
ATOM      5 HD11 TIP3B   1      11.000   0.000   0.000  1.00  0.00           H
HETATM    6 CA    CA C   1      19.000   0.000   0.000  1.00  0.00          CA
"""


def test_names_of_a_file_are_kept(tmp_path):
    """By them phi and psi are found, and atoms are selected."""
    (tmp_path / "peptide.pdb").write_text(PEPTIDE)
    atoms = read_structure(tmp_path / "peptide.pdb")
    ase.io.write(tmp_path / "relaxed.xyz", atoms, format="extxyz")  # as relax writes it
    for way in (atoms, read_structure(tmp_path / "relaxed.xyz")):
        lines = _written(tmp_path, way).splitlines()[:-1]
        assert [line[12:27] for line in lines] == [line[12:27] for line in PEPTIDE.splitlines()]
        assert {len(line) for line in lines} == {80}
        u = read(tmp_path, way)
        assert list(u.select_atoms("protein and name CA").indices) == [3]
        assert list(u.select_atoms("resname TIP3 and chainID B").indices) == [4]
        assert list(u.residues.resids) == [-1, 0, 1, 1]


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("atomtypes", ["O", "H", "H"]),  # as ASE writes a structure of its own
        ("atomtypes", ["O", "H1", "H1234"]),
        ("residuenames", ["", "", ""]),
        ("residuenumbers", [1.0, 1.0, 1.0]),
    ],
)
def test_names_that_are_none(tmp_path, key, values):
    atoms = molecule("H2O")
    given = {"atomtypes": ["OW", "HW1", "HW2"], "residuenames": ["SOL"] * 3, "residuenumbers": [7, 7, 7]}
    for name, column in given.items():
        atoms.set_array(name, np.array(column))
    assert list(read(tmp_path, atoms).atoms.names) == given["atomtypes"]
    del atoms.arrays[key]
    atoms.set_array(key, np.array(values))
    assert list(read(tmp_path, atoms).atoms.names) == ["O", "H1", "H2"]


def test_no_box_and_wide_coordinates(tmp_path):
    atoms = Atoms("ArAr", [[-12345.678, 0, 99999.5], [1, 2, 3]])
    assert "CRYST1" not in (text := _written(tmp_path, atoms))
    assert all(len(line) == 80 for line in text.splitlines()[:2])
    assert read(tmp_path, atoms).atoms.positions[0] == pytest.approx([-12345.678, 0, 99999.5], abs=0.5)


def _written(tmp_path, atoms) -> str:
    write_topology(tmp_path / "b.pdb", atoms)
    return (tmp_path / "b.pdb").read_text()


@pytest.fixture(scope="module")
def many() -> Atoms:
    return bulk("Ar", "sc", a=4.0).repeat((48, 48, 44))


def test_more_than_99999_atoms_keep_the_columns(tmp_path, many):
    lines = _written(tmp_path, many).splitlines()[1:-1]
    assert len(lines) == len(many) > 99_999 and {len(line) for line in lines} == {80}
    assert [lines[k][6:11] for k in (99_998, 99_999, 100_000)] == ["99999", "    0", "    1"]
    assert [lines[k][22:26] for k in (9_998, 9_999, 10_000)] == ["9999", "   0", "   1"]


@pytest.mark.slow
def test_more_than_99999_atoms_are_read(tmp_path, many):
    u = read(tmp_path, many)
    assert len(u.atoms) == len(many) and len(u.residues) == len(many)
    assert u.atoms.positions == pytest.approx(many.positions, abs=6e-4)


def test_turned_like_the_trajectory(tmp_path):
    atoms = salt_water()
    turned = atoms.copy()
    turned.rotate(33, (1, 1, 1), rotate_cell=True)
    assert read(tmp_path, turned).atoms.positions == pytest.approx(atoms.positions, abs=1e-3)
