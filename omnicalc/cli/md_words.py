"""What ``omnicalc md`` says: of the run that is about to begin, and when it has ended."""

import math
import shlex
from pathlib import Path

import click

from omnicalc.md.settings import Settings

_INTEGRATORS = {
    "nve": "velocity Verlet",
    "langevin": "Langevin dynamics, BAOAB",
    "bussi": "stochastic velocity rescaling",
    "nhc": "Nosé-Hoover chain",
    "qtb": "quantum thermal bath",
}
_BAROSTATS = {"rescale": "stochastic cell rescaling", "mc": "Monte-Carlo barostat"}


def header(
    potential, job, settings: Settings, folder, given: dict, replicas: int | None, *, drawn: bool, resumed: bool
) -> None:
    """What is about to run, before anything is written."""
    from omnicalc.charge_and_spin import in_words
    from omnicalc.md.engines import dynamics_of
    from omnicalc.md.initial import given_velocities

    structure, model = job.structure, job.model
    dynamics = dynamics_of(job, settings)
    if resumed:
        velocities = "as the run had them"
    elif given_velocities(job.atoms, settings) is not None:
        velocities = "those in the structure file"
    else:
        velocities = f"Maxwell-Boltzmann at {settings.temperature_K:g} K"
    reason = "as asked" if given["head"] else "as before" if resumed else "the first that knows all elements"
    periodic = "".join(a for a, p in zip("abc", structure["pbc"], strict=True) if p) or "nowhere"
    lines = {
        "model": f"{model['name']}, sha256 {(model['sha256'] or 'unknown')[:12]}",
        "": getattr(potential.card, "summary", "") if potential.card is not None else "",
        "head": f"{model['head']} ({reason})",
        "device": f"{model['device']}, {model['dtype']} (positions and velocities float64), {model['threads']} threads",
        "kernel": model["kernel"],
        "structure": f"{structure['file']}: {structure['atoms']} atoms, {structure['formula']}, "
        f"periodic along {periodic}, charge {structure['charge']:+d}, "
        f"{in_words(structure['spin'], structure['spin_from'])}",
        "velocities": velocities,
        "ensemble": f"{settings.ensemble}: {_bath(settings, dynamics)}; "
        f"{dynamics.degrees_of_freedom} degrees of freedom",
        "engine": "OpenMM, Reference platform in double precision" if settings.engine == "openmm" else "",
        "barostat": _barostat(settings, dynamics),
        "atoms": _atoms(settings, dynamics),
        "run": f"{settings.steps} steps of {settings.timestep_fs:g} fs, a frame every {settings.interval} steps",
        "replicas": f"{replicas}, with seeds from the one below on, as one batch" if replicas else "",
        "seed": f"{settings.seed}{' (drawn)' if drawn else ''}",
        "folder": f"{folder.path}",
    }
    for name, text in lines.items():
        if text:
            click.echo(f"{name:<10} {text}")
    _warn(settings, model, job.atoms)


def _warn(settings: Settings, model: dict, atoms) -> None:
    """What this kind of run may not be relied on for."""
    from omnicalc.md.molecules import is_molecular

    notes = []
    if settings.ensemble == "npt" and settings.coupling != "isotropic" and is_molecular(atoms):
        notes.append(
            f"note: these are molecules, and a fluid of them resists no change of shape: under {settings.coupling} "
            "coupling its cell wanders until an edge is too short; for a fluid use --coupling isotropic"
        )
    if settings.bath == "qtb":
        notes.append(
            "note: in a quantum thermal bath the logged temperature holds zero-point energy, and some of that leaks "
            "from fast vibrations into slow ones; less of it with a larger --friction, so compare two"
        )
    if settings.ensemble == "npt" and not model.get("stress_trained", False):
        notes.append(
            f"note: {model['name']} was not trained on stresses; its pressure follows from energies and forces alone, "
            "so compare the density with experiment before you rely on it"
        )
    if not model["conservative"]:
        does = "make the total energy drift: use --ensemble nvt"
        if settings.has_bath:
            scales = settings.thermostat in ("bussi", "nhc")
            stronger = "a shorter --thermostat-time" if scales else "a larger --friction"
            does = f"heat the run faster than its bath cools: watch the temperature, give {stronger}"
        notes.append(
            f"warning: the forces of {model['name']} are not the gradient of its energy, which may {does}, or use a "
            "conservative model (omnicalc models)"
        )
    for note in notes:
        click.echo(note, err=True)


