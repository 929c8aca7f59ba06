"""Heat of vaporisation from a run of the liquid and one of the gas.

    dH = < U_gas > / N_gas - < U_liquid > / N_liquid + R T

with U the potential energy and N the number of molecules: both phases have the same kinetic energy, the gas is ideal,
and the volume of the liquid is neglected. For the gas, run one molecule without a cell at the temperature of the
liquid. Nuclei are classical, and no corrections for quantum vibrations, pressure or a real gas are made, such as those
listed for water by Horn et al., J. Chem. Phys. 120, 9665 (2004).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy import constants

from omnicalc.analysis.drift import log_path
from omnicalc.analysis.energy import EnergyLog, Estimate, mean_with_error, read_log
from omnicalc.analysis.plots import finish
from omnicalc.analysis.reference_values import reference
from omnicalc.analysis.report import SHORT_BLOCKS, Quantity, Result
from omnicalc.analysis.sources import as_trajectory, bath_temperature
from omnicalc.analysis.trajectory import record_beside
from omnicalc.errors import InputError

_KJ = constants.e * constants.N_A / 1000  # kJ/mol in an eV
_CAL = constants.calorie  # J
_SAME_TEMPERATURE = 5.0  # K


def heat_of_vaporisation(
    liquid, gas, *, temperature: float | None = None, skip_ps: float = 0.0, n_blocks: int = 10
) -> Result:
    """Heat of vaporisation per molecule, kJ/mol, from the folders of two runs of the same model.

    Args:
        liquid, gas: folders of ``omnicalc md`` runs.
        temperature: K of the RT term; by default that of the liquid's heat bath, else the liquid's mean.
        skip_ps: left out at the beginning of both.
        n_blocks: for error bars.

    Raises:
        InputError: no such run, molecules or models that differ, too few lines.
    """
    if temperature is not None and not (np.isfinite(temperature) and temperature > 0):
        raise InputError(f"--temperature {temperature} is none; give K above zero")
    phases = [_Phase(source, skip_ps, n_blocks) for source in (liquid, gas)]
    _check_same(*phases)
    wet, dry = phases
    t = temperature or bath_temperature(wet.record.get("settings", {})) or wet.temperature.value
    rt = constants.R * t / 1000.0
    value = (dry.energy.value / dry.molecules - wet.energy.value / wet.molecules) * _KJ + rt
    error = float(np.hypot(dry.energy.stderr / dry.molecules, wet.energy.stderr / wet.molecules)) * _KJ
    notes = []
    if abs(wet.temperature.value - dry.temperature.value) > _SAME_TEMPERATURE:
        notes.append(
            f"the liquid is at {wet.temperature.value:.1f} K and the gas at {dry.temperature.value:.1f} K; "
            f"the formula wants the same temperature"
        )
    if dry.molecules > 1:
        notes.append(f"the gas holds {dry.molecules} molecules, which may attract each other; one is cleaner")
    quantities = [
        Quantity("heat of vaporisation", value, error, "kJ/mol", f"{value / _CAL:.3f} kcal/mol; RT = {rt:.3f} kJ/mol"),
        wet.quantity("liquid"),
        dry.quantity("gas"),
        Quantity("temperature of the liquid", wet.temperature.value, wet.temperature.stderr, "K"),
        Quantity("temperature of the gas", dry.temperature.value, dry.temperature.stderr, "K"),
    ]
    if wet.is_light_water:
        quantities.append(_measured())
    tables = {
        "phases": {
            "phase": ["liquid", "gas"],
            "molecules": [p.molecules for p in phases],
            "energy_eV_per_molecule": [p.energy.value / p.molecules for p in phases],
            "stderr": [p.energy.stderr / p.molecules for p in phases],
            "temperature_K": [p.temperature.value for p in phases],
        }
    }
    head = [
        f"{name}: {p.log.path}, {len(p.log.time_ps)} lines to {p.log.time_ps[-1]:g} ps, {p.molecules} {p.kind}"
        for name, p in zip(("liquid", "gas"), phases, strict=True)
    ]
    settings = {"temperature_K": t, "skip_ps": skip_ps, "model": wet.record.get("model", {}).get("name")}
    return Result("hvap", [p.log.path for p in phases], head, settings, quantities, tables, notes,
                  lambda figure: _draw(figure, wet, dry))  # fmt: skip


def _measured() -> Quantity:
    known = reference("water vaporisation")
    return Quantity("experiment, water", known.value * _CAL, known.uncertainty * _CAL, "kJ/mol", known.note)


class _Phase:
    """One run: its energies, its molecules and its record."""

    def __init__(self, source, skip_ps: float, n_blocks: int):
        folder = Path(source)
        self.log: EnergyLog = read_log(log_path(folder)).after(skip_ps)
        self.record = record_beside(self.log.path)
        trajectory = as_trajectory(self.log.path.parent / "traj.dcd")
        labels = trajectory.labels
        kinds = np.unique(labels.kinds.astype(str))
        if len(kinds) > 1:
            raise InputError(f"{folder} holds {', '.join(kinds)}; a heat of vaporisation is that of one kind")
        self.kind = str(kinds[0])
        self.is_light_water = self.kind == "H2O" and "D" not in trajectory.counts
        self.molecules = len(np.unique(labels.molecules))
        self.energy: Estimate = mean_with_error(self.log.potential, n_blocks)
        self.temperature: Estimate = mean_with_error(self.log.temperature, n_blocks)

    def quantity(self, name: str) -> Quantity:
        n = self.molecules
        note = f"{n} {self.kind}" + ("" if self.energy.long_blocks else f"; {SHORT_BLOCKS}")
        return Quantity(f"energy of a molecule, {name}", self.energy.value / n, self.energy.stderr / n, "eV", note)


def _check_same(liquid: _Phase, gas: _Phase) -> None:
    if liquid.kind != gas.kind:
        raise InputError(f"the liquid is {liquid.kind} and the gas {gas.kind}; both need the same molecule")
    if liquid.molecules <= gas.molecules:
        raise InputError(
            f"the liquid has {liquid.molecules} molecules and the gas {gas.molecules}: name the liquid first"
        )
    for key, what in (("sha256", "weights"), ("head", "head")):
        ours, theirs = (phase.record.get("model", {}).get(key) for phase in (liquid, gas))
        if ours is not None and theirs is not None and ours != theirs:
            raise InputError(
                f"the liquid was run with the {what} {ours} and the gas with {theirs}; run both with the same"
            )


def _draw(figure, liquid: _Phase, gas: _Phase) -> None:
    axis = figure.subplots()
    zero = gas.energy.value / gas.molecules
    for phase, name, colour in ((liquid, "liquid", "C0"), (gas, "gas", "C1")):
        per_molecule = (phase.log.potential / phase.molecules - zero) * _KJ
        axis.plot(phase.log.time_ps, per_molecule, color=colour, linewidth=0.6, alpha=0.7)
        mean = (phase.energy.value / phase.molecules - zero) * _KJ
        axis.axhline(mean, color=colour, linewidth=1.3, label=f"{name}: mean {mean:.2f} kJ/mol")
    finish(axis, "time (ps)", "potential energy of a molecule\nless the gas's mean (kJ/mol)", legend=True)
