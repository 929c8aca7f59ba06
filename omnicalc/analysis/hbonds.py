"""Hydrogen bonds: how many, between whom, for how much of the time, and how long they last.

    D-H...A is a bond when  r(H...A) < 2.5 Å  and  angle(D-H...A) > 120 degrees

which are the numbers of the UBio-MolFM report; both can be changed, and the distance can be that of D...A instead
(3.0 to 3.5 Å are usual then, and 150 degrees). Donors and acceptors are N, O and F unless selected otherwise; a
hydrogen belongs to the donor it is bonded to in the topology, or in the first frame by distance, throughout.

    occupancy     fraction of frames with at least one bond between a donor and an acceptor atom
    lifetime      of a hydrogen and its acceptor: integrals of the continuous S(t) and of the intermittent C(t) of
                  :mod:`omnicalc.analysis.survival`; C(t) is that of Luzar, Chandler, Nature 379, 55 (1996)
"""

from __future__ import annotations

import re

import numpy as np

from omnicalc.analysis.blocks import block_mean, jackknife_error, leave_one_out
from omnicalc.analysis.coordination import lag_frames, tolerance_frames
from omnicalc.analysis.labels import Labels, holds
from omnicalc.analysis.near import NearPairs
from omnicalc.analysis.pair_tally import PairTally
from omnicalc.analysis.plots import band, finish
from omnicalc.analysis.report import SHORT_BLOCKS, Quantity, Result, make_result, series_quantity, with_short_blocks
from omnicalc.analysis.sampling import Sampling
from omnicalc.analysis.survival import Intermittent, Survival, short_blocks
from omnicalc.analysis.trajectory import Frame
from omnicalc.analysis.verbs import measured
from omnicalc.analysis.within import within
from omnicalc.errors import InputError

ELECTRONEGATIVE = "N,O,F"
DISTANCE, ANGLE = 2.5, 120.0  # Å, degrees
MAX_LAG = 2000  # frames
BULK = 50  # molecules of one kind: from here on its bonds with itself are counted, not listed pair by pair
_LONGEST_BOND = 1.3  # Å, D-H
_FOLLOWED = 6  # kinds of bonds whose lifetimes are found
_MAX_ROWS = 1000


def hydrogen_bonds(source, *, top=None, progress=None, **settings) -> Result:
    """Hydrogen bonds of a trajectory: counts, occupancies, named sites and lifetimes.

    ``source`` is a trajectory file, a run's folder, an MDAnalysis Universe or a Trajectory. Settings: those of
    :func:`plan_hbonds`, and ``start``, ``stop``, ``step``, ``n_blocks``, ``dt_ps``. Raises InputError.
    """
    return measured(plan_hbonds, source, top, progress, **settings)


def plan_hbonds(
    sampling: Sampling,
    *,
    distance: float = DISTANCE,
    angle: float = ANGLE,
    donor_acceptor: bool = False,
    donors: str = ELECTRONEGATIVE,
    acceptors: str = ELECTRONEGATIVE,
    sites: list[str] | None = None,
    tolerance_ps: float = 0.0,
    max_lag_ps: float | None = None,
) -> HydrogenBonds:
    """Check input.

    ``distance`` in Å between H and A, or between D and A with ``donor_acceptor``; ``angle`` in degrees;
    ``donors`` and ``acceptors`` are elements or selections; ``sites`` such as ``"VAL9-NH->SAR7-CO"``.
    """
    if not (np.isfinite(distance) and distance > 0):
        raise InputError(f"--distance {distance} is no distance; give Å above zero, such as 2.5")
    if not (np.isfinite(angle) and 0 <= angle < 180):
        raise InputError(f"--angle {angle} is no angle; give degrees from 0 up to 180, such as 120")
    labels = sampling.trajectory.labels
    donor_of = _hydrogens(labels, donors)
    accepting = _acceptors(labels, acceptors, acceptors == ELECTRONEGATIVE)
    criterion = _Criterion(np.array(list(donor_of)), np.array(list(donor_of.values())), accepting, distance, angle,
                           donor_acceptor)  # fmt: skip
    named = [_site(labels, text, criterion) for text in sites or []]
    lag = min(lag_frames(sampling, max_lag_ps), MAX_LAG) if max_lag_ps is None else lag_frames(sampling, max_lag_ps)
    return HydrogenBonds(sampling, criterion, named, tolerance_frames(sampling, tolerance_ps), lag)


