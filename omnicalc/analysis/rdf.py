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

import json
from dataclasses import dataclass
from itertools import combinations_with_replacement
from pathlib import Path

import numpy as np

from omnicalc.analysis.blocks import MIN_BLOCKS, block_of, choose_blocks, jackknife_error, leave_one_out
from omnicalc.analysis.in_order import InOrder
from omnicalc.analysis.molecules import describe_molecules, guess_molecules
from omnicalc.analysis.pair_counts import PairCounter
from omnicalc.analysis.peaks import Shell, first_shell
from omnicalc.analysis.quiet import quietly
from omnicalc.analysis.sampling import Progress
from omnicalc.analysis.sources import as_trajectory
from omnicalc.analysis.topology import UNKNOWN, composition
from omnicalc.analysis.trajectory import Frame, Trajectory
from omnicalc.errors import InputError
from omnicalc.files import write_atomically

Pair = tuple[str, str]  # elements, or selections as they were given
MAX_DEFAULT_ELEMENTS = 4
MIN_BINS = 10


@dataclass(frozen=True)
class Value:
    """A number with its standard error, None where there were too few frames for one."""

    value: float
    stderr: float | None


@dataclass(frozen=True)
class PairRDF:
    """g(r) of one pair of elements or selections, on bins of equal width."""

    pair: Pair
    pairs: int  # ordered pairs that were counted in each frame
    left_out: int  # ordered pairs inside molecules that were not
    r: np.ndarray  # (n,) bin centres, Å
    g: np.ndarray  # (n,)
    g_stderr: np.ndarray | None  # (n,)
    around: dict[str, np.ndarray]  # "O around O" -> (n,) running coordination number at r
    peak: tuple[Value, Value] | None  # first peak: r in Å, g
    minimum: tuple[Value, Value] | None  # first minimum behind it: r in Å, g
    coordination: dict[str, Value]  # running coordination number at the first minimum

    @property
    def name(self) -> str:
        return "-".join(self.pair)


@dataclass(frozen=True)
class RDFs:
    """All pairs of one trajectory, with what they were made from."""

    pairs: list[PairRDF]
    frames: range
    bin_width: float  # Å
    r_max: float  # Å, upper edge of the last bin
    limit: float  # Å, half the smallest height of any frame's box
    mean_volume: float  # Å^3
    n_blocks: int  # 0: too few frames for error bars
    molecules: str | None  # what was recognised, where pairs inside molecules were left out
    composition: dict[str, int]
    notes: list[str]
    trajectory: Trajectory

    def to_csv(self, folder: str | Path) -> list[Path]:
        """Write rdf_A-B.csv of every pair into a folder, replacing such files; returns their paths."""
        from omnicalc.analysis.rdf_files import csv_files

        Path(folder).mkdir(parents=True, exist_ok=True)
        paths = {Path(folder) / name: data for name, data in csv_files(self).items()}
        for path, data in paths.items():
            write_atomically(path, lambda part, data=data: part.write_bytes(data))
        return list(paths)

    def to_json(self, path: str | Path | None = None) -> str:
        """The content of rdf.json as text, also written to ``path`` if one is given."""
        from omnicalc.analysis.rdf_files import record

        content = record(self.trajectory, self, self.trajectory.path.name, self.molecules is not None, {})
        text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
        if path is not None:
            write_atomically(Path(path), lambda part: part.write_text(text, encoding="utf-8"))
        return text

    def plot(self, path: str | Path | None = None):
        """The figure, a matplotlib Figure made without pyplot; also saved to ``path`` if one is given."""
        from omnicalc.analysis.rdf_figure import rdf_figure

        figure = rdf_figure(self, self.trajectory.path.name, {})
        if path is not None:
            with quietly():
                figure.savefig(path, dpi=160, facecolor="white")
        return figure


def parse_pair(text: str, counts: dict[str, int]) -> Pair:
    """``"o-h"`` -> ``("O", "H")``; InputError unless both elements are there, twice for a like pair."""
    parts = [part.strip().capitalize() for part in text.split("-")]
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
class Plan:
    """An analysis whose input has been checked; :func:`compute` does the work."""

    trajectory: Trajectory
    frames: range
    counters: dict[Pair, PairCounter]
    bin_width: float  # Å
    n_bins: int
    limit: float  # Å
    mean_volume: float  # Å^3
    n_blocks: int
    molecules: str | None
    composition: dict[str, int]
    notes: list[str]


def radial_distributions(source, pairs: list[str] | None = None, *, top=None, **settings) -> RDFs:
    """g(r), running coordination numbers and first shells; settings as of :func:`plan_rdf`.

    ``source`` is a trajectory file, a run's folder, an MDAnalysis Universe or a Trajectory.
    """
    return compute(plan_rdf(as_trajectory(source, top), pairs, **settings))


