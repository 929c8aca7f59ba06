"""``omnicalc data build RECIPE``: a recipe in, shards of labelled structures out."""

import click

from omnicalc.cli.options import PROCESSES, SCHEDULER, Folder, check_of_use


@click.command(name="recipe")
@click.argument("recipe")
@click.option("--out", type=Folder(), required=True, help="Folder of the shards; the same command goes on in it.")
@PROCESSES
@SCHEDULER
def command(recipe, out, processes, scheduler):
    """Build the structures of RECIPE: a TOML file, or the name of a shipped recipe such as ubio-xtb.

    Writes shard-NNNN.extxyz with energies and forces of GFN2-xTB. Can be stopped at any time; the same command again
    builds what is missing, the same structures in any case.
    """
    from omnicalc.data.build.recipe import read_recipe

    if scheduler is not None:
        check_of_use({"processes": "where a Dask scheduler has its own; leave out --scheduler"})
    settings = read_recipe(recipe)

    from omnicalc.cli.progress import progress_of
    from omnicalc.data.build.build import build
    from omnicalc.data.parallel import runner

    with runner(processes, scheduler) as run_all, progress_of("shards") as progress:
        whole = build(settings, out, run_all, lambda done, total, frames: progress(done, total, f"{frames} new frames"))
    if not whole:
        click.echo(f"stopped; go on with the same command. Shards so far: {out}")
        raise SystemExit(130)
    click.echo(f"all shards of '{settings.name}': {out}")
