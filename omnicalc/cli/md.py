"""``omnicalc md``: structure in, trajectory, log, restart and plots out."""

import secrets
from contextlib import suppress
from dataclasses import fields, replace
from pathlib import Path

import click

from omnicalc.cli.md_words import closing_words, header
from omnicalc.cli.options import CHARGE, THREADS, Folder, check_of_use
from omnicalc.errors import InputError, RunError
from omnicalc.md.guard_settings import ACTIONS, GUARDS
from omnicalc.md.settings import Settings

_SETTINGS = tuple(field.name for field in fields(Settings))
_OF_RESCALE = ("barostat_time_fs", "compressibility_per_bar")
_OF_BAROSTAT = (
    "pressure",
    "barostat",
    "coupling",
    *_OF_RESCALE,
    "barostat_interval",
)
_DEFAULT_MODEL = "ubio-s3"
_OF_RECORD = {"structure": ("sha256", "read_options", "pbc"), "model": ("name", "head", "dtype", "device", "skin")}


class Ramp(click.ParamType):
    """One number, or two with a colon between them."""

    name = "number[:number]"

    def convert(self, value, param, ctx):
        try:
            first, colon, last = value.partition(":")
            return float(first), (float(last) if colon else None)
        except ValueError:
            self.fail(f"'{value}' is no number and no two with a colon, such as 300 or 300:600", param, ctx)


