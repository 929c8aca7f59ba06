"""``omnicalc relax``: structures in, the minima below them out."""

import shlex
from pathlib import Path

import click

from omnicalc.cli.border import UNFINISHED
from omnicalc.cli.options import CHARGE, Folder, check_of_use, typed_options
from omnicalc.cli.structures import BEYOND, end_if_stopped, these, to_type
from omnicalc.errors import InputError
from omnicalc.md.settings import COUPLINGS
from omnicalc.relaxation.settings import OPTIMIZERS, RelaxSettings

_SHOWN = 20  # structures that get a line of their own
_OF_INPUT = ("index", "cell", "no_pbc", "charge", "spin", "steps", "out", "resume")  # what results carry, or is new


@click.command(name="relax")
@click.argument("structures", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--model", default="ubio-s3", show_default=True, help="Name, name:tag or folder.")
@click.option("--head", help="Level of theory. [default: the first that knows all elements of the first structure]")
@click.option("--fmax", type=float, default=RelaxSettings.fmax, show_default=True, help="Largest force left, eV/Å.")
@click.option("--steps", type=int, default=RelaxSettings.steps, show_default=True, help="At most, of each structure.")
@click.option(
    "--optimizer", default=RelaxSettings.optimizer, show_default=True, help=f"One of: {', '.join(OPTIMIZERS)}."
)
@click.option("--relax-cell", default="", help=f"Let the cell move too: {', '.join(COUPLINGS)}. [default: it rests]")
@click.option("--pressure", "pressure_bar", type=float, default=0.0, show_default=True, help="On the cell, bar.")
@click.option(
    "--smax", "smax_GPa", type=float, default=RelaxSettings.smax_GPa, show_default=True, help="Largest stress left, GPa"
)
@click.option(
    "--max-step", type=float, default=RelaxSettings.max_step, show_default=True, help="Longest step of an atom, Å."
)
@click.option("--fix", default="", help="Atoms that stay where they are: numbers from 0, ranges, elements.")
@click.option("--index", default=":", show_default=True, help="Which frames of each file, as in -1 or 0:10.")
@click.option("--cell", help="Cell in Å in place of the files' own: an edge, a,b,c, or a,b,c,alpha,beta,gamma.")
@click.option("--no-pbc", is_flag=True, help="Without periodic boundaries.")
@click.option("--charge", type=int, help=CHARGE)
@click.option("--spin", type=int, help="Multiplicity 2S+1. [default: from the file, else the lowest]")
@click.option("--dtype", default="float32", show_default=True, help="float32 or float64.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda.")
@click.option("--kernel", default="auto", show_default=True, help="auto, native, native-fp16, native-bf16 or torch.")
@click.option(
    "--batch-atoms",
    "atoms_per_batch",
    type=int,
    default=RelaxSettings.atoms_per_batch,
    show_default=True,
    help="Structures are relaxed together as long as they have up to so many atoms.",
)
@click.option("--out", type=Folder(), help="Folder of the results. [default: <first structure>_relax]")
@click.option("--resume", is_flag=True, help="Go on with what is in the folder; give the same options.")
def command(structures, model, head, index, cell, no_pbc, charge, spin, dtype, device, kernel, out, resume, **given):
    """Relax STRUCTURES: files that ASE reads, all their frames, or folders of such files.

    \b
    omnicalc relax water.xyz
    omnicalc relax candidates/ --relax-cell anisotropic --fmax 0.01

    \b
    Writes into the folder:
      structures.xyz   relaxed structures in the order of the input, with energy, forces and stress
      summary.csv      one line each: steps, status, energy, its change, largest force and stress
      run.json         settings, hash of the weights; restart.npz: what --resume goes on from

    \b
    Exit code: 0 all converged; 3 some did not (they are named, and written all the same); 2 nothing was done, the
    message says why; 130 or 143 stopped by a signal.
    """
    from omnicalc.cli.memory import keep_freed_memory
    from omnicalc.cli.progress import progress_of
    from omnicalc.relaxation.folder import RelaxFolder
    from omnicalc.structure_set import read_set

    if given["steps"] == 0:  # which `sp` makes of its many structures: nothing converges, and nothing should
        raise InputError("--steps 0 relaxes nothing; give 1 or more, or take energies and forces alone: omnicalc sp")
    settings = RelaxSettings(**given)
    if not settings.relax_cell:
        check_of_use({"smax_GPa": "while the cell rests; add --relax-cell isotropic"})
    folder = RelaxFolder(out if out is not None else Path(f"{structures[0].resolve().stem}_relax"))
    if not resume:
        folder.check_free()
    members = read_set(structures, index, cell, no_pbc)

    from omnicalc.registry import load_potential
    from omnicalc.relaxation.run import Relaxation

    keep_freed_memory()
    potential = load_potential(model, device=device, dtype=dtype, kernel=kernel)
    relaxation = Relaxation(members, potential, settings, head=head, charge=charge, spin=spin)
    with progress_of("structures") as progress:
        outcome = relaxation.go(
            folder,
            resume=resume,
            progress=progress,
            tell=_line if len(members) <= _SHOWN else lambda walker: None,
            announce=lambda: _header(relaxation, folder),
        )
    counts = ", ".join(f"{number} {status}" for status, number in outcome.counts.items()) or "none"
    click.echo(f"done: {outcome.done} of {outcome.structures} structures ({counts}); results in {folder.path}")
    end_if_stopped(outcome, "relax", structures)
    if outcome.counts.keys() - {"converged"}:
        _warn(outcome, settings, folder)
        raise SystemExit(UNFINISHED)


def _header(relaxation, folder) -> None:
    settings, model = relaxation.settings, relaxation.record["model"]
    cell = f"{settings.relax_cell}, {settings.pressure_bar:g} bar" if settings.relax_cell else "at rest"
    atoms = sum(len(member.atoms) for member in relaxation.members)
    click.echo(f"model      {model['name']}, head {model['head']}, {model['dtype']} on {model['device']}")
    click.echo(f"kernel     {model['kernel']}")
    click.echo(
        f"structures {len(relaxation.members)} with {atoms} atoms, in {len(relaxation.batches)} "
        f"batch{'es' * (len(relaxation.batches) > 1)}"
    )
    click.echo(
        f"relax      {settings.optimizer}, until forces are below {settings.fmax:g} eV/Å, at most {settings.steps} "
        f"steps; cell {cell}"
    )
    click.echo(f"folder     {folder.path}")
    if not relaxation.potential.conservative:
        click.echo(
            f"warning: the forces of {model['name']} are not the gradient of its energy, so a relaxation by them may "
            "end at no minimum, or not at all; use a conservative model (omnicalc models)",
            err=True,
        )
    if settings.relax_cell and not relaxation.stress_trained:
        click.echo(
            f"note: {model['name']} was not trained on stresses; relaxed cells follow from energies and forces alone",
            err=True,
        )


def _line(walker) -> None:
    click.echo(
        f"{walker.atoms.get_chemical_formula():<16} {walker.status} after {walker.steps} steps, "
        f"{walker.found.energy:.6f} eV ({walker.found.energy - walker.first_energy:+.6f}), "
        f"largest force {walker.fmax:.4f} eV/Å"
    )


def _warn(outcome, settings: RelaxSettings, folder) -> None:
    """Name the structures that are no minima, and say what to type next."""
    if left := outcome.with_status("unconverged"):
        new = f"--steps {10 * settings.steps} --out {shlex.quote(str(folder.path / 'more'))}"
        click.echo(
            f"warning: {these(left)} did not converge. Go on from where they are, with those that did, which are done "
            f"at once:\n  {to_type('relax', [folder.results], typed_options(without=_OF_INPUT), new)}",
            err=True,
        )
    if failed := outcome.with_status("failed"):
        click.echo(
            f"warning: {these(failed)} failed: {BEYOND}; start from others, or with --optimizer fire --max-step 0.02",
            err=True,
        )
