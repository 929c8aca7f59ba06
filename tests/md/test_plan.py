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


@pytest.mark.parametrize("save", ["", "forces,velocities,xtc"])
def test_disk_is_what_is_written(tmp_path, monkeypatch, save):
    monkeypatch.setattr("omnicalc.md.loop.plots.draw", lambda *arguments, **keywords: None)
    settings, folder = replace(SETTINGS, save=save), RunFolder(tmp_path / "run")
    found = plan(pairs_job(), settings, folder.path, seconds=0.1)
    assert not folder.path.exists() and found.frames == 101
    run(pairs_job(), settings, folder)
    written = sum(path.stat().st_size for path in folder.path.iterdir()) / 1e6
    assert found.disk_MB == pytest.approx(written, rel=0.1)


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
