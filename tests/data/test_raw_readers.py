"""Readers of raw QM9, Matbench and LBA files, on tiny files in those formats, and the splits made of them."""

import gzip
import json
import tarfile

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk, molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read, write

from omnicalc.data.lba import read_lba
from omnicalc.data.matbench import read_matbench
from omnicalc.data.protocols import random_split
from omnicalc.data.qm9 import read_qm9
from omnicalc.errors import InputError
from tests.command import omnicalc

METHANE = """5
gdb 1\t157.7118\t157.70997\t157.70699\t0.\t13.21\t-0.3877\t0.1171\t0.5048\t35.3641\t0.044749\t-40.47893\t-40.476062\t\
-40.475117\t-40.498597\t6.469\t
C\t-0.0126981359\t 1.0858041578\t 0.0080009958\t-0.535689
H\t 0.002150416\t-0.0060313176\t 0.0019761204\t 0.133921
H\t 1.0117308433\t 1.4637511618\t 2.7657481*^-4\t 0.133922
H\t-0.540815069\t 1.4475266138\t-0.8766437152\t 0.133923
H\t-0.5238136345\t 1.4379326443\t 0.9063972942\t 0.133923
1341.307\t1341.3284\t1341.365
C\tC\t
InChI=1S/CH4/h1H4\tInChI=1S/CH4/h1H4
"""


@pytest.fixture
def qm9(tmp_path):
    folder = tmp_path / "raw"
    folder.mkdir()
    for k in range(1, 9):
        text = METHANE.replace("gdb 1\t", f"gdb {k}\t").replace("-0.3877", f"-0.38{k:02d}")
        text = text.replace("1.0858041578", f"1.08{k:02d}041578")
        (folder / f"dsgdb9nsd_{k:06d}.xyz").write_text(text)
    return folder


def test_qm9(qm9, tmp_path):
    frames = list(read_qm9(qm9))
    assert [a.info["qm9_index"] for a in frames] == list(range(1, 9))
    first = frames[0]
    assert first.get_chemical_formula() == "CH4" and first.info["smiles"] == "C"
    assert first.positions[2, 2] == pytest.approx(2.7657481e-4)
    assert first.info["homo"] == pytest.approx(-0.3801 * units.Hartree)
    assert first.info["u0"] == pytest.approx(-40.47893 * units.Hartree)
    assert first.info["alpha"] == pytest.approx(13.21 * units.Bohr**3)
    assert first.info["cv"] == 6.469
    assert first.arrays["mulliken"][0] == -0.535689
    with tarfile.open(tmp_path / "dsgdb9nsd.xyz.tar.bz2", "w:bz2") as tar:
        tar.add(qm9, arcname=".")
    listed = "Uncharacterized\n\n  21 C1CC1\n   3  C  1.2\n   8  CC  9\n\n2 compounds"
    (tmp_path / "uncharacterized.txt").write_text(listed)
    from_tar = list(read_qm9(tmp_path / "dsgdb9nsd.xyz.tar.bz2", exclude=tmp_path / "uncharacterized.txt"))
    assert [a.info["qm9_index"] for a in from_tar] == [1, 2, 4, 5, 6, 7]


def test_qm9_files_that_are_none(qm9, tmp_path):
    with pytest.raises(InputError, match="no .xyz files"):
        list(read_qm9(_empty(tmp_path)))
    write(qm9 / "dsgdb9nsd_000001.xyz", molecule("H2O"), format="xyz")
    with pytest.raises(InputError, match="dsgdb9nsd_000001.xyz: not a molecule of QM9"):
        list(read_qm9(qm9))
    (tmp_path / "x.tar").write_text("no")
    with pytest.raises(InputError, match="not a tar file"):
        list(read_qm9(tmp_path / "x.tar"))


def _empty(tmp_path):
    folder = tmp_path / "empty"
    folder.mkdir()
    return folder


def pymatgen_dict(atoms: Atoms) -> dict:
    scaled = atoms.get_scaled_positions()
    sites = [
        {"species": [{"element": a.symbol, "occu": 1}], "abc": list(s), "xyz": list(a.position), "label": a.symbol}
        for a, s in zip(atoms, scaled, strict=True)
    ]
    return {"@module": "pymatgen.core.structure", "lattice": {"matrix": atoms.cell.tolist()}, "sites": sites}


@pytest.fixture
def matbench(tmp_path):
    crystals = [bulk("NaCl", "rocksalt", a=5.6 + 0.01 * k) for k in range(12)]
    data = [[pymatgen_dict(a), 0.1 * k] for k, a in enumerate(crystals)]
    index = [f"mb-gap-{k:05d}" for k in range(12)]
    file = tmp_path / "matbench_mp_gap.json.gz"
    with gzip.open(file, "wt") as out:
        json.dump({"index": index, "columns": ["structure", "gap pbe"], "data": data}, out)
    return file, crystals


