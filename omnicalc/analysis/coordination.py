"""Coordination numbers: how many atoms B lie around an atom A, how that changes, and how long they stay.

    n_A(t) = number of B within r_c of A at time t           n = < n_A(t) > over A and t

    symbol   variable    meaning
    r_c      cutoff      given, or the first minimum of g_AB(r) over up to 500 evenly spaced frames, Å

Residence times are those of :mod:`omnicalc.analysis.survival`, with absences of up to t* = 0.5 ps filled unless
another tolerance is given. Pairs inside one molecule do not count unless asked for.
"""

from __future__ import annotations

import numpy as np

from omnicalc.analysis.experiment import is_water_like
from omnicalc.analysis.labels import Labels
from omnicalc.analysis.near import NearPairs
from omnicalc.analysis.pair_counts import PairCounter
from omnicalc.analysis.peaks import first_shell
from omnicalc.analysis.plots import band, finish
from omnicalc.analysis.reference_values import EXPERIMENT, METHODS, Reference, references
from omnicalc.analysis.report import Quantity, Result, make_result, series_quantity, with_short_blocks
from omnicalc.analysis.sampling import Sampling
from omnicalc.analysis.survival import Decay, Survival, short_blocks
from omnicalc.analysis.topology import UNKNOWN, composition
from omnicalc.analysis.trajectory import Frame
from omnicalc.analysis.verbs import measured
from omnicalc.errors import InputError

IONS = ("Li", "Na", "K", "Rb", "Cs", "Mg", "Ca", "Sr", "Ba", "Zn", "Fe", "Mn", "Cu", "Co", "Ni", "F", "Cl", "Br", "I")
DEFAULT_TOLERANCE_PS = 0.5
MAX_LAG = 5000  # frames
_BIN = 0.02  # Å
_SEARCH_FRAMES, _SEARCH_PAIRS = (50, 500), 5e7  # frames for the minimum of g(r): fewer where one has many pairs


def coordination_numbers(source, pairs: list[str] | None = None, *, top=None, progress=None, **settings) -> Result:
    """Coordination numbers of ``pairs`` such as ``["Na-O"]``: mean, distribution, time series, residence times.

    ``source`` is a trajectory file, a run's folder, an MDAnalysis Universe or a Trajectory. Settings: those of
    :func:`plan_cn`, and ``start``, ``stop``, ``step``, ``n_blocks``, ``dt_ps``. Raises InputError.
    """
    return measured(plan_cn, source, top, progress, pairs=pairs, **settings)


def plan_cn(
    sampling: Sampling,
    *,
    pairs: list[str] | None = None,
    centre: str | None = None,
    around: str | None = None,
    cutoff: float | None = None,
    include_molecule: bool = False,
    tolerance_ps: float | None = None,
    max_lag_ps: float | None = None,
) -> Coordination:
    """Check input and find the cutoffs.

    ``pairs`` of elements, or one pair of selections ``centre`` and ``around``; without either, every ion with O,
    else O-O. ``cutoff`` in Å (default: the minimum of g(r), which needs a full cell).
    """
    labels = sampling.trajectory.labels
    sampling.need_frames(2, "a coordination number over time")
    if cutoff is not None and not (np.isfinite(cutoff) and cutoff > 0):
        raise InputError(f"--cutoff {cutoff} is no distance; give Å above zero, such as 3.3")
    chosen = _chosen(labels, pairs, centre, around)
    shells = []
    molecules = None if include_molecule else labels.molecules
    for name, a, b in chosen:
        radius = cutoff
        if radius is None:
            radius = _minimum(sampling, name, a, b, molecules)
        shells.append(_Shell(name, NearPairs(a, b, radius, molecules), sampling, tolerance_ps, max_lag_ps))
    return Coordination(sampling, shells, cutoff is not None, include_molecule)


