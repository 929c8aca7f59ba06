"""examples/umbrella.py: the spring that OpenMM applies is the one that MBAR takes off, and MBAR finds what is known."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

SCRIPT = Path(__file__).parents[2] / "examples" / "umbrella.py"


@pytest.fixture(scope="module")
def umbrella(MLPotential):
    spec = importlib.util.spec_from_file_location("umbrella", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_runs(umbrella, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["umbrella.py", "--ps", "0.02", "--windows", "12"])
    umbrella.main()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 18 and lines[-1].startswith("  170 to 180°")
    assert "." in lines[-1]  # a number: the molecule starts there


def test_the_spring_is_what_mbar_takes_off(umbrella):
    context = umbrella.ethanol(1)
    torsion = umbrella.next_torsion(context)

    def energy(stiffness, centre):
        context.setParameter("k", stiffness)
        context.setParameter("centre", centre)
        return context.getState(energy=True).getPotentialEnergy()._value

    for centre in (torsion - 1.2, torsion + 0.7, torsion + 4.0, -torsion):
        centre = (centre + np.pi) % (2 * np.pi) - np.pi
        added = energy(umbrella.STIFFNESS, centre) - energy(0.0, centre)
        assert added == pytest.approx(umbrella.bias(np.array([torsion]), np.array([centre]))[0, 0], abs=1e-6)


def test_mbar_finds_a_known_free_energy(umbrella):
    grid = np.linspace(-np.pi, np.pi, 3600, endpoint=False)
    truth = 6.0 * np.cos(grid) + 4.0 * np.sin(2 * grid)  # kJ/mol, 17 from the lowest to the highest
    centres = np.linspace(-np.pi, np.pi, 18, endpoint=False)
    random, count = np.random.default_rng(1), 2000
    boltzmann = np.exp(-(truth + umbrella.bias(grid, centres)) / umbrella.KT)
    drawn = [random.choice(grid, count, p=row / row.sum()) for row in boltzmann]
    weights = umbrella.mbar(umbrella.bias(np.concatenate(drawn), centres) / umbrella.KT, count)
    edges = np.linspace(-np.pi, np.pi, 37)
    found = np.histogram(np.concatenate(drawn), edges, weights=weights)[0]
    known = np.histogram(grid, edges, weights=np.exp(-truth / umbrella.KT))[0]
    difference = -umbrella.KT * np.log(found / known)
    assert np.abs(difference - difference.mean()).max() < 0.5
