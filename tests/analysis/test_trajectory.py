import gzip
import json
import sys
import warnings

import numpy as np
import pytest
from ase import Atoms
from ase.io import write
from ase.units import fs

from omnicalc.analysis.trajectory import open_trajectory
from omnicalc.errors import InputError

BOX = (11.0, 12.0, 13.0, 80.0, 95.0, 100.0)


def some(n_frames=6, n_atoms=5, seed=0):
    rng = np.random.default_rng(seed)
    return rng.random((n_frames, n_atoms, 3)) * 10 - 2


def read_all(trajectory, *slices):
    return [(f.index, f.positions.copy(), f.box) for f in trajectory.frames(trajectory.select(*slices))]


@pytest.mark.parametrize("name", ["traj.dcd", "traj.xtc", "traj.trr"])
def test_frames_come_back_with_their_boxes(write_traj, name):
    positions = some()
    boxes = np.array([np.array(BOX) + [k, 0, 0, 0, 0, 0] for k in range(6)])
    trajectory = open_trajectory(write_traj(["O", "H", "H", "Na", "Cl"], positions, boxes, name))
    assert list(trajectory.elements) == ["O", "H", "H", "Na", "Cl"]
    assert (trajectory.n_atoms, trajectory.n_frames, trajectory.damage) == (5, 6, None)
    for k, (index, found, box) in enumerate(read_all(trajectory)):
        assert index == k
        assert np.allclose(found, positions[k], atol=6e-3), "xtc keeps 0.01 Å"
        assert np.allclose(box, boxes[k], atol=1e-3)


@pytest.mark.parametrize(
    "slices", [(None, None, None), (1, 5, 2), (-3, None, None), (None, -1, None), (0, 100, 4), (5, 6, 1)]
)
@pytest.mark.parametrize("name", ["traj.dcd", "traj.extxyz"])
def test_ranges_are_python_slices(write_traj, tmp_path, name, slices):
    if name.endswith("dcd"):
        path = write_traj(["O"] * 5, some(), BOX, name)
    else:
        path = tmp_path / name
        write(path, [Atoms("O5", positions=p, cell=BOX, pbc=True) for p in some()])
    found = [index for index, _, _ in read_all(open_trajectory(path), *slices)]
    assert found == list(range(6))[slice(*slices)]


@pytest.mark.parametrize("slices", [(6, None, None), (3, 3, None), (None, -6, None), (4, 2, None)])
def test_a_range_of_nothing_is_an_error(write_traj, slices):
    trajectory = open_trajectory(write_traj(["O"] * 5, some(), BOX))
    with pytest.raises(InputError, match=r"selects no frame.*holds 6 \(indices 0 to 5"):
        trajectory.select(*slices)


@pytest.mark.parametrize("step", [0, -1])
def test_a_stride_below_one_is_an_error(write_traj, step):
    with pytest.raises(InputError, match=f"--step {step} is not a stride"):
        open_trajectory(write_traj(["O"] * 5, some(), BOX)).select(step=step)


@pytest.mark.parametrize("suffix", [".extxyz", ".xyz", ".traj", ".extxyz.gz"])
def test_structure_formats_need_no_topology(tmp_path, suffix):
    """Distances survive, whatever the orientation of the cell and the place of the atoms."""
    from MDAnalysis.lib.distances import self_distance_array

    rng = np.random.default_rng(1)
    turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    frames = [Atoms("OH2Cl", positions=p, cell=BOX, pbc=True) for p in some(4, 4) * 3]
    for atoms in frames:
        atoms.set_cell(atoms.cell.array @ turn, scale_atoms=True)
    path = tmp_path / f"run{suffix}"
    if suffix.endswith(".gz"):
        write(tmp_path / "run.extxyz", frames)
        path.write_bytes(gzip.compress((tmp_path / "run.extxyz").read_bytes()))
    else:
        write(path, frames, format="extxyz" if suffix == ".xyz" else None)
    trajectory = open_trajectory(path)
    assert trajectory.topology is None and list(trajectory.elements) == ["O", "H", "H", "Cl"]
    for (_, positions, box), atoms in zip(read_all(trajectory), frames, strict=True):
        expected = atoms.get_all_distances(mic=True)[np.triu_indices(4, k=1)]
        assert np.allclose(self_distance_array(positions, box=box), expected, atol=1e-4)


def test_pdb_with_many_models(tmp_path):
    path = tmp_path / "models.pdb"
    write(path, [Atoms("OH2", positions=p, cell=(10, 10, 10), pbc=True) for p in some(3, 3)])
    trajectory = open_trajectory(path)
    assert (trajectory.n_frames, list(trajectory.elements)) == (3, ["O", "H", "H"])
    assert np.allclose([p for _, p, _ in read_all(trajectory)], some(3, 3), atol=1e-3)