def test_matbench(matbench, tmp_path):
    file, crystals = matbench
    frames = list(read_matbench(file))
    assert [a.info["gap_pbe"] for a in frames] == pytest.approx([0.1 * k for k in range(12)])
    for mine, theirs in zip(frames, crystals, strict=True):
        assert (mine.numbers == theirs.numbers).all() and mine.pbc.all()
        assert np.abs(mine.positions - theirs.positions).max() < 1e-12
        assert np.abs(mine.cell.array - theirs.cell.array).max() < 1e-12
    table = json.loads(gzip.decompress(file.read_bytes()))
    table["data"][3][0]["sites"][0]["species"] = [{"element": "Na", "occu": 0.5}, {"element": "K", "occu": 0.5}]
    other = tmp_path / "mixed.json"
    other.write_text(json.dumps(table))
    with pytest.raises(InputError, match="mb-gap-00003: site 0 is shared"):
        list(read_matbench(other))
    other.write_text(json.dumps({"index": [0], "columns": ["composition", "gap"], "data": [["NaCl", 1]]}))
    with pytest.raises(InputError, match="columns composition, gap"):
        list(read_matbench(other))


@pytest.fixture
def lba(tmp_path):
    lmdb = pytest.importorskip("lmdb")
    columns = ["chain", "residue", "insertion_code", "x", "y", "z", "element"]
    pocket = [["A", k // 3, " ", float(k), 0.0, 0.5, "CNO"[k % 3]] for k in range(12)]
    ligand = [["L", 1, " ", 3.0, float(k), 2.0, ["CL", "C", "H"][k]] for k in range(3)]
    item = {
        "id": "1abc",
        "atoms_pocket": {"columns": columns, "index": list(range(12)), "data": pocket},
        "atoms_ligand": {"columns": columns, "index": [0, 1, 2], "data": ligand},
        "scores": {"neglog_aff": 6.4},
    }
    folder = tmp_path / "lba"
    with lmdb.open(str(folder)) as env, env.begin(write=True) as txn:
        for k in range(3):
            ligand[0][3] = 3.0 + 0.1 * k
            content = json.dumps({**item, "id": f"{k}abc", "scores": {"neglog_aff": 6.4 + k}}).encode()
            txn.put(str(k).encode(), gzip.compress(content))
        txn.put(b"num_examples", b"3")
        txn.put(b"serialization_format", b"json")
    return folder


def test_lba(lba):
    frames = list(read_lba(lba))
    assert [a.info["neglog_aff"] for a in frames] == pytest.approx([6.4, 7.4, 8.4])
    first = frames[0]
    assert first.symbols[-3:].get_chemical_formula() == "CHCl" and first.arrays["ligand"].sum() == 3
    assert first.arrays["residue"].tolist() == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3 + [-1] * 3
    import lmdb

    with lmdb.open(str(lba)) as env, env.begin(write=True) as txn:
        txn.put(b"0", gzip.compress(b'{"id": "0abc", "atoms_protein": {}}'))
    with pytest.raises(InputError, match="complex 0abc has no 'atoms_pocket'"):
        list(read_lba(lba))
    with pytest.raises(InputError, match="no such file"):
        list(read_lba(lba / "nothing"))


def test_copies_that_are_damaged(qm9, matbench, lba, tmp_path):
    (qm9 / "dsgdb9nsd_000001.xyz").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="000001.xyz: not a molecule of QM9 .it is no text"):
        list(read_qm9(qm9))
    with tarfile.open(tmp_path / "empty.tar", "w"):
        pass
    with pytest.raises(InputError, match="no .xyz files in this tar"):
        list(read_qm9(tmp_path / "empty.tar"))
    table, other = json.loads(gzip.decompress(matbench[0].read_bytes())), tmp_path / "other.json"
    table["data"][2][1] = None
    other.write_text(json.dumps(table))
    with pytest.raises(InputError, match="mb-gap-00002: its target is None"):
        list(read_matbench(other))
    table["data"][1][0]["sites"][0]["species"][0]["element"] = "Xq"
    other.write_text(json.dumps(table))
    with pytest.raises(InputError, match="mb-gap-00001: unknown element Xq"):
        list(read_matbench(other))
    lmdb = pytest.importorskip("lmdb")
    with lmdb.open(str(lba)) as env, env.begin(write=True) as txn:
        txn.put(b"1", b"cut off")
        txn.delete(b"2")
    with pytest.raises(InputError, match="item 1 is no gzipped JSON"):
        list(read_lba(lba))
    with lmdb.open(str(lba)) as env, env.begin(write=True) as txn:
        txn.put(b"1", txn.get(b"0"))
    with pytest.raises(InputError, match="item 2 of 3 is missing"):
        list(read_lba(lba))


def broken(value, *path):
    """A change of a nested value, applied to what JSON gave."""

    def apply(table):
        for key in path[:-1]:
            table = table[key]
        table[path[-1]] = value

    return apply


SITE = ("data", 1, 0, "sites", 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (broken([{"occu": 1}], *SITE, "species"), "KeyError: 'element'"),
        (broken(["Na"], *SITE, "species"), "AttributeError"),
        (broken([0.0, 0.0], *SITE, "xyz"), "as pymatgen writes them"),
        (broken([0.0, 0.0, float("nan")], *SITE, "xyz"), "finite positions"),
        (broken(float("nan"), "data", 1, 1), "its target is nan"),
        (broken([1.0], "data", 1), "a structure and one target"),
        (broken([], "data", 1, 0, "sites"), "finite positions"),
    ],
    ids=["element", "species", "flat", "nan", "target", "short", "empty"],
)
def test_odd_rows_of_matbench_are_named(matbench, tmp_path, change, message):
    table, other = json.loads(gzip.decompress(matbench[0].read_bytes())), tmp_path / "other.json"
    change(table)
    other.write_text(json.dumps(table))
    with pytest.raises(InputError, match=f"mb-gap-00001: .*{message}"):
        list(read_matbench(other))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (broken(["A", 1], "atoms_pocket", "data", 0), "no item of ATOM3D's LBA task"),
        (broken([], "atoms_pocket"), "no item of ATOM3D's LBA task"),
        (broken([], "atoms_ligand", "data"), "atoms at finite positions"),
        (broken(float("nan"), "atoms_pocket", "data", 0, 3), "atoms at finite positions"),
        (broken("high", "scores", "neglog_aff"), "its neglog_aff is 'high'; a finite number"),
        (broken(None, "scores", "neglog_aff"), "its neglog_aff is None; a finite number"),
    ],
    ids=["short", "list", "empty", "nan", "text", "null"],
)
def test_odd_items_of_lba_are_named(lba, change, message):
    _change_item(lba, change)
    with pytest.raises(InputError, match=f"complex 1abc.*{message}"):
        list(read_lba(lba))


