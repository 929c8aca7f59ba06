"""Readers of labelled files against files written by others' code (ASE) or by hand in the published layouts."""

import gzip
import json
import zlib

import numpy as np
import pytest
from ase import Atoms, units
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write
from ase.io.jsonio import encode

from omnicalc.data.readers import open_frames
from omnicalc.data.readers.spice import smiles_charge
from omnicalc.data.subset import write_frames
from omnicalc.errors import InputError


def frames(count=5):
    rng = np.random.default_rng(0)
    made = []
    for k in range(count):
        atoms = Atoms("OHH" if k % 2 else "CO", rng.normal(size=(3 if k % 2 else 2, 3)), info={"molecule": f"m{k}"})
        if k == 3:
            atoms.set_cell(np.diag([8.0, 9.0, 10.0]))
            atoms.pbc = True
        forces = rng.normal(size=(len(atoms), 3))
        atoms.calc = SinglePointCalculator(atoms, energy=-10.0 - k, forces=forces)
        made.append(atoms)
    return made


def same(found, expected):
    assert np.array_equal(found.numbers, expected.numbers)
    np.testing.assert_allclose(found.positions, expected.positions, atol=1e-7)
    np.testing.assert_allclose(found.cell.array, expected.cell.array, atol=1e-7)
    assert found.get_potential_energy() == pytest.approx(expected.get_potential_energy(), abs=1e-7)
    np.testing.assert_allclose(found.get_forces(), expected.get_forces(), atol=1e-7)


@pytest.mark.parametrize("name", ["a.extxyz", "a.xyz", "a.extxyz.gz"])
def test_extended_xyz_in_any_order(tmp_path, name):
    made = frames()
    write(tmp_path / name, made, format="extxyz")
    found = open_frames(tmp_path / name)
    assert len(found) == 5
    for k in (3, 0, 4, 1, 2, -1):
        same(found[k], made[k])
        assert found[k].info["molecule"] == made[k].info["molecule"]
    with pytest.raises(IndexError):
        found[5]


def test_damaged_extended_xyz_is_named(tmp_path):
    write(tmp_path / "a.extxyz", frames())
    text = (tmp_path / "a.extxyz").read_text()
    (tmp_path / "cut.extxyz").write_text(text[: text.rindex("\n", 0, len(text) - 2)])
    with pytest.raises(InputError, match="cut.extxyz, frame 4: the file ends inside it"):
        open_frames(tmp_path / "cut.extxyz")
    (tmp_path / "no.extxyz").write_text("three atoms\n" + text)
    with pytest.raises(InputError, match="no.extxyz, frame 0: its first line is b'three atoms"):
        open_frames(tmp_path / "no.extxyz")
    lines = text.splitlines()
    lines[2] = "C 0.1 nonsense"
    (tmp_path / "bad.extxyz").write_text("\n".join(lines) + "\n")
    with pytest.raises(InputError, match="bad.extxyz, frame 0: not extended XYZ"):
        open_frames(tmp_path / "bad.extxyz")[0]
    (tmp_path / "cut.extxyz.gz").write_bytes(gzip.compress(text.encode())[:-20])
    with pytest.raises(InputError, match="damaged gzip"):
        open_frames(tmp_path / "cut.extxyz.gz")
    (tmp_path / "empty.xyz").write_text("")
    with pytest.raises(InputError, match="empty"):
        open_frames(tmp_path / "empty.xyz")
    with pytest.raises(InputError, match="no such file"):
        open_frames(tmp_path / "nothing.xyz")


def test_ase_lmdb(tmp_path):
    lmdb = pytest.importorskip("lmdb")
    made = frames()
    with lmdb.open(str(tmp_path / "a.aselmdb"), subdir=False, map_size=1 << 24) as env, env.begin(write=True) as out:
        for k, atoms in enumerate(made, start=1):
            row = {
                "numbers": atoms.numbers, "positions": atoms.positions, "cell": np.asarray(atoms.cell),
                "pbc": atoms.pbc, "energy": atoms.get_potential_energy(), "forces": atoms.get_forces(),
                "key_value_pairs": {}, "data": {"charge": k - 3, "spin": 1, "source": "x"},
            }  # fmt: skip
            out.put(str(k).encode(), zlib.compress(encode(row).encode()))
        out.put(b"nextid", zlib.compress(json.dumps(6).encode()))
        out.put(b"deleted_ids", zlib.compress(json.dumps([]).encode()))
    found = open_frames(tmp_path / "a.aselmdb")
    assert len(found) == 5
    for k in (4, 0, 3):
        same(found[k], made[k])
        assert (found[k].info["charge"], found[k].info["spin"]) == (k - 2, 1)
    (tmp_path / "no.aselmdb").write_bytes(b"text")
    with pytest.raises(InputError, match="not an LMDB file"):
        open_frames(tmp_path / "no.aselmdb")
    with lmdb.open(str(tmp_path / "list.aselmdb"), subdir=False) as env, env.begin(write=True) as out:
        out.put(b"1", zlib.compress(b"[1, 2]"))
    with pytest.raises(InputError, match="row 1: not a row of ASE-LMDB"):
        list(open_frames(tmp_path / "list.aselmdb"))


