"""Structures from files, and one clear line for everything that is not one."""

import gzip
import re
import warnings
from pathlib import Path

import MDAnalysis
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.io import read, write
from ase.io.formats import ioformats

from omnicalc.charge_and_spin import charge_and_spin
from omnicalc.errors import InputError
from omnicalc.structure_checks import check_occupancy
from omnicalc.structure_file import parse_cell, read_structure, read_structures

ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def inside(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refused(*args, **kwargs) -> str:
    with pytest.raises(InputError) as caught:
        read_structure(*args, **kwargs)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def frames(count: int = 5) -> list[Atoms]:
    out = [molecule("H2O") for _ in range(count)]
    for k, atoms in enumerate(out):
        atoms.positions += k
    return out


class TestReading:
    @pytest.mark.parametrize("name", ["a.xyz", "a.extxyz", "a.pdb", "a.traj", "a.cif", "a.gro", "POSCAR"])
    def test_formats(self, name):
        atoms = molecule("H2O", cell=[6, 7, 8], pbc=True)
        write(name, atoms)
        found = read_structure(name)
        assert sorted(found.symbols) == ["H", "H", "O"]
        assert np.allclose(found.cell.lengths(), [6, 7, 8], atol=1e-3) and found.pbc.all()

    def test_frames(self):
        write("a.xyz", frames())
        offset = [float(read_structure("a.xyz", k).positions[0, 0]) for k in (0, 3, -1, -5, "2", "1:2")]
        assert offset == [0, 3, 4, 0, 2, 1]
        assert len(read_structures("a.xyz")) == 5
        assert [float(a.positions[0, 0]) for a in read_structures("a.xyz", "1:5:2")] == [1, 3]
        assert [float(a.positions[0, 0]) for a in read_structures("a.xyz", "-2:")] == [3, 4]

    def test_charge_and_spin_come_along(self):
        atoms = molecule("OH")
        atoms.info.update(charge=-1, spin=1)
        write("a.xyz", atoms, format="extxyz")
        assert read_structure("a.xyz").info["charge"] == -1

    def test_a_name_with_an_at_sign(self):
        write("a@1.xyz", frames(1))
        assert len(read_structure("a@1.xyz")) == 3

    def test_no_box_is_fine(self):
        write("a.xyz", frames(1))
        assert not read_structure("a.xyz").pbc.any()


class TestBadFiles:
    def test_missing(self):
        write("water.xyz", frames(1))
        assert refused("watr.xyz") == "watr.xyz: no such file; did you mean water.xyz?"
        assert "nor a folder" in refused("nowhere/water.xyz")
        assert "is a folder" in refused(".")

    @pytest.mark.parametrize(
        ("name", "text", "message"),
        [
            ("a.xyz", "", "empty structure: a.xyz is an empty file"),
            ("a.xyz", "\n", "empty structure: no frame"),
            ("a.xyz", "0\n\n", "a.xyz: empty structure"),
            ("a.pdb", "nothing\n", "a.pdb: empty structure"),
            ("a.xyz", "this is not\na structure\n", "a.xyz: ASE cannot read it: "),
            ("a.xyz", "3\n\nH 0 0 0\n", "a.xyz: ASE cannot read it: "),
            ("a.xyz", "1\n\nH 0 0 zero\n", "a.xyz: ASE cannot read it: "),
            ("a.xyz", "1\n\nXx 0 0 0\n", "unknown symbol or key 'Xx'"),
            ("a.xyz", "1\n\nX 0 0 0\n", "atom 0 has atomic number 0"),
            ("a.foo", "hello\n", "a.foo: not a file that ASE can read; readable are .xyz"),
            ("a.xyz", "2\n\nH 0 0 0\nH nan 0 0\n", "a.xyz: atom 1 (H) has the position [nan, 0.0, 0.0]"),
            ("a.xyz", '1\npbc="T T T"\nH 0 0 0\n', "a.xyz: periodic along a but its cell vector is zero"),
            ("a.xyz", '1\nLattice="5 0 0 0 5 0 0 0 nan"\nH 0 0 0\n', "not finite"),
        ],
    )
    def test_unusable(self, inside, name, text, message):
        (inside / name).write_text(text)
        assert message in refused(name)

    def test_bytes(self, inside):
        (inside / "a.xyz").write_bytes(bytes(range(256)))
        assert "a.xyz: ASE cannot read it" in refused("a.xyz")

    @pytest.mark.parametrize("name", ["traj.dcd", "traj.xtc", "OLD.TRR"])
    def test_trajectories_without_elements(self, inside, name):
        (inside / name).write_bytes(b"T\0\0\0CORD")
        assert re.search(r"positions and no elements.*--save velocities.*MDAnalysis\.Universe", refused(name))

    def test_a_frame_that_is_not_there(self):
        write("a.xyz", frames())
        for index in (5, -6, 99):
            assert f"a.xyz holds 5 frames; index {index} is not among them" in refused("a.xyz", index)
        assert "holds no frame at index 7:9" in refused("a.xyz", "7:9")
        assert "means 5 structures" in refused("a.xyz", ":")
        for index in ("a", "", "1:2:0", "1:2:3:4", "1.5"):
            assert f"index '{index}' given" in refused("a.xyz", index)

    def test_the_bad_one_of_many_is_named(self):
        many = frames()
        many[3].positions[0, 0] = np.nan
        write("a.xyz", many, format="extxyz")
        assert np.allclose(read_structure("a.xyz").positions, many[4].positions, atol=1e-6)
        with pytest.raises(InputError, match="a.xyz, frame 3 of 5: atom 0"):
            read_structures("a.xyz")

    def test_a_cell_that_is_only_a_placeholder(self, inside):
        line = "ATOM      1  O   HOH A   1       0.000   0.000   0.000  1.00  0.00           O\n"
        other = line.replace("0.000   0.000   0.000", "0.500   0.500   0.500")
        cell = "CRYST1    1.000    1.000    1.000  90.00  90.00  90.00 P 1           1\n"
        (inside / "a.pdb").write_text(cell + line + other)
        assert "2 atoms in a periodic cell of 1 Å^3" in refused("a.pdb")
        assert not read_structure("a.pdb", no_pbc=True).pbc.any()
        assert read_structure("a.pdb", cell="12").pbc.all()


class TestCell:
    def test_in_place_of_the_files_own(self):
        write("a.xyz", frames(1))
        write("b.xyz", molecule("H2O", cell=[3, 4, 5], pbc=[True, False, False]))
        for name in ("a.xyz", "b.xyz"):
            atoms = read_structure(name, cell="12.4")
            assert atoms.pbc.all() and np.array_equal(atoms.cell.array, np.eye(3) * 12.4)
            assert np.array_equal(atoms.positions, read_structure(name).positions)

    def test_no_pbc_rescues_a_broken_cell(self, inside):
        (inside / "a.xyz").write_text('1\npbc="T T T"\nH 0 0 0\n')
        assert not read_structure("a.xyz", no_pbc=True).pbc.any()
        assert "both given" in refused("a.xyz", cell="5", no_pbc=True)

    @pytest.mark.parametrize(
        ("given", "matrix"),
        [
            ("12.4", np.eye(3) * 12.4),
            (12, np.eye(3) * 12),
            ("10,11,12", np.diag([10, 11, 12])),
            ("10 11  12", np.diag([10, 11, 12])),
            ((10.0, 11.0, 12.0), np.diag([10, 11, 12])),
            ("10,10,10,90,90,60", [[10, 0, 0], [5, 75**0.5, 0], [0, 0, 10]]),
            ("1 2 3 4 5 6 7 8 10", [[1, 2, 3], [4, 5, 6], [7, 8, 10]]),
            (np.eye(3) * 4, np.eye(3) * 4),
        ],
    )
    def test_forms(self, given, matrix):
        assert np.allclose(parse_cell(given), matrix, atol=1e-12)

    @pytest.mark.parametrize(
        "given",
        ["", "a", "1,2", "0", "-5", "nan", "inf", "5,5,0", "5,5,5,90,90,0", "5,5,5,90,90,180"]
        + ["5,5,5,20,20,170", "1 2 3 4 5 6 7 8 9", "1 0 0 1 0 0 0 0 1", [1, 2], None],
    )
    def test_others(self, given):
        with pytest.raises(InputError, match="cell .* (given|has no volume)"):
            parse_cell(given)


def test_compressed_files(tmp_path):
    frames = [Atoms("He2", [[0, 0, 0], [0, 0, 2 + k / 10]]) for k in range(5)]
    write(tmp_path / "plain.extxyz", frames)
    packed = gzip.compress((tmp_path / "plain.extxyz").read_bytes())
    (tmp_path / "packed.extxyz.gz").write_bytes(packed)
    for index in (":", "1:4", 2, -1):
        plain = read_structures(tmp_path / "plain.extxyz", index)
        assert read_structures(tmp_path / "packed.extxyz.gz", index) == plain
    (tmp_path / "cut.extxyz.gz").write_bytes(packed[: len(packed) // 2])
    with pytest.raises(InputError, match="cut.extxyz.gz: ASE cannot read it: Compressed file ended"):
        read_structures(tmp_path / "cut.extxyz.gz")


ATOM = "HETATM{:5d} {:<4s}{:1s}{:3s} A{:4d}    {:8.3f}{:8.3f}{:8.3f}{:6.2f}  0.00          {:>2s}{:2s}\n"
WATER = (("O", 0.0, 0.0), ("H1", 0.757, 0.586), ("H2", -0.757, 0.586))


def pdb(shift: float = 0.0, element: bool = True) -> str:
    lines = [
        ATOM.format(k, f" {name}", "", "HOH", 1, x + shift, y, 0.0, 1.0, name[0] * element, "")
        for k, (name, x, y) in enumerate(WATER, 1)
    ]
    return "".join(lines)


class TestPDB:
    @pytest.mark.parametrize("end", ["END\n", "CONECT    1    2    3\nEND\n", ""])
    def test_models(self, inside, end):
        """As AlphaFold, MDAnalysis, mdtraj and OpenMM end them; ASE counts END as one more, without atoms."""
        one, two = (f"MODEL {k}\n{pdb(float(k))}ENDMDL\n" for k in (1, 2))
        (inside / "a.pdb").write_text(one + two + end)
        assert [float(atoms.positions[0, 0]) for atoms in read_structures("a.pdb")] == [1.0, 2.0]
        assert float(read_structure("a.pdb").positions[0, 0]) == 2.0
        assert float(read_structure("a.pdb", 0).positions[0, 0]) == 1.0

    def test_without_elements_names_give_them(self, inside):
        lines = [("CA", "ALA"), ("HA", "ALA"), ("CA", "CA"), ("NA", "NA"), ("CL", "CL"), ("CD", "PRO")]
        text = [
            ATOM.format(k, f" {name}", "", residue, k, 3.0 * k, 0, 0, 1, "", "")
            for k, (name, residue) in enumerate(lines)
        ]
        (inside / "a.pdb").write_text("".join(text))
        assert list(read_structure("a.pdb").symbols) == ["C", "H", "Ca", "Na", "Cl", "C"]

    def test_blank_names_shift_no_columns(self, inside):
        """Of extended XYZ, which relax and others write."""
        (inside / "a.pdb").write_text(pdb().replace("HOH A", "     "))
        write("a.xyz", read_structure("a.pdb"), format="extxyz")
        assert list(read_structure("a.xyz").symbols) == ["O", "H", "H"]

    def test_columns_of_names_tell_metals(self, inside):
        """Two letters from column 13 on, unless others begin there too. Old files number lines at the end."""
        names = ["PT  ", "PD1 ", "CO2 ", " CA ", "HB12", "NI  ", "POT ", "CES "]
        ruled = ["Pt", "Pd", "Co", "C", "H", "Ni", "K", "Cs"]
        free = ["Pt", "Pd", "C", *ruled[3:]]
        for extra, wanted in (([], ruled), (["N   "], [*free, "N"]), (["C1  "], [*free, "C"])):
            lines = names + extra
            text = [
                ATOM.format(k, "?", "", "SLB", 1, 3.0 * k, 0, 0, 1, "", "")[:12]
                + name
                + ATOM.format(k, "?", "", "SLB", 1, 3.0 * k, 0, 0, 1, "", "")[16:72].ljust(56)
                + f"1CRN {k + 199}\n"
                for k, name in enumerate(lines)
            ]
            (inside / "a.pdb").write_text("".join(text))
            assert list(read_structure("a.pdb").symbols) == wanted

    def test_formal_charges_are_never_passed_over(self, inside):
        line = ATOM.format(1, "NA", "", "NA", 1, 0, 0, 0, 1, "NA", "1+")
        (inside / "a.pdb").write_text(line)
        atoms = read_structure("a.pdb")
        with pytest.raises(InputError, match=r"formal charges in the PDB file add up to \+1.*--charge 1"):
            charge_and_spin(atoms)
        assert charge_and_spin(atoms, charge=1) == (1, 1) and charge_and_spin(atoms, charge=0) == (0, 2)
        other = ATOM.format(2, "CL", "", "CL", 2, 4, 0, 0, 1, "CL", "1-")
        (inside / "a.pdb").write_text(line + other)  # they add up to nothing, and so nothing has to be said
        assert charge_and_spin(read_structure("a.pdb")) == (0, 1)

    def test_places_of_the_same_atom(self, inside):
        extra = [ATOM.format(4, " H2", way, "HOH", 1, 0.757, 0.586, ord(way), 0.5, "H", "") for way in "AB"]
        (inside / "a.pdb").write_text(pdb() + "".join(extra))
        assert "a.pdb: atom 3 (H) is occupied in part, and 1 more" in refused("a.pdb")
        for occupancy in (0.0, 1.0):  # 0 of all atoms is what many programs write
            (inside / "a.pdb").write_text(pdb().replace("  1.00  0.00", f"  {occupancy:.2f}  0.00"))
            assert len(read_structure("a.pdb")) == 3


@pytest.mark.parametrize("column", [np.array(["full", "half", "none"]), np.full((3, 2), 0.5), np.array([1, 0, 1])])
def test_columns_that_are_no_occupancies_say_nothing(column):
    water = molecule("H2O")
    water.set_array("occupancy", column)
    water.info["occupancy"] = {"0": {}, "1": 0.5}
    check_occupancy(water)


def test_sites_of_a_crystal_that_are_occupied_in_part(inside):
    write("a.cif", bulk("NaCl", "rocksalt", 5.64))
    text = (inside / "a.cif").read_text()
    assert len(read_structure("a.cif")) == 2 and " 1.0000" in text
    (inside / "b.cif").write_text("0.5000".join(text.rsplit("1.0000", 1)))
    assert "b.cif: a site of Cl is occupied in part" in refused("b.cif")
    (inside / "c.cif").write_text("?".join(text.rsplit("1.0000", 1)))  # not known, which is to say whole
    assert len(read_structure("c.cif")) == 2


class TestGro:
    def test_ions_and_proteins(self, inside):
        lines = [("SOL", "OW"), ("SOL", "HW1"), ("NA", "NA"), ("CL", "CL"), ("ALA", "CA"), ("ALA", "HB1"), ("X", "Cu")]
        text = [
            f"{k:5d}{residue:<5s}{name:>5s}{k:5d}{0.3 * k:8.3f}{0.1:8.3f}{0.1:8.3f}{0.1:8.4f}{0:8.4f}{0:8.4f}\n"
            for k, (residue, name) in enumerate(lines, 1)
        ]
        (inside / "a.gro").write_text(f"salt\n{len(lines)}\n{''.join(text)}   3.0   3.0   3.0\n")
        found = read_structure("a.gro")
        assert list(found.symbols) == ["O", "H", "Na", "Cl", "C", "H", "Cu"]
        assert np.ptp(found.get_velocities()[:, 0]) < 1e-12 < found.get_velocities()[0, 0]
        assert list(read("a.gro").symbols[2:4]) == ["N", "C"], "the wrong variant"

    def test_a_protein(self, inside):
        atoms = read(ROOT / "analysis" / "structures" / "alanine_dipeptide.pdb")
        atoms.set_cell([30, 30, 30])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            universe = MDAnalysis.Universe(str(ROOT / "analysis" / "structures" / "alanine_dipeptide.pdb"))
            universe.dimensions = [30, 30, 30, 90, 90, 90]
            universe.atoms.write("a.gro")
        assert list(read_structure("a.gro").symbols) == list(atoms.symbols)

    def test_virtual_sites(self, inside):
        (inside / "a.gro").write_text(f"m\n1\n    1SOL     MW    1{0.1:8.3f}{0.1:8.3f}{0.1:8.3f}\n   2.0   2.0   2.0\n")
        assert "a.gro: atom 0 (MW of SOL) is no element" in refused("a.gro")


V2000 = """hydroxide


  2  1  0  0  0  0  0  0  0  0999 V2000
    0.0000    0.0000    0.0000 O   0{code:3d}  0
    0.0000    0.0000    0.9700 H   0  0  0
  1  2  1  0
{properties}M  END
"""
V3000 = """


  0  0  0  0  0  0  0  0  0  0999 V3000
M  V30 BEGIN CTAB
M  V30 COUNTS 2 1 0 0 0
M  V30 BEGIN ATOM
M  V30 1 O 0.0 0.0 0.0 0 -
M  V30 CHG=-1
M  V30 2 H 0.0 0.0 0.97 0
M  V30 END ATOM
M  V30 END CTAB
M  END
"""


class TestSDF:
    @pytest.mark.parametrize("name", ["a.sdf", "a.mol"])
    @pytest.mark.parametrize(
        ("text", "charge"),
        [
            (V2000.format(code=0, properties=""), None),
            (V2000.format(code=5, properties=""), -1),
            (V2000.format(code=5, properties="M  CHG  2   1  -2   2   1\n"), -1),
            (V2000.format(code=5, properties="M  CHG  1   1  -2\n"), -2),  # property lines count alone
            (V2000.format(code=5, properties="M  RAD  1   1   2\n"), None),
            (V3000, -1),
        ],
    )
    def test_charges(self, inside, name, text, charge):
        (inside / name).write_text(text)
        atoms = read_structure(name)
        assert list(atoms.symbols) == ["O", "H"] and atoms.positions[1].tolist() == [0, 0, 0.97]
        assert atoms.info.get("charge") == charge

    def test_every_record_is_a_structure(self, inside):
        data = ">  <name>\nx\n\n$$$$\n"
        (inside / "a.sdf").write_text(data.join([V2000.format(code=0, properties=""), V3000, ""]))
        assert [atoms.info.get("charge") for atoms in read_structures("a.sdf")] == [None, -1]
        if ioformats["sdf"].can_write:  # ASE before 3.28 reads it only
            write("b.sdf", molecule("CH3OH"))
            assert np.allclose(read_structure("b.sdf").positions, molecule("CH3OH").positions, atol=1e-4)

    @pytest.mark.parametrize("text", ["\n\n\nrubbish\n", V2000[:90], V3000.replace("BEGIN ATOM", "")])
    def test_what_is_none(self, inside, text):
        (inside / "a.sdf").write_text(V3000 + "$$$$\n" + text)
        assert "a.sdf: record 1 of 2 cannot be read" in refused("a.sdf")


def test_formats_that_only_look_like_others(inside):
    (inside / "a.cif").write_text("data_x\nloop_\n_atom_site.id\n_atom_site.type_symbol\n1 O\n")
    assert "read as ASE's format cif; if it is of another one (mmCIF" in refused("a.cif")