class Coordination:
    """Counts neighbours of several pairs frame by frame."""

    verb, tables = "cn", ("series", "distribution", "survival")

    def __init__(self, sampling: Sampling, shells: list[_Shell], fixed: bool, include_molecule: bool):
        self.sampling, self.shells, self.fixed, self.include_molecule = sampling, shells, fixed, include_molecule

    def add(self, position: int, frame: Frame) -> None:
        for shell in self.shells:
            shell.add(position, frame)

    def result(self) -> Result:
        quantities, notes = [], []
        for shell in self.shells:
            shell.survival.finish()
            quantities += shell.quantities(self.fixed, notes)
            quantities += [known.quantity(f"n({shell.name})") for known in shell.known()]
        frames = np.array(self.sampling.frames)
        dt = self.sampling.dt_ps
        series = {"frame": frames} | ({"time_ps": self.sampling.times} if dt else {})
        series |= {f"n_{s.label}": s.series for s in self.shells}
        most = max(len(s.counts) for s in self.shells)
        distribution = {"n": np.arange(most)}
        distribution |= {f"fraction_{s.label}": s.fractions(most) for s in self.shells}
        survival = {"pair": [], "lag_ps" if dt else "lag_frames": [], "survival": [], "survival_stderr": []}
        for shell in self.shells:
            decay = shell.decay
            error = np.full(len(decay.lags), np.nan) if decay.stderr is None else decay.stderr
            rows = ([shell.name] * len(decay.lags), decay.lags * (dt or 1), decay.curve, error)
            for column, values in zip(survival.values(), rows, strict=True):
                column.extend(values)
        if dt is None:
            notes.append(f"no one time lies between frames, so residence is in frames{self.sampling.how_to_tell_time}")
        settings = {
            "pairs": {s.name: {"cutoff_angstrom": s.near.cutoff} for s in self.shells},
            "cutoff_from": "given" if self.fixed else "first minimum of g(r)",
            "include_molecule": self.include_molecule,
            "tolerance_frames": self.shells[0].survival.tolerance,
        }
        tables = {"series": series, "distribution": distribution, "survival": survival}
        return make_result("cn", self.sampling, settings, quantities, tables, notes, self._draw)

    def _draw(self, figure) -> None:
        dt = self.sampling.dt_ps
        left, middle, right = figure.subplots(1, 3)
        figure.set_size_inches(11.5, 3.9)
        time = self.sampling.times
        width = 0.8 / len(self.shells)
        for k, shell in enumerate(self.shells):
            label = f"{shell.name}, r < {shell.near.cutoff:.2f} Å"
            left.plot(time, shell.series, color=f"C{k}", linewidth=0.9, label=label)
            n = np.arange(len(shell.counts))
            middle.bar(n + (k + 0.5) * width - 0.4, shell.fractions(len(n)), width, color=f"C{k}")
            band(right, shell.decay.lags * (dt or 1), shell.decay.curve, shell.decay.stderr, f"C{k}")
            for known in shell.known(EXPERIMENT)[:1]:
                radius = f", {known.condition}" if known.condition.startswith("within") else ""
                label = f"  measured{radius}"
                left.axhline(known.value, color=f"C{k}", linestyle="--", linewidth=0.8, label=label)
                middle.axvline(known.value, color=f"C{k}", linestyle="--", linewidth=0.8)
        unit = "ps" if dt else "frames"
        finish(left, f"time ({unit})", "mean coordination number", legend=True)
        finish(middle, "coordination number", "fraction of frames and atoms", whole=True)
        seen = np.flatnonzero(sum(shell.fractions(max(len(s.counts) for s in self.shells)) for shell in self.shells))
        middle.set_xlim(seen[0] - 1, seen[-1] + 1)
        finish(right, f"t ({unit})", "survival S(t)")
        right.set_ylim(0, 1.02)