@click.command(name="md")
@click.argument("structure", type=click.Path(path_type=Path))
@click.option("--model", help=f"Weights: name, name:tag, name:tag@version or a folder. [default: {_DEFAULT_MODEL}]")
@click.option("--head", help="Level of theory. [default: the first head of the model that knows all elements]")
@click.option(
    "--steps",
    type=int,
    help=f"Steps of the whole run, counted from its first start. [default: {Settings.steps}]",
)
@click.option("--timestep", "timestep_fs", type=float, help=f"Time step in fs. [default: {Settings.timestep_fs}]")
@click.option(
    "--temperature",
    type=Ramp(),
    help=f"Temperature in K; 300:600 is a linear ramp over the run. [default: {Settings.temperature_K:g}]",
)
@click.option(
    "--beads",
    type=int,
    help="Path-integral dynamics: each nucleus is a ring of so many beads (32 for hydrogen at 300 K); traj.dcd has one "
    "bead, centroid.dcd the centres.",
)
@click.option(
    "--engine", help=f"omnicalc, or openmm (its integrators; nve, langevin, npt with mc). [default: {Settings.engine}]"
)
@click.option("--ensemble", help=f"nvt, npt (with a barostat) or nve (without a bath). [default: {Settings.ensemble}]")
@click.option(
    "--thermostat",
    help="langevin (BAOAB), bussi (stochastic velocity rescaling), nhc (Nosé-Hoover chain) or qtb (quantum thermal "
    "bath: zero-point energy of vibrations). "
    f"[default: {Settings.thermostat}]",
)
@click.option(
    "--friction",
    "friction_per_fs",
    type=float,
    help=f"Friction of langevin and qtb in 1/fs. [default: {Settings.friction_per_fs}]",
)
@click.option(
    "--thermostat-time",
    "thermostat_time_fs",
    type=float,
    help=f"Relaxation time of bussi and nhc in fs. [default: {Settings.thermostat_time_fs:g}]",
)
@click.option(
    "--pressure",
    type=Ramp(),
    help=f"Pressure of npt in bar; 1:1000 is a linear ramp over the run. [default: {Settings.pressure_bar:g}]",
)
@click.option(
    "--barostat",
    help="rescale (stochastic cell rescaling, by the stress) or mc (Monte Carlo, by the energy, whole molecules). "
    f"[default: {Settings.barostat}]",
)
@click.option(
    "--coupling",
    help="What of the cell moves: isotropic, semi-isotropic (a and b together, c apart) or anisotropic. "
    f"[default: {Settings.coupling}]",
)
@click.option(
    "--barostat-time",
    "barostat_time_fs",
    type=float,
    help=f"Relaxation time of the pressure under rescale in fs. [default: {Settings.barostat_time_fs:g}]",
)
@click.option(
    "--compressibility",
    "compressibility_per_bar",
    type=float,
    help="Rough compressibility in 1/bar for rescale; sets how fast the cell moves, not what it samples. "
    f"[default: {Settings.compressibility_per_bar:g}, of water]",
)
@click.option(
    "--barostat-interval",
    type=int,
    help=f"Steps between moves of the cell. [default: {Settings.barostat_interval}]",
)
@click.option("--ramp-steps", type=int, help="Steps that a ramp takes. [default: those of the run]")
@click.option(
    "--hmr",
    "hydrogen_mass",
    type=float,
    help="Mass of bonded hydrogens in amu, such as 3, taken from their partners, for a longer time step.",
)
@click.option("--fix", help="Atoms that stay where they are: numbers from 0, ranges, elements, as in 0-11,20,Na.")
@click.option(
    "--constrain",
    "constraints",
    help="Bonds of fixed length, for a longer time step: h-bonds (those of hydrogens, at the mean length in the "
    "structure), or a file with a line 'I J' or 'I J LENGTH' for each pair.",
)
@click.option(
    "--constraint-tolerance",
    type=float,
    help=f"Relative, of constrained lengths. [default: {Settings.constraint_tolerance:g}]",
)
@click.option(
    "--restrain",
    "restraints",
    help="Atoms held where they start by springs k in eV/Å^2, as in '0-11:5;Na:0.5': k |r - r_start|^2 / 2 for each "
    "atom. That is part of potential_eV in log.csv; frames of --save have it apart, as restraint_energy.",
)
@click.option(
    "--save",
    help="What else to keep with every frame, with commas: forces, velocities; in extxyz (frames.xyz, the usual one) "
    "or traj (frames.traj, ASE's own); xtc (traj.xtc, positions alone). Energy and forces of frames are the model's "
    "own, without springs.",
)
@click.option(
    "--guard",
    "guards",
    multiple=True,
    help="What a guard does, NAME=ACTION or NAME=ACTION:LIMIT. Names: "
    + ", ".join(f"{name} ({guard.action})" for name, guard in GUARDS.items())
    + f". Actions: {', '.join(ACTIONS)}. For reactions: bond=off.",
)
@click.option("--interval", type=int, help=f"Steps between frames and log lines. [default: {Settings.interval}]")
@click.option(
    "--restart-interval",
    type=int,
    help=f"Steps between restart files. [default: {Settings.restart_interval}]",
)
@click.option("--seed", type=int, help="Seed of velocities and noise. [default: drawn and printed]")
@click.option(
    "--replicas",
    type=int,
    help="Copies with the seeds SEED, SEED+1, ..., computed as one batch, each in a folder of its own inside --out.",
)
@click.option("--out", type=Folder(), help="Folder of the run. [default: <structure>_md]")
@click.option("--resume", is_flag=True, help="Go on with the run in the folder; with a larger --steps, extend it.")
@click.option(
    "--plan", is_flag=True, help="Say what the run would need (memory, time, disk), from a few steps; start nothing."
)
@click.option("--index", type=int, help="Which frame of the file, from 0, or from the end as in -2. [default: -1]")
@click.option("--cell", help="Cell in Å in place of the file's: a cube's edge, three edges, or a,b,c,alpha,beta,gamma.")
@click.option("--no-pbc", is_flag=True, help="Run without periodic boundaries.")
@click.option("--charge", type=int, help=CHARGE)
@click.option("--spin", type=int, help="Spin multiplicity 2S+1. [default: from the file, else the lowest possible]")
@click.option("--device", help="auto, cpu or cuda. [default: auto]")
@click.option(
    "--dtype",
    help="float32 or float64 for the model; positions and velocities are always float64. [default: float32]",
)
@click.option(
    "--kernel",
    help="What computes forces: auto, native or torch; on a GPU also native-fp16 (linear maps in float16) or "
    "native-bf16 (in bfloat16, for weights that overflow float16). [default: auto]",
)
@click.option("--skin", type=float, help="Extra radius of the stored neighbour list in Å. [default: chosen for speed]")
@click.option("--threads", type=THREADS, help="Threads for tensor arithmetic. [default: PyTorch's own choice]")
def command(
    structure: Path, out: Path | None, resume: bool, threads: int | None, replicas: int | None, **given
) -> None:
    """Run molecular dynamics of STRUCTURE (any file that ASE reads, by default its last frame).

    \b
    Writes into the folder of the run:
      traj.dcd, topology.pdb   trajectory, unwrapped coordinates, and the topology for it
      log.csv                  step, time, energies, temperature; volume and pressure with a barostat
      restart.npz              the state to --resume from (restart.previous.npz: the one before)
      run.json                 settings, seed, versions, hash of the weights
      timing.csv, energy.png, temperature.png
      replica_K/, replicas.csv a folder like this one for each of --replicas, and their means
      centroid.dcd             with --beads, beside one bead in traj.dcd

    A run that was stopped, even killed, goes on with --resume as if it had not been; options that are not
    given again are those it was started with.
    """
    from omnicalc.cli.memory import keep_freed_memory
    from omnicalc.cli.threads import cpu_threads
    from omnicalc.md.folder import RunFolder

    keep_freed_memory()
    folder = RunFolder(out if out is not None else Path(f"{structure.stem}_md"))
    look = folder.read_record if resume else folder.check_free
    stored = look(to_write=not given["plan"])
    if resume and stored is None:  # as after a kill before anything was written; or --out is mistyped
        click.echo(f"note       {folder.path} holds no run to go on with: a new one starts")
    if stored is not None:
        _check_record(stored, folder)
    settings, drawn = _settings(given, stored, folder)
    if stored is not None and replicas is None:
        replicas = stored.get("replicas")
    with cpu_threads(threads):
        result = _run(structure, folder, settings, given, stored, resume, drawn, replicas)
    if result is None:  # only a plan
        return
    closing_words(structure, out, folder, settings, result, all(folder.read_record()["structure"]["pbc"]), replicas)
    if result.signal is not None and not result.finished:
        raise SystemExit(128 + result.signal)  # as the shell reports a process ended by this signal


