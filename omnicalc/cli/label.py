"""``omnicalc label``: structures in, the same with energies and forces of quantum chemistry out."""

from pathlib import Path

import click


@click.command(name="label", context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("structures", nargs=-1, type=click.Path(path_type=Path))
@click.option("--method", default="wb97m-d3bj/def2-svp", show_default=True, help="gfn2-xtb, or functional/basis.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Extended XYZ file of the entries.")
@click.option("--grid", type=click.IntRange(0, 9), default=3, show_default=True, help="PySCF's level of the DFT grid.")
@click.option("--convergence", type=float, default=1e-8, show_default=True, help="Of the energy, Ha.")
@click.option("--max-atoms", type=click.IntRange(min=1), help="Leave larger structures out.")
@click.option("--workers", type=click.IntRange(min=1), default=1, show_default=True, help="Local processes.")
@click.option("--scheduler", help="Address of a Dask scheduler, as in tcp://host:8786, in place of local processes.")
@click.option("--free-atoms", metavar="SYMBOLS", help="Reference energies of free atoms and ions, as in 'H O Na Cl'.")
def command(structures, method, out, grid, convergence, max_atoms, workers, scheduler, free_atoms):
    """Energies and forces of all frames of STRUCTURES (any files that ASE reads).

    Charge and spin (2S+1) come from the frames' charge= and spin=. Can be stopped at any time; the same command again
    labels what is missing. What does not converge is written to OUT.failures.jsonl, with the reason.

    \b
    omnicalc label waters.xyz --method gfn2-xtb --out labelled.extxyz
    omnicalc label shards/*.extxyz --max-atoms 12 --workers 8 --out dft.extxyz
    omnicalc label --free-atoms "H C N O" --out atoms.json
    """
    from omnicalc.data.labels.method import parse_method
    from omnicalc.errors import InputError

    level = parse_method(method, grid, convergence)
    if (free_atoms is None) == (not structures):
        raise InputError("either structure files or --free-atoms SYMBOLS are needed")
    if free_atoms is not None:
        from omnicalc.data.labels.free_atoms import write_free_atoms

        click.echo(write_free_atoms(free_atoms.replace(",", " ").split(), level, out))
        return

    from omnicalc.cli.task_progress import task_progress
    from omnicalc.data.labels.run import label_all, read_inputs
    from omnicalc.data.parallel import runner

    frames = read_inputs(structures, max_atoms)
    with runner(workers, scheduler) as run_all, task_progress("structures") as progress:
        summary = label_all(frames, level, out, run_all, progress)
    click.echo(summary.text(out))
    if summary.stopped:
        raise SystemExit(130)