def test_an_item_of_lba_that_is_a_list_is_named(lba):
    _change_item(lba, lambda item: None, whole=[1, 2])
    with pytest.raises(InputError, match="complex of item 1 is no item of ATOM3D's LBA task"):
        list(read_lba(lba))


def _change_item(folder, change, whole=None):
    import lmdb

    with lmdb.open(str(folder)) as env, env.begin(write=True) as txn:
        item = json.loads(gzip.decompress(txn.get(b"1")))
        change(item)
        txn.put(b"1", gzip.compress(json.dumps(whole or item).encode()))


def test_molecules_to_leave_out_are_those_of_qm9(matbench, tmp_path):
    with pytest.raises(InputError, match="lists molecules of QM9, but .* is read as matbench; leave --exclude out"):
        omnicalc("data", "split", matbench[0], "--out", tmp_path / "a.extxyz", "--exclude", tmp_path / "unc.txt")


def test_split_command_reads_md17_s_files(tmp_path):
    rng = np.random.default_rng(0)
    arrays = {"R": rng.normal(size=(6, 3, 3)), "z": np.array([8, 1, 1]), "F": rng.normal(size=(6, 3, 3))}
    np.savez(tmp_path / "water.npz", **arrays, E=np.arange(6.0)[:, None])
    out = tmp_path / "split.extxyz"
    said = omnicalc("data", "split", tmp_path / "water.npz", "--out", out, "--train", 3, "--valid", 1)
    assert "energies and forces; 3 train, 1 valid, 2 test" in said
    for k, atoms in enumerate(read(out, ":")):
        assert atoms.get_potential_energy() == pytest.approx(k * units.kcal / units.mol)
        assert np.abs(atoms.get_forces() - arrays["F"][k] * units.kcal / units.mol).max() < 1e-7


def test_splits_are_disjoint_and_repeatable():
    first = random_split(1000, train=700, valid=50, seed=3)
    assert first == random_split(1000, train=700, valid=50, seed=3) != random_split(1000, train=700, valid=50, seed=4)
    assert [first.count(name) for name in ("train", "valid", "test")] == [700, 50, 250]
    order = np.random.default_rng(3).permutation(1000)
    assert all(first[k] == "train" for k in order[:700])
    with pytest.raises(InputError, match="8 structures to train on and 3 to validate on are more than the 10"):
        random_split(10, train=8, valid=3)


