"""``omnicalc decoder evaluate``: errors of decoders by horizon, beside those of every baseline."""

from pathlib import Path

import click

from omnicalc.cli.options import FiniteRange, Time


@click.command(name="evaluate")
@click.argument("models", nargs=-1, required=True)
@click.option("--data", type=click.Path(path_type=Path), required=True, help="Folder of trajectories (npz).")
@click.option("--molecule", "names", multiple=True, help="Only this one; may be repeated. [default: all]")
@click.option(
    "--from",
    "first",
    type=FiniteRange(0, 1),
    default=0.0,
    show_default=True,
    metavar="PART",
    help="Only starts after this part of the frames: 0.75 for molecules trained on up to there.",
)
@click.option("--frames", type=click.IntRange(min=1), default=8, show_default=True)
@click.option("--starts", type=click.IntRange(min=1), default=24, show_default=True, help="Per molecule.")
@click.option("--spacing", type=Time(), help="Frame spacing of files that do not tell theirs, as MD17.")
def command(models, data, names, first, frames, starts, spacing):
    """Compare MODELS (one, or several seeds of one) with the trajectories of --data and with the baselines.

    Of several models the mean error is printed, and each one's own below it.
    """
    import numpy as np

    from omnicalc.cli.progress import progress_of
    from omnicalc.data.trajectories import read_folder
    from omnicalc.decoding.baselines import MEAN_RIGID
    from omnicalc.decoding.evaluation import DECODER, HORIZONS, molecule_errors, table, verdict
    from omnicalc.decoding.weights import load_decoder
    from omnicalc.errors import InputError

    loaded = [load_decoder(model) for model in models]
    if len({card.sha256 for _, card, _ in loaded}) < len(loaded):
        raise InputError(f"the same weights stand twice in {' '.join(models)}; their spread would say nothing")
    trajectories = read_folder(data, list(names) or None, spacing)
    part, single = (first, 1.0), []
    settings = {"part": part, "frames": frames, "starts": starts}
    with progress_of("molecules") as progress:
        for trajectory in trajectories:
            single.append([molecule_errors([model], trajectory, **settings) for model, *_ in loaded])
            progress(len(single), len(trajectories))
    errors = [_mean(each) for each in single]
    count = f"{len(errors)} molecule{'s' * (len(errors) > 1)}, {frames} frame{'s' * (frames > 1)}"
    click.echo(f"{', '.join(name for *_, name in loaded)}: {count}")
    for _, card, name in loaded:
        known = [t.name for t in trajectories if card.trained_on(t.name) > first]
        if known:
            part = card.trained_on(known[0])
            click.echo(f"note: {name} was trained on the first {part:.0%} of {', '.join(known)} (see --from)")
        if card.horizon_fs < HORIZONS[-1]:
            click.echo(f"note: {name} was trained up to {card.horizon_fs:g} fs, and is used beyond")
    for measure in ("s2t", "s2s"):
        click.echo("\n" + table(errors, measure))
        if len(loaded) > 1:
            own = np.array([[getattr(e, measure)[DECODER] for e in each] for each in single]).mean(0)
            spread = "".join(f"{100 * v:10.2f}" for v in own.std(0, ddof=1))
            click.echo(f"{'standard deviation between the models':<39}{spread}")
        click.echo(verdict(errors, measure))
    click.echo("\nS2T of the decoder by molecule, 10^-2 Å^2 (of the mean structure as a free rigid body in brackets)")
    for e in errors:
        pairs = zip(e.s2t[DECODER], e.s2t[MEAN_RIGID], strict=True)
        click.echo(f"{e.name:<20}" + "  ".join(f"{100 * a:6.2f} ({100 * b:6.2f})" for a, b in pairs))


def _mean(each):
    """The errors of one molecule over several models; baselines are the same in all."""
    import numpy as np

    from omnicalc.decoding.evaluation import DECODER, Errors

    tables = [
        {**getattr(each[0], measure), DECODER: np.mean([getattr(e, measure)[DECODER] for e in each], 0)}
        for measure in ("s2t", "s2s")
    ]
    return Errors(each[0].name, *tables)
