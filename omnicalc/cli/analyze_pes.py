"""`omnicalc analyze pes REFERENCE [PREDICTED]`: errors of energies and forces along a trajectory."""

from pathlib import Path

import click

from omnicalc.cli.options import Folder


class Keys(click.ParamType):
    """Two names with a comma between them."""

    name = "ENERGY,FORCES"

    def convert(self, value, param, ctx):
        parts = value if isinstance(value, tuple) else tuple(part.strip() for part in value.split(","))
        if len(parts) != 2 or not all(parts):
            self.fail(f"{value!r} is not two names, of energy and forces, such as energy,forces", param, ctx)
        return parts


@click.command(name="pes")
@click.argument("reference", type=click.Path(path_type=Path))
@click.argument("predicted", type=click.Path(path_type=Path), required=False)
@click.option("--keys", type=Keys(), default="energy,forces", show_default=True, help="Labels of the reference.")
@click.option("--predicted-keys", type=Keys(), help="Labels of the prediction. Default: the same names.")
@click.option("--blocks", "n_blocks", type=int, default=10, show_default=True, help="Blocks for error bars, 5 or more.")
@click.option("--out", type=Folder(), metavar="DIR", help="Where to write. Default: beside PREDICTED.")
def command(reference, predicted, out, **settings):
    """Errors of relative energies, of steps in energy, and of forces, along labelled frames.

    REFERENCE and PREDICTED are extended XYZ files of the same frames; or REFERENCE alone holds both sets of labels
    (--predicted-keys). Writes pes_frames.csv, pes.json and pes.png.
    """
    from omnicalc.analysis.pes import pes_errors
    from omnicalc.analysis.verbs import Claim

    result = pes_errors(reference, predicted, **settings)
    written = Claim("pes", tuple(result.tables), predicted or reference, out).write(result)
    click.echo("\n".join(written.lines))
