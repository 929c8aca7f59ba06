"""The four studies: each end to end for a moment, and what they say to input that cannot be."""

import csv
import importlib

import MDAnalysis
import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule

from analysis.common.boxes import add_ions, label, numbered, solvate
from analysis.cyclosporin.study import BONDS, STATES, _shortest, cyclosporin
from analysis.rna_mg.sites import Crystal, geometry
from analysis.rna_mg.study import _chosen
from omnicalc.data.build.prepare import SHIPPED
from omnicalc.errors import InputError

RNA = SHIPPED / "1f27.pdb"


def run(name: str, *arguments: object) -> None:
    importlib.import_module(f"analysis.{name}.study").command.main([str(a) for a in arguments], standalone_mode=False)


def table(folder) -> dict[str, str]:
    """Quantity -> our number."""
    with (folder / "table.csv").open() as file:
        return {row["quantity"]: row["ours"] for row in csv.DictReader(file)}


def number(text: str) -> float:
    return float(text.split()[0])


def test_water_by_a_model(tmp_path, capsys):
    run("water", "--quick", "--ps", 0.1, "--out", tmp_path)
    found = table(tmp_path)
    assert 2.6 < number(found["O-O first peak"]) < 2.9
    assert (tmp_path / "figure.png").stat().st_size < 150_000
    assert "ubio-s3, 300 K, 0.1 ps" in (tmp_path / "table.md").read_text()


def test_nacl_by_a_force_field(tmp_path):
    run("nacl", "--quick", "--engine", "amber", "--ps", 1, "--molar", 1, "--out", tmp_path)
    found = table(tmp_path)
    assert 2.2 < number(found["Na-O first peak"]) < 2.6
    assert 4.5 < number(found["O around Na"]) < 6.6
    assert "1 pair in the box: says nothing of pairing" in (tmp_path / "table.md").read_text()
    assert (tmp_path / "figure.png").stat().st_size < 150_000


def test_rna_by_a_force_field(tmp_path):
    run("rna_mg", "--quick", "--engine", "amber", "--ps", 0.4, "--site", "B38", "--out", tmp_path)
    found = table(tmp_path)
    assert number(found["B38: oxygens around Mg"]) == pytest.approx(6, abs=0.2)
    assert 85 < number(found["B38: O-Mg-O cis"]) < 95 and 120 < number(found["B38: P-OP-Mg"]) < 175
    assert 1.8 < number(found["B38: Mg-O(phosphate)"]) < 2.2
    assert (tmp_path / "figure.png").stat().st_size < 150_000


def test_a_peptide_in_place_of_cyclosporin(tmp_path):
    run("cyclosporin", "--quick", "--engine", "amber", "--ps", 0.4, "--out", tmp_path)
    found = table(tmp_path)
    assert 0 <= number(found["Nme NH - Ace CO (C7), open in water: occupancy"]) <= 1
    assert "no Amber parameters for cyclosporin" in (tmp_path / "table.md").read_text()


def test_one_state_alone(tmp_path):
    run("cyclosporin", "--quick", "--engine", "amber", "--ps", 0.4, "--state", "closed", "--out", tmp_path)
    text = (tmp_path / "table.md").read_text()
    assert "closed in vacuum: occupancy" in text and "open in water" not in text
    assert not (tmp_path / "open_water").exists() and (tmp_path / "figure.png").stat().st_size > 5000


@pytest.mark.parametrize(("name", "missing"), [("cyclosporin", "C, N"), ("rna_mg", "C, N, Mg, P")])
def test_a_model_that_does_not_know_an_element_stops(tmp_path, name, missing):
    with pytest.raises(InputError, match="does not know element") as caught:
        run(name, "--quick", "--out", tmp_path)
    assert all(symbol in str(caught.value).split(":")[1] for symbol in missing.split(", "))
    assert not (tmp_path / "table.md").exists()


def test_bonds_of_cyclosporin_are_where_the_structures_have_them():
    """N-H...O distances as the README of the structures gives them."""
    known = {"D-Ala8 NH - MeLeu6 CO (DAL1-NH to MLE10-CO)": (4.2, 1.96), "Abu2 NH - Val5 CO": (8.7, 1.83),
             "Val5 NH - Sar3 CO (VAL9-NH to SAR7-CO)": (2.34, 3.05), "Val5 NH - Abu2 CO": (6.7, 2.06),
             "Ala7 NH - MeVal11 CO": (11.1, 1.97)}  # fmt: skip
    for k, state in enumerate(STATES):
        atoms = cyclosporin(state)
        assert atoms.get_chemical_formula() == "C62H111N11O12"
        for name, pairs in BONDS.items():
            site = f"index {pairs[state][0]}->index {pairs[state][1]}"
            assert _shortest(atoms, site) == pytest.approx(known[name][k], abs=0.06), name


def test_sites_of_1f27_are_those_of_the_crystal():
    crystal = Crystal(RNA)
    sites = {s.name: s for s in crystal.sites()}
    assert list(sites) == ["A36", "A37", "B38"]
    known = {"A36": (2.01, 159.7), "A37": (1.92, 161.4), "B38": (1.99, 142.8)}
    for name, (length, bend) in known.items():
        found = geometry(crystal, sites[name])
        assert found["phosphate"][0] == pytest.approx(length, abs=0.01)
        assert found["bend"][0] == pytest.approx(bend, abs=0.1)
        assert len(found["water"]) == 5 and np.abs(found["cis"] - 90).max() < 10
    with pytest.raises(InputError, match="A36 .*A37 .*B38 .*or all"):
        _chosen(list(sites.values()), "A99")


