"""Errors on labelled structures against numbers worked out by hand."""

import gc
import itertools

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms
from ase.stress import full_3x3_to_voigt_6_stress

from omnicalc.calculator import OmniCalc
from omnicalc.errors import InputError
from omnicalc.evaluation import evaluate, labelled_frames
from omnicalc.models import build_model
from omnicalc.potential import Head, Potential
from omnicalc.systems import Systems


@pytest.fixture
def potential():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build_model("e2former", {"heads": ["a"], "elements": [1, 8], "channels": 8})
    return Potential(model.double(), [Head("a", {1: 0.0, 8: 0.0})])


def labelled(potential, energy_shift, force_shift, **info):
    atoms = Atoms("OHH", [[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]], info=info)
    result = potential.bind(Systems.from_atoms(atoms))(torch.from_numpy(atoms.positions))
    forces = result.forces.numpy() + force_shift
    atoms.calc = SinglePointCalculator(atoms, energy=result.energy.item() + energy_shift, forces=forces)
    return atoms


def test_known_errors(potential):
    frames = [labelled(potential, 0.003, 0.02), labelled(potential, -0.009, -0.04)]
    found = evaluate(potential, frames)
    errors = found.errors()
    assert found.head == "a"
    assert errors.energy_mae == pytest.approx(2.0)  # (1 + 3) / 2 meV per atom
    assert errors.energy_rmse == pytest.approx(np.sqrt(5.0))
    assert errors.force_mae == pytest.approx(30.0)
    assert errors.force_rmse == pytest.approx(np.sqrt(1000.0))


def test_errors_of_stresses(potential):
    """Labels are minus what the energy, by differences, gains per volume and strain; of frames that have any."""

    def energy(strain) -> float:
        strained = box.copy()
        strained.set_cell(box.cell.array @ (np.eye(3) + strain), scale_atoms=True)
        return OmniCalc(potential).get_potential_energy(strained)

    molecule, box = labelled(potential, 0, 0), labelled(potential, 0, 0)
    box.set_cell([[3, 0, 0], [0.5, 3.5, 0], [0, 0.7, 4]])
    box.pbc = True
    label, step = np.zeros((3, 3)), 1e-4
    for a, b in itertools.product(range(3), repeat=2):
        strain = np.zeros((3, 3))
        strain[a, b] += step / 2
        strain[b, a] += step / 2
        label[a, b] = (energy(strain) - energy(-strain)) / (2 * step * box.get_volume())
    voigt = full_3x3_to_voigt_6_stress(label) + np.array([0.001, 0, 0, 0, 0, -0.005])
    assert np.abs(label).max() > 1e-5 and len({round(x, 7) for x in voigt}) == 6
    box.calc = SinglePointCalculator(box, energy=0.0, forces=np.zeros((3, 3)), stress=voigt)
    full, molecule.calc.results["stress"] = box.copy(), np.ones(6)  # which no molecule has
    full.calc = SinglePointCalculator(full, energy=0.0, forces=np.zeros((3, 3)))
    full.calc.results["stress"] = label
    found = evaluate(potential, [molecule, box, full]).errors()
    assert found.stresses == 2 and found.stress_mae == pytest.approx(6 / 12, abs=1e-5)
    assert found.stress_mae_gpa == pytest.approx(160.21766e-3 * found.stress_mae)
    none = evaluate(potential, [molecule]).errors().to_dict()
    assert none["stresses"] == 0 and none["stress_mae"] is None


def test_labels_of_atoms_that_are_held(potential):
    """Constraints say what a run moves; the label of the force on a held atom is what it is, and not zero."""
    free, held = labelled(potential, 0.003, 0.02), labelled(potential, 0.003, 0.02)
    held.set_constraint(FixAtoms([0, 1]))
    assert np.abs(held.get_forces()[:2]).max() == 0  # what the errors were taken from
    one, other = (evaluate(potential, [atoms]) for atoms in (free, held))
    assert one.errors().to_dict() == other.errors().to_dict() and other.errors().force_rmse == pytest.approx(20.0)
    np.testing.assert_array_equal(other.frames[0].force_errors, one.frames[0].force_errors)


def test_energies_relative_to_frames_of_the_same_atoms(potential):
    """A shift of the zero of one molecule's energies changes nothing of them."""
    frames = [labelled(potential, 5.0 + x, 0, molecule="one", config_type="a") for x in (0.003, -0.003, 0.006)]
    frames += [labelled(potential, -7.0, 0, molecule="two", config_type="b")]
    found = evaluate(potential, frames, atoms_per_batch=7)
    errors = found.errors()
    # off by -3, 3, -6 meV, mean -2: in meV per atom 1/3, 5/3, 4/3
    assert errors.relative_energy_mae == pytest.approx(10 / 9)
    assert errors.delta_energy_mae == pytest.approx((6 + 9) / 2)
    groups = found.by("config_type")
    assert list(groups) == ["a", "b"] and groups["a"].frames == 3
    assert groups["b"].energy_mae == pytest.approx(7000 / 3)
    assert np.isnan(groups["b"].delta_energy_mae) and groups["b"].to_dict()["delta_energy_mae"] is None
    assert found.by("molecule")["one"].to_dict() == groups["a"].to_dict()  # where nan is None


