"""``omnicalc label``: structures in, the same with energies and forces of quantum chemistry out."""

from pathlib import Path

import click

from omnicalc.cli.options import PROCESSES, SCHEDULER, FiniteRange, check_of_use


@click.command(name="label")
@click.argument("structures", nargs=-1, type=click.Path(path_type=Path))
@click.option("--method", default="wb97m-d3bj/def2-svp", show_default=True, help="gfn2-xtb, or functional/basis.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Extended XYZ file of the entries.")
@click.option("--grid", type=click.IntRange(0, 9), default=3, show_default=True, help="PySCF's level of the DFT grid.")
@click.option("--convergence", type=float, default=1e-8, show_default=True, help="Of the energy, Ha.")
@click.option("--max-atoms", type=click.IntRange(min=1), help="Leave larger structures out.")
@PROCESSES
@SCHEDULER
@click.option("--free-atoms", metavar="SYMBOLS", help="Reference energies of free atoms and ions, as in 'H O Na Cl'.")
@click.option("--from-uncertain", "run", type=click.Path(path_type=Path), help="Frames of a run of omnicalc md.")
@click.option("--model", help="Committee that judges them. [default: the run's model]")
@click.option("--count", type=click.IntRange(min=1), default=20, show_default=True, help="How many of them.")
@click.option("--above", type=FiniteRange(min=0), default=0.0, help="Only with a spread above this, eV/Å.")
def command(
    structures, method, out, grid, convergence, max_atoms, processes, scheduler, free_atoms, run, model, count, above
):
    """Energies and forces of all frames of STRUCTURES (any files that ASE reads).

    Charge and spin (2S+1) come from the frames' charge= and spin=; without them, the charge is the sum of initial
    charges, or zero (not of a PDB file with formal charges), and the spin the lowest. Can be stopped at any time, by a
    first signal once a structure under way is done, by a second at once; the same command again labels what is missing.
    One OUT is of one method. What does not converge is written to OUT.failures.jsonl, with the reason, and not tried
    again while it is there; the exit code is an error's only when nothing could be labelled.

    \b
    omnicalc label waters.xyz --method gfn2-xtb --out labelled.extxyz
    omnicalc label shards/*.extxyz --max-atoms 12 --processes 8 --out dft.extxyz
    omnicalc label --free-atoms "H C N O" --out atoms.json
    omnicalc label --from-uncertain run --out new.extxyz  (where the run's committee disagrees most)
    """
    from omnicalc.data.labels.method import parse_method
    from omnicalc.errors import InputError, RunError

    level = parse_method(method, grid, convergence)
    if sum([free_atoms is not None, run is not None, bool(structures)]) != 1:
        raise InputError("either structure files, --from-uncertain RUN or --free-atoms SYMBOLS are needed")
    check_of_use(_no_say(level, bool(structures), run is not None, scheduler))
    if free_atoms is not None:
        from omnicalc.data.labels.free_atoms import write_free_atoms

        click.echo(write_free_atoms(free_atoms.replace(",", " ").split(), level, out))
        return

    from omnicalc.cli.progress import progress_of
    from omnicalc.data.labels.run import label_all, read_inputs
    from omnicalc.data.parallel import runner

    frames = read_inputs(structures, max_atoms) if structures else _uncertain(run, model, count, above)
    with runner(processes, scheduler) as run_all, progress_of("structures") as progress:
        summary = label_all(frames, level, out, run_all, progress)
    if summary.nothing and not summary.stopped:
        raise RunError(
            f"none of the {summary.failed} structures could be labelled; the first: {summary.reason}. All reasons are "
            f"in {out}.failures.jsonl; what failed is not tried again before that file is removed"
        )
    click.echo(summary.text(out))
    if summary.stopped:
        raise SystemExit(130)


def _no_say(level, structures: bool, run: bool, scheduler: str | None) -> dict[str, str]:
    no_say = {}
    if not level.functional:
        of_dft = f"with {level.name}, which has no such setting; give --method functional/basis"
        no_say |= dict.fromkeys(("grid", "convergence"), of_dft)
    if not structures:
        no_say["max_atoms"] = "without structure files; give some"
    if not run:
        no_say |= dict.fromkeys(("model", "count", "above"), "without a run to choose frames of; add --from-uncertain")
    if scheduler is not None:
        no_say["processes"] = "where a Dask scheduler has its own; leave out --scheduler"
    if not structures and not run:
        no_say |= dict.fromkeys(("processes", "scheduler"), "with --free-atoms; give structure files")
    return no_say


def _uncertain(run: Path, model: str | None, count: int, above: float) -> list:
    from omnicalc.data.labels.uncertain import run_record, uncertain_frames

    record = run_record(run)

    from omnicalc.calculator import OmniCalc

    calc = OmniCalc(model or record["model"]["name"], head=record["model"]["head"], uncertainty=True)

    def spread(atoms):
        calc.calculate(atoms, ["forces"])
        return calc.results["forces_std"]

    return uncertain_frames(run, record, spread, count, above)
