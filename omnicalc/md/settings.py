"""What a run is asked to do, checked before anything heavy is loaded or anything is written."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from omnicalc.errors import InputError

ENSEMBLES = ("nvt", "nve")
MAX_SEED = 2**63 - 1
MAX_FRAMES = 2**31 - 1  # what the header of a DCD file can count
MAX_TIMESTEP_FS = 100.0  # ten times what the heaviest atoms follow; beyond it a unit was mistaken
MAX_TEMPERATURE_K = 1e6


@dataclass(frozen=True)
class Settings:
    """Settings of a run; raises :class:`InputError` when one of them cannot be."""

    steps: int = 2000  # of the whole run, from its first start
    timestep_fs: float = 0.5
    temperature_K: float = 300.0  # noqa: N815 - of the bath (nvt) and of drawn velocities
    ensemble: str = "nvt"
    friction_per_fs: float = 0.01  # of the Langevin bath, 1/fs; not used by nve
    interval: int = 20  # steps between frames and between lines of log.csv
    restart_interval: int = 1000  # steps between restart files
    seed: int = 0

    def __post_init__(self) -> None:
        for field in fields(self):
            _check_type(
                field.name, getattr(self, field.name), {"int": int, "float": float, "str": str}[field.type]
            )
        if self.ensemble not in ENSEMBLES:
            raise InputError(
                f"unknown ensemble '{self.ensemble}'; known: {', '.join(ENSEMBLES)} (--ensemble)"
            )
        for name in ("steps", "interval", "restart_interval"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}; at least 1 is needed ({option(name)})")
        if self.steps // self.interval >= MAX_FRAMES:
            raise InputError(
                f"{self.steps} steps with a frame every {self.interval} make more frames than the {MAX_FRAMES} that "
                "a DCD file holds; fewer --steps or a larger --interval are needed"
            )
        if not 0 < self.timestep_fs <= MAX_TIMESTEP_FS:
            raise InputError(
                f"the time step is {self.timestep_fs} fs; a positive number up to {MAX_TIMESTEP_FS:g} is needed, "
                "such as 0.5 (--timestep)"
            )
        if not 0 <= self.temperature_K <= MAX_TEMPERATURE_K:
            raise InputError(
                f"the temperature is {self.temperature_K} K; "
                f"a number from 0 to {MAX_TEMPERATURE_K:g} is needed (--temperature)"
            )
        if not 0 <= self.friction_per_fs < math.inf or (self.ensemble == "nvt" and self.friction_per_fs == 0):
            raise InputError(
                f"the friction is {self.friction_per_fs} 1/fs; a positive number is needed, "
                "such as 0.01 (--friction), or --ensemble nve for a run without a heat bath"
            )
        if not 0 <= self.seed <= MAX_SEED:
            raise InputError(
                f"the seed is {self.seed}; a whole number from 0 to 2**63 - 1 is needed (--seed)"
            )


def option(name: str) -> str:
    """The command-line option of a setting."""
    return "--" + name.removesuffix("_fs").removesuffix("_K").removesuffix("_per").replace("_", "-")


def _check_type(name: str, value: object, kind: type) -> None:
    allowed = (int, float) if kind is float else kind
    if isinstance(value, bool) or not isinstance(value, allowed):
        raise InputError(
            f"{name} is {value!r}; {'a number' if kind is float else kind.__name__} is needed "
            f"({option(name)})"
        )
