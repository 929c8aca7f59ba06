"""Trajectories from npz files: ours, MD17, rMD17, and what cannot be used."""

import numpy as np
import pytest
from ase import units

from omnicalc.data.trajectories import read_folder, read_trajectory
from omnicalc.errors import InputError

NUMBERS = np.array([8, 1, 1], dtype=np.uint8)
RATE = np.array([0.01, 0.02, 0.03])


def course(frames: int = 40, spacing: float = 0.5) -> np.ndarray:
    t = spacing * np.arange(frames)[:, None, None]
    return np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0]]) + 0.1 * np.sin(RATE * t + np.arange(3)[:, None])


def saved(path, **arrays):
    np.savez(path, **arrays)
    return path


def test_md17_needs_its_spacing(tmp_path):
    file = saved(tmp_path / "water.npz", R=course(), z=NUMBERS, E=np.zeros(40), F=np.zeros((40, 3, 3)))
    with pytest.raises(InputError, match="does not tell its frame spacing"):
        read_trajectory(file)
    found = read_trajectory(file, 0.5)
    t = 0.5 * np.arange(40)[:, None, None]
    exact = 0.1 * RATE * np.cos(RATE * t + np.arange(3)[:, None])
    assert found.name == "water" and found.segments == ((0, 40),)
    assert np.abs(found.v - exact)[1:-1].max() < 1e-6
    assert np.abs(read_trajectory(file, 1.0).v - exact)[1:-1].max() > 1e-4
    with pytest.raises(InputError, match="more than 0"):
        read_trajectory(file, -1.0)


def test_positions_in_bohr(tmp_path):
    exact = read_trajectory(saved(tmp_path / "a.npz", R=course(), z=NUMBERS, r_unit="Ang"), 0.5)
    arrays = {"R": course() / units.Bohr, "z": NUMBERS, "r_unit": "Bohr"}
    found = read_trajectory(saved(tmp_path / "b.npz", **arrays), 0.5)
    assert np.abs(found.x - exact.x).max() < 1e-6 and np.abs(found.v - exact.v).max() < 1e-6
    with pytest.raises(InputError, match="velocities beside positions in Bohr"):
        read_trajectory(saved(tmp_path / "v.npz", **arrays, velocities=course()), 0.5)
    with pytest.raises(InputError, match="r_unit is 'nm'; known are ang, "):
        read_trajectory(saved(tmp_path / "nm.npz", **{**arrays, "r_unit": "nm"}), 0.5)


def test_shuffled_rows_give_no_velocities(tmp_path):
    arrays = {"coords": course(), "nuclear_charges": NUMBERS, "old_indices": np.arange(40)}
    with pytest.raises(InputError, match="shuffled"):
        read_trajectory(saved(tmp_path / "rmd17.npz", **arrays), 0.5)


def test_segments_and_parts(tmp_path):
    x = np.stack([course(), course() + 0.01])
    arrays = {"coords": x, "velocities": np.full_like(x, 0.01), "nuclear_charges": NUMBERS, "spacing_fs": 0.5}
    found = read_folder(saved(tmp_path / "own.npz", **arrays).parent)[0]
    assert found.segments == ((0, 40), (40, 80)) and (found.v == np.float32(0.01)).all()
    early, late = found.starts(10, (0, 0.75)), found.starts(10, (0.75, 1))
    assert early.max() + 10 < 60 <= late.min() and late.max() + 10 < 80
    assert not set(early) & set(range(30, 40))  # no window runs over the end of a segment
    with pytest.raises(InputError, match="leave it out"):
        read_trajectory(tmp_path / "own.npz", 1.0)
    with pytest.raises(InputError, match="lacks nothere"):
        read_folder(tmp_path, ["own", "nothere"])
    with pytest.raises(InputError, match="no folder"):
        read_folder(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"R": np.delete(course(frames=3000), slice(1000, 1800), axis=0), "z": NUMBERS}, "frames seem to be missing"),
        ({"R": np.where(np.arange(40)[:, None, None] == 7, np.nan, course()), "z": NUMBERS}, "frame 7"),
        ({"R": course(), "z": np.array([8, 1])}, "one fixed set of atoms"),
        ({"R": course(2), "z": NUMBERS}, "at least 3"),
        ({"E": np.zeros(4)}, "coords or R"),
        ({"R": np.random.default_rng(0).permutation(course(3000)), "z": NUMBERS, "spacing_fs": 0.1}, "shuffled"),
        ({"R": course(), "z": NUMBERS, "velocities": np.full((40, 3, 3), np.nan)}, "velocity is not finite"),
        ({"R": course(), "z": NUMBERS, "velocities": np.zeros((7, 3, 3))}, r"velocities of shape \(7, 3, 3\)"),
        ({"R": course(), "z": NUMBERS, "spacing_fs": np.array([0.5, 1.0])}, "spacing_fs holds 2 numbers"),
        ({"R": course(), "z": NUMBERS, "spacing_fs": 10.0}, "at most 3 fs"),
        ({"R": course(), "z": np.array([8.5, 1, 1])}, "whole numbers"),
    ],
    ids=["gap", "nan", "atoms", "short", "nothing", "shuffled", "still-nan", "shape", "spacings", "coarse", "half"],
)
def test_what_is_no_trajectory(tmp_path, arrays, message):
    with pytest.raises(InputError, match=message):
        read_trajectory(saved(tmp_path / "bad.npz", **arrays), None if "spacing_fs" in arrays else 0.5)


def test_files_that_cannot_be_read(tmp_path):
    (tmp_path / "text.npz").write_text("no archive")
    for name, message in (("nowhere.npz", "no such file"), ("text.npz", "no npz file")):
        with pytest.raises(InputError, match=message):
            read_trajectory(tmp_path / name, 0.5)
