import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

from omnicalc.analysis.pes import pes_errors
from omnicalc.errors import InputError

N = 6


def labelled(energies, forces, positions=None, formula="H4O2", **extra):
    frames = []
    for k, (energy, force) in enumerate(zip(energies, forces, strict=True)):
        x = np.arange(3.0 * N).reshape(N, 3) + 0.01 * k if positions is None else positions[k]
        atoms = Atoms(formula, positions=x)
        atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=force)
        for name, values in extra.items():
            (atoms.info if np.ndim(values[k]) == 0 else atoms.arrays)[name] = values[k]
        frames.append(atoms)
    return frames


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    energies, forces = rng.normal(size=40), rng.normal(size=(40, N, 3))
    off, twist = 0.05 * rng.normal(size=40), 0.1 * rng.normal(size=forces.shape)
    return energies, forces, energies + 7.0 + off, forces + twist, off, twist


def test_measures_are_their_definitions(tmp_path, data):
    energies, forces, predicted, other, off, twist = data
    write(tmp_path / "a.extxyz", labelled(energies, forces))
    write(tmp_path / "b.extxyz", labelled(predicted, other))
    result = pes_errors(tmp_path / "a.extxyz", tmp_path / "b.extxyz")
    relative = np.abs(off[1:] - off[0]).mean() * 1000 * 100 / N
    assert result["relative energy, MAE per 100 atoms"].value == pytest.approx(relative, rel=1e-6)
    steps = np.abs(np.diff(off)).mean() * 1000
    assert result["consecutive energy difference, MAE"].value == pytest.approx(steps, rel=1e-6)
    assert result["forces, MAE"].value == pytest.approx(np.abs(twist).mean() * 1000, rel=1e-6)
    assert result["forces, RMSE"].value == pytest.approx(np.sqrt((twist**2).mean()) * 1000, rel=1e-6)
    absolute = np.abs(predicted - energies).mean() * 1000 * 100 / N
    assert absolute - relative > 1000, "a shifted zero counts for nothing"
    frames = result.tables["frames"]
    assert np.isnan(frames["step_error_meV"][0]) and np.isfinite(frames["step_error_meV"][1:]).all()
    expected = np.abs(twist).reshape(40, -1).mean(axis=1).std() / np.sqrt(40) * 1000
    assert result["forces, MAE"].stderr == pytest.approx(expected, rel=0.6)


def test_two_sets_of_labels_in_one_file(tmp_path, data):
    energies, forces, predicted, other, *_ = data
    write(tmp_path / "a.extxyz", labelled(energies, forces))
    write(tmp_path / "b.extxyz", labelled(predicted, other))
    write(tmp_path / "both.extxyz", labelled(energies, forces, ml_energy=predicted, ml_forces=other))
    two = pes_errors(tmp_path / "a.extxyz", tmp_path / "b.extxyz")
    one = pes_errors(tmp_path / "both.extxyz", predicted_keys=("ml_energy", "ml_forces"))
    for ours, theirs in zip(one.quantities, two.quantities, strict=True):
        assert ours.value == pytest.approx(theirs.value, rel=1e-6)


def test_each_composition_has_its_own_first_frame(tmp_path, data):
    energies, forces, predicted, other, off, _ = data
    a = labelled(energies[:20], forces[:20]) + labelled(energies[20:] - 50, forces[20:], formula="H3O2N")
    b = labelled(predicted[:20], other[:20]) + labelled(predicted[20:] - 80, other[20:], formula="H3O2N")
    write(tmp_path / "a.extxyz", a)
    write(tmp_path / "b.extxyz", b)
    result = pes_errors(tmp_path / "a.extxyz", tmp_path / "b.extxyz")
    apart = np.concatenate([np.abs(off[1:20] - off[0]), np.abs(off[21:] - off[20])]).mean() * 1e5 / N
    assert result["relative energy, MAE per 100 atoms"].value == pytest.approx(apart, rel=1e-6)
    steps = np.concatenate([np.abs(np.diff(off[:20])), np.abs(np.diff(off[20:]))]).mean() * 1000
    assert result["consecutive energy difference, MAE"].value == pytest.approx(steps, rel=1e-6)


def test_bad_input_names_the_frame(tmp_path, data):
    energies, forces, predicted, other, *_ = data
    a, b = tmp_path / "a.extxyz", tmp_path / "b.extxyz"
    write(a, labelled(energies, forces))
    write(b, labelled(predicted[:30], other[:30]))
    with pytest.raises(InputError, match=r"b.extxyz ends after 30 frames"):
        pes_errors(a, b)
    with pytest.raises(InputError, match="needs two sets of labels.*--predicted-keys"):
        pes_errors(a)
    with pytest.raises(InputError, match="frame 0 of .* has no ml_energy; there are energy, forces"):
        pes_errors(a, predicted_keys=("ml_energy", "forces"))
    moved = labelled(predicted, other)
    moved[7].positions[2] += 0.01
    write(b, moved)
    with pytest.raises(InputError, match="frame 7: atom 2 lies 0.0173 Å apart"):
        pes_errors(a, b)
    write(b, labelled(predicted, other, formula="H5O"))
    with pytest.raises(InputError, match="frame 0 holds H4O2 in .* and H5O"):
        pes_errors(a, b)
    nan = labelled(predicted, other)
    nan[3].calc.results["energy"] = float("nan")
    write(b, nan)
    with pytest.raises(InputError, match="frame 3 .* not finite"):
        pes_errors(a, b)
    write(b, labelled(predicted[:1], other[:1]))
    with pytest.raises(InputError, match="holds 1 frame"):
        pes_errors(b, b, predicted_keys=("energy", "forces"))
    with pytest.raises(InputError, match="does not exist"):
        pes_errors(tmp_path / "none.xyz", a)
    b.write_text("nonsense")
    with pytest.raises(InputError, match="cannot be read"):
        pes_errors(a, b)