class _Shell:
    """One pair: its neighbours per frame, counts and survival."""

    def __init__(self, name: str, near: NearPairs, sampling: Sampling, tolerance_ps, max_lag_ps):
        self.name, self.near, self.sampling = name, near, sampling
        self.label = name.replace(" around ", "_around_").replace(" ", "_").replace(",", "_")
        self.series = np.zeros(len(sampling))
        self.counts = np.zeros(1, dtype=np.int64)
        self.survival = Survival(
            len(sampling),
            sampling.n_blocks,
            lag_frames(sampling, max_lag_ps),
            tolerance_frames(sampling, DEFAULT_TOLERANCE_PS if tolerance_ps is None else tolerance_ps),
        )

    def add(self, position: int, frame: Frame) -> None:
        i, j, _ = self.near(frame)
        of_centre = np.bincount(i, minlength=len(self.near.a))
        self.series[position] = of_centre.mean()
        found = np.bincount(of_centre)
        if len(found) > len(self.counts):
            self.counts = np.pad(self.counts, (0, len(found) - len(self.counts)))
        self.counts[: len(found)] += found
        self.survival.add(position, i * len(self.near.b) + j)

    def known(self, *methods: str) -> list[Reference]:
        """Coordination numbers that others found for this pair in water, by these methods (all by default)."""
        partner, _, centre = self.name.partition(" around ")
        if not is_water_like(self.sampling.trajectory.counts):
            return []
        found = references(f"{centre}-{partner} coordination")
        return [known for known in found if known.method in (methods or METHODS)]

    def fractions(self, length: int) -> np.ndarray:
        return np.pad(self.counts / self.counts.sum(), (0, length - len(self.counts)))

    @property
    def decay(self) -> Decay:
        return self.survival.decay()

    def quantities(self, fixed: bool, notes: list[str]) -> list[Quantity]:
        how = "given" if fixed else "first minimum of g(r)"
        common = int(np.argmax(self.counts))
        found = [
            series_quantity(
                f"n({self.name})", self.series, self.sampling, "", f"within {self.near.cutoff:.3f} Å ({how})"
            ),
            Quantity(f"commonest n({self.name})", common, None, "", f"{self.fractions(len(self.counts))[common]:.1%}"),
        ]
        return found + residence_quantities(self.name, self.survival, self.sampling.dt_ps)


def residence_quantities(name: str, survival: Survival, dt_ps: float | None) -> list[Quantity]:
    """Both residence times of a finished survival as quantities, in ps where the spacing of frames is known."""
    scale, unit = (dt_ps, "ps") if dt_ps else (1.0, "frames")
    if not len(survival.decay().lags):
        return [Quantity(f"residence time ({name})", None, None, unit, "no pair was ever within the cutoff")]
    filled = f"absences up to {survival.tolerance * scale:.3g} {unit} filled"
    decay, (counted, error) = survival.decay(), survival.counted()
    departures = int(survival.departures.sum())
    times = (decay.time, decay.time_stderr), (counted, error)
    low = f"S is still {decay.curve[-1]:.2f} at {decay.lags[-1] * scale:.3g} {unit}; a longer run or --max-lag"
    notes = [
        filled if decay.time is not None else low,
        f"{departures} departures; {filled}" if departures else "nothing left in the time analysed",
    ]
    return [
        Quantity(
            f"residence time ({name}), {how}",
            *(None if x is None else x * scale for x in (time, stderr)),
            unit,
            with_short_blocks(note) if stderr is not None and short_blocks(survival, time) else note,
        )
        for how, (time, stderr), note in zip(("integral of S(t)", "counted"), times, notes, strict=True)
    ]


def tolerance_frames(sampling: Sampling, tolerance_ps: float) -> int:
    """Longest absence, in frames, that still counts as presence; 0 where the spacing of frames is not known."""
    if not (np.isfinite(tolerance_ps) and tolerance_ps >= 0):
        raise InputError(f"--tolerance {tolerance_ps} is no time; give ps, zero or more")
    return 0 if sampling.dt_ps is None else int(tolerance_ps / sampling.dt_ps + 1e-6)