def _check_record(stored: dict, folder) -> None:
    """Refuse to go on with a run that this command has not made."""
    for part, names in _OF_RECORD.items():
        for name in names:
            if name not in stored[part]:
                raise InputError(
                    f"{folder.record} lacks '{name}' in '{part}', without which the run cannot go on here; put it back "
                    "as it was, or start another run with --out"
                )


def _settings(given: dict, stored: dict | None, folder) -> tuple[Settings, bool]:
    """Settings from the command line, else from the run to be resumed, else the defaults; whether the seed
    was drawn.
    """
    values = _given_settings(given)
    if stored is not None:
        from omnicalc.md.record import check_same_settings

        check_same_settings(stored, values | {name: given[name] for name in ("head", "dtype", "skin")}, folder.path)
        values = stored["settings"] | values
    drawn = "seed" not in values
    if drawn:
        values["seed"] = secrets.randbelow(2**31)
    settings = Settings(**values)
    check_of_use(_no_say(settings))
    return settings, drawn


def _no_say(settings: Settings) -> dict[str, str]:
    """Options that have no say in such a run: where they have none, and what to add."""
    ensemble, bath = settings.ensemble, settings.thermostat
    no_bath, no_barostat = f"in {ensemble}; add --ensemble nvt", f"in {ensemble}; add --ensemble npt"
    wrong: dict[str, str] = {}
    if not settings.has_bath:
        wrong |= dict.fromkeys(("thermostat", "thermostat_time_fs", "friction_per_fs"), no_bath)
    elif settings.beads:
        wrong["thermostat_time_fs"] = "with --beads, whose bath has a --friction; leave --beads out"
    elif bath in ("langevin", "qtb"):
        wrong["thermostat_time_fs"] = f"with {bath}; add --thermostat bussi"
    else:
        wrong["friction_per_fs"] = f"with {bath}; add --thermostat langevin"
    if ensemble != "npt":
        wrong |= dict.fromkeys(_OF_BAROSTAT, no_barostat)
    elif settings.barostat == "mc":
        wrong |= dict.fromkeys(_OF_RESCALE, "with mc; add --barostat rescale")
    if not settings.constraints:
        wrong["constraint_tolerance"] = "without constraints; add --constrain h-bonds"
    return wrong


