import math

import pytest

from omnicalc.errors import InputError
from omnicalc.md.settings import Settings, option


def test_a_run_without_options():
    usual = Settings()
    assert (usual.steps, usual.timestep_fs, usual.ensemble, usual.thermostat) == (2000, 0.5, "nvt", "langevin")
    assert (usual.temperature_K, usual.friction_per_fs) == (300.0, 0.01)
    assert (usual.interval, usual.restart_interval, usual.seed) == (20, 1000, 0)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("steps", v) for v in (0, -1, 2.0, True, "10", 10**20)],
        *[("timestep_fs", v) for v in (0.0, -0.5, math.nan, math.inf, 101.0, "1")],
        *[("temperature_K", v) for v in (-1.0, math.nan, math.inf, 1e7)],
        *[("friction_per_fs", v) for v in (0.0, -0.01, math.nan)],
        *[("ensemble", v) for v in ("npv", "NVT", "", 3)],
        *[("interval", v) for v in (0, -20)],
        ("restart_interval", 0),
        *[("seed", v) for v in (-1, 2**63)],
    ],
)
def test_what_cannot_be_is_refused_with_its_option(name, value):
    with pytest.raises(InputError, match=option(name)):
        Settings(**{name: value})


@pytest.mark.parametrize(
    "fine",
    [{"temperature_K": 0}, {"timestep_fs": 1}, {"ensemble": "nve", "friction_per_fs": 0.0}, {"seed": 0}],
)
def test_unusual_but_fine(fine):
    found = Settings(**fine)
    assert {name: getattr(found, name) for name in fine} == fine


@pytest.mark.parametrize(
    "wrong",
    [
        {"ensemble": "npt", "temperature_K": 0.0},
        {"ensemble": "npt", "temperature_end_K": 0.0},
        {"ensemble": "npt", "barostat_time_fs": 19.0},
        {"ensemble": "npt", "pressure_bar": math.nan},
        {"thermostat": "bussi", "temperature_end_K": 0.0},
        {"thermostat": "nhc", "thermostat_time_fs": 0.1},
        {"ensemble": "nve", "temperature_end_K": 400.0},
        {"pressure_end_bar": 5.0},
        {"ramp_steps": 10},
        {"temperature_end_K": 400.0, "ramp_steps": 0},
        {"hydrogen_mass": 0.5},
        {"compressibility_per_bar": -1.0},
        {"fix": 3},
    ],
)
def test_ensembles_that_cannot_be(wrong):
    with pytest.raises(InputError, match=r"\(?--|positive"):
        Settings(**wrong)


def test_a_ramp_takes_the_run_unless_told():
    assert Settings(steps=50, temperature_end_K=400.0).ramp_steps == 50
    assert Settings(steps=50, temperature_end_K=400.0, ramp_steps=20).at(10)[0] == 350.0
    assert Settings(steps=50).at(10) == (300.0, 1.0)


def test_options():
    assert [option(n) for n in ("timestep_fs", "temperature_K", "friction_per_fs", "restart_interval")] == [
        "--timestep",
        "--temperature",
        "--friction",
        "--restart-interval",
    ]
    assert [option(n) for n in ("pressure_end_bar", "compressibility_per_bar", "hydrogen_mass", "guards")] == [
        "--pressure",
        "--compressibility",
        "--hmr",
        "--guard",
    ]
