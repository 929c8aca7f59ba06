"""``omnicalc bench``: ms per step on water boxes, with the force error of the same run beside it."""

from pathlib import Path

import click

DEFAULT_BOX = Path("examples/water.xyz")


@click.command(name="bench")
@click.argument("models", nargs=-1)
@click.option("--structure", type=click.Path(path_type=Path), default=DEFAULT_BOX, show_default=True,
              help="Water box to cut the sizes from.")  # fmt: skip
@click.option("--sizes", default="192,648", show_default=True, help="Numbers of atoms, multiples of 3.")
@click.option("--rounds", type=click.IntRange(min=1), default=20, show_default=True, help="Turns of five force calls.")
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads. [default: torch's own choice]")
@click.option("--device", default="auto", show_default=True)
@click.option("--kernel", default="auto", show_default=True, help="auto, native or torch.")
@click.option("--against", type=click.Choice(["torch", "mace"]), multiple=True,
              help="Peers to time in the same run: these weights on plain torch; MACE, random weights.")  # fmt: skip
def command(models, structure, sizes, rounds, threads, device, kernel, against):
    """Time MODELS (default: ubio-s3) in float32; the error is against the same weights in float64."""
    from omnicalc.errors import InputError
    from omnicalc.registry import load_potential
    from omnicalc.structure_file import read_structure

    try:
        numbers = [int(x) for x in sizes.split(",")]
    except ValueError:
        raise InputError(f"--sizes {sizes} given; whole numbers with commas between are needed, e.g. 192,648") from None
    if structure == DEFAULT_BOX and not structure.exists():
        raise InputError(f"there is no {structure} in this folder; give a water box with --structure FILE")
    box = read_structure(structure)

    import torch

    from omnicalc import benchmark
    from omnicalc.cli.memory import keep_freed_memory

    benchmark.check_box(box, numbers)
    if "mace" in against:
        benchmark.check_mace()
    keep_freed_memory()
    if threads is not None:
        torch.set_num_threads(threads)
    names = models or ("ubio-s3",)
    kernels = [kernel] + (["torch"] if "torch" in against else [])
    fast = {(n, k): load_potential(n, device=device, kernel=k) for n in names for k in kernels}
    exact = {n: load_potential(n, device="cpu", dtype="float64") for n in names}
    for potential in (*fast.values(), *exact.values()):
        potential.any_box = True  # a box is timed, whether or not its water is any good
    click.echo(f"{torch.get_num_threads()} threads, torch {torch.__version__}, float32, timestep 0.5 fs")
    click.echo(
        f"{'model':34} {'atoms':>6} {'ms/step':>8} {'steps/s':>8} {'ns/day':>7} {'ratio':>6}  max force error, eV/Å"
    )
    for size in numbers:
        atoms = benchmark.water_box(box, size)
        labels = {key: benchmark.label(potential, atoms) for key, potential in fast.items()}
        calls = {labels[key]: benchmark.call_of(potential, atoms) for key, potential in fast.items()}
        references = {labels[n, k]: benchmark.float64_reference(exact[n], atoms) for n, k in fast}
        if "mace" in against:
            calls |= {name: benchmark.mace_call(irreps, atoms) for name, irreps in benchmark.MACE_SIZES.items()}
        rows = benchmark.time_all(calls, references, atoms, rounds)
        for row in rows:
            error = "" if row.force_error is None else f"{row.force_error:.1e}"
            ratio = row.milliseconds / rows[0].milliseconds
            click.echo(
                f"{row.name:34} {row.atoms:6} {row.milliseconds:8.1f} {row.steps_per_s:8.1f} "
                f"{row.ns_per_day():7.2f} {ratio:6.2f}  {error}"
            )
