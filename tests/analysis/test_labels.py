import warnings

import numpy as np
import pytest

from omnicalc.analysis.sources import as_trajectory
from omnicalc.errors import InputError

from .conftest import waters

CUBE = (12.0, 12.0, 12.0, 90.0, 90.0, 90.0)


def brine(write_traj, **kwargs):
    elements, positions = waters(3, 12.0, np.random.default_rng(0))
    elements, positions = ["Na", *elements[3:]], np.concatenate([positions[:1], positions[3:]])
    return write_traj(elements, [positions] * 2, CUBE, **kwargs)


def test_names_come_from_molecules_where_the_file_has_none(tmp_path):
    from ase import Atoms
    from ase.io import write

    elements, positions = waters(2, 8.0, np.random.default_rng(0))
    atoms = Atoms(["Na", *elements], positions=[[50.0, 0, 0], *positions])
    write(tmp_path / "a.xyz", atoms)
    labels = as_trajectory(tmp_path / "a.xyz").labels
    assert labels.resnames[:5].tolist() == ["NA", "HOH", "HOH", "HOH", "HOH"]
    assert labels.names[:4].tolist() == ["Na1", "O", "H1", "H2"]
    assert labels.kinds[[0, 1, 2]].tolist() == ["Na", "H2O", "H2O"]
    assert len(set(labels.resids[1:4])) == 1 and labels.resids[4] != labels.resids[1]
    assert labels.bonds_from == "distances" and len(labels.bonds) == 16
    assert labels.atom(0) == "NA1:Na1#0"


@pytest.mark.parametrize(
    ("text", "count"),
    [("O", 26), ("na", 1), ("Na,O", 27), ("element H", 52), ("index 0 to 3", 4), ("not element H and not index 0", 26)],
)
def test_selections(write_traj, text, count):
    assert len(as_trajectory(brine(write_traj)).labels.select(text, "--select")) == count


def test_selection_by_distance_sees_the_first_frame(write_traj):
    labels = as_trajectory(brine(write_traj)).labels
    near = labels.select("element O and around 4.6 index 0", "--select")
    x = labels.positions
    away = x - x[0]
    away -= 12.0 * np.round(away / 12.0)
    expected = (labels.elements == "O") & (np.linalg.norm(away, axis=1) <= 4.6)
    assert near.tolist() == np.flatnonzero(expected).tolist() and len(near) > 0


def test_what_cannot_be_selected_says_what_there_is(write_traj):
    labels = as_trajectory(brine(write_traj)).labels
    with pytest.raises(InputError, match=r"--select 'K' selects no atom; there are the elements Na \(1\), O \(26\), H"):
        labels.select("K", "--select")
    with pytest.raises(InputError, match="neither an element nor a selection"):
        labels.select("resname and", "--select")


def test_bonds_of_the_topology_come_before_distances(write_traj):
    import MDAnalysis

    path = brine(write_traj)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        universe = MDAnalysis.Universe(str(path.with_name("topology.pdb")), str(path))
        universe.add_TopologyAttr("bonds", [(0, 1)])
    labels = as_trajectory(universe).labels
    assert labels.bonds_from == "topology" and labels.bonds.tolist() == [[0, 1]]
    assert labels.molecules[0] == labels.molecules[1]
    assert "hydrogens have no bonded neighbour" in labels.doubts()[0]
    assert as_trajectory(path).labels.doubts() == []


_PSF_ATOMS = (
    ("OH2", "OT", -0.83, 15.9994),
    ("OM", "LP", 0.0, 0.0),
    ("H1", "HT", 0.42, 1.008),
    ("H2", "HT", 0.42, 1.008),
)