def lag_frames(sampling: Sampling, max_lag_ps: float | None) -> int:
    """Longest lag in frames: as given, else half of what is used, 5,000 at most."""
    if max_lag_ps is None:
        return min(len(sampling) // 2, MAX_LAG)
    if not (np.isfinite(max_lag_ps) and max_lag_ps > 0):
        raise InputError(f"--max-lag {max_lag_ps} is no time; give ps above zero")
    lag = int(max_lag_ps / sampling.need_time("--max-lag") + 1e-6)
    if not 1 <= lag < len(sampling):
        longest = (len(sampling) - 1) * sampling.dt_ps
        raise InputError(
            f"--max-lag {max_lag_ps:g} ps is not between the spacing of frames, {sampling.dt_ps:g} ps, and the "
            f"time analysed, {longest:g} ps"
        )
    return lag


def _chosen(labels: Labels, pairs, centre, around) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """Name, centres and partners of every pair."""
    if (centre is None) != (around is None):
        raise InputError("--centre and --around go together: atoms, and what is counted around them")
    if centre is not None:
        if pairs:
            raise InputError("--pair is not used together with --centre and --around; give one of them")
        return [(f"{around} around {centre}", labels.select(centre, "--centre"), labels.select(around, "--around"))]
    chosen = []
    for text in pairs or _default(labels):
        parts = [part.strip() for part in text.split("-")]
        if len(parts) != 2 or not all(parts):
            raise InputError(f"--pair {text} is not a pair of elements; write it as Na-O")
        a, b = (labels.select(part, f"--pair {text}:") for part in parts)
        if np.array_equal(a, b) and len(a) < 2:
            raise InputError(f"--pair {text} needs two atoms, and there is one")
        chosen.append((f"{parts[1].capitalize()} around {parts[0].capitalize()}", a, b))
    return chosen


def _default(labels: Labels) -> list[str]:
    counts = composition(labels.elements)
    ions = [e for e in counts if e in IONS and (labels.kinds[labels.elements == e] == e).all()]
    if "O" in counts and ions:
        return [f"{ion}-O" for ion in ions]
    if counts.get("O", 0) > 1:
        return ["O-O"]
    present = ", ".join(e for e in counts if e != UNKNOWN)
    raise InputError(f"no ion and no two oxygens to count around; name a pair with --pair A-B, of {present}")


def _minimum(sampling: Sampling, name: str, a: np.ndarray, b: np.ndarray, molecules) -> float:
    """First minimum of g(r), Å, over 500 evenly spaced frames, or fewer that hold enough pairs."""
    sampling.need_cells("the first minimum of g(r), which is the default cutoff (or give --cutoff),")
    enough = int(np.clip(_SEARCH_PAIRS / (len(a) * len(b)), *_SEARCH_FRAMES))
    stride = -(-len(sampling) // enough)
    indices = sampling.frames[::stride]
    limit = min(float(f.heights.min()) / 2 if f.bulk else 0.0 for f in sampling.trajectory.frames(indices))
    if limit < 0.5:
        raise InputError(f"{sampling.trajectory.path}: not every frame has a full cell; give a --cutoff")
    n_bins = max(int(limit / _BIN), 1)
    counter = PairCounter(a, a if np.array_equal(a, b) else b, _BIN, n_bins, molecules)
    if counter.pairs == 0:
        raise InputError(f"all pairs of {name} lie inside one molecule; count them with --include-molecule")
    weighted, counts = np.zeros(n_bins), np.zeros(n_bins)
    for frame in sampling.trajectory.frames(indices):
        found = counter(frame.positions, frame.box)
        weighted += found * frame.volume
        counts += found
    edges = _BIN * np.arange(n_bins + 1)
    g = weighted / len(indices) / counter.pairs / (4 * np.pi / 3 * np.diff(edges**3))
    noise = g / np.sqrt(np.maximum(counts / (2 if counter.like else 1), 1))
    shell = first_shell((edges[1:] + edges[:-1]) / 2, g, noise)
    if shell is None or shell.minimum is None:
        raise InputError(
            f"g(r) of {name} has no first minimum up to {limit:.2f} Å in {len(indices)} frames, so there is no "
            f"natural cutoff; give one with --cutoff Å, or more frames"
        )
    return shell.minimum.r
