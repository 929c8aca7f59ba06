"""RNA of a crystal structure made ready for a force field."""

import MDAnalysis
import numpy as np
import pytest

from omnicalc.errors import InputError

app = pytest.importorskip("openmm.app")
from omnicalc.data.build.crystal import assembled, holds_rna, pieces_of  # noqa: E402
from omnicalc.data.build.prepare import SHIPPED  # noqa: E402


def read(text: str):
    from io import StringIO

    pdb = app.PDBFile(StringIO(text))
    return pdb.topology, 10.0 * np.array(pdb.positions._value)


@pytest.fixture(scope="module")
def text() -> str:
    return (SHIPPED / "1f27.pdb").read_text()


def test_ends_ligands_and_alternatives_of_1f27(text):
    topology, positions = read(text)
    assert holds_rna(topology)
    pieces = pieces_of(topology, positions)
    atoms = list(topology.atoms())
    strands = [[atoms[k] for k in indices] for kind, indices in pieces if kind == "nucleotides"]
    assert [a.name for strand in strands for a in strand if a.residue is strand[0].residue][0] == "O5'"
    assert [strand[0].residue.id for strand in strands] == ["4", "22"]  # A3 has no O5': disordered
    assert sum(a.name == "P" for strand in strands for a in strand) == sum(
        len({a.residue.id for a in strand}) - 1 for strand in strands
    )
    kept = {atoms[k].residue.name for _, indices in pieces for k in indices}
    assert "BTN" not in kept and {"MG", "HOH"} < kept
    modeller = assembled(topology, positions, pieces)
    modeller.addHydrogens(app.ForceField("amber14-all.xml", "amber14/tip3pfb.xml"))
    names = {(r.name, a.name) for r in modeller.topology.residues() for a in r.atoms()}
    assert ("HOH", "H1") in names and any(a == "HO5'" for _, a in names)


def test_without_the_preparation_openmm_refuses(text):
    topology, positions = read(text)
    from openmm import unit

    modeller = app.Modeller(topology, positions * unit.angstrom)
    with pytest.raises(ValueError, match="No template found"):
        modeller.addHydrogens(app.ForceField("amber14-all.xml", "amber14/tip3pfb.xml"))


def test_ions_that_exclude_each_other_and_waters_on_top_of_atoms(text):
    topology, positions = read(text)
    atoms = list(topology.atoms())
    ions = [a.index for a in atoms if a.residue.name == "MG"]
    before = pieces_of(topology, positions)
    positions[ions[1]] = positions[ions[0]] + [2.0, 0, 0]
    strand = next(indices for kind, indices in before if kind == "nucleotides")
    water = next(indices[0] for kind, indices in before if kind == "water")
    positions[water] = positions[strand[5]] + [1.0, 0, 0]
    after = pieces_of(topology, positions)
    assert [p for p in before if p not in after] == [("ion", [ions[1]]), ("water", [water])]


def test_a_hole_inside_a_strand_is_named(text):
    lines = [x for x in text.splitlines() if not (x[:4] == "ATOM" and x[12:16] == " C2 " and x[21:26] == "A   9")]
    with pytest.raises(InputError, match="nucleotide A 9 of chain A lacks C2; give a structure"):
        pieces_of(*read("\n".join(lines)))


def test_spheres_around_magnesium(text):
    from omnicalc.data.build.carve import carve

    topology, positions = read(text)
    modeller = assembled(topology, positions, pieces_of(topology, positions))
    modeller.addHydrogens(app.ForceField("amber14-all.xml", "amber14/tip3pfb.xml"))
    universe = MDAnalysis.Universe(modeller.topology, 10.0 * np.array(modeller.positions._value), to_guess=())
    found = {}
    for ion in universe.select_atoms("element Mg"):
        sphere = carve(universe, ion, 2.6)
        oxygens = sphere.numbers == 8
        mg = int(np.flatnonzero(sphere.numbers == 12)[0])
        found[int((sphere.get_distances(mg, np.flatnonzero(oxygens)) < 2.6).sum())] = sphere
        assert sphere.info["charge"] == 2 - int((sphere.numbers == 15).sum())
    assert 6 in found and {1, 6, 7, 8, 12, 15} == set(np.concatenate([s.numbers for s in found.values()]).tolist())


def test_without_dynamics_hydrogens_alone_are_moved(text):
    from omnicalc.data.build.prepare import Preparation, prepared

    topology, positions = read(text)
    heavy = [k for _, indices in pieces_of(topology, positions) for k in indices]
    universe = prepared(Preparation("1f27.pdb", 0.0, False, 0.0, 1))
    assert universe.dimensions is None, "a box that OpenMM has by default would bring images that are not there"
    assert np.allclose(universe.select_atoms("not element H").positions, positions[heavy], atol=1e-3)
