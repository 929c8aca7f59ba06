"""omnicalc label: resumable, idempotent, honest about failures; and what it refuses."""

import json

import numpy as np
import pytest
from ase.build import molecule
from ase.io import extxyz, read, write

from omnicalc.data.labels.electrons import charge_and_unpaired
from omnicalc.data.labels.key import label_key
from omnicalc.data.labels.method import parse_method
from omnicalc.data.labels.run import label_all, read_inputs
from omnicalc.data.labels.store import Store
from omnicalc.data.parallel import runner
from omnicalc.errors import InputError, RunError
from tests.command import omnicalc

pytest.importorskip("tblite", exc_type=ImportError)
GFN2 = parse_method("gfn2-xtb")


@pytest.fixture
def waters(tmp_path):
    """Four different waters and a copy of the first."""
    frames = []
    for seed in range(4):
        atoms = molecule("H2O")
        atoms.rattle(0.03, seed=seed)
        atoms.info["molecule"] = f"water-{seed}"
        frames.append(atoms)
    write(tmp_path / "waters.xyz", [*frames, frames[0]], format="extxyz")
    return tmp_path / "waters.xyz"


def run(path, out, progress=lambda *words: None, **options):
    with runner(1) as run_all:
        return label_all(read_inputs([path]), GFN2, out, run_all, progress, **options)


def test_entries(waters, tmp_path):
    out = tmp_path / "out.extxyz"
    said = omnicalc("label", waters, "--method", "gfn2-xtb", "--out", out)
    assert "4 entries new, 0 were there" in said  # the copy is labelled once
    frames = read(out, ":")
    assert [a.info["molecule"] for a in frames] == [f"water-{k}" for k in range(4)]
    for atoms in frames:
        info = atoms.info
        assert info["level_of_theory"] == "gfn2-xtb" and info["program"].startswith("tblite ")
        assert info["charge"] == 0 and info["spin"] == 1 and info["seconds"] > 0 and info["cpu_seconds"] >= 0
        assert str(info["key"]) == label_key(atoms, "gfn2-xtb")  # the same after a round trip through the file
        assert np.isfinite(atoms.get_forces()).all() and atoms.get_potential_energy() < -100


def test_again_is_nothing_new(waters, tmp_path):
    out = tmp_path / "out.extxyz"
    run(waters, out)
    before = out.read_bytes()
    summary = run(waters, out)
    assert (summary.new, summary.there) == (0, 4) and out.read_bytes() == before


