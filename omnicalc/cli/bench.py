"""``omnicalc bench``: ms per step on water boxes, with the force error of the same run beside it."""

from pathlib import Path

import click

from omnicalc.cli.options import THREADS

DEFAULT_BOX = Path("examples/water.xyz")


@click.command(name="bench")
@click.argument("models", nargs=-1)
@click.option("--structure", type=click.Path(path_type=Path), default=DEFAULT_BOX,
              help=f"Water box to cut the sizes from. [default: {DEFAULT_BOX}, of a clone]")  # fmt: skip
@click.option("--sizes", default="192,648", show_default=True, help="Numbers of atoms, multiples of 3.")
@click.option("--rounds", type=click.IntRange(min=1), default=20, show_default=True, help="Turns of five force calls.")
@click.option("--threads", type=THREADS, help="CPU threads. [default: torch's own choice]")
@click.option("--device", default="auto", show_default=True)
@click.option("--kernel", default="auto", show_default=True, help="auto, native, native-fp16, native-bf16 or torch.")
@click.option("--against", type=click.Choice(["torch", "compiled", "mace"]), multiple=True,
              help="Peers to time in the same run: these weights on plain torch; on torch.compile, which takes minutes "
                   "for each size; MACE, random weights.")  # fmt: skip
@click.option("--tf32", is_flag=True, help="TF32 in matrix products, on a GPU that has it.")
def command(models, structure, sizes, rounds, threads, device, kernel, against, tf32):
    """Time MODELS (default: ubio-s3) in float32; the error is against the same weights in float64.

    Peak memory is a GPU's. Boxes of more than 20,000 atoms are timed without comparison.
    """
    from omnicalc.errors import InputError
    from omnicalc.structure_file import read_structure

    try:
        numbers = [int(x) for x in sizes.split(",")]
    except ValueError:
        raise InputError(f"--sizes {sizes} given; whole numbers with commas between are needed, e.g. 192,648") from None
    if structure == DEFAULT_BOX and not structure.exists():
        raise InputError(
            f"there is no {structure} in this folder, as there is in a clone; give a water box with --structure FILE"
        )
    box = read_structure(structure)

    import torch

    from omnicalc import benchmark
    from omnicalc.cli.memory import keep_freed_memory
    from omnicalc.cli.threads import cpu_threads

    benchmark.check_box(box, numbers)
    if tf32 and not torch.cuda.is_available():
        raise InputError("--tf32 given, but there is no GPU here, and a CPU has no TF32; leave --tf32 out")
    if "mace" in against:
        benchmark.check_mace()
    keep_freed_memory()
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if tf32 else before)
    try:
        with cpu_threads(threads):
            _time(models or ("ubio-s3",), box, numbers, rounds, device, kernel, against, tf32)
    finally:
        torch.set_float32_matmul_precision(before)


def _time(names, box, sizes, rounds, device, kernel, against, tf32) -> None:
    import torch

    from omnicalc import benchmark
    from omnicalc.compiled_peer import CompiledForces
    from omnicalc.registry import load_potential

    kernels = [kernel] + (["torch"] if "torch" in against else [])
    plain = {n: load_potential(n, device=device, kernel="torch") for n in names} if "compiled" in against else {}
    fast = {(n, k): load_potential(n, device=device, kernel=k) for n in names for k in kernels}
    exact = {n: load_potential(n, device="cpu", dtype="float64") for n in names}
    for potential in (*fast.values(), *plain.values(), *exact.values()):
        potential.any_box = True  # a box is timed, whether or not its water is any good
    precision = "TF32 in matrix products" if tf32 else "float32"
    click.echo(f"{torch.get_num_threads()} threads, torch {torch.__version__}, {precision}, timestep 0.5 fs")
    click.echo(
        f"{'model':34} {'atoms':>6} {'ms/step':>8} {'us/atom':>8} {'steps/s':>8} {'ns/day':>7} {'GiB':>6} "
        f"{'ratio':>6}  max force error, eV/Å"
    )
    for size in sizes:
        atoms = benchmark.water_box(box, size)
        labels = {key: benchmark.label(potential, atoms) for key, potential in fast.items()}
        calls = {labels[key]: benchmark.call_of(potential, atoms) for key, potential in fast.items()}
        compiled = {n: f"{potential.name_resolved} compiled" for n, potential in plain.items()}
        calls |= {compiled[n]: CompiledForces(potential, atoms) for n, potential in plain.items()}
        references = {}
        if size <= benchmark.MOST_CHECKED:
            weights = [(labels[n, k], n) for n, k in fast] + [(label, n) for n, label in compiled.items()]
            references = {label: benchmark.float64_reference(exact[n], atoms) for label, n in weights}
        if "mace" in against:
            where = next(iter(fast.values())).device
            calls |= {name: benchmark.mace_call(irreps, atoms, where) for name, irreps in benchmark.MACE_SIZES.items()}
        rows = benchmark.time_all(calls, references, atoms, rounds)
        for row in rows:
            error = "" if row.force_error is None else f"{row.force_error:.1e}"
            memory = "" if row.memory_GiB is None else f"{row.memory_GiB:.2f}"
            ratio = row.milliseconds / rows[0].milliseconds
            click.echo(
                f"{row.name:34} {row.atoms:6} {row.milliseconds:8.2f} {row.microseconds_per_atom:8.2f} "
                f"{row.steps_per_s:8.1f} {row.ns_per_day():7.2f} {memory:>6} {ratio:6.2f}  {error}"
            )
