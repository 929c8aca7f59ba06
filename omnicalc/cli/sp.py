"""``omnicalc sp``: energy, forces and stress of one structure."""

import json
from pathlib import Path

import click


@click.command(name="sp", context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("structure", type=click.Path(path_type=Path))
@click.option("--model", default="ubio-s3", show_default=True, help="Name, name:tag or folder.")
@click.option("--head", help="Level of theory. [default: the model's first head that knows all elements]")
@click.option("--charge", type=int, help="Total charge in e. [default: from the file, else 0]")
@click.option("--spin", type=int, help="Multiplicity 2S+1. [default: from the file, else the lowest]")
@click.option("--cell", help="Cell in Å: a cube's edge, a,b,c, a,b,c,alpha,beta,gamma, or nine numbers.")
@click.option("--no-pbc", is_flag=True, help="Without periodic boundaries.")
@click.option("--index", default="-1", show_default=True, help="Which frame, or a range such as 0:10.")
@click.option("--stress/--no-stress", default=None, help="[default: stress if periodic along all three axes]")
@click.option("--dtype", default="float32", show_default=True, help="float32 or float64.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, a list if --index is a range.")
def command(structure, model, head, charge, spin, cell, no_pbc, index, stress, dtype, device, as_json):
    """Energy, forces and stress of STRUCTURE (any file that ASE reads, by default its last frame).

    \b
    omnicalc sp water.xyz
    omnicalc sp traj.xyz --index 0:100 --json
    """
    from omnicalc.structure_file import read_structures

    frames = read_structures(structure, index, cell, no_pbc)

    from omnicalc.calculator import OmniCalc
    from omnicalc.single_point import as_text, single_point

    calc = OmniCalc(model, head=head, device=device, dtype=dtype, charge=charge, spin=spin)
    points = [single_point(atoms, calc, stress=stress) for atoms in frames]
    if as_json:
        click.echo(json.dumps(points if ":" in index else points[0]))
        return
    many = len(points) > 1
    titles = [f"frame {k} of {len(points)}\n" if many else "" for k in range(len(points))]
    click.echo("\n\n".join(title + as_text(point) for title, point in zip(titles, points, strict=True)))
