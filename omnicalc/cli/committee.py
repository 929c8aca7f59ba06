"""``omnicalc committee``: weights that know how sure they are."""

from pathlib import Path

import click

from omnicalc.cli.options import SEED, Folder


@click.command(name="committee")
@click.argument("model")
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--out", type=Folder(), required=True, help="Folder of the new weights.")
@click.option("--head", help="Level of theory. [default: the first head of the model that knows all elements]")
@click.option("--members", type=click.IntRange(min=3), default=8, show_default=True)
@click.option("--frames", type=click.IntRange(min=1), default=300, show_default=True, help="Most training frames used.")
@click.option("--seed", type=SEED, default=0, show_default=True)
def command(model, data, out, head, members, frames, seed):
    """Add a committee of last layers to MODEL, from the frames of DATA that it was trained on (key split: train) and
    others (split: valid), which set the scale of the spread and test it.

    MODEL is of the family e2former (ubio-s1, ubio-s2, ubio-s3 and the like), with forces by gradients. Nothing else of
    the weights changes. Other heads: call it again on the weights that came out.
    """
    from omnicalc.cli.progress import progress_of
    from omnicalc.committee_weights import add_committee
    from omnicalc.data.readers import open_frames

    with progress_of("frames") as progress:
        done = add_committee(model, open_frames(data), str(data), out, head, members, frames, seed, progress)
    numbers = done.calibration.to_dict()
    click.echo(f"{out}: head {done.head}, {members} members, {done.frames} training frames")
    click.echo(
        f"on {numbers['atoms']} atoms of other frames: calibration error {100 * numbers['calibration_error']:.0f} %, "
        f"rank correlation of spread and error {numbers['rank_correlation']:.2f}, "
        f"{100 * numbers['within']:.0f} % of errors below the spread (Gaussian errors: 61 %)"
    )
    click.echo(f"plot: {out / 'calibration.png'}")
