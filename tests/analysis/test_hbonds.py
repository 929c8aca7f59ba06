import os
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest

from omnicalc.analysis.hbonds import hydrogen_bonds, plan_hbonds
from omnicalc.analysis.sampling import sample
from omnicalc.analysis.sources import as_trajectory
from omnicalc.errors import InputError

from .conftest import waters
from .test_rdf import matrix

SQUARE = (90.0, 90.0, 90.0)
MILD = (13.0, 14.0, 12.5, 75.0, 85.0, 70.0)


def dimer(distance, angle):
    """O-H...O with the given H...O distance (Å) and angle at H (degrees); the acceptor has hydrogens behind it."""
    turn = np.radians(180.0 - angle)
    acceptor = np.array([0.96 + distance * np.cos(turn), distance * np.sin(turn), 0.0])
    donor = [[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]]
    return np.array([*donor, acceptor, acceptor + [0.6, 0.3, 0.7], acceptor + [0.6, 0.3, -0.7]])


def one_frame_bonds(write_traj, positions, box=None, **settings):
    path = write_traj(["O", "H", "H"] * (len(positions) // 3), [positions] * 2, box)
    result = hydrogen_bonds(path, **settings)
    return sum(q.value for q in result.quantities if q.note.startswith("per frame") or "hydrogen bonds" in q.name)


def test_a_file_without_a_cell_is_told_of_where_it_may_miss_one(tmp_path):
    """Plain .xyz, as CP2K writes of boxes: bonds across the boundary are not there."""
    from ase import Atoms
    from ase.io import write

    pair, told = dimer(2.0, 150), []
    for name, n, cell in (("box.xyz", 6, 8.0), ("free.xyz", 6, None), ("one.xyz", 3, None), ("frames.xyz", 6, None)):
        atoms = Atoms("OH2" * (n // 3), pair[:n], cell=cell and [cell] * 3, pbc=cell is not None)
        write(tmp_path / name, [atoms] * 2, format="extxyz" if cell else "xyz")
        told.append(
            any("has no cell" in note and ".extxyz" in note for note in sample(as_trajectory(tmp_path / name)).notes())
        )
    assert told == [False, True, False, False]  # the last name is that of a run of ours, in vacuum


def test_the_criterion_is_that_of_the_report(write_traj):
    assert one_frame_bonds(write_traj, dimer(2.49, 150)) == 1
    assert one_frame_bonds(write_traj, dimer(2.51, 150)) == 0
    assert one_frame_bonds(write_traj, dimer(2.0, 121)) == 1
    assert one_frame_bonds(write_traj, dimer(2.0, 119)) == 0
    assert one_frame_bonds(write_traj, dimer(2.0, 119), angle=110.0) == 1
    assert one_frame_bonds(write_traj, dimer(1.9, 170), distance=2.5, donor_acceptor=True) == 0, "O...O is 2.84"
    assert one_frame_bonds(write_traj, dimer(1.9, 170), distance=3.0, donor_acceptor=True) == 1


def test_small_boxes_and_broken_molecules_are_searched_by_hydrogens(write_traj):
    """Half the box is below 2.5 + 1.3 Å; and a proton halfway to its acceptor is beyond 1.3 Å from its donor."""
    positions = dimer(1.9, 170) + 2.0
    assert one_frame_bonds(write_traj, positions, (7.0, 7.0, 7.0, *SQUARE)) == 1
    torn = positions.copy()
    torn[1, 0] += 0.5
    path = write_traj(["O", "H", "H"] * 2, [positions, torn], (20.0, 20.0, 20.0, *SQUARE), name="torn.dcd")
    assert hydrogen_bonds(path).tables["series"]["bonds_H2O_to_H2O"].tolist() == [1, 1]
    assert hydrogen_bonds(path, distance=1.5).tables["series"]["bonds_H2O_to_H2O"].tolist() == [0, 1]


def test_bonds_across_a_triclinic_boundary(write_traj):
    positions = dimer(1.9, 165) + 6.0
    cell = matrix(MILD)
    shifted = positions.copy()
    shifted[3:] += 2 * cell[0] - cell[2]
    assert one_frame_bonds(write_traj, shifted, MILD) == 1
    assert one_frame_bonds(write_traj, shifted, None) == 0


@pytest.mark.parametrize("box", [(12.4,) * 3 + SQUARE, MILD])
def test_equals_mdanalysis_bond_for_bond(write_traj, box):
    import MDAnalysis
    from MDAnalysis.analysis.hydrogenbonds import HydrogenBondAnalysis

    rng = np.random.default_rng(0)
    frames = [waters(4, 12.4, rng) for _ in range(6)]
    cell = matrix(box) / 12.4
    positions = [f[1] + 0.3 * rng.normal(size=(64, 1, 3)).repeat(3, axis=1).reshape(-1, 3) for f in frames]
    if box is MILD:  # scaled molecule by molecule, so that they keep their shape
        positions = [
            (x.reshape(64, 3, 3) - x.reshape(64, 3, 3)[:, :1] + (x[::3] @ cell)[:, None]).reshape(-1, 3)
            for x in positions
        ]
    path = write_traj(frames[0][0], positions, box)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        universe = MDAnalysis.Universe(str(path.with_name("topology.pdb")), str(path))
        universe.add_TopologyAttr("bonds", [(3 * k, 3 * k + j) for k in range(64) for j in (1, 2)])
        analysis = HydrogenBondAnalysis(
            universe,
            donors_sel="element O",
            hydrogens_sel="element H",
            acceptors_sel="element O",
            d_a_cutoff=3.3,
            d_h_a_angle_cutoff=140,
            update_selections=False,
        )
        rows = analysis.run().results.hbonds
    theirs = {(int(r[0]), int(r[1]), int(r[2]), int(r[3])) for r in rows}
    measure = plan_hbonds(sample(as_trajectory(path)), distance=3.3, angle=140.0, donor_acceptor=True)
    c, ours = measure.criterion, set()
    for frame in as_trajectory(path).frames(range(6)):
        h, a, _, _ = c(frame)
        triples = zip(c.donors[h].tolist(), c.hydrogens[h].tolist(), c.acceptors[a].tolist(), strict=True)
        ours |= {(frame.index, *triple) for triple in triples}
    assert ours == theirs and len(ours) > 50
    hydrogen_acceptor = hydrogen_bonds(path, distance=3.3, angle=140.0)
    assert hydrogen_acceptor.tables["series"]["bonds_H2O_to_H2O"].sum() > len(ours), "H...A < 3.3 Å is another rule"


def peptide_frames(n=40, dt=1.0):
    """Two amides whose N-H...O bond is there in frames 0 to 9 and 20 to 39; residues VAL9 and SAR7."""
    names = ["N", "H", "CA", "C", "O", "CB"]
    residues = [("VAL", 9)] * 3 + [("SAR", 7)] * 3
    base = np.array([[0, 0, 0], [1.01, 0, 0], [-1.4, 0.3, 0], [4.2, 0.5, 0], [3.0, 0.1, 0], [5.5, 0.4, 0]], dtype=float)
    frames = []
    for k in range(n):
        x = base.copy()
        if 10 <= k < 20:
            x[3:, 0] += 2.0
        frames.append(x)
    return names, residues, np.array(frames)


def write_peptide(tmp_path):
    import MDAnalysis

    names, residues, frames = peptide_frames()
    lines = []
    for k, (name, (residue, number)) in enumerate(zip(names, residues, strict=True)):
        x, y, z = frames[0][k]
        lines.append(
            f"ATOM  {k + 1:5d}  {name:<3s} {residue:>3s} A{number:4d}    {x:8.3f}{y:8.3f}{z:8.3f}  1.00  0.00"
            f"          {name[0]:>2s}  "
        )
    (tmp_path / "topology.pdb").write_text("\n".join([*lines, "END", ""]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        universe = MDAnalysis.Universe.empty(6, trajectory=True)
        with MDAnalysis.Writer(str(tmp_path / "traj.dcd"), 6, dt=0.5) as writer:
            for frame in frames:
                universe.atoms.positions = frame
                writer.write(universe.atoms)
    return tmp_path


SITES = ["VAL9-NH->SAR7-CO", "index 0->index 4", "VAL9-H->SAR7-O", "resname VAL and name N -> name O"]


@pytest.mark.parametrize("site", SITES)
def test_named_site_has_its_occupancy_and_lifetime(tmp_path, site):
    result = hydrogen_bonds(write_peptide(tmp_path), sites=[site])
    assert result[f"occupancy {site}"].value == pytest.approx(0.75)
    assert result[f"lifetime {site}, counted"].value == pytest.approx(30 * 0.5)
    pairs = result.tables["pairs"]
    assert (pairs["donor"][0], pairs["acceptor"][0]) == ("VAL9:N#0", "SAR7:O#4")
    assert pairs["occupancy"][0] == pytest.approx(0.75)
    assert result.tables["series"]["site0_distance_HA_angstrom"][15] == pytest.approx(np.hypot(3.99, 0.1), abs=1e-4)
    elsewhere = hydrogen_bonds(tmp_path, sites=[site], distance=1.5)
    assert elsewhere[f"occupancy {site}"].value == 0.0


def test_a_site_is_measured_to_the_nearest_image_in_a_cell_far_from_compact(write_traj):
    from MDAnalysis.lib.distances import distance_array
    from MDAnalysis.lib.mdamath import triclinic_vectors

    box = np.array([11.0, 25, 31, 80, 25, 88])
    rows = triclinic_vectors(box, dtype=np.float64)
    images = np.stack(np.meshgrid(*[np.arange(-6, 7)] * 3), -1).reshape(-1, 3) @ rows
    shape = np.array([[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]])
    places = np.random.default_rng(0).random((30, 1, 3)) @ rows
    frames = np.concatenate([np.broadcast_to(shape, (30, 3, 3)), places + shape], 1)
    path = write_traj(["O", "H", "H"] * 2, frames, box)
    table = hydrogen_bonds(path, sites=["index 1->index 3"], distance=2.0).tables["series"]
    apart = frames[:, 1] - frames[:, 3]
    nearest = np.linalg.norm(apart[:, None] + images, axis=2).min(1)
    assert np.allclose(table["site0_distance_HA_angstrom"], nearest, atol=1e-3)
    wrong = [distance_array(x[1], x[3], box=box)[0, 0] for x in frames.astype(np.float32)]
    assert np.max(wrong - nearest) > 0.5


def test_lifetimes_equal_mdanalysis(write_traj):
    """Bonds that are there in turns: S(t) against MDAnalysis's on the same sets of bonds."""
    from MDAnalysis.lib.correlations import autocorrelation

    rng = np.random.default_rng(1)
    frames, sets = [], []
    for k in range(50):
        on = k % 25 < 10 + 5 * (k >= 25)
        x = np.concatenate([dimer(1.9 if on else 3.5, 165), dimer(1.9, 165) + [0, 0, 8.0]])
        frames.append(x + rng.normal(scale=1e-3, size=x.shape))
        sets.append({0, 1} if on else {1})
    path = write_traj(["O", "H", "H"] * 4, frames, (30.0,) * 3 + SQUARE)
    result = hydrogen_bonds(path, dt_ps=1.0, max_lag_ps=20.0)
    ours = np.array(result.tables["lifetimes"]["survival"])
    total = [sum(len(set.intersection(*sets[t : t + lag + 1])) for t in range(50 - lag)) for lag in range(21)]
    counts = [sum(len(s) for s in sets[: 50 - lag]) for lag in range(21)]
    assert np.allclose(ours, np.array(total) / counts)
    alone = autocorrelation([s & {1} for s in sets], tau_max=20)[1]
    assert np.allclose(alone, 1.0) and ours[20] < 0.8


def test_water_is_counted_both_ways(write_traj):
    elements, positions = waters(4, 12.4, np.random.default_rng(3))
    result = hydrogen_bonds(write_traj(elements, [positions] * 3, (12.4,) * 3 + SQUARE), distance=2.4)
    per_frame, each = (result[f"bonds {name}"].value for name in ("H2O to H2O", "of each H2O to H2O"))
    assert each == pytest.approx(2 * per_frame / 64) and per_frame > 0
    assert len(result.tables["pairs"]["donor"]) == 0 and any("not listed" in note for note in result.notes)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"distance": 0.0}, "--distance 0.0"),
        ({"angle": 200.0}, "--angle 200.0"),
        ({"donors": "S"}, "--donors 'S' selects no atom"),
        ({"acceptors": "resname XYZ"}, "--acceptors 'resname XYZ' selects no atom"),
        ({"donors": "C"}, "no hydrogen is bonded to --donors C"),
        ({"sites": ["VAL9-NH"]}, "is no site; write donor and acceptor as"),
        ({"sites": ["VAL9-NH->SAR8-CO"]}, "selects no atom"),
        ({"sites": ["SAR7-CO->SAR7-CO"]}, "has no hydrogen on a donor atom"),
        ({"sites": ["VAL9-NH->name CB"]}, "is no acceptor"),
        ({"tolerance_ps": -1.0}, "--tolerance -1.0"),
    ],
)
def test_bad_settings_name_what_is_allowed(tmp_path, settings, message):
    with pytest.raises(InputError, match=message):
        hydrogen_bonds(write_peptide(tmp_path), **settings)


def test_no_hydrogen_and_a_topology_of_something_else(write_traj):
    path = write_traj(["O"] * 4, np.random.default_rng(0).random((3, 4, 3)) * 9, None)
    with pytest.raises(InputError, match=r"there is no hydrogen.*O \(4\)"):
        hydrogen_bonds(path)
    elements, positions = waters(2, 8.0, np.random.default_rng(0))
    path = write_traj(sorted(elements), [3 * positions] * 3, None, name="b.dcd")
    with pytest.raises(InputError, match="not one hydrogen lies within bonding distance.*--top"):
        hydrogen_bonds(path)


def test_against_known_bonds_of_five_waters(tmp_path):
    """watdyn of MDAnalysisTests: 32 bonds in ten frames, known from that project's own tests; data not shipped."""
    folder = os.environ.get("OMNICALC_CROSSCHECK_DATA")
    if not folder or not (Path(folder) / "watdyn.dcd").is_file():
        pytest.skip("OMNICALC_CROSSCHECK_DATA names no folder with watdyn.psf and watdyn.dcd")
    for name in ("watdyn.dcd", "watdyn.psf"):
        shutil.copy(Path(folder) / name, tmp_path)
    result = hydrogen_bonds(tmp_path / "watdyn.dcd", distance=3.0, angle=120.0, donor_acceptor=True)
    assert result.tables["series"]["bonds_H2O_to_H2O"].tolist() == [3, 2, 4, 4, 4, 4, 3, 2, 3, 3]
    assert result.settings["bonds_from"] == "topology"
    assert np.sort(result.tables["pairs"]["occupancy"])[::-1] == pytest.approx([1.0, 1.0, 0.5, 0.4, 0.3])
    measure = plan_hbonds(sample(as_trajectory(tmp_path / "watdyn.dcd")), distance=3.0, donor_acceptor=True)
    c, angles, hydrogens = measure.criterion, [], []
    for frame in measure.sampling.trajectory.frames(range(10)):
        h, a, _, angle = c(frame)
        angles.extend(angle)
        hydrogens.extend(zip(c.hydrogens[h], c.acceptors[a], strict=True))
    assert np.mean(angles) == pytest.approx(158.903804, abs=1e-4)
    assert np.std(angles) == pytest.approx(12.036283, abs=1e-4)
    assert sorted(hydrogens.count(pair) for pair in set(hydrogens)) == [1, 2, 4, 5, 10, 10]