def test_a_carved_site_is_whole():
    crystal = Crystal(RNA)
    atoms = crystal.fragment(crystal.sites()[0])
    counts = atoms.symbols.formula.count()
    assert counts == {"C": 19, "H": 34, "Mg": 1, "N": 8, "O": 16, "P": 1}  # CpA with five waters
    assert atoms.info["charge"] == 1
    distances = atoms.get_all_distances() + 10 * np.eye(len(atoms))
    assert distances.min() > 0.9


def test_the_whole_rna_is_neutral_in_its_box():
    """Phosphates give -1 each, Mg +2; sodium makes up for the rest."""
    atoms = Crystal(RNA).whole()
    counts = atoms.symbols.formula.count()
    assert atoms.info["charge"] == 2 * counts["Mg"] - counts["P"] < 0 and counts["P"] > 25
    assert (atoms.get_all_distances(mic=True) + 10 * np.eye(len(atoms))).min() > 0.85
    boxed = solvate(atoms, 2.0)
    boxed.info = {"charge": 0}
    salted = add_ions(boxed, {"Na": -atoms.info["charge"]}, np.random.default_rng(0)).symbols.formula.count()
    assert salted["Na"] + 2 * salted["Mg"] == salted["P"]


@pytest.mark.parametrize(("arguments", "words"), [
    (("nacl", "--molar", 0), "no solution of NaCl"),
    (("nacl", "--ps", -1), "--ps -1.0 is no length"),
    (("water", "--threads", 0), "at least 1"),
    (("rna_mg", "--pdb", "nowhere.pdb"), "nowhere.pdb does not exist"),
    (("rna_mg", "--site", "A37", "--whole"), "leave out --site"),
])  # fmt: skip
def test_bad_input(tmp_path, arguments, words):
    with pytest.raises(InputError, match=words):
        run(*arguments, "--out", tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["water", "nacl", "cyclosporin", "rna_mg"])
def test_quick_runs_by_force_fields(tmp_path, name):
    run(name, "--quick", "--engine", "amber", "--out", tmp_path)
    assert table(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["water", "nacl"])
def test_quick_runs_by_the_bundled_model(tmp_path, name):
    run(name, "--quick", "--out", tmp_path)
    assert table(tmp_path)


def test_a_run_that_a_guard_stops_is_used_up_to_there(tmp_path, monkeypatch):
    """A bond of a lone water is pulled beyond the guard's limit by 30,000 K."""
    from analysis.common import study

    monkeypatch.setattr(study, "TEMPERATURE", 30000.0)
    monkeypatch.setattr(study, "ENOUGH_FRAMES", 1)
    monkeypatch.setattr(study, "SKIPPED", 0.0)
    settings = study.Settings("model", "ubio-s2", None, 0.2, True, 1, 1, tmp_path)
    molecules = numbered(label(molecule("H2O"), ["O", "H1", "H2"], "HOH", 1, 1))
    found = settings.simulate(molecules, "hot")
    assert 1 <= found["stop"] < 100 and "hot: the molecules came apart at" in settings.notes[0]


def test_a_run_that_comes_apart_is_used_up_to_there(tmp_path):
    from analysis.common.intact import first_break
    from analysis.common.study import Settings
    from omnicalc.analysis.quiet import quietly
    from omnicalc.errors import RunError
    from omnicalc.md.topology import write_topology

    def write(folder, opens_at):
        folder.mkdir()
        water = molecule("H2O")
        write_topology(folder / "topology.pdb", Atoms(water.symbols, water.positions))
        universe = MDAnalysis.Universe.empty(3, trajectory=True)
        with quietly(), MDAnalysis.Writer(str(folder / "traj.dcd"), 3) as writer:
            for k in range(100):
                x = water.positions.copy()
                x[1] = x[0] + (x[1] - x[0]) * (1.6 if k >= opens_at else 1.1)
                universe.atoms.positions = x
                writer.write(universe.atoms)
        return folder

    settings = Settings("model", "some", None, 2.0, False, 1, 1, tmp_path)  # a frame every 20 fs, ten are skipped
    assert first_break(write(tmp_path / "whole", 200) / "traj.dcd") is None
    assert settings.analysed(tmp_path / "whole") == {"source": tmp_path / "whole" / "traj.dcd", "start": 10}
    found = settings.analysed(tmp_path / "whole", stopped="at step 4000 atom 3 (O) left")
    assert found["stop"] == 100 and "whole: the molecules came apart at 2 ps (at step 4000 " in settings.notes.pop()
    found = settings.analysed(write(tmp_path / "late", 70))
    assert found["stop"] == 70 and "late: the molecules came apart at 1.4 ps (the bond " in settings.title("x")[-1]
    with pytest.raises(RunError, match="came apart at 0.6 ps .*does not hold this system together"):
        settings.analysed(write(tmp_path / "early", 30))
