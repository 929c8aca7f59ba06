"""All analyses that a trajectory allows, in one pass over its frames.

Each is planned first; what its input does not allow (no hydrogens, no ions, no cell, frames too far apart) is left
out with the reason. The frames are then read once and fed to all that are left. Before that, the boxes of all frames
and the g(r) of up to 500 of them are looked at, for the reach of the RDF and the cutoffs of coordination numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from omnicalc.analysis.coordination import plan_cn
from omnicalc.analysis.density import plan_density
from omnicalc.analysis.geometry import plan_geometry
from omnicalc.analysis.hbonds import plan_hbonds
from omnicalc.analysis.metal import plan_metal
from omnicalc.analysis.msd import plan_msd
from omnicalc.analysis.rdf import plan_rdf
from omnicalc.analysis.report import Result
from omnicalc.analysis.sampling import Measure, Progress, Sampling, stream
from omnicalc.analysis.trajectory import Frame
from omnicalc.analysis.vdos import plan_vdos
from omnicalc.analysis.verbs import Claim, split
from omnicalc.errors import InputError

_PLANS = {
    "rdf": plan_rdf,
    "cn": plan_cn,
    "msd": plan_msd,
    "hbonds": plan_hbonds,
    "metal": plan_metal,
    "density": plan_density,
    "geometry": plan_geometry,
    "vdos": plan_vdos,
}
VERBS = (*_PLANS, "drift")
_SLOWEST_SPECTRUM_PS = 0.01  # frames further apart show no vibration worth a spectrum


@dataclass(frozen=True)
class Everything:
    """Results by verb, and why the others were left out."""

    results: dict[str, Result]
    left_out: dict[str, str]
    lines: list[str]
    files: list[Path]


def analyze_all(
    source, *, only: list[str] | None = None, skip: list[str] | None = None, top=None, progress=None, **settings
) -> Everything:
    """All analyses of a trajectory in one pass, without writing anything.

    ``source`` is a trajectory file, a run's folder, an MDAnalysis Universe or a Trajectory; ``only`` and ``skip``
    name verbs of :data:`VERBS`. Settings: ``start``, ``stop``, ``step``, ``n_blocks``, ``dt_ps``. Raises InputError.
    """
    return _run(source, top, only, skip, progress, settings, claim=None)


def write_all(
    source, *, out: str | Path | None = None, only=None, skip=None, top=None, progress=None, **settings
) -> Everything:
    """:func:`analyze_all`, with the files of every verb in ``out`` (default: beside the trajectory)."""
    return _run(source, top, only, skip, progress, settings, claim=lambda *what: _claim(*what, out))


def _run(source, top, only, skip, progress: Progress | None, settings: dict, claim: Callable | None) -> Everything:
    wanted = _wanted(only, skip)
    sampling, rest = split(source, top, settings)
    if rest:
        raise TypeError(f"unknown settings {', '.join(rest)}")
    measures, left_out = _planned(sampling, wanted)
    claims = {}
    if claim is not None:
        claims = {verb: claim(verb, m.measure, sampling.trajectory.path) for verb, m in measures.items()}
    drift = _drift(sampling, wanted, left_out)
    if drift is not None and claim is not None:
        claims["drift"] = claim("drift", drift, sampling.trajectory.path)
    if not measures and drift is None:
        reasons = "; ".join(f"{verb}: {why}" for verb, why in left_out.items())
        raise InputError(f"{sampling.trajectory.path} allows none of these analyses: {reasons}")
    stream(sampling, measures.values(), progress)
    results, lines, files = {}, [], []
    for verb, measure in measures.items():
        if measure.failure is not None:
            left_out[verb] = measure.failure
            continue
        results[verb] = measure.result()
    if drift is not None:
        results["drift"] = drift
    for verb, result in results.items():
        if verb in claims:
            written = claims[verb].write(result)
            lines += [f"== {verb} ==", *written.lines, ""]
            files += written.files
        else:
            lines += [f"== {verb} ==", *result.lines(), ""]
    lines += [f"left out: {verb} ({why})" for verb, why in left_out.items()]
    return Everything(results, left_out, lines, files)


class _Guarded:
    """A measure that stops taking frames when one of them does not suit it, so that the others go on."""

    def __init__(self, measure: Measure):
        self.measure, self.verb, self.failure = measure, measure.verb, None

    def add(self, position: int, frame: Frame) -> None:
        if self.failure is None:
            try:
                self.measure.add(position, frame)
            except InputError as error:
                self.failure = str(error)

    def result(self):
        return self.measure.result()


def _planned(sampling: Sampling, wanted: list[str]) -> tuple[dict[str, _Guarded], dict[str, str]]:
    measures, left_out = {}, {}
    for verb in wanted:
        if verb == "drift":
            continue
        try:
            if verb == "vdos" and sampling.dt_ps is not None and sampling.dt_ps > _SLOWEST_SPECTRUM_PS:
                raise InputError(f"frames {sampling.dt_ps * 1000:g} fs apart are too far apart for a spectrum")
            measures[verb] = _Guarded(_PLANS[verb](sampling))
        except InputError as error:
            left_out[verb] = str(error)
    return measures, left_out


def _drift(sampling: Sampling, wanted: list[str], left_out: dict[str, str]):
    if "drift" not in wanted:
        return None
    from omnicalc.analysis.drift import energy_drift

    try:
        return energy_drift(sampling.trajectory.path)
    except InputError as error:
        left_out["drift"] = str(error)
        return None


def _claim(verb: str, what, path: Path, out: str | Path | None):
    return Claim(verb, tuple(what.tables), path.parent / "log.csv" if verb == "drift" else path, out)


def _wanted(only, skip) -> list[str]:
    unknown = [verb for verb in [*(only or []), *(skip or [])] if verb not in VERBS]
    if unknown:
        raise InputError(f"there is no analysis {unknown[0]!r} to choose or skip; there are {', '.join(VERBS)}")
    wanted = [verb for verb in VERBS if verb in (only or VERBS) and verb not in (skip or [])]
    if not wanted:
        raise InputError("--skip leaves nothing of what is to be analysed; leave --only or --skip out")
    return wanted
