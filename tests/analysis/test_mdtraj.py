"""Against MDTraj, where it is installed: g(r), coordination numbers and hydrogen bonds of the same file."""

import numpy as np
import pytest
from ase import Atoms

from omnicalc.analysis import coordination_numbers, hydrogen_bonds, radial_distributions
from tests.analysis.conftest import waters

mdtraj = pytest.importorskip("mdtraj", reason="MDTraj is not installed (pip install mdtraj)")
EDGE, FRAMES, WIDTH = 12.2, 12, 0.05  # Å, number, Å


@pytest.fixture
def both(write_traj):
    """A trajectory of 64 waters as we read it and as MDTraj does."""
    from omnicalc.md.topology import write_topology

    rng = np.random.default_rng(5)
    elements, positions = waters(4, EDGE, rng)
    molecules = np.repeat(rng.normal(scale=0.25, size=(FRAMES, 64, 3)), 3, axis=1)
    frames = positions + molecules
    path = write_traj(elements, frames, [EDGE, EDGE, EDGE, 90, 90, 90])
    write_topology(path.parent / "topology.pdb", Atoms(elements, positions=positions, cell=[EDGE] * 3, pbc=True))
    return path, mdtraj.load(str(path), top=str(path.parent / "topology.pdb"))


def test_rdf(both):
    """Equal in every bin that has no pair within 1e-5 Å of its edges: MDTraj's distances are of single precision."""
    path, theirs = both
    oxygens, hydrogens = (theirs.topology.select(f"element {e}") for e in "OH")
    for name, pairs in (("O-O", theirs.topology.select_pairs(oxygens, oxygens)),
                        ("O-H", theirs.topology.select_pairs(oxygens, hydrogens))):  # fmt: skip
        ours = radial_distributions(path, [name], bin_width=WIDTH).pairs[0]
        reach = len(ours.r) * WIDTH
        g = mdtraj.compute_rdf(theirs, pairs, r_range=(0, reach / 10), bin_width=WIDTH / 10)[1]
        distances = 10 * mdtraj.compute_distances(theirs, pairs).ravel()
        edge = np.round(distances / WIDTH)
        near = np.unique(edge[np.abs(distances - edge * WIDTH) < 1e-5].astype(int))
        clear = np.setdiff1d(np.arange(len(g)), [near, near - 1])
        assert len(clear) > 0.5 * len(g)
        assert ours.g[clear] == pytest.approx(g[clear], rel=1e-6, abs=1e-6)
        assert ours.g.max() > 1.5


def test_coordination_number(both):
    path, theirs = both
    oxygens = theirs.topology.select("element O")
    distances = 10 * mdtraj.compute_distances(theirs, theirs.topology.select_pairs(oxygens, oxygens))
    for cutoff in (3.1, 3.55):
        wanted = 2 * (distances <= cutoff).sum(axis=1) / len(oxygens)
        found = coordination_numbers(path, ["O-O"], cutoff=cutoff).tables["series"]["n_O_around_O"]
        assert found == pytest.approx(wanted, abs=1e-6)


def test_hydrogen_bonds_by_the_criterion_of_baker_and_hubbard(both):
    """H...A below 2.5 Å and an angle above 120 degrees: the default here, and the criterion of mdtraj.baker_hubbard."""
    path, theirs = both
    series = hydrogen_bonds(path, dt_ps=0.1).tables["series"]
    found = sum(column for name, column in series.items() if name.startswith("bonds_"))
    wanted = [len(mdtraj.baker_hubbard(theirs[k], freq=0.0, exclude_water=False)) for k in range(FRAMES)]
    assert found.tolist() == wanted and min(wanted) > 5
    stricter = hydrogen_bonds(path, dt_ps=0.1, distance=2.3).tables["series"]
    assert sum(stricter[name].sum() for name in stricter if name.startswith("bonds_")) < sum(wanted)