@pytest.mark.parametrize("pbc", list(np.ndindex(2, 2, 2)))
@pytest.mark.parametrize("hand", [1, -1])
def test_images_are_those_along_the_periodic_axes(tmp_path, pbc, hand):
    """Distances as ASE finds them, whatever the cell has along the open axes, and no mirror image."""
    from MDAnalysis.lib.distances import calc_dihedrals, self_distance_array

    rng = np.random.default_rng(2)
    turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    turn *= np.sign(np.linalg.det(turn))
    atoms = Atoms("O5", positions=rng.normal(size=(5, 3)) * 14, cell=BOX, pbc=pbc)
    cell = atoms.cell.array @ turn
    atoms.set_cell(cell if hand > 0 else cell[[1, 0, 2]])
    atoms.pbc = pbc
    atoms.set_momenta(rng.normal(size=(5, 3)))
    write(tmp_path / "a.traj", atoms)
    trajectory = open_trajectory(tmp_path / "a.traj")
    [frame] = trajectory.frames(trajectory.select())
    assert frame.bulk == all(pbc) and (frame.box is None) == (not any(pbc))
    expected = atoms.get_all_distances(mic=True)[np.triu_indices(5, k=1)]
    assert np.allclose(self_distance_array(frame.positions, box=frame.box), expected, atol=1e-3)
    if any(pbc):
        without = atoms.get_all_distances()[np.triu_indices(5, k=1)]
        assert np.abs(expected - without).max() > 1.0, "images matter here"
    ends = [frame.positions[[k]] for k in range(4)]
    dihedral = np.degrees(calc_dihedrals(*ends, box=frame.box)[0]) % 360
    assert dihedral == pytest.approx(atoms.get_dihedral(0, 1, 2, 3, mic=True), abs=0.01)
    velocities = atoms.get_velocities() * 1000 * fs
    assert np.allclose(frame.velocities @ frame.velocities.T, velocities @ velocities.T, atol=1e-3), "Å/ps"


@pytest.mark.parametrize("pbc", [[True, True, False], [False, True, True], [False, False, True]])
@pytest.mark.parametrize("name", ["traj.dcd", "traj.xtc"])
def test_a_run_of_a_slab_or_a_wire_has_images_along_its_periods_only(write_traj, tmp_path, pbc, name):
    """Although its files have a box with all three axes."""
    from MDAnalysis.lib.distances import self_distance_array
    from MDAnalysis.lib.mdamath import triclinic_vectors

    positions = some() * 1.5
    path = write_traj(["O"] * 5, positions, BOX, name)
    assert next(open_trajectory(path).frames(range(1))).bulk
    (tmp_path / "run.json").write_text(json.dumps({"structure": {"pbc": pbc}}))
    frames = list(open_trajectory(path).frames(range(6)))
    for frame, x in zip(frames, positions, strict=True):
        atoms = Atoms("O5", positions=x, cell=triclinic_vectors(BOX, dtype=np.float64), pbc=pbc)
        expected = atoms.get_all_distances(mic=True)[np.triu_indices(5, k=1)]
        assert not frame.bulk and np.allclose(self_distance_array(frame.positions, box=frame.box), expected, atol=0.03)


def test_atoms_too_far_apart_along_an_open_axis_are_an_error(tmp_path):
    frames = [Atoms("O2", positions=[[0, 0, 0], [0, 0, z]], cell=(9, 9, 0), pbc=(1, 1, 0)) for z in (1900, 2100)]
    write(tmp_path / "a.traj", frames)
    trajectory = open_trajectory(tmp_path / "a.traj")
    with pytest.raises(InputError, match="frame 1 spread over 2100 Å along an axis that is not periodic.*--stop 1"):
        read_all(trajectory)
    assert len(read_all(trajectory, None, 1)) == 1


def test_topology_beside_the_trajectory(write_traj, tmp_path):
    path = write_traj(["O"] * 5, some(), BOX, topology=False)
    with pytest.raises(InputError, match=r"no topology lies beside it .*--top FILE"):
        open_trajectory(path)
    write(tmp_path / "traj.xyz", Atoms("N5", positions=some()[0]))
    assert open_trajectory(path).topology == tmp_path / "traj.xyz"
    write(tmp_path / "topology.pdb", Atoms("O5", positions=some()[0] + 5))
    assert set(open_trajectory(path).elements) == {"O"}, "topology.pdb comes first"
    write(tmp_path / "other.pdb", Atoms("C5", positions=some()[0] + 5))
    assert set(open_trajectory(path, tmp_path / "other.pdb").elements) == {"C"}
    with pytest.raises(InputError, match=r"no topology file .*none\.pdb"):
        open_trajectory(path, tmp_path / "none.pdb")