def test_written_ase_lmdb_is_read_again(tmp_path):
    pytest.importorskip("lmdb")
    file, made = tmp_path / "b.aselmdb", frames()
    for k, atoms in enumerate(made):
        atoms.info |= {"charge": k - 2, "spin": np.int64(2), "level_of_theory": "pbe/def2-svp", "seconds": 0.5}
    made.append(Atoms("H", cell=[3, 4, 5], pbc=[True, False, True]))  # without labels
    write_frames(file, made)
    found = open_frames(file)
    assert len(found) == 6 and [p.name for p in tmp_path.iterdir()] == [file.name]
    for k in (4, 0, 3):
        same(found[k], made[k])
        assert found[k].info == made[k].info
    assert found[5].calc is None and found[5] == made[5]  # numbers, positions, cell and periodic axes
    wrong = made[0].copy()
    wrong.positions[0] += 1e-6
    assert not np.array_equal(found[0].positions, wrong.positions)  # every digit is kept


def test_columns_of_ase_lmdb(tmp_path):
    """The charge that initial charges say, in both places where readers look; columns without a place are refused."""
    pytest.importorskip("lmdb")
    ammonium = Atoms("NH4", np.eye(5, 3))
    ammonium.set_initial_charges([1, 0, 0, 0, 0])
    ammonium.set_tags([1, 2, 2, 2, 2])
    write_frames(tmp_path / "a.aselmdb", [ammonium, *frames()])
    found = open_frames(tmp_path / "a.aselmdb")
    assert found[0].info["charge"] == 1 and found[0] == ammonium and found[0].get_tags().tolist() == [1, 2, 2, 2, 2]
    assert "charge" not in found[1].info
    ammonium.arrays["residue"] = np.arange(5)
    with pytest.raises(InputError, match="per-atom columns residue, for which ASE-LMDB has no place"):
        write_frames(tmp_path / "b.aselmdb", [ammonium])
    assert not (tmp_path / "b.aselmdb").exists()


def test_others_read_what_is_written(tmp_path):
    """By the package that OMol25's loaders use."""
    pytest.importorskip("ase_db_backends")
    from ase.db import connect

    made = frames()
    made[1].info["charge"] = 1
    write_frames(tmp_path / "b.aselmdb", made)
    with connect(tmp_path / "b.aselmdb", readonly=True) as database:
        rows = list(database.select())
        assert len(rows) == len(made) and rows[1].data["charge"] == 1
        for row, atoms in zip(rows, made, strict=True):
            same(row.toatoms(), atoms)


@pytest.mark.parametrize("name", ["a.db", "a.json"])
def test_what_rows_of_ase_s_databases_know(tmp_path, name):
    from ase.db import connect

    with connect(tmp_path / name) as database:
        for k, atoms in enumerate(frames()):
            database.write(atoms, split="valid" if k == 1 else "train", data={"charge": k - 1, "ids": [1, 2]})
    found = open_frames(tmp_path / name)
    for atoms, expected in zip(found, frames(), strict=True):
        same(atoms, expected)
    assert [a.info for a in found[:2]] == [{"split": "train", "charge": -1}, {"split": "valid", "charge": 0}]


