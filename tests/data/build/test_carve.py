"""Spheres: whole residues, capped bonds, charges from bonds, images across the box."""

import MDAnalysis
import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule

from omnicalc.data.build.carve import _neutralised, carve
from omnicalc.data.build.distort import bonded_pairs
from omnicalc.data.build.formal_charge import formal_charges
from omnicalc.errors import InputError

pytest.importorskip("rdkit")
from omnicalc.data.build.geometry import _molecule, piece  # noqa: E402
from omnicalc.data.build.peptides import peptide_smiles  # noqa: E402

CHARGED = {
    "COP(=O)([O-])OC": -1, "COP(=O)([O-])[O-]": -2, "COP(=O)(O)[O-]": -1, "CC(=O)[O-]": -1, "C[NH3+]": 1, "CC(=O)O": 0,
    "CNC(N)=[NH2+]": 1, "C[n+]1cc[nH]c1": 1, "c1c[nH]cn1": 0, "Cn1cnc2c(N)ncnc21": 0, "Cn1cnc2c(=O)[nH]c(N)nc21": 0,
    "Cn1ccc(N)nc1=O": 0, "Cn1ccc(=O)[nH]c1=O": 0, "[Mg+2]": 2, "[Cl-]": -1, "O": 0, "NC(N)=N": 0, "NC(N)=O": 0,
}  # fmt: skip


@pytest.mark.parametrize("smiles", [*CHARGED, peptide_smiles("D-K-R-H-mG")])
def test_formal_charges_are_those_of_the_molecule(smiles):
    made = _molecule(smiles)
    bonds = [(b.GetBeginAtomIdx(), b.GetEndAtomIdx()) for b in made.GetBonds()]
    numbers = np.array([a.GetAtomicNum() for a in made.GetAtoms()])
    assert formal_charges(numbers, bonds).sum() == CHARGED.get(smiles, 1)


def universe(pieces: list[tuple[Atoms, str, np.ndarray]], box: float):
    """One residue for every piece, bonds where atoms touch."""
    atoms = Atoms(cell=[box] * 3)
    index, names = [], []
    for k, (one, name, where) in enumerate(pieces):
        copy = one.copy()
        copy.positions += where
        atoms += copy
        index += [k] * len(one)
        names.append(name)
    u = MDAnalysis.Universe.empty(len(atoms), n_residues=len(pieces), atom_resindex=index, trajectory=True)
    u.add_TopologyAttr("elements", list(atoms.symbols))
    u.add_TopologyAttr("resnames", names)
    u.add_TopologyAttr("names", list(atoms.symbols))
    u.add_TopologyAttr("bonds", [tuple(b) for b in bonded_pairs(atoms)])
    u.atoms.positions = atoms.positions % box
    u.dimensions = [box] * 3 + [90.0] * 3
    return u


def test_waters_around_an_ion_across_the_box():
    water = molecule("H2O")
    places = [np.array(p) for p in ([2.4, 0, 0], [-2.4, 0, 0], [0, 2.4, 0], [9.0, 9.0, 9.0])]
    u = universe([(Atoms("Na"), "NA", np.zeros(3)), *[(water, "HOH", p) for p in places]], box=20.0)
    sphere = carve(u, u.atoms[0], 3.0)
    assert sphere.get_chemical_formula() == "H6NaO3" and sphere.info == {"charge": 1, "spin": 1}
    distance = sphere.get_all_distances()[0, [1, 4, 7]]
    assert distance == pytest.approx([2.4] * 3, abs=0.15)  # images are brought to the ion
    for first in (1, 4, 7):
        water_there = sphere[first : first + 3].get_all_distances()
        assert np.triu(water_there).max() < 1.7  # molecules stay whole
    assert carve(u, u.atoms[0], 17.0).get_chemical_formula() == "H8NaO4"


def test_cut_bonds_are_capped():
    """A dipeptide in two residues: the one kept ends in a hydrogen along the bond that was cut."""
    whole = piece(peptide_smiles("A"), 3).atoms
    bonds = [tuple(b) for b in bonded_pairs(whole)]
    u = MDAnalysis.Universe.empty(len(whole), n_residues=2, atom_resindex=_halves(whole, bonds), trajectory=True)
    u.add_TopologyAttr("elements", list(whole.symbols))
    u.add_TopologyAttr("resnames", ["ONE", "TWO"])
    u.add_TopologyAttr("bonds", bonds)
    u.atoms.positions = whole.positions
    sphere = carve(u, u.residues[0].atoms[0], 0.5)
    kept = u.residues[0].atoms
    assert len(sphere) == len(kept) + 1 and sphere.numbers[-1] == 1 and sphere.info["charge"] == 0
    nearest = np.sort(sphere.get_all_distances()[-1])[1]
    assert 1.0 < nearest < 1.12  # the hydrogen sits at its atom and on nothing else
    assert len(bonded_pairs(sphere)) == len(sphere) - 1  # a tree, as half of a dipeptide is


def _halves(atoms: Atoms, bonds) -> list[int]:
    from omnicalc.data.build.distort import _side

    carbon_nitrogen = next(
        (i, j) for i, j in bonds
        if {int(atoms.numbers[i]), int(atoms.numbers[j])} == {6, 7}
        and 5 < _side(len(atoms), np.array(bonds), i, j).sum() < 15
    )  # fmt: skip
    return _side(len(atoms), np.array(bonds), *carbon_nitrogen).astype(int).tolist()


def test_missing_hydrogens_are_noticed():
    u = universe([(Atoms("OH", [[0, 0, 0], [0.97, 0, 0]]), "HOH", np.zeros(3))], box=20.0)
    with pytest.raises(InputError, match="odd number of electrons"):
        carve(u, u.atoms[0], 2.0)


def test_counter_ions():
    acid = piece("CC(=O)[O-]", 1).atoms
    acid.info = {"charge": -1, "spin": 1}
    acid.arrays["formal_charge"] = np.array([0, 0, 0, -1, 0, 0, 0])
    neutral = _neutralised(acid, np.random.default_rng(0))
    assert neutral.info["charge"] == 0 and neutral.symbols[-1] == "Na"
    assert 1.9 < neutral.get_all_distances()[-1][:-1].min() < 3.2


@pytest.mark.slow
def test_shipped_recipe_of_spheres():
    pytest.importorskip("openmm")
    pytest.importorskip("tblite", exc_type=ImportError)
    from omnicalc.data.build.job import jobs, run_job
    from omnicalc.data.build.recipe import read_recipe

    recipe = read_recipe("ubio-carved")
    seen = {}
    for job in jobs(recipe):
        kind = recipe.groups[job.group].config_type
        if kind not in seen:
            seen[kind] = run_job(job, recipe)[0]
    assert set(seen) == {"sphere-peptide", "sphere-ion", "sphere-rna-mg"}
    for frames in seen.values():
        assert len(frames) > 5 and len({a.get_chemical_formula() for a in frames}) == 1