def test_killed_while_writing(waters, tmp_path):
    """A file that ends within an entry goes on, and ends as the uninterrupted one."""
    whole, cut = tmp_path / "whole.extxyz", tmp_path / "cut.extxyz"
    run(waters, whole)
    text = whole.read_text()
    for length in (len(text) - 1, len(text) // 2, 10, 0):
        cut.write_text(text[:length])
        summary = run(waters, cut)
        assert summary.new + summary.there == 4 and summary.new > 0
        np.testing.assert_array_equal(
            [a.get_forces() for a in read(cut, ":")], [a.get_forces() for a in read(whole, ":")]
        )


def test_another_method_is_another_key(waters):
    atoms = read(waters, 0)
    keys = {label_key(atoms, parse_method(*words).identity) for words in (("gfn2-xtb",), ("pbe/def2-svp",),
            ("pbe/def2-svp", 4), ("pbe/def2-svp", 3, 1e-9))}  # fmt: skip
    charged = atoms.copy()
    charged.info |= {"charge": 2}
    moved = atoms.copy()
    moved.positions[0, 0] += 1e-7
    keys |= {label_key(a, "gfn2-xtb") for a in (charged, moved)}
    assert len(keys) == 6


def test_failures_are_recorded_and_not_tried_again(waters, tmp_path, monkeypatch):
    monkeypatch.setattr("omnicalc.data.labels.xtb._LADDER", ({"max-iter": 1},))
    out = tmp_path / "out.extxyz"
    summary = run(waters, out)
    assert (summary.new, summary.failed) == (0, 4)
    assert "4 without a label, see out.extxyz.failures.jsonl" in summary.text(out)
    lines = [json.loads(line) for line in (tmp_path / "out.extxyz.failures.jsonl").read_text().splitlines()]
    assert len(lines) == 4 and all("not converged" in line["reason"] for line in lines)
    assert lines[0]["structure"] == f"{waters}, frame 0"
    monkeypatch.undo()
    assert run(waters, out).failed == 4  # known; remove the file of failures to try again
    (tmp_path / "out.extxyz.failures.jsonl").unlink()
    assert run(waters, out).new == 4


def test_nothing_labelled_is_an_error(waters, tmp_path, monkeypatch):
    """Every structure failed: said so, and the exit code with it; some of them: no error."""
    out = tmp_path / "out.extxyz"
    with monkeypatch.context() as broken:
        broken.setattr("omnicalc.data.labels.xtb._LADDER", ({"max-iter": 1},))
        for _ in range(2):  # also when they are known to fail
            with pytest.raises(RunError, match="none of the 4 structures could be labelled.*not converged"):
                omnicalc("label", waters, "--method", "gfn2-xtb", "--out", out)
    lines = (tmp_path / "out.extxyz.failures.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "out.extxyz.failures.jsonl").write_text("".join(lines[:1]))
    assert "3 entries new, 0 were there, 1 without" in omnicalc("label", waters, "--method", "gfn2-xtb", "--out", out)


def test_stopping_loses_nothing_and_says_what_it_waits_for(waters, tmp_path, capfd):
    import os
    import signal

    out = tmp_path / "out.extxyz"

    def stop_after_two(done, total, note):
        if done == 2:
            os.kill(os.getpid(), signal.SIGTERM)
            told.append(capfd.readouterr().err)  # at once, not when the structure is done
            assert signal.getsignal(signal.SIGTERM) == before  # so that a second one ends it

    told, before = [], signal.getsignal(signal.SIGTERM)
    summary = run(waters, out, stop_after_two)
    assert "structures under way is done, which may take minutes; the same signal once more" in told[0]
    assert summary.stopped and summary.new == 2 and len(read(out, ":")) == 2
    summary = run(waters, out)
    assert (summary.new, summary.there, summary.stopped) == (2, 2, False)


@pytest.mark.parametrize(
    ("info", "pbc", "message"),
    [
        ({"charge": 1, "spin": 1}, False, "9 electrons .* need an even multiplicity .* Set charge="),
        ({"spin": 2}, False, "10 electrons .* need an odd multiplicity"),
        ({"charge": 0.5}, False, "is .*0.5.*; a whole number"),
        ({"charge": 10}, False, r"charge \+10 leaves no electrons in H2O"),
        ({"spin": 0}, False, "spin 0 given"),
        ({}, True, "periodic structure"),
    ],
)
def test_what_cannot_be_labelled_is_named(tmp_path, info, pbc, message):
    atoms = molecule("H2O", vacuum=4.0)
    atoms.info, atoms.pbc = info, pbc
    write(tmp_path / "bad.xyz", [molecule("H2O"), atoms], format="extxyz")
    with pytest.raises(InputError, match=rf"bad.xyz, frame 1: .*{message}"):
        read_inputs([tmp_path / "bad.xyz"])


def test_initial_charges_are_the_charge_where_nobody_says_another(tmp_path):
    """As training and molecular dynamics take the same file; the entry says it, so that others need not add up."""
    ammonium = molecule("CH4")
    ammonium.numbers[0] = 7
    ammonium.set_initial_charges([1, 0, 0, 0, 0])
    write(tmp_path / "in.extxyz", ammonium)
    run(tmp_path / "in.extxyz", tmp_path / "out.extxyz")
    found = read(tmp_path / "out.extxyz")
    assert (found.info["charge"], found.info["spin"]) == (1, 1)
    assert str(found.info["key"]) == label_key(found, "gfn2-xtb") == label_key(ammonium, "gfn2-xtb")
    ammonium.info["charge"] = 0
    with pytest.raises(InputError, match="charge 0 contradicts the initial charges, which add up to 1"):
        charge_and_unpaired(ammonium)
    found.info["charge"] = 0  # as a version that did not look at initial charges would have it
    write(tmp_path / "out.extxyz", found)
    with pytest.raises(InputError, match="key=.* labelled by another charge than its own: .*another --out"):
        Store(tmp_path / "out.extxyz", parse_method("gfn2-xtb"))


def test_one_file_has_one_level_of_theory(waters, tmp_path):
    out = tmp_path / "out.extxyz"
    run(waters, out)
    before = out.read_bytes()
    with pytest.raises(InputError, match=r"labels by gfn2-xtb; pbe/def2-svp, grid 3, scf 1e-08 Ha is asked for"):
        Store(out, parse_method("pbe/def2-svp"))
    assert out.read_bytes() == before
    out.write_bytes(before.replace(b"gfn2-xtb", b'pbe/def2-svp settings="grid 2, scf 1e-08 Ha, def2-universal-jkfit"'))
    assert len(Store(out, parse_method("pbe/def2-svp", 2)).keys) == 4
    with pytest.raises(InputError, match="labels by pbe/def2-svp, grid 2, .* pbe/def2-svp, grid 3, .* is asked for"):
        Store(out, parse_method("pbe/def2-svp"))  # another grid


def test_spin_is_the_lowest_unless_said():
    radical = molecule("OH")
    assert charge_and_unpaired(radical) == (0, 1)
    radical.info = {"spin": 4}
    assert charge_and_unpaired(radical) == (0, 3)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--method", "gfn2"), "either structure files, --from-uncertain RUN or --free-atoms"),
        (("WATERS", "--method", "wb97m"), "takes gfn2-xtb, or functional/basis as in wb97m-d3bj/def2-svp"),
        (("WATERS", "--method", "pbe/def2-svp", "--convergence", "1e-4"), "from 1e-12 to 1e-6"),
        (("WATERS", "--method", "pbe/def2-svp", "--convergence", "nan"), "from 1e-12 to 1e-6"),
        (("WATERS", "--method", "pbe/def2-svp", "--convergence", "-1"), "from 1e-12 to 1e-6"),
        (("WATERS", "--method", "gfn2-xtb", "--max-atoms", "2"), "no structure with at most 2 atoms"),
        (("--free-atoms", ",", "--method", "gfn2-xtb"), "--free-atoms without a symbol"),
        (("--free-atoms", "H U", "--method", "gfn2-xtb"), "no ground state known for U"),
        (("WATERS", "--method", "gfn2-xtb", "--scheduler", "nonsense"), "no Dask scheduler at 'nonsense'"),
    ],
)
def test_refused(waters, tmp_path, words, message):
    if "--scheduler" in words:
        pytest.importorskip("distributed")
    with pytest.raises(InputError, match=message):
        omnicalc("label", *(waters if word == "WATERS" else word for word in words), "--out", tmp_path / "o.extxyz")
    assert not (tmp_path / "o.extxyz").exists()


