"""Mg2+ with its first shell, cut out of a site of RNA."""

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms

from analysis.rna_mg.first_shell import C_H, cut, first_shell, is_water, ligands, pulls
from omnicalc.data.readers import open_frames
from omnicalc.md.topology import write_topology

DATA = Path(__file__).parents[2] / "data" / "ubio-dft-mg-rna-test.extxyz.gz"


@pytest.fixture(scope="module")
def site() -> Atoms:
    """Dimethyl phosphate at [Mg(H2O)5]2+ in a box, a carbon in place of one methyl's hydrogen, a water far away."""
    atoms = next(iter(open_frames(DATA)))
    atoms = Atoms(atoms.numbers, positions=atoms.positions)
    carbon = int(np.flatnonzero(atoms.numbers == 6)[0])
    hydrogens = np.flatnonzero((atoms.numbers == 1) & (atoms.get_distances(carbon, range(len(atoms))) < 1.25))
    atoms.set_distance(carbon, int(hydrogens[0]), 1.53, fix=0)
    atoms.numbers[hydrogens[0]] = 6
    atoms += Atoms("OH2", positions=atoms.positions.mean(0) + [[9.0, 0, 0], [9.6, 0.76, 0], [9.6, -0.76, 0]])
    atoms.cell, atoms.pbc = [25.0] * 3, True
    return atoms


def test_the_shell_is_whole_and_capped(site):
    shell = first_shell(site)
    assert shell.get_chemical_formula() == "C2H16MgO9P" and shell.info["charge"] == 1
    carbons = np.flatnonzero(shell.numbers == 6)
    lengths = [np.sort(shell.get_distances(c, np.flatnonzero(shell.numbers == 1)))[:3] for c in carbons]
    assert np.isclose(lengths, C_H, atol=1e-6).sum() >= 1 and np.max(lengths) < 1.25


def test_a_shell_across_the_border_of_the_box_is_cut_whole(site, tmp_path):
    import MDAnalysis

    write_topology(tmp_path / "topology.pdb", site)
    moved = site.copy()
    moved.positions -= site.positions[np.flatnonzero(site.numbers == 12)[0]]
    moved.wrap()
    universe = MDAnalysis.Universe(str(tmp_path / "topology.pdb"))
    with MDAnalysis.Writer(str(tmp_path / "traj.dcd"), len(site)) as writer:
        for frame in (site, moved):
            universe.atoms.positions = frame.positions
            universe.dimensions = [25.0, 25.0, 25.0, 90.0, 90.0, 90.0]
            writer.write(universe.atoms)
    (across,) = cut(tmp_path, frames=1)  # the second half of two frames
    here = first_shell(site)
    assert np.allclose(np.sort(across.get_all_distances()), np.sort(here.get_all_distances()), atol=1e-4)


def test_other_coordinations_are_refused(site):
    fewer = site.copy()
    last = max(k for k in ligands(site)[1] if is_water(site, k))
    del fewer[[last, last + 1, last + 2]]  # its place is taken by another oxygen of the phosphate
    with pytest.raises(SystemExit, match="4 waters and 2 phosphate oxygens at the ion"):
        first_shell(fewer)


def test_pulls_are_along_the_bond(site):
    shell = first_shell(site)
    mg = int(np.flatnonzero(shell.numbers == 12)[0])
    outward = shell.positions - shell.positions[mg]
    found = pulls(shell, outward / np.linalg.norm(outward + 1e-12, axis=1, keepdims=True))
    assert len(found["water"]) == 5 and np.allclose(found["phosphate oxygen"], 1.0)
    assert np.all(np.array(found["water"]) > 2.0)  # an oxygen and two hydrogens, all nearly outwards


def test_the_shipped_frames_are_such_shells():
    frames = list(open_frames(DATA))
    assert len(frames) == 5 and {f.info["split"] for f in frames} == {"test"}
    for frame in frames:
        assert first_shell(frame).get_chemical_formula() == frame.get_chemical_formula()