class HydrogenBonds:
    """Finds bonds frame by frame and keeps counts, occupancies and survival."""

    verb, tables = "hbonds", ("series", "pairs", "lifetimes")

    def __init__(self, sampling: Sampling, criterion: _Criterion, sites: list[_Site], tolerance: int, lag: int):
        self.sampling, self.criterion, self.sites = sampling, criterion, sites
        self.tolerance, self.lag = tolerance, lag
        labels = self.labels = sampling.trajectory.labels
        self.kinds, kind_of = np.unique(labels.kinds.astype(str), return_inverse=True)
        self._molecule = labels.molecules
        n_molecules = np.array([len(np.unique(labels.molecules[kind_of == k])) for k in range(len(self.kinds))])
        self._n_molecules = dict(zip(self.kinds, n_molecules.tolist(), strict=True))
        self._kind_of = kind_of
        self._is_bulk = n_molecules >= BULK
        self._tally = PairTally(max(sampling.n_blocks, 1))
        self._counts: dict[int, np.ndarray] = {}  # kind of bond -> bonds per frame
        self._lives: dict[int, tuple[Survival, Intermittent]] = {}
        for site in sites:
            site.start(sampling, tolerance, lag)

    def add(self, position: int, frame: Frame) -> None:
        h, a, distance, angle = self.criterion(frame)
        donor, acceptor = self.criterion.donors[h], self.criterion.acceptors[a]
        self._add_kinds(position, h, a, donor, acceptor)
        listed = ~(self._is_bulk[self._kind_of[donor]] & (self._kind_of[donor] == self._kind_of[acceptor]))
        n = len(self.labels.elements)
        pairs = donor[listed] * n + acceptor[listed]
        self._tally.add(self.sampling.block(position), pairs, distance[listed], angle[listed])
        for site in self.sites:
            site.add(position, frame, self.criterion.hydrogens[h], acceptor)

    def _add_kinds(self, position: int, h, a, donor, acceptor) -> None:
        n = len(self.kinds)
        kind = self._kind_of[donor] * n + self._kind_of[acceptor]
        inside = self._molecule[donor] == self._molecule[acceptor]
        kind = np.where(inside, n * n + self._kind_of[donor], kind)
        keys = h * len(self.criterion.acceptors) + a  # sorted, as h and a are
        for k in np.unique(kind).tolist():
            if k not in self._counts:
                self._counts[k] = np.zeros(len(self.sampling))
                if len(self._lives) < _FOLLOWED:
                    size = (len(self.sampling), self.sampling.n_blocks, self.lag)
                    n_keys = len(self.criterion.hydrogens) * len(self.criterion.acceptors)
                    self._lives[k] = Survival(*size, self.tolerance), Intermittent(*size, n_keys)
        for k, counts in self._counts.items():
            mine = kind == k
            counts[position] = mine.sum()
            if k in self._lives:
                present = keys[mine]
                for life in self._lives[k]:
                    life.add(position, present)

    def _name(self, kind: int) -> str:
        n = len(self.kinds)
        if kind >= n * n:
            return f"inside {self.kinds[kind - n * n]}"
        return f"{self.kinds[kind // n]} to {self.kinds[kind % n]}"

    def result(self) -> Result:
        dt = self.sampling.dt_ps
        quantities, notes = [], []
        if not self._counts:
            notes.append("not one hydrogen bond was found in any frame")
            quantities.append(Quantity("hydrogen bonds per frame", 0.0, None, ""))
        for kind, counts in self._counts.items():
            quantities += self._of_kind(kind, counts)
        for site in self.sites:
            quantities += site.quantities()
        if len(self._counts) > len(self._lives):
            notes.append(f"lifetimes were found for {len(self._lives)} of {len(self._counts)} kinds of bonds")
        if dt is None:
            notes.append(f"no one time lies between frames, so lifetimes are in frames{self.sampling.how_to_tell_time}")
        bulk = [str(k) for k in self.kinds[self._is_bulk]]
        if bulk:
            notes.append(f"bonds of {', '.join(bulk)} with itself are counted, not listed pair by pair")
        c = self.criterion
        settings = {
            "distance_angstrom": c.distance,
            "between": "donor and acceptor" if c.donor_acceptor else "hydrogen and acceptor",
            "angle_degrees": c.angle,
            "hydrogens": len(c.hydrogens),
            "acceptors": len(c.acceptors),
            "bonds_from": self.labels.bonds_from,
            "tolerance_frames": self.tolerance,
            "sites": [site.text for site in self.sites],
        }
        tables = {"series": self._series(), "pairs": self._pairs(notes), "lifetimes": self._lifetimes()}
        return make_result("hbonds", self.sampling, settings, quantities, tables, notes, self._draw)

    def _of_kind(self, kind: int, counts: np.ndarray) -> list[Quantity]:
        name = self._name(kind)
        found = [series_quantity(f"bonds {name}", counts, self.sampling, "", "per frame")]
        donor = name.removeprefix("inside ").split(" to ")[0]
        if name == f"{donor} to {donor}":
            mean, error = found[0].value, found[0].stderr
            n = self._n_molecules[donor]
            note = "donated and accepted, per molecule"
            scaled = None if error is None else 2 * error / n
            found.append(Quantity(f"bonds of each {donor} to {donor}", 2 * mean / n, scaled, "", note))
        if kind in self._lives:
            found += _lifetime_quantities(name, *self._lives[kind], self.sampling.dt_ps)
        return found

    def _series(self) -> dict[str, np.ndarray]:
        frames, dt = np.array(self.sampling.frames), self.sampling.dt_ps
        series = {"frame": frames} | ({"time_ps": self.sampling.times} if dt else {})
        series |= {f"bonds_{self._name(k).replace(' ', '_')}": counts for k, counts in self._counts.items()}
        for k, site in enumerate(self.sites):
            series[f"site{k}_bonded"] = site.bonded.astype(int)
            series[f"site{k}_distance_HA_angstrom"] = site.distances
        return series

    def _pairs(self, notes: list[str]) -> dict[str, np.ndarray]:
        keys, frames, distance, angle = self._tally.totals()
        n = len(self.labels.elements)
        order = np.argsort(-frames.sum(axis=0), kind="stable")[:_MAX_ROWS]
        if len(keys) > _MAX_ROWS:
            notes.append(f"the {_MAX_ROWS} commonest of {len(keys)} donor-acceptor pairs are listed")
        per_block = np.bincount(self.sampling.blocks, minlength=len(frames)).astype(float)
        occupancy = frames.sum(axis=0) / len(self.sampling)
        error = np.full(len(keys), np.nan)
        if self.sampling.n_blocks and len(keys):
            error = jackknife_error(leave_one_out(frames.astype(float), per_block))
        names = [self.labels.atom(k) for k in range(n)] if len(keys) else []
        donors, acceptors = keys[order] // n, keys[order] % n
        return {
            "donor": np.array([names[k] for k in donors], dtype=str),
            "acceptor": np.array([names[k] for k in acceptors], dtype=str),
            "occupancy": occupancy[order],
            "occupancy_stderr": error[order],
            "distance_angstrom": distance[order],
            "angle_degrees": angle[order],
        }

    def _lifetimes(self) -> dict[str, list]:
        dt = self.sampling.dt_ps
        table = {"bonds": [], "lag_ps" if dt else "lag_frames": [], "survival": [], "intermittent": []}
        for kind, (survival, intermittent) in self._lives.items():
            s, c = survival.decay(), intermittent.decay()
            last = min(len(s.lags), len(c.lags))
            rows = ([self._name(kind)] * last, s.lags[:last] * (dt or 1), s.curve[:last], c.curve[:last])
            for column, values in zip(table.values(), rows, strict=True):
                column.extend(values)
        return table

    def _draw(self, figure) -> None:
        unit = "ps" if self.sampling.dt_ps else "frames"
        panels = 2 * bool(self._counts) + bool(self.sites)
        figure.set_size_inches(4.3 * max(panels, 1), 4.0)
        axes = list(np.atleast_1d(figure.subplots(1, max(panels, 1))))
        if self._counts:
            self._draw_kinds(*axes[:2], unit)
        elif not self.sites:
            axes[0].set_axis_off()
            axes[0].text(0.5, 0.5, "not one hydrogen bond in any frame", ha="center", va="center")
        if self.sites:
            self._draw_sites(axes[-1], unit)

    def _draw_kinds(self, left, right, unit: str) -> None:
        dt, time = self.sampling.dt_ps, self.sampling.times
        for k, (kind, counts) in enumerate(self._counts.items()):
            left.plot(time, counts, linewidth=0.8, color=f"C{k % 10}", label=self._name(kind))
            if kind in self._lives:
                s, c = (life.decay() for life in self._lives[kind])
                band(right, s.lags * (dt or 1), s.curve, s.stderr, f"C{k % 10}", f"{self._name(kind)}, continuous")
                right.plot(c.lags * (dt or 1), c.curve, color=f"C{k % 10}", linestyle="--", linewidth=1.0,
                           label="  intermittent")  # fmt: skip
        finish(left, f"time ({unit})", "hydrogen bonds", legend=True)
        left.set_ylim(bottom=0)
        finish(right, f"t ({unit})", "S(t), C(t)", legend=True)
        right.set_ylim(0, 1.02)

    def _draw_sites(self, axis, unit: str) -> None:
        for k, site in enumerate(self.sites):
            axis.plot(self.sampling.times, site.distances, linewidth=0.8, color=f"C{k}", label=site.text)
        if not self.criterion.donor_acceptor:
            axis.axhline(self.criterion.distance, color="0.3", linestyle=":", linewidth=0.9)
        finish(axis, f"time ({unit})", "shortest H...A distance (Å)", legend=True)