def _bath(settings: Settings, dynamics) -> str:
    """Integrator and heat bath in words."""
    if settings.beads:
        return (
            f"path integrals, {settings.beads} beads, ring-polymer Langevin (PILE), {settings.temperature_K:g} K, "
            f"friction of the centroid {settings.friction_per_fs:g} 1/fs"
        )
    if settings.engine == "openmm" and settings.has_bath:
        return f"OpenMM's LangevinMiddleIntegrator, {settings.temperature_K:g} K, {settings.friction_per_fs:g} 1/fs"
    if not settings.has_bath:
        return f"{_INTEGRATORS['nve']}{', centre of mass at rest' * dynamics.com_removed}"
    kelvin = f"{settings.temperature_K:g} K"
    if settings.temperature_end_K is not None:
        kelvin = f"{settings.temperature_K:g} to {settings.temperature_end_K:g} K in {settings.ramp_steps} steps"
    pace = f"time {settings.thermostat_time_fs:g} fs"
    if settings.thermostat in ("langevin", "qtb"):
        pace = f"friction {settings.friction_per_fs:g} 1/fs"
    return f"{_INTEGRATORS[settings.thermostat]}, {kelvin}, {pace}"


def _barostat(settings: Settings, dynamics) -> str:
    """Barostat in words; empty without one."""
    if settings.ensemble != "npt":
        return ""
    bar = f"{settings.pressure_bar:g} bar"
    if settings.pressure_end_bar is not None:
        bar = f"{settings.pressure_bar:g} to {settings.pressure_end_bar:g} bar in {settings.ramp_steps} steps"
    pace = f"every {settings.barostat_interval} steps"
    if settings.barostat == "rescale":
        pace = f"time {settings.barostat_time_fs:g} fs, {pace}"
    text = f"{_BAROSTATS[settings.barostat]}, {settings.coupling}, {bar}, {pace}"
    if dynamics.molecules is not None:
        count = dynamics.molecules.count
        text += f", {count} molecule{'s' * (count != 1)}"
        if dynamics.molecules.networks:
            text += f" (atoms of {dynamics.molecules.networks} endless networks count one by one)"
    return text


def _atoms(settings: Settings, dynamics) -> str:
    """What is special about some of the atoms."""
    parts = []
    if len(dynamics.fixed):
        parts.append(f"{len(dynamics.fixed)} fixed")
    if dynamics.constraints is not None:
        parts.append(f"{len(dynamics.constraints)} bonds of fixed length")
    if dynamics.forces.restraints:
        parts.append(f"{sum(len(spring.atoms) for spring in dynamics.forces.restraints)} held by springs")
    if settings.hydrogen_mass is not None:
        changed = int((abs(dynamics.masses.cpu().numpy() - dynamics.job.atoms.get_masses()) > 1e-9).sum())
        parts.append(f"bonded hydrogens of {settings.hydrogen_mass:g} amu, {changed} masses changed")
    return "; ".join(parts)


def closing_words(
    structure: Path, out: Path | None, folder, settings: Settings, result, periodic: bool, replicas: int | None
) -> None:
    """How it ended, and what to type next."""
    again = (
        f"omnicalc md {shlex.quote(str(structure))}" + (f" --out {shlex.quote(str(out))}" if out else "") + " --resume"
    )
    if not result.finished:
        click.echo(
            f"stopped by a signal at step {result.step} of {settings.steps}; the state is saved. Go on with:\n  {again}"
        )
        return
    ps = settings.steps * settings.timestep_fs / 1000
    copies = f"{replicas} replicas of " if replicas else ""
    together = " together" if replicas else ""
    rate = f", {result.steps_per_s:.1f} steps/s{together}" if result.steps_per_s else ""  # none: all steps were there
    click.echo(f"done: {copies}{result.step} steps, {ps:g} ps{rate}; results in {folder.path}")
    if replicas:
        folder = _first_replica(folder, replicas)
    if periodic:  # g(r) needs a density
        click.echo(f"next:\n  omnicalc analyze rdf {shlex.quote(str(folder.trajectory))}")
    click.echo(f"to go on with this run:\n  {again} --steps {10 * settings.steps}")


def _first_replica(folder, replicas: int):
    """Folder of the first replica, after what the table in the folder of all of them says."""
    import csv
    import statistics

    from omnicalc.md.folder import RunFolder
    from omnicalc.md.replicas import replica_folder

    with (folder.path / "replicas.csv").open() as file:
        rows = list(csv.DictReader(file))
    for name, unit in (("potential_eV", "eV"), ("temperature_K", "K")):
        values = [float(row[name]) for row in rows]
        mean = statistics.mean(values)
        if len(values) > 1:
            error = statistics.stdev(values) / math.sqrt(len(values))  # exactly 0 of equal values
            click.echo(f"mean {name.rpartition('_')[0]} of the second half: {_with_error(mean, error)} {unit}")
    return RunFolder(replica_folder(folder.path, 0, replicas))


def _with_error(mean: float, error: float) -> str:
    """Both with the decimals that leave the error two digits: what is beyond them is not known."""
    decimals = max(0, 1 - math.floor(math.log10(error))) if error > 0 else 2
    return f"{mean:.{decimals}f} +- {error:.{decimals}f}"
