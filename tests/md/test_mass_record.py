"""Masses in run.json: only of elements that are not as usual, one number where one will do, exact."""

import json

import numpy as np
import pytest
from ase.build import molecule

from omnicalc.md.folder import RunFolder
from omnicalc.md.mass_record import as_record, from_record
from omnicalc.md.run import run
from omnicalc.md.settings import Settings

from .toy import argon, pairs_job


def test_only_what_is_unusual():
    atoms = molecule("CH3OH")
    masses = atoms.get_masses()
    assert as_record(atoms.numbers, masses) == {}
    masses[atoms.numbers == 1] = 2.014
    masses[0] = 13.003
    assert as_record(atoms.numbers, masses) == {"H": 2.014, "C": 13.003}


def test_the_way_back_is_exact():
    rng = np.random.default_rng(0)
    elements, numbers = np.array(["O", "H", "H"] * 50), np.array([8, 1, 1] * 50)
    masses = np.where(numbers == 8, 15.999, np.repeat(rng.uniform(1, 3, 75), 2))
    record = as_record(numbers, masses)
    assert list(record) == ["H"]
    back = from_record(json.loads(json.dumps(record)), elements)
    assert np.array_equal(back[numbers == 1], masses[numbers == 1]) and not back[numbers == 8].any()
    with pytest.raises(ValueError, match="assign"):
        from_record(record, elements[:-1])


def test_many_molecules_stay_short():
    numbers = np.array([6, 8, 1] * 100 + [8, 1, 1] * 33_000)
    masses = np.choose(np.searchsorted([1, 6, 8], numbers), [3.0, 12.011, 15.999])
    masses[300::3] = 11.967
    assert as_record(numbers, masses) == {"H": 3.0, "O": "15.999*100 11.967*33000"}


def test_a_run_tells_them(tmp_path):
    atoms = argon()
    settings = Settings(steps=2, timestep_fs=4.0, temperature_K=90.0, seed=1)
    run(pairs_job(atoms), settings, folder := RunFolder(tmp_path / "usual"))
    assert folder.read_record()["masses"] == {}
    atoms.set_masses([36.0, *atoms.get_masses()[1:]])
    run(pairs_job(atoms), settings, folder := RunFolder(tmp_path / "isotope"))
    assert folder.read_record()["masses"] == {"Ar": "36.0*1 39.948*31"}
    old = folder.read_record()
    del old["masses"]  # as of a version that did not tell
    folder.write_record(old)
    run(pairs_job(atoms), Settings(**{**old["settings"], "steps": 4}), folder, resume=True)
    assert folder.read_record()["masses"] == {"Ar": "36.0*1 39.948*31"}
