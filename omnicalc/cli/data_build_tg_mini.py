"""``omnicalc data build tg-mini``: trajectories of small molecules by GFN2-xTB."""

import click

from omnicalc.cli.options import Folder, check_of_use


@click.command(name="tg-mini")
@click.option("--out", type=Folder(), help="Folder of the data set, one npz file per molecule.")
@click.option("--molecule", "only", multiple=True, metavar="NAME", help="Only this one; may be given again.")
@click.option("--segments", default=2, show_default=True, help="Stretches of constant energy per molecule.")
@click.option("--frames", default=1500, show_default=True, help="Frames of each, all time steps.")
@click.option("--spacing", "spacing_fs", default=1.0, show_default=True, help="Time step and frame spacing, fs.")
@click.option("--temperature", default=300.0, show_default=True, help="K, of the Langevin dynamics before each.")
@click.option("--equilibration", "equilibration_fs", default=400.0, show_default=True, help="Its length, fs.")
@click.option("--method", default="gfn2-xtb", show_default=True, help="Or functional/basis, by PySCF (slow).")
@click.option("--seed", default=0, show_default=True)
@click.option("--list", "listed", is_flag=True, help="Molecules, splits and Tanimoto similarity; builds nothing.")
def command(out, only, listed, **settings):
    """Build trajectories of constant energy, each after Langevin dynamics, of 54 molecules of C, H, N and O.

    \b
    omnicalc data build tg-mini --out tg-mini --segments 3
    omnicalc data build tg-mini --list
    """
    from omnicalc.data.tg_mini import Settings, build, similarity_table
    from omnicalc.errors import InputError

    if listed:
        check_of_use(dict.fromkeys(("out", "only", *settings), "with --list, which builds nothing; leave --list out"))
        click.echo(similarity_table())
        return
    if out is None:
        raise InputError("where to? Give a folder with --out (or --list to see the molecules)")
    build(out, Settings(**settings), list(only), report=click.echo)
    click.echo(f"data set: {out}")