def test_rigid_water_of_a_force_field_has_two_bonds_and_no_site_in_its_formula(write_traj):
    """CHARMM and Amber list a bond H-H for their constraints, and one to the massless site of four-point water."""
    import MDAnalysis

    lines = ["PSF", "", "       1 !NTITLE", " REMARKS two waters and H2", "", "      10 !NATOM"]
    for k in range(8):
        name, kind, charge, mass = _PSF_ATOMS[k % 4]
        lines.append(f"{k + 1:8d} W    {k // 4 + 1:<4d} TIP4 {name:<4s} {kind:<4s} {charge:10.6f}{mass:14.4f}{0:12d}")
    lines += [f"{k:8d} G    3    HH   H{k - 8}   HA   {0:10.6f}{1.008:14.4f}{0:12d}" for k in (9, 10)]
    bonds = [(1, 2), (1, 3), (1, 4), (3, 4), (5, 6), (5, 7), (5, 8), (7, 8), (9, 10)]
    numbers = [f"{i:8d}{j:8d}" for i, j in bonds]
    lines += ["", f"{len(bonds):8d} !NBOND: bonds", *("".join(numbers[k : k + 4]) for k in (0, 4, 8)), ""]
    path = write_traj(
        ["O"] * 10, np.arange(60.0).reshape(2, 10, 3), (90.0, 90.0, 90.0, 90.0, 90.0, 90.0), topology=False
    )
    top = path.with_name("top.psf")
    top.write_text("\n".join(lines))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        universe = MDAnalysis.Universe(str(top), str(path))
    for trajectory in (as_trajectory(path, top), as_trajectory(universe)):
        assert trajectory.counts == {"O": 2, "X": 2, "H": 6}
        assert trajectory.labels.bonds.tolist() == [[0, 2], [0, 3], [4, 6], [4, 7], [8, 9]]
        assert trajectory.labels.kinds.tolist() == ["H2O", "X", "H2O", "H2O"] * 2 + ["H2"] * 2


def test_a_universe_tells_its_masses_unless_they_are_guessed(write_traj):
    import MDAnalysis

    path = brine(write_traj)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        universe = MDAnalysis.Universe(str(path.with_name("topology.pdb")), str(path))
    assert as_trajectory(universe).own_masses is None
    heavy = np.where(universe.atoms.elements == "H", 2.014, 16.0)
    universe.add_TopologyAttr("masses", heavy)
    assert as_trajectory(universe).labels.masses.tolist() == heavy.tolist()


def test_a_universe_in_memory_is_enough():
    import json

    import MDAnalysis
    from MDAnalysis.coordinates.memory import MemoryReader

    from omnicalc.analysis import coordination_numbers, radial_distributions

    rng = np.random.default_rng(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        universe = MDAnalysis.Universe.empty(40, n_residues=40, atom_resindex=np.arange(40), trajectory=True)
        for name in ("elements", "names", "resnames"):
            universe.add_TopologyAttr(name, ["Ar"] * 40)
        positions = 12.0 * rng.random((12, 40, 3)).astype(np.float32)
        universe.load_new(positions, format=MemoryReader, dimensions=np.tile(CUBE, (12, 1)))
    labels = as_trajectory(universe).labels
    assert labels.resids.tolist() == list(range(1, 41)) and set(labels.segments) == {"A"}
    rdf = radial_distributions(universe)
    assert json.loads(rdf.to_json())["trajectory"]["frames"] == 12 and rdf.plot().axes
    result = coordination_numbers(universe, ["Ar-Ar"], cutoff=4.0)
    ideal = 39 * 4 / 3 * np.pi * 4.0**3 / 12.0**3
    assert result["n(Ar around Ar)"].value == pytest.approx(ideal, rel=0.1)
    assert json.loads(result.to_json())["sources"] == []


def test_sources_are_the_same_trajectory(write_traj):
    import MDAnalysis

    path = brine(write_traj)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        universe = MDAnalysis.Universe(str(path.with_name("topology.pdb")), str(path))
    by_file, by_folder, by_universe = (as_trajectory(s) for s in (path, path.parent, universe))
    assert as_trajectory(by_file) is by_file
    for other in (by_folder, by_universe):
        assert other.elements.tolist() == by_file.elements.tolist() and other.n_frames == 2
        assert other.dt_ps == by_file.dt_ps
        a, b = (next(t.frames(range(1))) for t in (other, by_file))
        assert np.array_equal(a.positions, b.positions) and np.array_equal(a.box, b.box)
    with pytest.raises(InputError, match="int is nothing to analyse"):
        as_trajectory(7)
    with pytest.raises(InputError, match="does not exist"):
        as_trajectory(path.parent / "none")
