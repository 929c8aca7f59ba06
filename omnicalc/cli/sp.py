"""``omnicalc sp``: energy, forces and stress of structures."""

import json
from pathlib import Path

import click

from omnicalc.cli.border import UNFINISHED
from omnicalc.cli.options import CHARGE, Folder
from omnicalc.cli.structures import BEYOND, end_if_stopped, these
from omnicalc.errors import InputError


@click.command(name="sp")
@click.argument("structures", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--model", default="ubio-s3", show_default=True, help="Name, name:tag or folder.")
@click.option("--head", help="Level of theory. [default: the model's first head that knows all elements]")
@click.option("--charge", type=int, help=CHARGE)
@click.option("--spin", type=int, help="Multiplicity 2S+1. [default: from the file, else the lowest]")
@click.option("--cell", help="Cell in Å: a cube's edge, a,b,c, a,b,c,alpha,beta,gamma, or nine numbers.")
@click.option("--no-pbc", is_flag=True, help="Without periodic boundaries.")
@click.option("--index", help="Which frame of each file, or a range such as 0:10 or ':'. [default: -1; with --out ':']")
@click.option("--stress/--no-stress", default=None, help="[default: stress, where it is defined]")
@click.option("--dtype", default="float32", show_default=True, help="float32 or float64.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, a list for several structures or a range.")
@click.option("--batch-atoms", type=int, default=1000, show_default=True, help="Atoms that are computed together.")
@click.option("--out", type=Folder(), help="Write into this folder: structures.xyz, summary.csv; can be interrupted.")
@click.option("--resume", is_flag=True, help="Go on with what is in the folder --out.")
def command(
    structures, model, head, charge, spin, cell, no_pbc, index, stress, dtype, device, as_json, batch_atoms, out, resume
):
    """Energy, forces and stress of STRUCTURES (files that ASE reads, by default their last frames, or folders).

    \b
    omnicalc sp water.xyz
    omnicalc sp traj.xyz --index 0:100 --json
    omnicalc sp structures/ --out energies

    Exit code 3 with --out: energies or forces of some are beyond all bounds; they are named, status failed.
    """
    from omnicalc.structure_set import read_set

    if batch_atoms < 1:
        raise InputError(f"{batch_atoms} atoms per batch; at least 1 is needed (--batch-atoms)")
    if resume and out is None:
        raise InputError("--resume goes on with the results in a folder; name it with --out")
    if out is not None and (as_json or stress is not None):
        raise InputError("--json and --stress are for printing; with --out the results are in structures.xyz")
    if index is None:
        index = "-1" if out is None else ":"

    def read():
        return read_set(structures, index, cell, no_pbc)

    if out is not None:
        _into_folder(
            structures, read, {"head": head, "charge": charge, "spin": spin},
            {"name": model, "device": device, "dtype": dtype}, batch_atoms, out, resume,
        )  # fmt: skip
        return
    members = read()

    from omnicalc.calculator import OmniCalc
    from omnicalc.single_point import as_text, single_point, single_points

    calc = OmniCalc(model, head=head, device=device, dtype=dtype, charge=charge, spin=spin)
    many = len(members) > 1
    if many:
        frames = [member.atoms for member in members]
        points = list(single_points(frames, calc, stress=stress, atoms_per_batch=batch_atoms))
    else:
        points = [single_point(members[0].atoms, calc, stress=stress)]
    if as_json:
        click.echo(json.dumps(points if many or ":" in index else points[0]))
        return
    files = len({member.file for member in members}) > 1
    titles = [f"{member.file}, " * files + f"frame {k} of {len(points)}\n" * many for k, member in enumerate(members)]
    click.echo("\n\n".join(title + as_text(point) for title, point in zip(titles, points, strict=True)))


def _into_folder(structures, read, options: dict, weights: dict, batch_atoms: int, out: Path, resume: bool) -> None:
    """A relaxation of no steps: the same folder, the same way to go on."""
    from omnicalc.cli.progress import progress_of
    from omnicalc.relaxation.folder import RelaxFolder
    from omnicalc.relaxation.settings import RelaxSettings

    settings = RelaxSettings(steps=0, atoms_per_batch=batch_atoms)
    folder = RelaxFolder(out)
    if not resume:
        folder.check_free()
    members = read()

    from omnicalc.registry import load_potential
    from omnicalc.relaxation.run import Relaxation

    potential = load_potential(**weights)
    relaxation = Relaxation(members, potential, settings, **options)
    with progress_of("structures") as progress:
        outcome = relaxation.go(folder, resume=resume, progress=progress)
    click.echo(
        f"model {relaxation.record['model']['name']}, head {relaxation.head}: {outcome.done} of {outcome.structures} "
        f"structures; results in {out}"
    )
    end_if_stopped(outcome, "sp", structures)
    if failed := outcome.with_status("failed"):
        click.echo(f"warning: {these(failed)} failed: {BEYOND}", err=True)
        raise SystemExit(UNFINISHED)