@pytest.mark.parametrize("name", ["traj.dcd", "traj.xtc", "run.extxyz"])
def test_another_number_of_atoms_names_both(write_traj, tmp_path, name):
    if name.endswith("extxyz"):
        path = tmp_path / name
        write(path, [Atoms("O5", positions=p, cell=BOX, pbc=True) for p in some()])
    else:
        path = write_traj(["O"] * 5, some(), BOX, name)
    write(tmp_path / "small.pdb", Atoms("O4", positions=some()[0][:4] + 5))
    with pytest.raises(InputError, match=rf"{name} holds 5 atoms .*small\.pdb names 4.*--top"):
        open_trajectory(path, tmp_path / "small.pdb")


@pytest.mark.parametrize("name", ["traj.dcd", "traj.xtc", "traj.trr", "traj.pdb", "traj.extxyz", "traj.abc"])
@pytest.mark.parametrize("content", [b"", b"no trajectory at all\n" * 20, bytes(400)])
def test_unreadable_files_are_one_message(tmp_path, monkeypatch, name, content):
    complaints = []
    monkeypatch.setattr(sys, "unraisablehook", complaints.append)
    write(tmp_path / "topology.pdb", Atoms("O5", positions=some()[0] + 5))
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError, match=name.replace(".", r"\.")):
        open_trajectory(path)
    assert not complaints, "readers complain from their destructors"


def test_missing_files_and_folders(tmp_path, write_traj):
    with pytest.raises(InputError, match=r"nothing\.dcd does not exist"):
        open_trajectory(tmp_path / "nothing.dcd")
    write_traj(["O"] * 5, some(), BOX)
    with pytest.raises(InputError, match=r"is a folder; give .*traj\.dcd"):
        open_trajectory(tmp_path)


@pytest.mark.parametrize("name", ["traj.dcd", "traj.xtc", "traj.trr", "traj.extxyz"])
@pytest.mark.parametrize("n_atoms", [5, 30])
def test_the_whole_frames_of_a_cut_off_file_are_used_and_that_is_said(write_traj, tmp_path, name, n_atoms):
    positions = some(6, n_atoms)
    if name.endswith("extxyz"):
        path = tmp_path / name
        write(path, [Atoms(f"O{n_atoms}", positions=p, cell=BOX, pbc=True) for p in positions])
    else:
        path = write_traj(["O"] * n_atoms, positions, BOX, name)
    whole = path.read_bytes()
    read_all(open_trajectory(path))
    for cut in (30, 100):
        path.write_bytes(whole[:-cut])
        for offsets in tmp_path.glob(".*offsets*"):
            offsets.unlink()
        trajectory = open_trajectory(path)
        if not name.endswith("dcd"):  # readers of the others may count the frame that has begun
            with pytest.raises(InputError, match="--stop 5 "):
                read_all(trajectory)
        else:
            assert len(read_all(trajectory)) == 5
            assert ["only its 5 whole frames" in note for note in trajectory.notes()] == [True]
        assert len(read_all(open_trajectory(path), None, 5)) == 5


def test_results_of_a_cut_off_file_say_so(write_traj):
    from omnicalc.analysis import densities, radial_distributions

    path = write_traj(["O"] * 5, some(), BOX)
    assert not any("whole frames" in note for note in densities(path).notes)
    path.write_bytes(path.read_bytes()[:-30])
    for result in (densities(path), radial_distributions(path, ["O-O"], bin_width=0.2)):
        assert any("ends inside frame 5" in note and "only its 5 whole frames" in note for note in result.notes)


def test_other_atoms_from_one_frame_on(tmp_path):
    frames = [Atoms("OH2", positions=some(1, 3)[0], cell=BOX, pbc=True) for _ in range(4)]
    frames[2].symbols[0] = "S"
    write(tmp_path / "mixed.extxyz", frames)
    trajectory = open_trajectory(tmp_path / "mixed.extxyz")
    with pytest.raises(InputError, match="frame 2 holds other atoms .*--stop 2"):
        trajectory.select()
    assert len(read_all(trajectory, 0, 2)) == 2


def test_a_frame_with_nan_is_named(write_traj):
    positions = some()
    positions[3, 2, 1] = np.nan
    trajectory = open_trajectory(write_traj(["O"] * 5, positions, BOX))
    with pytest.raises(InputError, match="frame 3 has a non-finite coordinate at atom 2"):
        read_all(trajectory)
    assert len(read_all(trajectory, 0, 3)) == 3


def test_the_process_is_left_as_it_was(write_traj):
    path = write_traj(["O"] * 5, some(), BOX)
    before = list(warnings.filters)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        during = list(warnings.filters)
        read_all(open_trajectory(path))
        assert warnings.filters == during
    assert not caught
    assert warnings.filters == before