def test_spice(tmp_path):
    h5py = pytest.importorskip("h5py")
    rng = np.random.default_rng(0)
    with h5py.File(tmp_path / "s.hdf5", "w") as file:
        for name, numbers, smiles, count in (
            ("water", [8, 1, 1], "[O:1]([H:2])[H:3]", 2), ("ammonium", [7, 1, 1, 1, 1], "[N+:1]([H])([H])([H])[H]", 3)
        ):  # fmt: skip
            group = file.create_group(name)
            group["atomic_numbers"] = np.array(numbers, dtype=np.int16)
            group["conformations"] = rng.normal(size=(count, len(numbers), 3))
            group["dft_total_energy"] = -rng.random(count)
            group["dft_total_gradient"] = rng.normal(size=(count, len(numbers), 3))
            group["smiles"] = [smiles]
            group["subset"] = ["a subset"]
        group = file["ammonium"]
        positions, energy = group["conformations"][2] * units.Bohr, group["dft_total_energy"][2] * units.Hartree
        forces = -group["dft_total_gradient"][2] * units.Hartree / units.Bohr
    found = open_frames(tmp_path / "s.hdf5")
    assert len(found) == 5
    order = [found[k].info["molecule"] for k in range(5)]
    assert sorted(order) == ["ammonium"] * 3 + ["water"] * 2
    atoms = found[order.index("ammonium") + 2]
    np.testing.assert_allclose(atoms.positions, positions)
    np.testing.assert_allclose(atoms.get_forces(), forces)
    assert atoms.get_potential_energy() == pytest.approx(energy)
    assert (atoms.info["charge"], atoms.info["config_type"]) == (1, "a subset")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file.create_group("x")["positions"] = [1.0]
    with pytest.raises(InputError, match="molecule 'x' lacks atomic_numbers"):
        open_frames(tmp_path / "other.h5")
    with h5py.File(tmp_path / "short.h5", "w") as file:
        group = file.create_group("water")
        group["atomic_numbers"], group["conformations"] = [8, 1, 1], rng.normal(size=(2, 3, 3))
        group["dft_total_energy"], group["dft_total_gradient"] = [-1.0], rng.normal(size=(2, 3, 3))
    with pytest.raises(InputError, match=r"molecule 'water' has dft_total_energy of shape \(1,\); \(2,\) is needed"):
        open_frames(tmp_path / "short.h5")


def test_formal_charges():
    assert smiles_charge("[O-:1][P:2](=[O:3])([O-:4])OC") == -2
    assert smiles_charge("[Mg+2]") == 2 and smiles_charge("[Fe++].[Cl-]") == 1
    assert smiles_charge("C[C@H](N)C(=O)O") == 0


@pytest.mark.parametrize("names", [("z", "R", "E", "F"), ("nuclear_charges", "coords", "energies", "forces")])
def test_md17(tmp_path, names):
    rng = np.random.default_rng(0)
    values = np.array([8, 1, 1]), rng.normal(size=(4, 3, 3)), rng.normal(size=(4, 1)), rng.normal(size=(4, 3, 3))
    np.savez(tmp_path / "water.npz", **dict(zip(names, values, strict=True)))
    found = open_frames(tmp_path / "water.npz")
    kcal = units.kcal / units.mol
    assert len(found) == 4 and found[2].info["molecule"] == "water"
    assert found[2].get_potential_energy() == pytest.approx(values[2][2, 0] * kcal)
    np.testing.assert_allclose(found[2].get_forces(), values[3][2] * kcal)
    np.savez(tmp_path / "ev.npz", **dict(zip(names, values, strict=True)), e_unit="eV")
    assert open_frames(tmp_path / "ev.npz")[0].get_potential_energy() == pytest.approx(values[2][0, 0])
    np.savez(tmp_path / "bohr.npz", **dict(zip(names, values, strict=True)), e_unit="hartree", r_unit=b" a0")
    atoms = open_frames(tmp_path / "bohr.npz")[2]
    np.testing.assert_allclose(atoms.positions, values[1][2] * units.Bohr)
    np.testing.assert_allclose(atoms.get_forces(), values[3][2] * units.Hartree / units.Bohr)
    for key in ("e_unit", "r_unit"):
        np.savez(tmp_path / "unit.npz", **dict(zip(names, values, strict=True)), **{key: "furlong"})
        with pytest.raises(InputError, match=f"{key} is 'furlong'; known are"):
            open_frames(tmp_path / "unit.npz")
    np.savez(tmp_path / "half.npz", **dict(zip(names, (values[0] + 0.5, *values[1:]), strict=True)))
    with pytest.raises(InputError, match="atomic numbers of type float64"):
        open_frames(tmp_path / "half.npz")
    np.savez(tmp_path / "no.npz", a=1)
    with pytest.raises(InputError, match="no.npz: arrays a found"):
        open_frames(tmp_path / "no.npz")
    (tmp_path / "text.npz").write_text("text")
    with pytest.raises(InputError, match="not an npz file"):
        open_frames(tmp_path / "text.npz")


def test_crystals_of_sgdml_are_periodic(tmp_path):
    rng = np.random.default_rng(0)
    arrays = {"z": [8, 1, 1], "R": rng.normal(size=(4, 3, 3)), "E": rng.normal(size=4), "F": rng.normal(size=(4, 3, 3))}
    cell = np.diag([15.0, 16.0, 17.0])
    np.savez(tmp_path / "box.npz", **arrays, lattice=cell, r_unit="Bohr")
    atoms = open_frames(tmp_path / "box.npz")[1]
    assert atoms.pbc.all()
    np.testing.assert_allclose(atoms.cell.array, cell * units.Bohr)
    cell[0, 1] = 1.0
    np.savez(tmp_path / "box.npz", **arrays, lattice=cell)
    with pytest.raises(InputError, match="a symmetric 3 x 3 matrix"):
        open_frames(tmp_path / "box.npz")