def _given_settings(given: dict) -> dict:
    """Settings that were typed, by name; a ramp is two of them."""
    values = {name: given[name] for name in _SETTINGS if given.get(name) is not None and name != "guards"}
    if given["constraints"]:
        from omnicalc.md.constraint_list import as_setting

        values["constraints"] = as_setting(given["constraints"])
    if given["guards"]:
        values["guards"] = ",".join(given["guards"])
    for typed, first, last in (
        ("temperature", "temperature_K", "temperature_end_K"),
        ("pressure", "pressure_bar", "pressure_end_bar"),
    ):
        if given[typed] is not None:
            values[first] = given[typed][0]
            if given[typed][1] is not None:
                values[last] = given[typed][1]
    return values


def _run(
    structure: Path,
    folder,
    settings: Settings,
    given: dict,
    stored: dict | None,
    resume: bool,
    drawn: bool,
    replicas: int | None,
):
    from omnicalc.md.initial import given_velocities
    from omnicalc.md.replicas import check_count, check_differ, run_replicas
    from omnicalc.structure_file import read_structure

    if replicas is not None:
        check_count(replicas, settings)
    wanted = _wanted(given, stored)
    index = -1 if wanted["index"] is None else wanted["index"]
    atoms = read_structure(structure, index, wanted["cell"], bool(wanted["no_pbc"]))
    if stored is not None:
        _check_same_sources(atoms, wanted, stored, folder)
    elif replicas is not None:
        check_differ(replicas, settings, atoms)
    if stored is None and not settings.has_bath and given_velocities(atoms, settings) is not None:
        check_of_use({"temperature": "in nve from the velocities in the structure file; add --ensemble nvt"})

    from omnicalc.md.guard_settings import guard_rules
    from omnicalc.md.job import build_job
    from omnicalc.md.masses import check_hydrogens
    from omnicalc.md.progress import for_stream
    from omnicalc.md.run import run
    from omnicalc.registry import load_potential

    if given["hydrogen_mass"] is not None:
        check_hydrogens(atoms, given["hydrogen_mass"])
    potential = load_potential(wanted["model"], device=wanted["device"], dtype=wanted["dtype"], kernel=wanted["kernel"])
    if potential.committee_heads:  # their spread costs several times the forces: for those who ask for the guard
        rule = guard_rules(settings.guards)["uncertainty"]
        potential.spread = "uncertainty" in settings.guards and rule.action != "off"
    job = build_job(
        atoms,
        potential,
        file=structure,
        read_options={name: wanted[name] for name in ("index", "cell", "no_pbc")},
        charge=wanted["charge"],
        spin=wanted["spin"],
        head=wanted["head"],
        skin=wanted["skin"],
    )
    _check_guards(given["guards"], settings, job)
    if not atoms.pbc.any() and not wanted["no_pbc"]:
        _refuse_without_box(structure, job, settings, folder)

    def announce():
        header(potential, job, settings, folder, given, replicas, drawn=drawn, resumed=stored is not None)

    if given["plan"]:
        _plan(potential, job, settings, folder, given, stored, drawn, replicas)
        return None
    how = {"resume": resume, "progress": for_stream(), "say": click.echo, "announce": announce}
    if replicas is None:
        return run(job, settings, folder, **how)
    results = run_replicas(job, settings, folder, replicas, **how)
    return replace(results[0], steps_per_s=sum(result.steps_per_s for result in results))


