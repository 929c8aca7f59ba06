"""What a run is said to need is what it then needs."""

import time
from dataclasses import replace

import pytest

from omnicalc.md.folder import RunFolder
from omnicalc.md.plan import as_text, plan
from omnicalc.md.run import run
from omnicalc.md.settings import Settings

from .toy import pairs_job

SETTINGS = Settings(steps=200, timestep_fs=4.0, temperature_K=90.0, interval=2, restart_interval=100, seed=1)


DISKS = {
    "usual": {},
    "formats": {"save": "forces,velocities,xtc,traj,extxyz"},
    "npt": {"ensemble": "npt", "barostat": "mc", "restart_interval": 10},
    "beads": {"beads": 2},
}


@pytest.mark.parametrize("kind", DISKS)
def test_disk_is_what_is_written(tmp_path, with_plots, kind):
    settings, folder = replace(SETTINGS, **DISKS[kind]), RunFolder(tmp_path / "run")
    found = plan(pairs_job(), settings, folder.path, seconds=0.1)
    assert not folder.path.exists() and found.frames == 101
    run(pairs_job(), settings, folder)
    written = sum(path.stat().st_size for path in folder.path.iterdir()) / 1e6
    assert found.disk_MB == pytest.approx(written, rel=0.1, abs=0.1)  # plots differ in size


@pytest.mark.parametrize(
    ("what", "interval"), [("frames.Frames.append", "interval"), ("restart.save", "restart_interval")]
)
def test_time_has_its_share_of_what_is_written(monkeypatch, what, interval):
    monkeypatch.setattr(f"omnicalc.md.{what}", lambda *arguments: time.sleep(0.05))
    often, seldom = (
        plan(pairs_job(), replace(SETTINGS, **{interval: steps}), RunFolder("nowhere").path, seconds=0.0).ms_per_step
        for steps in (1, 20)
    )
    assert 40 < often - seldom < 80


def test_nothing_is_written_into_a_folder_that_is_there(tmp_path):
    """Whatever guards are to save, at the start or later; and none of them stops the timing."""
    guards = ",".join(f"{name}=save:1e-9" for name in ("temperature", "force", "jump")) + ",drift=stop:1e-12"
    plan(pairs_job(), replace(SETTINGS, guards=guards, ensemble="nve"), tmp_path, seconds=0.0)
    assert list(tmp_path.iterdir()) == []


class Slow(type(pairs_job().bound)):
    def __call__(self, positions, **more):
        time.sleep(0.02)
        return super().__call__(positions, **more)


def slow_job():
    return replace(pairs_job(), bound=Slow(pairs_job().bound.systems))


def test_time_is_that_of_the_steps():
    job = pairs_job()
    found = plan(slow_job(), SETTINGS, RunFolder("nowhere").path, seconds=0.3)
    assert found.ms_per_step > 20 and found.run_s == pytest.approx(0.2 * found.ms_per_step)
    again = plan(job, SETTINGS, RunFolder("nowhere").path, replicas=3, first=150, seconds=0.1)
    assert again.run_s == pytest.approx(0.05 * 3 * again.ms_per_step)


@pytest.mark.parametrize(("patience", "steps"), [(0.01, [1]), (0.05, [1, 2, 3]), (9.0, [5])])
def test_steps_that_take_long_are_not_waited_for(monkeypatch, patience, steps):
    monkeypatch.setattr("omnicalc.md.plan._PATIENCE", patience)
    found = plan(slow_job(), SETTINGS, RunFolder("nowhere").path, seconds=0.0)
    assert found.steps_timed in steps and found.ms_per_step > 20


def test_memory_is_said_to_be_of_one_replica():
    found = plan(pairs_job(), SETTINGS, RunFolder("nowhere").path, seconds=0.0)
    assert "of one replica" in as_text(found, SETTINGS, 3, "cpu")
    assert "of one replica" not in as_text(found, SETTINGS, 1, "cpu")


def test_edges_and_words():
    found = plan(pairs_job(), SETTINGS, RunFolder("nowhere").path, seconds=0.0)
    job = pairs_job()
    job.bound(job.bound.systems.positions)
    assert found.edges == int(job.bound.neighbor_list.update(job.bound.systems).mask.sum())
    assert found.memory_MB > 50 and found.free_MB > 0 and found.steps_timed == 5
    said = as_text(found, SETTINGS, 1, "cpu")
    assert f"32 atoms, {found.edges} neighbours within 6 Å" in said and "nothing was started" in said
    assert "NOT ENOUGH" in as_text(replace(found, free_MB=1.0), SETTINGS, 1, "cpu")
