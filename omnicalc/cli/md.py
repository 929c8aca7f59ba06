"""``omnicalc md``: structure in, trajectory, log, restart and plots out."""

import secrets
import shlex
from contextlib import contextmanager
from pathlib import Path

import click

from omnicalc.cli.options import Folder
from omnicalc.errors import InputError
from omnicalc.md.settings import Settings

_SETTINGS = (
    "steps",
    "timestep_fs",
    "temperature_K",
    "ensemble",
    "friction_per_fs",
    "interval",
    "restart_interval",
    "seed",
)
_DEFAULT_MODEL = "ubio-s3"
_ENSEMBLES = {"nvt": "Langevin dynamics, BAOAB", "nve": "velocity Verlet, centre of mass at rest"}


@click.command(name="md", context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("structure", type=click.Path(path_type=Path))
@click.option(
    "--model", help=f"Weights: name, name:tag, name:tag@version or a folder. [default: {_DEFAULT_MODEL}]"
)
@click.option(
    "--head", help="Level of theory. [default: the first head of the model that knows all elements]"
)
@click.option(
    "--steps",
    type=int,
    help=f"Steps of the whole run, counted from its first start. [default: {Settings.steps}]",
)
@click.option(
    "--timestep", "timestep_fs", type=float, help=f"Time step in fs. [default: {Settings.timestep_fs}]"
)
@click.option(
    "--temperature",
    "temperature_K",
    type=float,
    help=f"Temperature in K. [default: {Settings.temperature_K:g}]",
)
@click.option(
    "--ensemble", help=f"nvt (Langevin, BAOAB) or nve (velocity Verlet). [default: {Settings.ensemble}]"
)
@click.option(
    "--friction",
    "friction_per_fs",
    type=float,
    help=f"Langevin friction in 1/fs. [default: {Settings.friction_per_fs}]",
)
@click.option(
    "--interval", type=int, help=f"Steps between frames and log lines. [default: {Settings.interval}]"
)
@click.option(
    "--restart-interval",
    type=int,
    help=f"Steps between restart files. [default: {Settings.restart_interval}]",
)
@click.option("--seed", type=int, help="Seed of velocities and noise. [default: drawn and printed]")
@click.option("--out", type=Folder(), help="Folder of the run. [default: <structure>_md]")
@click.option(
    "--resume", is_flag=True, help="Go on with the run in the folder; with a larger --steps, extend it."
)
@click.option(
    "--cell", help="Cell in Å in place of the file's: a cube's edge, three edges, or a,b,c,alpha,beta,gamma."
)
@click.option("--no-pbc", is_flag=True, help="Run without periodic boundaries.")
@click.option("--charge", type=int, help="Total charge in e. [default: from the file, else 0]")
@click.option(
    "--spin", type=int, help="Spin multiplicity 2S+1. [default: from the file, else the lowest possible]"
)
@click.option("--device", help="auto, cpu or cuda. [default: auto]")
@click.option(
    "--dtype",
    help="float32 or float64 for the model; positions and velocities are always float64. [default: float32]",
)
@click.option(
    "--skin", type=float, help="Extra radius of the stored neighbour list in Å. [default: chosen for speed]"
)
@click.option("--threads", type=int, help="Threads for tensor arithmetic. [default: PyTorch's own choice]")
def command(structure: Path, out: Path | None, resume: bool, threads: int | None, **given) -> None:
    """Run molecular dynamics of STRUCTURE (any file that ASE reads, its last frame).

    \b
    Writes into the folder of the run:
      traj.dcd, topology.pdb   trajectory, unwrapped coordinates, and the topology for it
      log.csv                  step, time, energies, temperature
      restart.npz              the state to --resume from (restart.previous.npz: the one before)
      run.json                 settings, seed, versions, hash of the weights
      timing.csv, energy.png, temperature.png

    A run that was stopped, even killed, goes on with --resume as if it had not been; options that are not
    given again are those it was started with.
    """
    from omnicalc.cli.memory import keep_freed_memory
    from omnicalc.md.folder import RunFolder

    keep_freed_memory()
    folder = RunFolder(out if out is not None else Path(f"{structure.stem}_md"))
    stored = folder.read_record() if resume else folder.check_free()
    settings, drawn = _settings(given, stored, folder)
    with _threads(threads):
        result = _run(structure, folder, settings, given, stored, resume, drawn)
    _closing_words(structure, out, folder, settings, result, all(folder.read_record()["structure"]["pbc"]))
    if result.signal is not None and not result.finished:
        raise SystemExit(128 + result.signal)  # as the shell reports a process ended by this signal


def _settings(given: dict, stored: dict | None, folder) -> tuple[Settings, bool]:
    """Settings from the command line, else from the run to be resumed, else the defaults; whether the seed
    was drawn.
    """
    values = {name: given[name] for name in _SETTINGS if given[name] is not None}
    if stored is not None:
        from omnicalc.md.record import check_same_settings

        check_same_settings(
            stored, values | {name: given[name] for name in ("head", "dtype", "skin")}, folder.path
        )
        values = {name: stored["settings"][name] for name in _SETTINGS} | values
    drawn = "seed" not in values
    if drawn:
        values["seed"] = secrets.randbelow(2**31)
    return Settings(**values), drawn


def _run(
    structure: Path, folder, settings: Settings, given: dict, stored: dict | None, resume: bool, drawn: bool
):
    wanted = _wanted(given, stored)
    atoms = _read(structure, wanted)
    if stored is not None:
        _check_same_sources(atoms, wanted, stored, folder)

    from omnicalc.md.job import build_job
    from omnicalc.md.progress import for_stream
    from omnicalc.md.run import run
    from omnicalc.registry import load_potential

    potential = load_potential(wanted["model"], device=wanted["device"], dtype=wanted["dtype"])
    job = build_job(
        atoms,
        potential,
        file=structure,
        read_options={"cell": wanted["cell"], "no_pbc": wanted["no_pbc"]},
        charge=wanted["charge"],
        spin=wanted["spin"],
        head=wanted["head"],
        skin=wanted["skin"],
    )

    def announce():
        _header(potential, job, settings, folder, given, drawn=drawn, resumed=stored is not None)

    return run(job, settings, folder, resume=resume, progress=for_stream(), say=click.echo, announce=announce)


def _check_same_sources(atoms, wanted: dict, stored: dict, folder) -> None:
    """Structure and weights of a resumed run by their hashes: another structure is told as such, not by what the
    weights say of it.
    """
    from omnicalc.md.record import check_same_source, structure_hash
    from omnicalc.registry import resolve
    from omnicalc.systems import charge_and_spin

    charge, spin = charge_and_spin(atoms, wanted["charge"], wanted["spin"])
    check_same_source(stored, "structure", structure_hash(atoms, charge, spin), folder.path)
    if wanted["model"] != stored["model"]["name"]:
        check_same_source(stored, "model", resolve(wanted["model"])[1].sha256, folder.path)


def _wanted(given: dict, stored: dict | None) -> dict:
    """Options that choose model and structure: as given, else as the run to be resumed had them, else the
    defaults.
    """
    defaults = {"model": _DEFAULT_MODEL, "device": "auto", "dtype": "float32"}
    if stored is not None:
        model = stored["model"]
        defaults = {
            "model": model["name"],
            "head": model["head"],
            "dtype": model["dtype"],
            "skin": model["skin"],
        }
        defaults |= {"device": model["device"], **stored["structure"]["read_options"]}
    names = ("model", "head", "device", "dtype", "skin", "cell", "no_pbc", "charge", "spin")
    return {
        name: defaults.get(name) if given[name] is None or given[name] is False else given[name]
        for name in names
    }


def _read(structure: Path, wanted: dict):
    from omnicalc.structure_file import read_structure

    atoms = read_structure(structure, cell=wanted["cell"], no_pbc=bool(wanted["no_pbc"]))
    if not atoms.pbc.any() and not wanted["no_pbc"]:
        raise InputError(
            f"{structure} has no periodic cell; give one in Å, as in --cell 12.4, "
            "or run it without periodic boundaries with --no-pbc"
        )
    return atoms


@contextmanager
def _threads(number: int | None):
    """Run with this number of threads, and leave the setting as it was."""
    if number is None:
        yield
        return
    if number < 1:
        raise InputError(f"threads is {number}; at least 1 is needed (--threads)")
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _header(potential, job, settings: Settings, folder, given: dict, *, drawn: bool, resumed: bool) -> None:
    """What is about to run, before anything is written."""
    from omnicalc.md.initial import given_velocities
    from omnicalc.md.state import degrees_of_freedom

    structure, model = job.structure, job.model
    nvt = settings.ensemble == "nvt"
    bath = f", {settings.temperature_K:g} K, friction {settings.friction_per_fs:g} 1/fs" if nvt else ""
    if resumed:
        velocities = "as the run had them"
    elif given_velocities(job.atoms) is not None:
        velocities = "those in the structure file"
    else:
        velocities = f"Maxwell-Boltzmann at {settings.temperature_K:g} K"
    reason = "as asked" if given["head"] else "as before" if resumed else "the first that knows all elements"
    freedom = degrees_of_freedom(structure["atoms"], not nvt)
    periodic = "".join(a for a, p in zip("abc", structure["pbc"], strict=True) if p) or "nowhere"
    lines = {
        "model": f"{model['name']}, sha256 {(model['sha256'] or 'unknown')[:12]}",
        "": getattr(potential.card, "summary", "") if potential.card is not None else "",
        "head": f"{model['head']} ({reason})",
        "device": f"{model['device']}, {model['dtype']} (positions and velocities float64), "
        f"{model['threads']} threads",
        "structure": f"{structure['file']}: {structure['atoms']} atoms, {structure['formula']}, "
        f"periodic along {periodic}, charge {structure['charge']:+d}, spin {structure['spin']}",
        "velocities": velocities,
        "ensemble": f"{settings.ensemble}: {_ENSEMBLES[settings.ensemble]}{bath}; "
        f"{freedom} degrees of freedom",
        "run": f"{settings.steps} steps of {settings.timestep_fs:g} fs, "
        f"a frame every {settings.interval} steps",
        "seed": f"{settings.seed}{' (drawn)' if drawn else ''}",
        "folder": f"{folder.path}",
    }
    for name, text in lines.items():
        if text:
            click.echo(f"{name:<10} {text}")
    if not nvt and not model["conservative"]:
        click.echo(
            f"warning: the forces of {model['name']} are not the gradient of its energy, so the total energy "
            "of an nve run drifts; use --ensemble nvt, or a conservative model (omnicalc models)",
            err=True,
        )


def _closing_words(structure: Path, out: Path | None, folder, settings: Settings, result, periodic: bool) -> None:
    again = (
        f"omnicalc md {shlex.quote(str(structure))}"
        + (f" --out {shlex.quote(str(out))}" if out else "")
        + " --resume"
    )
    if not result.finished:
        click.echo(
            f"stopped by a signal at step {result.step} of {settings.steps}; the state is saved. "
            f"Go on with:\n  {again}"
        )
        return
    ps = settings.steps * settings.timestep_fs / 1000
    click.echo(
        f"done: {result.step} steps, {ps:g} ps, {result.steps_per_s:.1f} steps/s; results in {folder.path}"
    )
    if periodic:  # g(r) needs a density
        click.echo(f"next:\n  omnicalc analyze rdf {shlex.quote(str(folder.trajectory))}")
    click.echo(f"to go on with this run:\n  {again} --steps {10 * settings.steps}")