def plan_rdf(
    trajectory: Trajectory,
    pairs: list[str] | None = None,
    *,
    start: int | None = None,
    stop: int | None = None,
    step: int | None = None,
    bin_width: float = 0.02,
    r_max: float | None = None,
    exclude_molecule: bool = False,
    n_blocks: int = 10,
    selections: list[tuple[str, str]] | None = None,
) -> Plan:
    """Check all input, reading the frames and their boxes once, so that bad input is refused before the work.

    ``pairs`` such as ``["O-O", "O-H"]`` (default: :func:`default_pairs`); ``start``, ``stop``, ``step`` are a
    Python slice of frames; ``bin_width`` and ``r_max`` in Å; ``exclude_molecule`` leaves out pairs inside the
    molecules of the first frame used; ``selections`` are further pairs, of atoms selected by elements or in the
    language of MDAnalysis (``("resname MG", "name OP1 OP2")``), alone where no ``pairs`` are given. Raises InputError.
    """
    if n_blocks < MIN_BLOCKS:
        raise InputError(f"--blocks {n_blocks} is too few for an error bar; give {MIN_BLOCKS} or more")
    counts = composition(trajectory.elements)
    chosen, note = ([], None) if selections and not pairs else _choose(pairs, counts)
    frames = trajectory.select(start, stop, step)
    boxes = _survey(trajectory, frames)
    n_bins = _bins(bin_width, r_max, boxes.limit, boxes.limiting_frame)
    molecules = described = None
    if exclude_molecule:
        first = next(trajectory.frames(frames[:1]))
        molecules = guess_molecules(np.array(first.positions), trajectory.elements, first.box)
        described = describe_molecules(molecules, trajectory.elements)
    atoms = {pair: tuple(np.flatnonzero(trajectory.elements == e) for e in pair) for pair in chosen}
    atoms |= {pair: both for pair, both in (_selected(trajectory, *texts) for texts in selections or [])}
    counters = {pair: _counter(*both, pair, bin_width, n_bins, molecules) for pair, both in atoms.items()}
    blocks = choose_blocks(len(frames), n_blocks)
    notes = trajectory.notes() + _notes(note, counts, blocks, len(frames), boxes)
    return Plan(
        trajectory,
        frames,
        counters,
        bin_width,
        n_bins,
        boxes.limit,
        boxes.mean_volume,
        blocks,
        described,
        trajectory.counts,
        notes,
    )


def compute(plan: Plan, progress: Progress | None = None) -> RDFs:
    """Count all pairs of a plan, frame by frame, calling ``progress(frames done, frames in all)``."""
    measure = PairDistributions(plan)
    for done, frame in enumerate(plan.trajectory.frames(plan.frames)):
        measure.add(done, frame)
        if progress is not None:
            progress(done + 1, len(plan.frames))
    return measure.result()


class PairDistributions:
    """A planned analysis, fed frame by frame; native counting goes on in other threads meanwhile."""

    verb = "rdf"

    def __init__(self, plan: Plan):
        self.plan = plan
        self._tally = _Tally(plan.counters, max(plan.n_blocks, 1))
        self._work = InOrder(lambda counted: self._tally.add(*counted))

    def add(self, position: int, frame: Frame) -> None:
        block, volume = block_of(position, len(self.plan.frames), self.plan.n_blocks), frame.volume
        counts = [counter.prepared(frame.positions, frame.box) for counter in self.plan.counters.values()]
        self._work.give(lambda: (block, volume, [count() for count in counts]))

    def result(self) -> RDFs:
        self._work.finish()
        plan = self.plan
        return RDFs(
            [self._tally.result(pair, plan.n_blocks) for pair in plan.counters],
            plan.frames,
            plan.bin_width,
            plan.n_bins * plan.bin_width,
            plan.limit,
            plan.mean_volume,
            plan.n_blocks,
            plan.molecules,
            plan.composition,
            plan.notes,
            plan.trajectory,
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
                f"and g(r) needs one for its density; analyse a run that was made with a full cell"
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


def _notes(note: str | None, counts: dict[str, int], blocks: int, n_frames: int, boxes: _Boxes) -> list[str]:
    notes = [note] if note else []
    if UNKNOWN in counts:
        notes.append(f"{counts[UNKNOWN]} sites of unknown element (virtual sites?) were left out")
    if not blocks:
        notes.append(f"too few frames for error bars ({n_frames}); ten or more give them (five blocks of two)")
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