def test_a_small_test_set_is_drawn_from_all_the_file(qm9, tmp_path):
    """Raw files have an order: by size, by time."""
    kept = {}
    for k, words in enumerate(([], ["--test", 2], ["--test", 0])):
        out = tmp_path / f"{k}.extxyz"
        omnicalc("data", "split", qm9, "--property", "homo", "--train", 2, "--valid", 1, "--out", out, *words)
        kept[k] = [(a.info["split"], a.info["qm9_index"]) for a in read(out, ":")]
    order = 1 + np.random.default_rng(0).permutation(8)
    everything = [("train", k) for k in order[:2]] + [("valid", order[2])] + [("test", k) for k in order[3:]]
    by_index = [sorted(part, key=lambda row: row[1]) for part in (everything, everything[:5], everything[:3])]
    assert [kept[k] for k in range(3)] == by_index
    first = sorted(k for split, k in everything if split == "test")[:2]
    assert first != [k for split, k in by_index[1] if split == "test"]  # else the first of the file would do as well


def test_copies_of_a_geometry_go_to_one_part(tmp_path):
    """Or training would refuse the file; parts are counted in geometries."""
    frames = []
    for k in range(40):
        atoms = molecule("H2O")
        atoms.positions *= 1 + 0.01 * (k // 2)
        atoms.positions += k % 2  # a copy may stand elsewhere
        atoms.calc = SinglePointCalculator(atoms, energy=-1.0 - k % 2)
        frames.append(atoms)
    write(tmp_path / "md.extxyz", frames)
    out = tmp_path / "split.extxyz"
    said = omnicalc("data", "split", tmp_path / "md.extxyz", "--out", out, "--train", 10, "--valid", 5)
    assert "20 train, 10 valid, 10 test" in said
    splits = [a.info["split"] for a in read(out, ":")]
    assert splits[::2] == splits[1::2]
    with pytest.raises(InputError, match="15 structures to train on and 6 to validate on are more than the 20"):
        other = tmp_path / "other.extxyz"
        omnicalc("data", "split", tmp_path / "md.extxyz", "--out", other, "--train", 15, "--valid", 6)


def test_split_command_writes_properties_for_training(qm9, matbench, lba, tmp_path):
    for source, words, key in ((qm9, ["--property", "homo"], "homo"), (matbench[0], [], "gap_pbe"), (lba, [], None)):
        out = tmp_path / f"{source.name}.extxyz.gz"
        train = 1 if source == lba else 5
        said = omnicalc("data", "split", source, "--out", out, "--train", train, "--valid", 1, *words)
        frames = read(out, ":")
        assert {a.info["split"] for a in frames} == {"train", "valid", "test"}
        assert [a.get_potential_energy() for a in frames] == pytest.approx(
            [a.info[key or "neglog_aff"] for a in frames]
        )
        assert f"{train} train" in said
    with pytest.raises(InputError, match="is there already; give another file with --out"):
        omnicalc("data", "split", qm9, "--out", out)
    with pytest.raises(InputError, match="no finite number under 'colour'"):
        other = tmp_path / "x.extxyz"
        omnicalc("data", "split", qm9, "--out", other, "--property", "colour", "--train", 5, "--valid", 1)


def test_split_command_keeps_energies_and_forces(tmp_path):
    frames = []
    for k in range(6):
        atoms = molecule("H2O")
        atoms.positions *= 1 + 0.01 * k
        atoms.calc = SinglePointCalculator(atoms, energy=-1.0 * k, forces=np.full((3, 3), 0.1 * k))
        frames.append(atoms)
    write(tmp_path / "md.extxyz", frames)
    out = tmp_path / "split.extxyz"
    omnicalc("data", "split", tmp_path / "md.extxyz", "--out", out, "--train", 3, "--valid", 1, "--test", 1)
    made = read(out, ":")
    assert len(made) == 5 and {a.info["split"] for a in made} == {"train", "valid", "test"}
    for atoms in made:
        assert np.abs(atoms.get_forces() + 0.1 * atoms.get_potential_energy()).max() < 1e-8
    write(tmp_path / "bare.extxyz", [molecule("H2O")] * 3)
    with pytest.raises(InputError, match="--property"):
        omnicalc("data", "split", tmp_path / "bare.extxyz", "--out", tmp_path / "y.extxyz", "--train", 1, "--valid", 1)