@pytest.mark.parametrize("name", ["o.aselmdb", "o.extxyz.gz", "o.json"])
def test_a_name_that_readers_take_for_another_format_is_refused(waters, tmp_path, name):
    with pytest.raises(InputError, match="let the name end in .extxyz"):
        run(waters, tmp_path / name)
    assert not (tmp_path / name).exists()


def test_a_folder_is_no_file_of_entries(waters, tmp_path):
    (tmp_path / "o.extxyz").mkdir()
    with pytest.raises(InputError, match="a folder; the name of a file is needed"):
        run(waters, tmp_path / "o.extxyz")


def test_a_file_of_something_else_is_left_alone(waters, tmp_path):
    before = waters.read_bytes()
    with pytest.raises(InputError, match="no entries of ours; choose another --out"):
        Store(waters, GFN2)
    assert waters.read_bytes() == before
    (tmp_path / "text").write_text("hello\n")
    with pytest.raises(InputError, match="not an extended XYZ file"):
        Store(tmp_path / "text", GFN2)


def test_free_atoms(tmp_path):
    out = tmp_path / "atoms.json"
    said = omnicalc("label", "--free-atoms", "H,O,Na", "--method", "gfn2-xtb", "--out", out)
    found = json.loads(out.read_text())
    assert "Na+1" in said and found["level_of_theory"] == "gfn2-xtb"
    assert found["ions"]["H+1"] == 0.0
    assert 4.0 < found["ions"]["Na+1"] - found["atoms"]["Na"] < 11.0  # eV; 5.1 by experiment, GFN2 far above
    with pytest.raises(InputError, match="there already"):
        omnicalc("label", "--free-atoms", "H", "--method", "gfn2-xtb", "--out", out)


@pytest.mark.slow
def test_several_processes_give_the_same(waters, tmp_path):
    pytest.importorskip("distributed")
    omnicalc("label", waters, "--method", "gfn2-xtb", "--out", tmp_path / "one.extxyz")
    omnicalc("label", waters, "--method", "gfn2-xtb", "--processes", 2, "--out", tmp_path / "two.extxyz")
    one, two = (read(tmp_path / f"{name}.extxyz", ":") for name in ("one", "two"))
    np.testing.assert_array_equal([a.get_forces() for a in one], [a.get_forces() for a in two])
    assert [a.info["key"] for a in one] == [a.info["key"] for a in two]


def test_keys_that_look_like_numbers_are_themselves(tmp_path, monkeypatch):
    """One of 1,200 is all digits with a 0 in front, or has one e among digits."""
    keys = ["0123456789012345", "1234567890e12345", "9999999999e99999", "12345678901234e5", "00000000000000ff"]
    store = Store(tmp_path / "out.extxyz", GFN2)
    for key in keys:
        atoms = molecule("H2O")
        atoms.info |= {"key": key, "level_of_theory": "gfn2-xtb", "settings": GFN2.settings}
        store.add(atoms)
    read_ones, parse = [], extxyz.key_val_str_to_dict
    monkeypatch.setattr(extxyz, "key_val_str_to_dict", lambda text: read_ones.append(text) or parse(text))
    again = Store(store.path, GFN2)
    assert again.keys == set(keys)
    assert len(read_ones) == len(keys)  # once each: files have many
    again.sort(keys[::-1])
    assert len(read(store.path, ":")) == len(keys)
    assert [line.split("key=")[1].split()[0] for line in store.path.read_text().splitlines() if "key=" in line] == keys[
        ::-1
    ]
