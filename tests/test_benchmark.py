"""Boxes for the benchmark, and that what it times and compares is what it says."""

import time

import numpy as np
import pytest
from ase.io import read
from click.testing import CliRunner

from omnicalc import load_potential
from omnicalc.benchmark import call_of, float64_reference, label, time_all, water_box
from omnicalc.cli.bench import command
from omnicalc.compiled_peer import CompiledForces
from omnicalc.errors import InputError

BOX = "examples/water.xyz"


@pytest.fixture
def atoms():
    return read(BOX)


@pytest.mark.parametrize("size", [24, 192, 195, 648, 1536])
def test_water_boxes_keep_the_density_and_whole_molecules(atoms, size):
    box = water_box(atoms, size)
    assert len(box) == size
    assert size / box.get_volume() == pytest.approx(len(atoms) / atoms.get_volume(), rel=1e-12)
    bonds = [box.get_distance(i, i + k, mic=True) for i in range(0, size, 3) for k in (1, 2)]
    assert max(bonds) < 1.3


@pytest.mark.parametrize("size", [195, 648])
def test_no_waters_lie_upon_each_other_where_a_box_was_cut(atoms, size):
    box = water_box(atoms, size)
    between = np.arange(size)[:, None] // 3 != np.arange(size) // 3
    oxygen = box.numbers == 8
    distances = box.get_all_distances(mic=True)
    assert distances[between].min() > 1.48
    assert distances[between & oxygen & oxygen[:, None]].min() > 2.48


def test_times_and_errors_belong_to_the_calls(atoms):
    def slow(positions):
        time.sleep(0.003)
        return positions + 0.25

    def fast(positions):
        return positions

    rows = time_all({"slow": slow, "fast": fast}, {"slow": fast, "fast": fast}, atoms, rounds=3)
    assert [row.name for row in rows] == ["slow", "fast"]
    assert rows[0].milliseconds > 3 > rows[1].milliseconds
    assert rows[0].force_error == pytest.approx(0.25)
    assert rows[1].force_error == 0
    assert rows[0].ns_per_day(0.5) == pytest.approx(rows[0].steps_per_s * 0.5e-6 * 86400)


@pytest.mark.parametrize("kernel", ["native", "torch"])
def test_the_error_is_against_the_same_weights_in_float64(atoms, kernel):
    box = water_box(atoms, 24)
    potential = load_potential("ubio-s3", device="cpu", kernel=kernel)
    exact = float64_reference(load_potential("ubio-s3", device="cpu", dtype="float64"), box)
    forces = call_of(potential, box)(box.positions)
    assert 0 < np.abs(forces - exact(box.positions)).max() < 1e-4
    moved = box.positions + 0.001 * np.arange(3)  # a rigid shift changes nothing
    assert np.abs(forces - exact(moved)).max() < 1e-4
    assert label(potential, box).startswith(f"ubio-s3:small@0.3 {kernel}")


def test_the_command_prints_one_line_per_size_and_kernel():
    given = ["--structure", BOX, "--sizes", "24,48", "--rounds", "1", "--against", "torch"]
    result = CliRunner().invoke(command, given)
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()[2:]
    assert [line.split()[1] for line in lines] == ["native", "torch", "native", "torch"]
    assert all(float(line.split()[-1]) < 1e-4 for line in lines)


def test_tf32_is_not_claimed_without_a_gpu(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    result = CliRunner().invoke(command, ["--structure", BOX, "--sizes", "24", "--rounds", "1", "--tf32"])
    assert isinstance(result.exception, InputError) and "a CPU has no TF32" in str(result.exception)


def test_the_compiled_peer_gives_the_same_forces(atoms):
    """Traced, not compiled: that takes a minute. More neighbours than there are slots for are a new trace."""
    box = water_box(atoms, 24)
    potential = load_potential("ubio-s3:small@0.1", device="cpu", kernel="torch")
    compiled, plain = CompiledForces(potential, box, backend="eager"), call_of(potential, box)
    assert np.abs(compiled(box.positions) - plain(box.positions)).max() < 2e-5
    first, moved = compiled._compiled, 1.001 * box.positions
    assert np.abs(compiled(moved) - plain(moved)).max() < 2e-5
    assert compiled._compiled is first
    crowded = 0.5 * box.positions  # in the same cell: 109 neighbours in place of 83
    assert np.abs(compiled(crowded) - plain(crowded)).max() < 1e-4 * np.abs(plain(crowded)).max()
    assert compiled._compiled is not first


def test_what_cannot_be_compiled_is_refused(atoms):
    with pytest.raises(InputError, match="ubio-s1:small@0.1 cannot be compiled"):
        CompiledForces(load_potential("ubio-s1", device="cpu"), water_box(atoms, 24))


@pytest.mark.slow
def test_the_command_times_compiled_weights():
    given = ["--structure", BOX, "--sizes", "24", "--rounds", "1", "--against", "compiled"]
    result = CliRunner().invoke(command, given)
    assert result.exit_code == 0, result.output
    native, compiled = result.output.splitlines()[2:]
    assert "compiled" in compiled and float(compiled.split()[-1]) < 1e-4
