"""Structures from files, and one clear line for everything that is not one."""

import gzip

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.io import write

from omnicalc.errors import InputError
from omnicalc.structure_file import parse_cell, read_structure, read_structures


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
