"""A million steps: memory stays what it is. By hand: ``pytest -m slow tests/md/test_long.py -s``."""

import ctypes
import gc
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from ase import Atoms

from omnicalc.md.folder import RunFolder
from omnicalc.md.progress import Silent
from omnicalc.md.run import run
from omnicalc.md.settings import Settings

from .toy import job

STEPS = 1_000_000


class Cluster:
    """Lennard-Jones argon in free space, all pairs, held together by a weak spring to the origin."""

    epsilon, sigma, spring = 0.0104, 3.4, 0.001

    def __init__(self, n: int):
        self.i, self.j = torch.triu_indices(n, n, 1)

    def __call__(self, positions: torch.Tensor) -> SimpleNamespace:
        d = positions[self.i] - positions[self.j]
        r2 = d.square().sum(1, keepdim=True)
        six = (self.sigma**2 / r2) ** 3
        pull = 24 * self.epsilon * (2 * six * six - six) / r2 * d
        forces = torch.add(torch.zeros_like(positions), positions, alpha=-2 * self.spring)
        forces.index_add_(0, self.i, pull).index_add_(0, self.j, pull, alpha=-1)
        energy = 4 * self.epsilon * (six * six - six).sum() + self.spring * positions.square().sum()
        return SimpleNamespace(energy=energy.reshape(1), forces=forces)


class Watch(Silent):
    """Resident memory, MB, every so many steps."""

    def __init__(self, every: int):
        self.every, self.found = every, {}

    def update(self, step: int, temperature_K: float, total_eV: float) -> None:
        if step % self.every == 0:
            gc.collect()
            ctypes.CDLL(None).malloc_trim(0)
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            self.found[step] = pages * os.sysconf("SC_PAGE_SIZE") / 1e6


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")
def test_a_million_steps_need_no_more_memory(tmp_path, monkeypatch):
    monkeypatch.setattr("omnicalc.md.loop.plots.draw", lambda *arguments, **keywords: None)
    corners = np.array([[i, j, k] for i in (0, 1) for j in (0, 1) for k in (0, 1)]) * 3.9
    atoms, watch = Atoms("Ar8", corners - 1.95), Watch(STEPS // 20)
    settings = Settings(
        steps=STEPS, timestep_fs=5.0, temperature_K=20.0, interval=500, restart_interval=5000, seed=1, save="extxyz"
    )
    result = run(job(atoms, Cluster(8)), settings, RunFolder(tmp_path / "run"), progress=watch)
    memory = np.array(list(watch.found.values()))
    print(f"\nMB every {STEPS // 20} steps: {np.round(memory, 2).tolist()}; {result.steps_per_s:.0f} steps/s")
    assert result.finished and memory[1:].max() - memory[1] < 5.0
