"""From a planned analysis to its result, and from a result to files beside the trajectory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from omnicalc.analysis.report import Result
from omnicalc.analysis.results import ResultFolder
from omnicalc.analysis.sampling import Measure, Progress, Sampling, sample, stream
from omnicalc.analysis.sources import as_trajectory

Plan = Callable[..., Measure]  # plan(sampling, **settings): checks all input, raises InputError

SAMPLING = ("start", "stop", "step", "n_blocks", "dt_ps")


@dataclass(frozen=True)
class Written:
    """A result, what to print, and the files it went to."""

    result: Result
    lines: list[str]
    files: list[Path]


def measured(plan: Plan, source, top=None, progress: Progress | None = None, **settings) -> Result:
    """Result of one planned measure over the frames of ``source`` (see :func:`as_trajectory`)."""
    sampling, settings = split(source, top, settings)
    measure = plan(sampling, **settings)
    stream(sampling, [measure], progress)
    return measure.result()


def split(source, top, settings: dict) -> tuple[Sampling, dict]:
    """The sampling that some settings ask for, and the settings that are left."""
    chosen = {name: settings[name] for name in SAMPLING if settings.get(name) is not None}
    rest = {name: value for name, value in settings.items() if name not in SAMPLING}
    return sample(as_trajectory(source, top), **chosen), rest


class Claim:
    """Files of one verb in a folder, claimed before the work: none is replaced that is not its own."""

    def __init__(self, verb: str, tables: tuple[str, ...], source: Path, out: str | Path | None):
        self.verb, self.source = verb, source
        folder = Path(out) if out is not None else source.parent
        self.folder = ResultFolder(folder, f"{verb}.json", f"omnicalc analyze {verb}", source)
        self.folder.claim([f"{verb}.png", *(f"{verb}_{table}.csv" for table in tables)])

    def write(self, result: Result) -> Written:
        files = {result.csv_name(table): result.csv_bytes(table) for table in result.tables}
        files[f"{self.verb}.png"] = result.png_bytes()
        paths = self.folder.write(result.record(), files)
        return Written(result, [*result.lines(), "", "wrote:", *(f"  {path}" for path in paths)], paths)


def run_verb(
    plan: Plan, source, top=None, out: str | Path | None = None, progress: Progress | None = None, **settings
) -> Written:
    """Analyse and write VERB.json, VERB.png and VERB_TABLE.csv into ``out`` (default: beside the trajectory)."""
    sampling, settings = split(source, top, settings)
    measure = plan(sampling, **settings)
    claim = Claim(measure.verb, measure.tables, sampling.trajectory.path, out)
    stream(sampling, [measure], progress)
    return claim.write(measure.result())
