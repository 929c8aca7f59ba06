import struct

import MDAnalysis
import numpy as np
import pytest
from ase.geometry import cellpar_to_cell

from omnicalc.errors import RunError
from omnicalc.md.box import standard_box
from omnicalc.md.trajectory import DcdWriter, frame_layout, whole_frames

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

N = 7
FRAMES = np.random.default_rng(0).normal(size=(5, N, 3)) * 30
CELLS = {
    "orthorhombic": np.diag([12.0, 13.5, 14.25]),
    "triclinic": cellpar_to_cell([12.0, 13.5, 14.25, 75.0, 100.0, 115.0]),
    "nearly right-angled": cellpar_to_cell([12.0, 13.5, 14.25, 89.5, 90.5, 91.0]),
    "none": None,
}


def box_of(name: str):
    cell = CELLS[name]
    return None if cell is None else standard_box(cell, np.array([True] * 3))


def write(path, frames=FRAMES, cell="triclinic", keep=0, **settings):
    settings = {"timestep_fs": 0.5, "interval": 20} | settings
    box = box_of(cell)
    writer = DcdWriter(path, N, periodic=box is not None, frames=keep, **settings)
    for frame in frames:
        writer.append(frame, box)
    writer.close()
    return path


@pytest.mark.parametrize("cell", CELLS)
def test_mdanalysis_reads_what_was_written(tmp_path, cell):
    u = MDAnalysis.Universe.empty(N, trajectory=True)
    u.load_new(str(write(tmp_path / "a.dcd", cell=cell)))
    assert u.trajectory.n_frames == 5
    for k, ts in enumerate(u.trajectory):
        assert ts.positions == pytest.approx(FRAMES[k], abs=4e-6)
        assert ts.time == pytest.approx(k * 20 * 0.5e-3, rel=1e-6)  # ps
        if cell == "none":
            assert ts.dimensions is None
        else:
            assert ts.dimensions == pytest.approx(box_of(cell).dimensions, abs=1e-4)


@pytest.mark.parametrize("cell", ["orthorhombic", "triclinic"])
def test_mdtraj_reads_what_was_written(tmp_path, cell):
    mdtraj = pytest.importorskip("mdtraj")
    with mdtraj.formats.DCDTrajectoryFile(str(write(tmp_path / "a.dcd", cell=cell))) as file:
        xyz, lengths, angles = file.read()
    assert xyz == pytest.approx(FRAMES, abs=4e-6)
    assert lengths == pytest.approx(np.tile(box_of(cell).dimensions[:3], (5, 1)), abs=1e-4)
    assert angles == pytest.approx(np.tile(box_of(cell).dimensions[3:], (5, 1)), abs=1e-4)


def test_the_header_counts_frames_and_has_no_date(tmp_path):
    data = write(tmp_path / "a.dcd").read_bytes()
    assert data[:8] == struct.pack("<i", 84) + b"CORD"
    count, first, interval, last = struct.unpack("<4i", data[8:24])
    assert (count, first, interval, last) == (5, 0, 20, 80)
    assert data == write(tmp_path / "b.dcd").read_bytes()


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("keep", [1, 3])
@pytest.mark.parametrize("torn", [0, 1, 57])
def test_cut_back_and_written_again_gives_the_same_bytes(tmp_path, cell, keep, torn):
    whole = write(tmp_path / "a.dcd", cell=cell).read_bytes()
    path = tmp_path / "b.dcd"
    path.write_bytes(whole[: len(whole) - torn])
    assert whole_frames(path, N, cell != "none") == (5 if torn == 0 else 4)
    write(path, FRAMES[keep:], cell, keep=keep)
    assert path.read_bytes() == whole


def test_appending_to_a_torn_file_without_cutting_would_show(tmp_path):
    """The wrong variant: after a torn frame left in place, readers find rubbish or nothing."""
    whole = write(tmp_path / "a.dcd").read_bytes()
    size = frame_layout(N, True).itemsize
    (tmp_path / "b.dcd").write_bytes(whole[:-57] + whole[-size:])
    u = MDAnalysis.Universe.empty(N, trajectory=True)
    try:
        u.load_new(str(tmp_path / "b.dcd"))
        last = u.trajectory[-1].positions
    except OSError:
        return
    assert np.abs(last - FRAMES[4]).max() > 1


@pytest.mark.parametrize("change", ["short", "settings", "atoms", "no file"])
def test_another_file_is_refused_and_left_alone(tmp_path, change):
    path = write(tmp_path / "a.dcd", frames=FRAMES[:2] if change == "short" else FRAMES)
    before = path.read_bytes()
    settings = {"timestep_fs": 0.5, "interval": 10 if change == "settings" else 20, "frames": 4}
    if change == "no file":
        path.unlink()
    with pytest.raises(RunError, match="nothing was changed"):
        DcdWriter(path, N - (change == "atoms"), periodic=True, **settings)
    assert change == "no file" or path.read_bytes() == before


def test_whole_frames_of_no_file_and_of_a_torn_header(tmp_path):
    assert whole_frames(tmp_path / "none.dcd", N, True) == 0
    (tmp_path / "torn.dcd").write_bytes(write(tmp_path / "a.dcd").read_bytes()[:100])
    assert whole_frames(tmp_path / "torn.dcd", N, True) == 0