def _check_guards(typed: tuple[str, ...], settings: Settings, job) -> None:
    """Refuse guards that were typed but have nothing to look at in such a run; that of a committee sees to itself."""
    idle = {}
    if settings.ensemble != "npt":
        idle["box"] = f"the cell rests in {settings.ensemble}; add --ensemble npt, or leave it out"
    if job.unlike is None:
        idle["surroundings"] = (
            f"{job.model['name']} does not say what surroundings its training data have; leave it out"
        )
    for part in ",".join(typed).split(","):
        name, _, action = part.strip().partition("=")
        if name in idle and action.partition(":")[0] != "off":
            raise InputError(f"guard {name} was asked for, but {idle[name]} (--guard {part.strip()})")


def _plan(potential, job, settings: Settings, folder, given, stored: dict | None, drawn: bool, replicas: int | None):
    from omnicalc.md import restart
    from omnicalc.md.plan import as_text, plan
    from omnicalc.md.replicas import replica_folder
    from omnicalc.md.run import check_unfinished

    count = replicas or 1
    steps = set()
    if stored is not None:
        place = folder.path if replicas is None else replica_folder(folder.path, 0, count)
        steps = restart.steps(place / folder.restart.name, job.device)
        check_unfinished(stored, max(steps, default=0), settings.steps, folder)
    header(potential, job, settings, folder, given, replicas, drawn=drawn, resumed=stored is not None)
    click.echo("timing     the first steps of a copy: seconds, or minutes where one step takes so long")
    found = plan(job, settings, folder.path, replicas=count, first=max(steps, default=0))
    click.echo(as_text(found, settings, count, job.device))


def _check_same_sources(atoms, wanted: dict, stored: dict, folder) -> None:
    """Structure and weights of a resumed run by their hashes: another structure is told as such, not by what the
    weights say of it.
    """
    from omnicalc.charge_and_spin import charge_and_spin
    from omnicalc.md.record import check_same_source, structure_hash
    from omnicalc.registry import resolve

    charge, spin = charge_and_spin(atoms, wanted["charge"], wanted["spin"])
    check_same_source(stored, "structure", structure_hash(atoms, charge, spin), folder.path)
    if wanted["model"] != stored["model"]["name"]:
        check_same_source(stored, "model", resolve(wanted["model"])[1].sha256, folder.path)


def _wanted(given: dict, stored: dict | None) -> dict:
    """Options that choose model and structure: as given, else as the run to be resumed had them, else the
    defaults.
    """
    defaults = {"model": _DEFAULT_MODEL, "device": "auto", "dtype": "float32", "kernel": "auto"}
    if stored is not None:
        model = stored["model"]
        defaults = {
            "model": model["name"],
            "head": model["head"],
            "dtype": model["dtype"],
            "skin": model["skin"],
        }
        # a run on plain torch stays on it; another goes on with the fastest kernel of this machine
        defaults["kernel"] = "auto" if model.get("kernel", "torch").startswith("native") else "torch"
        defaults |= {"device": model["device"], **stored["structure"]["read_options"]}
    names = ("model", "head", "device", "dtype", "kernel", "skin", "index", "cell", "no_pbc", "charge", "spin")
    return {name: defaults.get(name) if given[name] is None or given[name] is False else given[name] for name in names}


def _refuse_without_box(structure: Path, job, settings: Settings, folder) -> None:
    """Whatever else is wrong is told first, as a run without boundaries would be told."""
    from omnicalc.md.engines import dynamics_of
    from omnicalc.md.guards import Guards
    from omnicalc.md.initial import initial_state

    guards = Guards(settings, job.atoms, folder.path, lambda text: None)
    with suppress(RunError):  # molecules that a missing box has cut
        initial_state(job.atoms, dynamics_of(job, settings), settings, guards, job.device)
    raise InputError(
        f"{structure} has no periodic cell; give one in Å, as in --cell 12.4, "
        "or run it without periodic boundaries with --no-pbc"
    )
