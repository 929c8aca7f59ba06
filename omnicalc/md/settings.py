"""What a run is asked to do, checked before anything heavy is loaded or anything is written."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from omnicalc.errors import InputError
from omnicalc.md.guard_settings import guard_rules
from omnicalc.md.saving import formats

ENGINES = ("omnicalc", "openmm")
ENSEMBLES = ("nvt", "nve", "npt")
THERMOSTATS = ("langevin", "bussi", "nhc", "qtb")
BAROSTATS = ("rescale", "mc")
COUPLINGS = ("isotropic", "semi-isotropic", "anisotropic")
MAX_BEADS = 1024
MAX_SEED = 2**63 - 1
MAX_FRAMES = 2**31 - 1  # what the header of a DCD file can count, of frames and of steps between them
MAX_TIMESTEP_FS = 100.0  # ten times what the heaviest atoms follow; beyond it a unit was mistaken
MAX_TEMPERATURE_K = 1e6
MIN_QUANTUM_K = 10.0  # the filter of the noise gets longer as it gets colder
MAX_QUANTUM_TIMESTEP_FS = 2.0
MAX_PRESSURE_BAR = 1e8  # the inside of a gas giant; beyond it a unit was mistaken
_KINDS = {
    "int": int,
    "float": float,
    "str": str,
    "int | None": (int, type(None)),
    "float | None": (float, int, type(None)),
}
_OPTIONS = {  # where the option has another name than the setting
    "temperature_end_K": "--temperature",
    "pressure_end_bar": "--pressure",
    "hydrogen_mass": "--hmr",
    "guards": "--guard",
    "restraints": "--restrain",
    "constraints": "--constrain",
}


@dataclass(frozen=True)
class Settings:
    """Settings of a run; raises :class:`InputError` when one of them cannot be."""

    steps: int = 2000  # of the whole run, from its first start
    timestep_fs: float = 0.5
    temperature_K: float = 300.0  # noqa: N815 - of the bath and of drawn velocities
    temperature_end_K: float | None = None  # noqa: N815 - of the bath after ramp_steps; None: it stays
    ensemble: str = "nvt"
    beads: int = 0  # of the ring that each nucleus is in path-integral dynamics; 0: nuclei are points
    engine: str = "omnicalc"  # who takes the steps; see omnicalc.md.engines
    thermostat: str = "langevin"  # not used by nve
    friction_per_fs: float = 0.01  # of the Langevin and the quantum bath, 1/fs
    thermostat_time_fs: float = 100.0  # relaxation time of bussi and nhc
    barostat: str = "rescale"  # of npt, as all that follows down to barostat_interval
    coupling: str = "isotropic"
    pressure_bar: float = 1.0
    pressure_end_bar: float | None = None  # after ramp_steps; None: it stays
    barostat_time_fs: float = 1000.0  # relaxation time of the pressure; not used by mc
    compressibility_per_bar: float = 4.5e-5  # of water; sets the speed of rescale, not what it samples
    barostat_interval: int = 20  # steps between moves of the cell
    ramp_steps: int | None = None  # steps of a ramp; None: the steps of the run as it was started
    hydrogen_mass: float | None = None  # amu, taken from the atoms that hydrogens are bonded to; None: as they are
    fix: str = ""  # atoms that stay where they are; see omnicalc.md.selection
    constraints: str = ""  # bonds of fixed length: h-bonds, or pairs; see omnicalc.md.constraint_list
    constraint_tolerance: float = 1e-10  # relative, of their lengths
    restraints: str = ""  # atoms held by springs; see omnicalc.md.restraints
    guards: str = ""  # what guards do, where not the usual; see omnicalc.md.guard_settings
    save: str = ""  # what else is kept with every frame; see omnicalc.md.frames
    interval: int = 20  # steps between frames and between lines of log.csv
    restart_interval: int = 1000  # steps between restart files
    seed: int = 0

    def __post_init__(self) -> None:
        for field in fields(self):
            _check_type(field.name, getattr(self, field.name), field.type)
        self._check_choices()
        self._check_steps()
        self._check_bath()
        self._check_barostat()
        self._check_constraints()
        self._check_engine()
        self._check_beads()
        if not 0 <= self.seed <= MAX_SEED:
            raise InputError(f"the seed is {self.seed}; a whole number from 0 to 2**63 - 1 is needed (--seed)")
        if self.hydrogen_mass is not None and not 1.0 <= self.hydrogen_mass <= 10.0:
            raise InputError(
                f"the hydrogen mass is {self.hydrogen_mass} amu; a number from 1 to 10 is needed, such as 3 (--hmr)"
            )
        guard_rules(self.guards)
        formats(self.save)
        if self.is_ramp and self.ramp_steps is None:
            object.__setattr__(self, "ramp_steps", self.steps)

    @property
    def is_ramp(self) -> bool:
        return self.temperature_end_K is not None or self.pressure_end_bar is not None

    @property
    def has_bath(self) -> bool:
        return self.ensemble != "nve"

    @property
    def bath(self) -> str | None:
        """The thermostat that acts; None in nve."""
        return self.thermostat if self.has_bath else None

    @property
    def keeps_momentum(self) -> bool:
        """Whether, without outer forces, the integrator conserves the momentum."""
        return self.bath in (None, "bussi", "nhc")

    @property
    def has_noise(self) -> bool:
        """Whether the seed has a say in steps, not only in drawn velocities."""
        barostat = self.ensemble == "npt"  # both kinds are stochastic
        return self.has_bath and self.hottest_K > 0 and (barostat or self.thermostat != "nhc")

    @property
    def hottest_K(self) -> float:  # noqa: N802
        """Highest temperature of the bath, K."""
        return max(self.temperature_K, self.temperature_end_K or 0.0)

    def at(self, step: int) -> tuple[float, float]:
        """Temperature, K, and pressure, bar, of the bath at a step."""
        share = min(step / self.ramp_steps, 1.0) if self.is_ramp else 0.0
        kelvin, bar = self.temperature_K, self.pressure_bar
        if self.temperature_end_K is not None:
            kelvin += share * (self.temperature_end_K - kelvin)
        if self.pressure_end_bar is not None:
            bar += share * (self.pressure_end_bar - bar)
        return kelvin, bar

    def _check_choices(self) -> None:
        choices = {
            "engine": ENGINES,
            "ensemble": ENSEMBLES,
            "thermostat": THERMOSTATS,
            "barostat": BAROSTATS,
            "coupling": COUPLINGS,
        }
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise InputError(f"unknown {name} '{getattr(self, name)}'; known: {', '.join(known)} ({option(name)})")

    def _check_steps(self) -> None:
        for name in ("steps", "interval", "restart_interval", "barostat_interval", "ramp_steps"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}; at least 1 is needed ({option(name)})")
        if self.interval > MAX_FRAMES:
            raise InputError(
                f"interval is {self.interval}; at most {MAX_FRAMES} is possible, as a DCD file counts no further "
                "(--interval)"
            )
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
        if self.ramp_steps is not None and not self.is_ramp:
            raise InputError(
                f"ramp_steps is {self.ramp_steps} but nothing is ramped; give two values with a colon, as in "
                "--temperature 300:600, or leave --ramp-steps out"
            )

    def _check_bath(self) -> None:
        for kelvin in (self.temperature_K, self.temperature_end_K):
            if kelvin is not None and not 0 <= kelvin <= MAX_TEMPERATURE_K:
                raise InputError(
                    f"the temperature is {kelvin} K; a number from 0 to {MAX_TEMPERATURE_K:g} is needed (--temperature)"
                )
            if self.bath == "qtb" and kelvin is not None and kelvin < MIN_QUANTUM_K:
                raise InputError(
                    f"the temperature is {kelvin} K; the quantum bath needs at least {MIN_QUANTUM_K:g} K "
                    "(--temperature)"
                )
            if self.bath in ("bussi", "nhc") and kelvin == 0:
                raise InputError(
                    f"the temperature is 0 K, which {self.thermostat} cannot keep: it scales velocities; "
                    "a positive --temperature, or --thermostat langevin, is needed"
                )
        if self.temperature_end_K is not None and not self.has_bath:
            raise InputError(
                "a temperature ramp needs a heat bath, which nve has not; use --ensemble nvt, "
                "or give one temperature (--temperature)"
            )
        self._check_quantum()
        langevin = self.bath in ("langevin", "qtb")
        if not 0 <= self.friction_per_fs < math.inf or (langevin and self.friction_per_fs == 0):
            raise InputError(
                f"the friction is {self.friction_per_fs} 1/fs; a positive number is needed, "
                "such as 0.01 (--friction), or --ensemble nve for a run without a heat bath"
            )
        if not self.timestep_fs <= self.thermostat_time_fs < math.inf:
            raise InputError(
                f"the thermostat time is {self.thermostat_time_fs} fs; a number not below the time step is "
                "needed, such as 100 (--thermostat-time)"
            )

    def _check_quantum(self) -> None:
        if self.bath != "qtb":
            return
        if self.ensemble == "npt":
            raise InputError(
                "the barostats sample volumes of the classical ensemble, the quantum bath does not; use "
                "--ensemble nvt with --thermostat qtb, or another thermostat"
            )
        if self.hydrogen_mass is not None:
            raise InputError("zero-point energy depends on the masses; leave --hmr out with --thermostat qtb")
        if self.temperature_end_K is not None:
            raise InputError("the noise of the quantum bath is made for one temperature; give one (--temperature)")
        if self.timestep_fs > MAX_QUANTUM_TIMESTEP_FS:
            raise InputError(
                f"the time step is {self.timestep_fs} fs; the quantum bath needs at most {MAX_QUANTUM_TIMESTEP_FS:g} "
                "fs, as its noise goes up to 6000 1/cm (--timestep)"
            )

    def _check_beads(self) -> None:
        if not 0 <= self.beads <= MAX_BEADS:
            raise InputError(f"{self.beads} beads; a number from 1 to {MAX_BEADS}, or 0 for none, is needed (--beads)")
        if not self.beads:
            return
        usual = Settings.__dataclass_fields__
        for name in ("engine", "ensemble", "thermostat", "constraints", "restraints", "fix", "hydrogen_mass"):
            if getattr(self, name) != usual[name].default:
                raise InputError(
                    f"path-integral dynamics (--beads) is nvt with its own Langevin thermostat, all atoms free and of "
                    f"their own mass; leave {option(name)} out"
                )
        if self.is_ramp or self.temperature_K < MIN_QUANTUM_K:
            raise InputError(
                f"the springs between beads are those of one temperature, of {MIN_QUANTUM_K:g} K or more; give one "
                "(--temperature)"
            )

    def _check_engine(self) -> None:
        if self.engine != "openmm":
            return
        wrong = None
        if self.bath not in (None, "langevin"):
            wrong = f"--thermostat {self.thermostat}", "--thermostat langevin"
        elif self.ensemble == "npt" and self.barostat != "mc":
            wrong = f"--barostat {self.barostat}", "--barostat mc"
        elif self.is_ramp:
            wrong = "ramps", "one --temperature and one --pressure"
        elif self.constraints:
            wrong = "--constrain", "flexible bonds"
        if wrong:
            raise InputError(f"--engine openmm does not have {wrong[0]} here; use {wrong[1]}, or leave --engine out")

    def _check_constraints(self) -> None:
        if not 1e-14 <= self.constraint_tolerance <= 1e-6:
            raise InputError(
                f"the constraint tolerance is {self.constraint_tolerance}; a number from 1e-14 to 1e-6 is needed "
                "(--constraint-tolerance)"
            )
        if not self.constraints:
            return
        if self.bath == "qtb":
            raise InputError(
                "the quantum bath gives every bond its zero-point energy, which a bond of fixed length has not; leave "
                "--constrain out, or use another --thermostat"
            )
        if self.ensemble == "npt" and self.barostat == "rescale":
            raise InputError(
                "stochastic cell rescaling strains every bond with the cell; with --constrain use --barostat mc, which "
                "moves whole molecules"
            )

    def _check_barostat(self) -> None:
        for bar in (self.pressure_bar, self.pressure_end_bar):
            if bar is not None and not abs(bar) <= MAX_PRESSURE_BAR:
                raise InputError(
                    f"the pressure is {bar} bar; a number up to {MAX_PRESSURE_BAR:g} is needed (--pressure)"
                )
        if self.pressure_end_bar is not None and self.ensemble != "npt":
            raise InputError(
                f"a pressure ramp needs a barostat, which {self.ensemble} has not; use --ensemble npt, "
                "or leave --pressure out"
            )
        if self.ensemble == "npt" and 0 in (self.temperature_K, self.temperature_end_K):
            raise InputError("npt at 0 K would not move the cell; a positive --temperature is needed")
        move_fs = self.timestep_fs * self.barostat_interval
        if not 2.0 * move_fs <= self.barostat_time_fs < math.inf and self.ensemble == "npt":
            raise InputError(
                f"the barostat time is {self.barostat_time_fs} fs; at least twice the {move_fs:g} fs between moves "
                "of the cell is needed, such as 1000 (--barostat-time, or fewer steps with --barostat-interval)"
            )
        if not 0 < self.compressibility_per_bar < 1:
            raise InputError(
                f"the compressibility is {self.compressibility_per_bar} 1/bar; a positive number is needed, such as "
                "4.5e-5 for water (--compressibility)"
            )


def option(name: str) -> str:
    """The command-line option of a setting."""
    if name in _OPTIONS:
        return _OPTIONS[name]
    for unit in ("_fs", "_K", "_bar", "_per"):
        name = name.removesuffix(unit)
    return "--" + name.removesuffix("_per").replace("_", "-")


def _check_type(name: str, value: object, kind: str) -> None:
    allowed = (int, float) if kind == "float" else _KINDS[kind]
    if isinstance(value, bool) or not isinstance(value, allowed):
        needed = "a number" if "float" in kind else kind.removesuffix(" | None")
        raise InputError(f"{name} is {value!r}; {needed} is needed ({option(name)})")
