"""Errors on labelled structures against numbers worked out by hand."""

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from omnicalc.errors import InputError
from omnicalc.evaluation import evaluate, labelled_frames
from omnicalc.models import build_model
from omnicalc.potential import Head, Potential


@pytest.fixture
def potential():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build_model("e2former", {"heads": ["a"], "elements": [1, 8], "channels": 8})
    return Potential(model.double(), [Head("a", {1: 0.0, 8: 0.0})])


def labelled(potential, energy_shift, force_shift, **info):
    atoms = Atoms("OHH", [[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]], info=info)
    from omnicalc.systems import Systems

    result = potential.bind(Systems.from_atoms(atoms))(torch.from_numpy(atoms.positions))
    forces = result.forces.numpy() + force_shift
    atoms.calc = SinglePointCalculator(atoms, energy=result.energy.item() + energy_shift, forces=forces)
    return atoms


def test_known_errors(potential):
    frames = [labelled(potential, 0.003, 0.02), labelled(potential, -0.009, -0.04)]
    head, errors = evaluate(potential, frames)
    assert head == "a"
    assert errors.energy_mae == pytest.approx(2.0)  # (1 + 3) / 2 meV per atom
    assert errors.energy_rmse == pytest.approx(np.sqrt(5.0))
    assert errors.force_mae == pytest.approx(30.0)
    assert errors.force_rmse == pytest.approx(np.sqrt(1000.0))


def test_split_outliers_and_missing_labels(potential):
    train, valid = labelled(potential, 0, 0, split="train"), labelled(potential, 0, 0, split="valid")
    outlier = labelled(potential, 0, 0, split="valid", quality="outlier")
    assert labelled_frames([train, valid, outlier], "valid", "x") == [valid]
    with pytest.raises(InputError, match="no frames with split=test"):
        labelled_frames([train], "test", "x")
    with pytest.raises(InputError, match="frame 0 of 'x' has no energy"):
        labelled_frames([Atoms("H")], None, "x")


def test_labels_that_are_not_finite(potential):
    with pytest.raises(InputError, match="frame 1 of 'x' has an energy or forces that are not finite"):
        labelled_frames([labelled(potential, 0, 0), labelled(potential, np.nan, 0)], None, "x")


def test_a_frame_that_cannot_be_is_named(potential):
    frames = [labelled(potential, 0, 0), Atoms("Mg")]
    with pytest.raises(InputError, match="^frame 1: .*does not know element Mg"):
        evaluate(potential, frames)
