"""The command line that the four studies share, and the way from a built system to a run that can be analysed."""

from __future__ import annotations

import platform
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import click
from ase import Atoms

from analysis.common.intact import first_break
from omnicalc import __version__
from omnicalc.analysis.trajectory import open_trajectory
from omnicalc.errors import GuardError, InputError, RunError

FULL_PS, TEMPERATURE = 200.0, 300.0  # the protocol of the UBio-MolFM report, constant volume
QUICK_PS = {"model": 0.4, "amber": 4.0}
FRAMES = {"model": 0.02, "amber": 0.1}  # ps between frames of a full run
QUICK_FRAMES, STEP_PS = 100, 0.002  # a whole number of steps of either engine lies between frames
FEWEST_FRAMES = 23  # 20 are analysed
ENOUGH_FRAMES = 50  # of an unbroken run, for a table
SKIPPED = 0.1  # of a run is left out of the analysis, as equilibration


@dataclass(frozen=True)
class Settings:
    """What a study was asked to do."""

    engine: str  # model or amber
    model: str
    head: str | None
    ps: float
    quick: bool
    seed: int
    threads: int
    out: Path
    notes: list[str] = field(default_factory=list)  # that the table has to say

    @property
    def frame_ps(self) -> float:
        if not self.quick:
            return FRAMES[self.engine]
        return max(1, round(self.ps / QUICK_FRAMES / STEP_PS)) * STEP_PS

    @property
    def name(self) -> str:
        return "TIP3P and Amber force fields (OpenMM)" if self.engine == "amber" else self.model

    def simulate(self, atoms: Atoms, name: str) -> dict:
        """Run atoms at 300 K; what to analyse, as keywords ``source``, ``start`` and ``dt_ps`` of an analysis."""
        folder = self.out / name
        if self.engine == "amber":
            from analysis.common.amber import run_amber

            run_amber(atoms, folder, ps=self.ps, frame_ps=self.frame_ps, temperature=TEMPERATURE, seed=self.seed,
                      threads=self.threads)  # fmt: skip
        else:
            from analysis.common.model import run_model

            try:
                run_model(atoms, folder, model=self.model, head=self.head, ps=self.ps, frame_ps=self.frame_ps,
                          temperature=TEMPERATURE, seed=self.seed)  # fmt: skip
            except GuardError as error:
                return self.analysed(folder, stopped=str(error).split(":")[0])
        return self.analysed(folder)

    def analysed(self, folder: Path, stopped: str = "") -> dict:
        """All frames but the first, to that in which a molecule comes apart, or to where a guard ``stopped`` the run.

        Raises RunError where few are left.
        """
        path, skip = folder / "traj.dcd", round(SKIPPED * self.ps / self.frame_ps)
        broken = first_break(path)
        if broken is None and not stopped:
            return {"source": path, "start": skip}
        frame, what = broken or (open_trajectory(path).n_frames, stopped)
        said = f"{folder.name}: the molecules came apart at {frame * self.frame_ps:.4g} ps ({what})"
        if frame - skip < ENOUGH_FRAMES:
            raise RunError(f"{said}, too early for a table: {self.name} does not hold this system together. Look at "
                           f"{path}, or take another --model")  # fmt: skip
        self.notes.append(f"{said}; only what lies before that was analysed.")
        return {"source": path, "start": skip, "stop": frame}

    def title(self, what: str) -> list[str]:
        """Lines over a table: what was run, when, with what."""
        used = (1 - SKIPPED) * self.ps
        kind = "a quick look, far too short for conclusions" if self.quick else "constant volume"
        return [
            f"{what}, {self.name}, {TEMPERATURE:g} K, {self.ps:g} ps, of which the last {used:.4g} ps count ({kind}).",
            f"omnicalc {__version__}, Python {platform.python_version()}, {time.strftime('%Y-%m-%d')}; `{_command()}`",
            *self.notes,
        ]


def study(run: Callable[[Settings], None], name: str, options: tuple = ()) -> click.Command:
    """A command with the common options, and ``options`` of its own passed on as keywords."""

    def call(engine, model, head, ps, quick, seed, threads, out, **own):
        if ps is not None and not 0 < ps < 1e6:
            raise InputError(f"--ps {ps} is no length; give picoseconds above zero, such as 200")
        if not 1 <= threads <= 1024:
            raise InputError(f"--threads {threads}: at least 1 and at most 1024 are possible")
        ps = ps or (QUICK_PS[engine] if quick else FULL_PS)
        shortest = FEWEST_FRAMES * (STEP_PS if quick else FRAMES[engine])
        if ps < shortest:
            raise InputError(f"--ps {ps:g} is too short to say anything; give at least {shortest:g}")
        default = Path("runs") / f"{name}_{engine if engine == 'amber' else model.replace(':', '-')}"
        out = out or Path(f"{default}_quick" if quick else default)
        out.mkdir(parents=True, exist_ok=True)
        with _threads(threads):
            run(Settings(engine, model, head, ps, quick, seed, threads, out), **own)
        print(f"wrote {out / 'table.md'} and {out / 'figure.png'}")

    command = click.Command(name, callback=call, help=_as_it_stands(sys.modules[run.__module__].__doc__))
    command.params = [
        click.Option(["--engine"], type=click.Choice(["model", "amber"]), default="model", show_default=True,
                     help="A potential of OmniCalc, or the Amber force fields in OpenMM."),
        click.Option(["--model"], default="ubio-s3", show_default=True, help="Weights, for --engine model."),
        click.Option(["--head"], help="Level of theory of the model."),
        click.Option(["--ps"], type=float, help=f"Length of each run. Default: {FULL_PS:g}."),
        click.Option(["--quick"], is_flag=True, help="A minute or two in a small box: shows that all works."),
        click.Option(["--seed"], type=int, default=1, show_default=True),
        click.Option(["--threads"], type=int, default=1, show_default=True),
        click.Option(["--out"], type=click.Path(path_type=Path, file_okay=False), help="Default: runs/STUDY_ENGINE."),
        *options,
    ]  # fmt: skip
    return command


def _as_it_stands(text: str) -> str:
    """Help whose commands stay on lines of their own: click joins the lines of a paragraph without this mark."""
    return "\n\n".join("\b\n" + part for part in text.strip().split("\n\n"))


def main(command: click.Command) -> None:
    """Run a study: one message and an exit code for what the user can change."""
    from omnicalc.cli.border import at_border

    sys.exit(at_border(lambda: command.main(standalone_mode=False)))


class _threads:  # noqa: N801 - used like a function
    """Threads of torch for as long as a study runs."""

    def __init__(self, number: int):
        self.number = number

    def __enter__(self):
        import torch

        self.before = torch.get_num_threads()
        torch.set_num_threads(self.number)

    def __exit__(self, *error):
        import torch

        torch.set_num_threads(self.before)


def _command() -> str:
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    return " ".join(["python", "-m", spec.name if spec else Path(sys.argv[0]).name, *sys.argv[1:]])
