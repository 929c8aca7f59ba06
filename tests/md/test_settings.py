import math

import pytest

from omnicalc.errors import InputError
from omnicalc.md.settings import Settings, option


def test_defaults_are_fine():
    Settings()


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
    Settings(**fine)


def test_options():
    assert [option(n) for n in ("timestep_fs", "temperature_K", "friction_per_fs", "restart_interval")] == [
        "--timestep",
        "--temperature",
        "--friction",
        "--restart-interval",
    ]