class _Criterion:
    """Which hydrogens, donors and acceptors there are, and when they make a bond.

    Pairs of donors and acceptors are searched for, also where H...A counts: they move more slowly than hydrogens, so
    that a search serves more frames. While no D-H is longer than 1.3 Å, none is missed within 1.3 Å more.
    """

    def __init__(self, hydrogens, donors, acceptors, distance: float, angle: float, donor_acceptor: bool):
        self.hydrogens, self.donors, self.acceptors = hydrogens, donors, acceptors  # hydrogens (n,), donors (n,)
        self.distance, self.angle, self.donor_acceptor = distance, angle, donor_acceptor
        self._heavy, of_heavy = np.unique(donors, return_inverse=True)
        self._by_donor = np.argsort(of_heavy, kind="stable")  # rows of hydrogens, donor by donor
        self._n_of = np.bincount(of_heavy)
        self._first_of = np.cumsum(self._n_of) - self._n_of
        self._near = NearPairs(self._heavy, acceptors, distance if donor_acceptor else distance + _LONGEST_BOND)
        self._near_hydrogens = NearPairs(hydrogens, acceptors, distance)
        self._listed = None  # what the candidates were made of

    def __call__(self, frame: Frame):
        """Rows of hydrogens and of acceptors (n,), by row, their distance (Å) and angle (degrees)."""
        from MDAnalysis.lib.distances import calc_angles, calc_bonds

        x = frame.positions
        self._list(frame)
        places, distance = within(frame, self._from, self._to, self.distance)
        keep = distance < self.distance
        places, distance = places[keep], distance[keep]
        h, a = self._h[places], self._a[places]
        ends = x[self.donors[h]], x[self.hydrogens[h]], x[self.acceptors[a]]
        angle = np.degrees(calc_angles(*ends, box=frame.box)) if len(h) else np.empty(0)
        keep = angle > self.angle
        if self.donor_acceptor:
            distance = calc_bonds(ends[1], ends[2], box=frame.box) if len(h) else distance
        return h[keep], a[keep], distance[keep], angle[keep]

    def _list(self, frame: Frame) -> None:
        """Rows of hydrogens and acceptors that may be bonded, and the atoms whose distance the criterion asks for."""
        near = self._near if self._donors_tell(frame) else self._near_hydrogens
        pairs = near.candidates(frame)
        if pairs is self._listed:
            return
        self._listed = pairs
        h, a = pairs
        if near is self._near:  # rows of donors so far
            each = self._n_of[h]
            inside = np.arange(each.sum()) - np.repeat(np.cumsum(each) - each, each)
            h, a = self._by_donor[np.repeat(self._first_of[h], each) + inside], np.repeat(a, each)
        other = self.donors[h] != self.acceptors[a]
        order = np.lexsort((a[other], h[other]))
        self._h, self._a = h[other][order], a[other][order]
        self._from = (self.donors if self.donor_acceptor else self.hydrogens)[self._h]
        self._to = self.acceptors[self._a]

    def _donors_tell(self, frame: Frame) -> bool:
        """Whether near donors and acceptors are sure to hold all bonds of this frame."""
        if self.donor_acceptor:
            return True
        if frame.box is not None and 2 * self._near.cutoff > frame.heights.min():
            return False
        return len(within(frame, self.donors, self.hydrogens, _LONGEST_BOND)[0]) == len(self.hydrogens)


