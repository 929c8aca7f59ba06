"""The guard on a committee's spread, with a committee of three toys."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from omnicalc.errors import InputError, RunError
from omnicalc.md.folder import RunFolder
from omnicalc.md.job import uncertainty_limit
from omnicalc.md.replicas import run_replicas
from omnicalc.md.restart import Restart
from omnicalc.md.run import run
from omnicalc.md.settings import Settings
from omnicalc.systems import Systems

from .toy import Pairs, argon, job, pairs_job

SETTINGS = Settings(steps=20, timestep_fs=4.0, temperature_K=90.0, interval=4, restart_interval=6, seed=11)


class Committee:
    """Members that agree on all but one atom, and on that one less with every call."""

    def __init__(self, systems: Systems, rate: float = 0.05, atom: int = 7):
        self.members, self.rate, self.atom, self.calls = [Pairs(systems) for _ in range(3)], rate, atom, 0

    def __call__(self, positions: torch.Tensor) -> SimpleNamespace:
        found = [member(positions) for member in self.members]
        forces = torch.stack([each.forces for each in found])
        for k in range(3):
            forces[k, self.atom, 0] += (k - 1) * self.rate * self.calls
        self.calls += 1
        spread = forces.var(0, correction=0).sum(1).sqrt()
        return SimpleNamespace(energy=found[0].energy, forces=forces.mean(0), forces_std=spread)


def committee_job(**more):
    atoms = argon()
    return job(atoms, Committee(Systems.from_atoms(atoms), **more))


def test_disagreement_stops_the_run_at_the_atom(tmp_path):
    """The spread is 0.05 sqrt(2/3) eV/Å per call: above 0.3 at the ninth step."""
    folder = RunFolder(tmp_path / "run")
    with pytest.raises(RunError, match=r"at step 8 the committee disagrees on the force on atom 7 \(Ar\) by 0\.327"):
        run(committee_job(), replace(SETTINGS, guards="uncertainty=stop:0.3"), folder)
    assert Restart.read(folder.restart).state.step == 7


@pytest.mark.parametrize("guards", ["", "uncertainty=stop:0.9", "uncertainty=off"])
def test_it_goes_on_where_the_limit_is_higher(tmp_path, guards):
    assert run(committee_job(), replace(SETTINGS, guards=guards), RunFolder(tmp_path / "run")).finished


def test_the_limit_of_the_card_counts_and_the_given_one_more(tmp_path):
    with pytest.raises(RunError, match=r"at step 5 .*, more than 0\.2, nearest to it .*\(guard uncertainty"):
        run(replace(committee_job(), model=committee_job().model | {"uncertainty_limit": 0.2}), SETTINGS,
            RunFolder(tmp_path / "a"))  # fmt: skip
    wide = replace(SETTINGS, guards="uncertainty=stop:0.9")
    lax = replace(committee_job(), model=committee_job().model | {"uncertainty_limit": 0.2})
    assert run(lax, wide, RunFolder(tmp_path / "b")).finished
    card = SimpleNamespace(training={"uncertainty_limit": 0.25})
    assert uncertainty_limit(SimpleNamespace(card=card)) == 0.25
    assert uncertainty_limit(SimpleNamespace(card=None)) is None


def test_warnings_come_once_and_structures_are_saved(tmp_path):
    said = []
    settings = replace(SETTINGS, guards="uncertainty=save:0.3")
    run(committee_job(), settings, folder := RunFolder(tmp_path / "run"), say=said.append)
    warnings = [text for text in said if "disagrees" in text]
    assert len(warnings) == 1 and (folder.path / "guard_uncertainty_8.xyz").exists()


def test_a_spread_at_the_start_stops_before_anything_is_written(tmp_path):
    late = committee_job()
    late.bound.calls = 100
    with pytest.raises(RunError, match="at step 0 the committee"):
        run(late, SETTINGS, RunFolder(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_asked_of_a_model_that_is_no_committee(tmp_path):
    with pytest.raises(InputError, match="no spread of its forces"):
        run(pairs_job(), replace(SETTINGS, guards="uncertainty=warn:0.3"), RunFolder(tmp_path / "run"))
    assert run(pairs_job(), SETTINGS, RunFolder(tmp_path / "run")).finished


def test_replicas_have_it_too(tmp_path):
    with pytest.raises(RunError, match="atom 7"):
        run_replicas(committee_job(), replace(SETTINGS, guards="uncertainty=stop:0.3"), RunFolder(tmp_path / "run"), 2)