def test_batches_of_frames_give_what_single_frames_give(potential):
    rng = np.random.default_rng(0)
    frames = []
    for k in range(7):
        atoms = labelled(potential, 0.1 * k, 0.01 * k)
        atoms.positions += rng.normal(scale=0.05, size=(3, 3))
        frames.append(atoms)
    alone = evaluate(potential, frames, atoms_per_batch=1)
    together = evaluate(potential, frames, atoms_per_batch=9)
    for one, other in zip(alone.frames, together.frames, strict=True):
        assert one.atoms is other.atoms
        assert one.energy == pytest.approx(other.energy, abs=1e-10)
        np.testing.assert_allclose(one.forces, other.forces, atol=1e-10)


def test_many_frames_are_not_all_held_as_tensors(potential):
    """Several kB each, more than the frames themselves."""
    alive = []

    def progress(done):
        alive.append(sum(type(each) is Systems for each in gc.get_objects()))

    before = sum(type(each) is Systems for each in gc.get_objects())
    evaluate(potential, [labelled(potential, 0.0, 0.0)] * 30, progress=progress, atoms_per_batch=9)
    assert len(alive) == 10 and max(alive) - before < 10


def test_reading_is_told(potential):
    told, frames = [], [labelled(potential, 0.0, 0.0, split=name) for name in ("train", "valid", "valid")]
    labelled_frames(frames, "valid", "x", progress=lambda *given: told.append(given))
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_parity_plot(potential, tmp_path):
    from omnicalc.parity import draw_parity

    frames = [labelled(potential, 0.1 * k, 0.05, config_type="ab"[k % 2]) for k in range(4)]
    draw_parity(evaluate(potential, frames), tmp_path / "parity.png")
    assert (tmp_path / "parity.png").read_bytes().startswith(b"\x89PNG")


def test_a_parity_plot_of_very_many_groups_has_few_artists(potential, tmp_path, monkeypatch):
    from matplotlib.axes import Axes

    from omnicalc.parity import draw_parity

    drawn, plot = [], Axes.plot

    def counted(axis, *args, **settings):
        drawn.append(len(args[0]) if settings.get("color") != "black" else 0)
        return plot(axis, *args, **settings)

    monkeypatch.setattr(Axes, "plot", counted)
    frames = [labelled(potential, 0.1 * k, 0.05, molecule=f"m{k}") for k in range(30)]
    draw_parity(evaluate(potential, frames), tmp_path / "parity.png", "molecule")
    assert len(drawn) == 2 * 11 + 2 and sum(drawn) == 30 + 30 * 9


def test_split_outliers_and_missing_labels(potential):
    train, valid = labelled(potential, 0, 0, split="train"), labelled(potential, 0, 0, split="valid")
    outlier = labelled(potential, 0, 0, split="valid", quality="outlier")
    said = []
    assert labelled_frames([train, valid, outlier], "valid", "x", said.append) == [valid]
    assert labelled_frames([train, valid], None, "x", said.append) == [train, valid]
    assert said == ["1 frames of 'x' left out, for they have quality=outlier"]
    with pytest.raises(InputError, match="no frames with split=test .there are: train, valid. in 'x'"):
        labelled_frames([train, valid], "test", "x")
    named = Atoms("H", info={"dft_energy": 1.0})
    with pytest.raises(InputError, match="lacks energy and forces .there is dft_energy: .*dft_energy.energy.. FILE"):
        labelled_frames([named], None, "x")
    with pytest.raises(InputError, match="frame 1 of 'x' lacks energy and forces"):  # counted as in the file
        labelled_frames([train, Atoms("H", info={"split": "valid"})], "valid", "x")


def test_labels_that_are_not_finite(potential):
    with pytest.raises(InputError, match="frame 1 of 'x' has an energy or forces that are not finite"):
        labelled_frames([labelled(potential, 0, 0), labelled(potential, np.nan, 0)], None, "x")


def test_a_frame_that_cannot_be_is_named(potential):
    frames = [labelled(potential, 0, 0), Atoms("Mg")]
    with pytest.raises(InputError, match="^frame 1: .*does not know element Mg"):
        evaluate(potential, frames)
