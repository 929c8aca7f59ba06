"""``omnicalc decode``: a start with velocities in, several later frames at once out."""

import shlex
from pathlib import Path

import click

from omnicalc.cli.options import Folder, Time


@click.command(name="decode")
@click.argument("start", type=click.Path(path_type=Path))
@click.option("--model", default="atom", show_default=True, help="Name, name:tag or folder of a decoder.")
@click.option("--frames", type=click.IntRange(min=1), default=8, show_default=True, help="How many, evenly spaced.")
@click.option("--horizon", type=Time(), default=500.0, help="Time of the last of them.  [default: 500fs]")
@click.option("--rollout", type=click.IntRange(min=1), default=1, show_default=True, help="Start again from the end.")
@click.option("--index", type=int, default=-1, show_default=True, help="Frame of START to begin from.")
@click.option("--spacing", type=Time(), help="Between the frames of START (and --reference), where files do not say.")
@click.option("--reference", type=click.Path(path_type=Path), help="Trajectory that START was taken from, for errors.")
@click.option("--potential", help="Energies by this potential, or gfn2-xtb, and the time to integrate with it.")
@click.option("--out", type=Folder(), default=Path("decoded"), show_default=True, help="Folder of the results.")
def command(start, model, frames, horizon, rollout, index, spacing, reference, potential, out):
    """Predict later frames of START, one molecule with velocities, all at once.

    What is said of one time depends a little on how many frames are asked for: the frames look at one another.

    START is a file with velocities (extended XYZ with momenta), with two frames and a known spacing, or an npz
    trajectory. Writes traj.dcd, topology.pdb, frames.extxyz (with velocities) and report.json.

    \b
    omnicalc decode start.extxyz --frames 8 --horizon 500fs
    omnicalc decode toluene.npz --index 100 --reference toluene.npz --potential gfn2-xtb
    """
    from omnicalc.decoding.start import read_start
    from omnicalc.decoding.write import FILES
    from omnicalc.errors import InputError
    from omnicalc.files import made_folder, not_writable

    why = not_writable(out)
    if why is None and out.exists() and any((out / name).exists() for name in FILES):
        why = f"{out} holds decoded frames already"
    if why is not None:
        raise InputError(f"{why}; give another folder with --out")
    atoms = read_start(start, index, spacing, spacing_is_for_others=reference is not None)

    from omnicalc.decoding.decoder import ParallelDecoder
    from omnicalc.decoding.forces import forces_by
    from omnicalc.decoding.report import as_text, report_of
    from omnicalc.decoding.write import write_frames

    decoder = ParallelDecoder(model)
    forces = None if potential is None else forces_by(potential, atoms)
    decoder.decode(atoms, frames=1, horizon_fs=min(horizon, decoder.horizon_fs))  # costs of a first call
    found = decoder.decode(atoms, frames=frames, horizon_fs=horizon, rollout=rollout)
    model = {"model": decoder.name_resolved, "sha256": decoder.card.sha256, "start": str(start)}
    report = model | report_of(
        atoms, found, decoder.seconds, reference=reference, spacing_fs=spacing, potential=potential, forces=forces
    )
    with made_folder(out):
        write_frames(out, atoms, found, report)
    click.echo(as_text(report))
    click.echo(f"\nfiles: {out}\nnext: omnicalc analyze geometry {shlex.quote(str(out / 'traj.dcd'))}")