class _Site:
    """One donor group and one acceptor group, followed by name."""

    def __init__(self, text: str, hydrogens: np.ndarray, acceptors: np.ndarray):
        self.text, self.hydrogens, self.acceptors = text, hydrogens, acceptors

    def start(self, sampling: Sampling, tolerance: int, lag: int) -> None:
        self.sampling = sampling
        self.bonded = np.zeros(len(sampling), dtype=bool)
        self.distances = np.zeros(len(sampling))
        self.survival = Survival(len(sampling), sampling.n_blocks, lag, tolerance)

    def add(self, position: int, frame: Frame, hydrogen: np.ndarray, acceptor: np.ndarray) -> None:
        """Bonds of a frame as atoms (n,)."""
        from MDAnalysis.lib.distances import distance_array

        x, box = frame.compact
        self.distances[position] = distance_array(x[self.hydrogens], x[self.acceptors], box=box).min()
        self.bonded[position] = (np.isin(hydrogen, self.hydrogens) & np.isin(acceptor, self.acceptors)).any()
        self.survival.add(position, np.zeros(int(self.bonded[position]), dtype=np.int64))

    def quantities(self) -> list[Quantity]:
        self.survival.finish()
        dt = self.sampling.dt_ps
        mean, error = block_mean(self.bonded.astype(float), self.sampling.n_blocks)
        counted, counted_error = self.survival.counted()
        scale, unit = (dt, "ps") if dt else (1.0, "frames")
        shortest = f"H...A {self.distances.min():.2f} to {self.distances.max():.2f} Å"
        times = [None if t is None else t * scale for t in (counted, counted_error)]
        told = f"{int(self.survival.departures.sum())} departures"
        short = counted_error is not None and short_blocks(self.survival, counted)
        return [
            Quantity(f"occupancy {self.text}", mean, error, "", shortest),
            series_quantity(f"H...A {self.text}", self.distances, self.sampling, "Å", "shortest of the site"),
            Quantity(f"lifetime {self.text}, counted", *times, unit, with_short_blocks(told) if short else told),
        ]


