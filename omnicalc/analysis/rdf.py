"""Radial distribution functions from a stream of frames.

    g_AB(r) = < V n_AB(r) > / (P_AB dV(r))        dV(r) = 4 pi / 3 ((r + w/2)^3 - (r - w/2)^3)

    symbol     variable           meaning
    V          volume             of this frame's box, Å^3: a box may change from frame to frame
    n_AB(r)    counts             ordered pairs of this frame whose minimum-image distance lies in the bin
    P_AB       pairs              ordered pairs there are: N (N - 1) for like elements, N_A N_B for others,
                                  less the pairs inside molecules where those are left out
    w          bin_width          Å
    < >        mean over frames

The running coordination number n_{B around A}(r) = < pairs within r > / N_A counts directly, without a
density. Distances reach up to half the smallest height of any frame's box, where a minimum image is unique.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations_with_replacement
from pathlib import Path

import numpy as np

from omnicalc.analysis.blocks import jackknife_error, leave_one_out
from omnicalc.analysis.cells import NEEDS_CELL
from omnicalc.analysis.in_order import InOrder
from omnicalc.analysis.molecules import describe_molecules, guess_molecules
from omnicalc.analysis.pair_counts import PairCounter
from omnicalc.analysis.peaks import Shell, first_shell
from omnicalc.analysis.rdf_compare import curves_by_pair, load_curves
from omnicalc.analysis.rdf_curves import Curve, Pair, PairRDF, Value, names_of
from omnicalc.analysis.rdf_figure import draw_rdfs
from omnicalc.analysis.rdf_result import RDFs, shell_quantities
from omnicalc.analysis.report import make_result
from omnicalc.analysis.sampling import Progress, Sampling
from omnicalc.analysis.topology import UNKNOWN, composition
from omnicalc.analysis.trajectory import Frame, Trajectory
from omnicalc.analysis.verbs import measured
from omnicalc.errors import InputError

MAX_DEFAULT_ELEMENTS = 4
MIN_BINS = 10
MAX_BINS = 1_000_000  # far more than coordinates resolve; their counters still fit in memory


def radial_distributions(
    source, pairs: list[str] | None = None, *, top=None, progress: Progress | None = None, **settings
) -> RDFs:
    """g(r), running coordination numbers and first shells.

    ``source`` is a trajectory file, a run's folder, an MDAnalysis Universe or a Trajectory. Settings: those of
    :func:`plan_rdf`, and ``start``, ``stop``, ``step``, ``n_blocks``. Raises InputError.
    """
    return measured(plan_rdf, source, top, progress, pairs=pairs, **settings)


def plan_rdf(
    sampling: Sampling,
    *,
    pairs: list[str] | None = None,
    selections: list[tuple[str, str]] | None = None,
    bin_width: float = 0.02,
    r_max: float | None = None,
    exclude_molecule: bool = False,
    compare: list[str | Path] | None = None,
    label: str | None = None,
) -> PairDistributions:
    """Check all input, reading the boxes of all frames once, so that bad input is refused before the work.

    ``pairs`` such as ``["O-O", "O-H"]`` (default: :func:`default_pairs`); ``selections`` are further pairs, of atoms
    selected by elements or in the language of MDAnalysis (``("resname MG", "name OP1 OP2")``), alone where no
    ``pairs`` are given; ``bin_width`` and ``r_max`` in Å; ``exclude_molecule`` leaves out pairs inside the molecules
    of the first frame used; ``compare`` names files of earlier RDFs, and ``label`` (default: the end of the
    trajectory's path) this one. Raises InputError.
    """
    trajectory = sampling.trajectory
    earlier = {path: load_curves(Path(path)) for path in compare or []}
    counts = composition(trajectory.elements)
    chosen, note = ([], None) if selections and not pairs else _choose(pairs, counts)
    boxes = _survey(trajectory, sampling.frames)
    n_bins = _bins(bin_width, r_max, boxes.limit, boxes.limiting_frame)
    molecules = described = None
    if exclude_molecule:
        first = next(trajectory.frames(sampling.frames[:1]))
        molecules = guess_molecules(np.array(first.positions), trajectory.elements, first.box)
        described = describe_molecules(molecules, trajectory.elements)
    atoms = {pair: tuple(np.flatnonzero(trajectory.elements == e) for e in pair) for pair in chosen}
    atoms |= {pair: both for pair, both in (_selected(trajectory, *texts) for texts in selections or [])}
    counters = {pair: _counter(*both, pair, bin_width, n_bins, molecules) for pair, both in atoms.items()}
    label = label or "/".join(trajectory.path.resolve().parts[-2:])
    left_out = {pair: counter.left_out > 0 for pair, counter in counters.items()}
    curves = curves_by_pair(left_out, label, earlier)
    return PairDistributions(sampling, counters, boxes, described, label, curves, _notes(note, counts, boxes))


class PairDistributions:
    """Counts all pairs frame by frame; native counting goes on in other threads meanwhile."""

    verb = "rdf"

    def __init__(
        self,
        sampling: Sampling,
        counters: dict[Pair, PairCounter],
        boxes: _Boxes,
        molecules: str | None,
        label: str,
        curves: dict[Pair, list[Curve]],
        notes: list[str],
    ):
        self.sampling, self.counters, self.boxes, self.molecules = sampling, counters, boxes, molecules
        self.label, self.curves, self.notes = label, curves, notes
        self.names = names_of(counters)
        self.tables = tuple(self.names.values())
        self._tally = _Tally(counters, max(sampling.n_blocks, 1))
        self._work = InOrder(lambda counted: self._tally.add(*counted))

    def add(self, position: int, frame: Frame) -> None:
        block, volume = self.sampling.block(position), frame.volume
        counts = [counter.prepared(frame.positions, frame.box) for counter in self.counters.values()]
        self._work.give(lambda: (block, volume, [count() for count in counts]))

    def result(self) -> RDFs:
        self._work.finish()
        pairs = [self._tally.result(pair, self.sampling.n_blocks) for pair in self.counters]
        counter, limit = next(iter(self.counters.values())), self.boxes.limit
        bin_width, r_max = counter.bin_width, counter.n_bins * counter.bin_width
        reach = f"bins of {bin_width:g} Å up to {r_max:.2f} Å (half the smallest cell height: {limit:.3f} Å)"
        inside = [f"pairs inside one molecule left out: {self.molecules}"] if self.molecules else []
        settings = {
            "bin_angstrom": bin_width,
            "rmax_angstrom": round(r_max, 9),
            "exclude_molecule": self.molecules is not None,
        }
        result = make_result(
            self.verb,
            self.sampling,
            settings,
            [quantity for rdf in pairs for quantity in shell_quantities(rdf)],
            {self.names[rdf.pair]: rdf.columns() for rdf in pairs},
            self.notes,
            lambda figure: draw_rdfs(figure, rdfs),
            [reach, *inside],
        )
        rdfs = RDFs(
            **vars(result),
            sampling=self.sampling,
            pairs=pairs,
            bin_width=bin_width,
            r_max=r_max,
            limit=limit,
            mean_volume=self.boxes.mean_volume,
            molecules=self.molecules,
            label=self.label,
            curves=self.curves,
        )
        return rdfs


def parse_pair(text: str, counts: dict[str, int]) -> Pair:
    """``"o-h"`` -> ``("O", "H")``; InputError unless both elements are there, twice for a like pair."""
    parts = [part.strip().capitalize() for part in text.split("-")]
    parts = ["H" if part == "D" and "D" not in counts else part for part in parts]  # as trajectories have heavy ones
    present = ", ".join(f"{e} ({n})" for e, n in counts.items() if e != UNKNOWN)
    if len(parts) != 2 or not all(parts):
        raise InputError(f"--pair {text} is not a pair of elements; write it as O-H (here: {present})")
    for part in parts:
        if part not in counts or part == UNKNOWN:
            raise InputError(f"--pair {text}: there is no element {part} in this trajectory; it holds {present}")
    if parts[0] == parts[1] and counts[parts[0]] < 2:
        raise InputError(f"--pair {text} needs two atoms of {parts[0]}, and there is one; it holds {present}")
    return parts[0], parts[1]


def default_pairs(counts: dict[str, int]) -> tuple[list[Pair], str | None]:
    """All pairs of up to four elements, O-O, O-H and H-H first; of more, one pair, and a note that says so.

    The rarer element comes first (``Na-O``), by atomic number where they are equally many.
    """
    from ase.data import atomic_numbers

    known = [e for e in counts if e != UNKNOWN]
    known.sort(key=lambda e: (counts[e], atomic_numbers[e]))
    pairs = [(a, b) for a, b in combinations_with_replacement(known, 2) if a != b or counts[a] > 1]
    water = [("O", "O"), ("O", "H"), ("H", "O"), ("H", "H")]
    pairs.sort(key=lambda pair: water.index(pair) if pair in water else len(water))
    if not pairs:
        raise InputError("the trajectory holds no two atoms of known elements, so there is no pair to count")
    if len(known) <= MAX_DEFAULT_ELEMENTS:
        return pairs, None
    chosen = ("O", "O") if ("O", "O") in pairs else pairs[-1]
    return [chosen], (
        f"{len(known)} elements make {len(pairs)} pairs; only {'-'.join(chosen)} was done. "
        f"Name others with --pair, of {', '.join(known)}"
    )


@dataclass(frozen=True)
class _Boxes:
    mean_volume: float
    limit: float
    limiting_frame: int
    volumes: tuple[float, float]


def _choose(pairs: list[str] | None, counts: dict[str, int]) -> tuple[list[Pair], str | None]:
    if not pairs:
        return default_pairs(counts)
    chosen: list[Pair] = []
    for text in pairs:
        pair = parse_pair(text, counts)
        if pair not in chosen and pair[::-1] not in chosen:
            chosen.append(pair)
    return chosen, None


def _survey(trajectory: Trajectory, frames: range) -> _Boxes:
    volumes, limit, limiting = [], np.inf, frames[0]
    for frame in trajectory.frames(frames):
        if not frame.bulk:
            raise InputError(
                f"{trajectory.path}: frame {frame.index} has no cell that is periodic along all three axes, "
                f"and g(r) needs one for its density; {NEEDS_CELL}"
            )
        volume, heights = frame.volume, frame.heights
        volumes.append(volume)
        if heights.min() / 2 < limit:
            limit, limiting = float(heights.min()) / 2, frame.index
    return _Boxes(float(np.mean(volumes)), limit, limiting, (min(volumes), max(volumes)))


def _bins(bin_width: float, r_max: float | None, limit: float, frame: int) -> int:
    if not (np.isfinite(bin_width) and bin_width > 0):
        raise InputError(f"--bin {bin_width} is not a width; give Å above zero, such as 0.02")
    if r_max is not None and not (np.isfinite(r_max) and r_max > 0):
        raise InputError(f"--rmax {r_max} is not a distance; give Å above zero and up to {limit:.3f}")
    if r_max is not None and r_max > limit * (1 + 1e-6):
        raise InputError(
            f"--rmax {r_max:g} Å is beyond {limit:.3f} Å, half the smallest cell height (frame {frame}),"
            f" where an atom would meet its own images; give up to {np.floor(limit * 1000) / 1000:g}"
        )
    reach = limit if r_max is None else r_max
    n_bins = int(reach / bin_width + 1e-6)
    if n_bins < MIN_BINS:
        raise InputError(
            f"--bin {bin_width:g} Å leaves {n_bins} bins up to {reach:.3f} Å; give {reach / 50:.1g} or less"
        )
    if n_bins > MAX_BINS:
        raise InputError(f"--bin {bin_width:g} Å makes {n_bins} bins up to {reach:.3f} Å; give 0.001 or more")
    return n_bins


def _selected(trajectory: Trajectory, a: str, b: str) -> tuple[Pair, tuple[np.ndarray, np.ndarray]]:
    """Texts and atoms of two selections that are equal or have no atom in common."""
    sets = tuple(trajectory.labels.select(text, "--select") for text in (a, b))
    shared = len(np.intersect1d(*sets))
    if shared and not np.array_equal(*sets):
        raise InputError(f"--select {a!r} {b!r} share {shared} atoms; give the same selection twice, or two without a "
                         f"common atom")  # fmt: skip
    if shared == 1 == len(sets[0]):
        raise InputError(f"--select {a!r} {b!r} selects one atom, and a pair needs two")
    return (a, b), sets


def _counter(centres, partners, pair: Pair, bin_width: float, n_bins: int, molecules) -> PairCounter:
    partners = centres if np.array_equal(centres, partners) else partners
    counter = PairCounter(centres, partners, bin_width, n_bins, molecules)
    if counter.pairs == 0:
        raise InputError(
            f"all {'-'.join(pair)} pairs lie inside one molecule; leave out --exclude-molecule, or the pair"
        )
    return counter


def _notes(note: str | None, counts: dict[str, int], boxes: _Boxes) -> list[str]:
    notes = [note] if note else []
    if UNKNOWN in counts:
        notes.append(f"{counts[UNKNOWN]} sites of unknown element (virtual sites?) were left out")
    if boxes.volumes[1] > boxes.volumes[0] * (1 + 1e-6):
        notes.append(f"the box volume varies from {boxes.volumes[0]:.1f} to {boxes.volumes[1]:.1f} Å^3")
    return notes


class _Tally:
    """Sums over frames, kept per block: constant memory, however long the trajectory."""

    def __init__(self, counters: dict[Pair, PairCounter], n_blocks: int):
        self.counters = counters
        self.frames = np.zeros(n_blocks)
        self.counts = {pair: np.zeros((n_blocks, c.n_bins)) for pair, c in counters.items()}
        self.weighted = {pair: np.zeros((n_blocks, c.n_bins)) for pair, c in counters.items()}

    def add(self, block: int, volume: float, counted: list[np.ndarray]) -> None:
        """Counts of one frame, pair by pair."""
        self.frames[block] += 1
        for pair, counts in zip(self.counters, counted, strict=True):
            self.counts[pair][block] += counts
            self.weighted[pair][block] += volume * counts

    def result(self, pair: Pair, n_blocks: int) -> PairRDF:
        counter = self.counters[pair]
        edges = counter.bin_width * np.arange(counter.n_bins + 1)
        shells = 4.0 * np.pi / 3.0 * np.diff(edges**3)
        scale = 1.0 / (counter.pairs * shells)
        r = (edges[1:] + edges[:-1]) / 2
        total, events = self.weighted[pair].sum(axis=0), self.counts[pair].sum(axis=0)
        g = total / self.frames.sum() * scale
        parts = leave_one_out(self.weighted[pair], self.frames) * scale if n_blocks else None
        stderr = jackknife_error(parts) if n_blocks else None
        counting = g / np.sqrt(np.maximum(events / (2 if counter.like else 1), 1))
        shell = first_shell(r, g, counting if stderr is None else np.maximum(counting, stderr))
        within = np.concatenate([[0.0], np.cumsum(events)]) / self.frames.sum()
        names = {f"{pair[1]} around {pair[0]}": len(counter.centres)}
        names |= {f"{pair[0]} around {pair[1]}": len(counter.partners)}
        around = {name: np.interp(r, edges, within) / n for name, n in names.items()}
        coordination = {}
        if shell is not None and shell.minimum is not None:
            error = self._error_within(pair, edges, shell.minimum.r) if n_blocks else None
            inside = float(np.interp(shell.minimum.r, edges, within))
            for name, n in names.items():
                coordination[name] = Value(inside / n, None if error is None else error / n)
        peak, minimum = _with_errors(shell, r, parts)
        return PairRDF(pair, counter.pairs, counter.left_out, r, g, stderr, around, peak, minimum, coordination)

    def _error_within(self, pair: Pair, edges: np.ndarray, r: float) -> float:
        """Standard error of the number of pairs per frame within a fixed distance."""
        parts = leave_one_out(self.counts[pair], self.frames)
        within = np.concatenate([np.zeros((len(parts), 1)), np.cumsum(parts, axis=1)], axis=1)
        return float(jackknife_error(np.array([np.interp(r, edges, row) for row in within])))


def _with_errors(shell: Shell | None, r: np.ndarray, parts: np.ndarray | None):
    """Peak and minimum as (Value r, Value g), each refitted without one block at a time."""
    found = []
    for extremum in (shell.peak if shell else None, shell.minimum if shell else None):
        if extremum is None:
            found.append(None)
            continue
        errors = [None, None]
        if parts is not None:
            errors = jackknife_error(np.array([extremum.refit(r, g) for g in parts])).tolist()
        found.append((Value(extremum.r, errors[0]), Value(extremum.g, errors[1])))
    return found