def _lifetime_quantities(name: str, survival: Survival, intermittent: Intermittent, dt_ps) -> list[Quantity]:
    survival.finish()
    scale, unit = (dt_ps, "ps") if dt_ps else (1.0, "frames")
    found = []
    longer = "take a longer run or --max-lag"
    found_in = (
        ("continuous", survival, longer),
        ("intermittent", intermittent, f"{longer}, unless bonds that form again keep it there"),
    )
    for what, measure, hint in found_in:
        decay = measure.decay()
        times = [None if t is None else t * scale for t in (decay.time, decay.time_stderr)]
        note = ""
        if decay.time is None:
            note = f"still {decay.curve[-1]:.2f} at {decay.lags[-1] * scale:.3g} {unit}; {hint}"
        elif decay.time_stderr is not None and short_blocks(measure, decay.time):
            note = SHORT_BLOCKS
        found.append(Quantity(f"lifetime {name}, {what}", *times, unit, note))
    return found


def _hydrogens(labels: Labels, donors: str) -> dict[int, int]:
    """Hydrogen -> its donor, for all hydrogens bonded to a donor atom; the nearest where there are several."""
    if not (labels.elements == "H").any():
        raise InputError(f"there is no hydrogen, and so no hydrogen bond; there are {holds(labels)}")
    chosen = set(labels.select(donors, "--donors").tolist()) if donors != ELECTRONEGATIVE else None
    usual = set(np.flatnonzero(np.isin(labels.elements, ELECTRONEGATIVE.split(","))).tolist())
    wanted = usual if chosen is None else chosen
    from MDAnalysis.lib.distances import calc_bonds

    found, bonded = {}, 0
    for h in np.flatnonzero(labels.elements == "H").tolist():
        partners = labels.bonded_to[h]
        bonded += len(partners) > 0
        if len(partners) > 1:
            x = labels.positions
            lengths = calc_bonds(np.repeat(x[[h]], len(partners), axis=0), x[partners], box=labels.box)
            partners = partners[[int(np.argmin(lengths))]]
        if len(partners) and int(partners[0]) in wanted:
            found[h] = int(partners[0])
    if not bonded:
        raise InputError(
            "not one hydrogen lies within bonding distance of another atom in the first frame: the topology is that "
            "of another system, or its atoms are in another order; give the right one with --top FILE"
        )
    if not found:
        raise InputError(f"no hydrogen is bonded to --donors {donors}; there are {holds(labels)}")
    return found


def _acceptors(labels: Labels, acceptors: str, usual: bool) -> np.ndarray:
    if not usual:
        return labels.select(acceptors, "--acceptors")
    found = np.flatnonzero(np.isin(labels.elements, ELECTRONEGATIVE.split(",")))
    if not len(found):
        raise InputError(f"there is no N, O or F to accept a hydrogen bond; there are {holds(labels)}")
    return found


def _site(labels: Labels, text: str, criterion: _Criterion) -> _Site:
    """``VAL9-NH->SAR7-CO``, or a selection on either side of the arrow; of donors, or of hydrogens themselves."""
    sides = [side.strip() for side in text.split("->")]
    if len(sides) != 2 or not all(sides):
        raise InputError(
            f"--site {text!r} is no site; write donor and acceptor as VAL9-NH->SAR7-CO, or as two selections with an "
            f"arrow between them: 'index 28->index 23'"
        )
    donors, acceptors = (labels.select(_as_selection(side), f"--site {text!r}:") for side in sides)
    rows = np.isin(criterion.donors, donors) | np.isin(criterion.hydrogens, donors)
    if not rows.any():
        raise InputError(f"--site {text!r}: {sides[0]} has no hydrogen on a donor atom")
    accepting = acceptors[np.isin(acceptors, criterion.acceptors)]
    if not len(accepting):
        raise InputError(f"--site {text!r}: {sides[1]} is no acceptor (see --acceptors)")
    return _Site(text, criterion.hydrogens[rows], accepting)


def _as_selection(side: str) -> str:
    """``VAL9-NH`` in the selection language: NH means the nitrogen, CO the oxygen of a backbone."""
    named = re.fullmatch(r"([A-Za-z][A-Za-z0-9]*?)(\d+)-(\w+'*)", side)
    if named is None:
        return side
    atom = {"NH": "N", "CO": "O"}.get(named[3].upper(), named[3])
    return f"resname {named[1].upper()} and resid {named[2]} and name {atom}"
