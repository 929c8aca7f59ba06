"""Sites of metal ions: distances, angles, inner and outer sphere, octahedrality, exchange of ligands.

    ligand          an O (or another chosen atom) within the cutoff of the ion M: its first shell
    water           a ligand in a molecule H2O, or an O alone;  phosphate: a ligand bonded to P;  other: anything else
    inner sphere    a P one of whose bonded ligands is in the shell of M
    outer sphere    a P within 6.5 Å of M (less in a small box) that is not inner: water stands between
    cis, trans      angles L-M-L below and above 135 degrees
    sigma²          bond-angle variance of a six-fold shell, sum over its 12 cis angles of (angle - 90)² / 11, in
                    degrees²; 0 for an octahedron (Robinson, Gibbs, Ribbe, Science 172, 567 (1971))
    exchange        a ligand that leaves the shell, or comes into it, for longer than the tolerance of 0.5 ps

Default cutoffs lie in the gap behind the first shell of each ion's g(r) in water (Marcus, Chem. Rev. 88, 1475
(1988) for the distances themselves). Angles and distances use nearest images.
"""

from __future__ import annotations

import numpy as np

from omnicalc.analysis.cells import volume_and_heights
from omnicalc.analysis.coordination import DEFAULT_TOLERANCE_PS, lag_frames, residence_quantities, tolerance_frames
from omnicalc.analysis.labels import Labels, holds
from omnicalc.analysis.near import NearPairs
from omnicalc.analysis.plots import MEASURED, finish
from omnicalc.analysis.reference_values import EXPERIMENT, reference, references
from omnicalc.analysis.report import Quantity, Result, make_result, series_quantity
from omnicalc.analysis.sampling import Sampling
from omnicalc.analysis.survival import Survival
from omnicalc.analysis.tallies import BlockMean, Histogram
from omnicalc.analysis.trajectory import Frame
from omnicalc.analysis.verbs import measured
from omnicalc.errors import InputError

CUTOFFS = {  # Å
    "Li": 2.8, "Na": 3.2, "K": 3.6, "Rb": 3.8, "Cs": 4.0, "Mg": 2.9, "Ca": 3.3, "Sr": 3.4, "Ba": 3.6, "Zn": 2.9,
    "Mn": 3.0, "Fe": 2.9, "Co": 2.9, "Ni": 2.9, "Cu": 3.0, "Cd": 3.0, "Al": 2.6,
}  # fmt: skip
OUTER = 6.5  # Å, from M to P
TRANS = 135.0  # degrees
_KINDS = ("water", "phosphate", "other")
_MAX_EVENTS = 10_000


def metal_sites(source, *, top=None, progress=None, **settings) -> Result:
    """Geometry and exchange of the first shell of metal ions.

    ``source`` is a trajectory file, a run's folder, an MDAnalysis Universe or a Trajectory. Settings: those of
    :func:`plan_metal`, and ``start``, ``stop``, ``step``, ``n_blocks``, ``dt_ps``. Raises InputError.
    """
    return measured(plan_metal, source, top, progress, **settings)


def plan_metal(
    sampling: Sampling,
    *,
    ion: str | None = None,
    ligands: str = "O",
    cutoff: float | None = None,
    tolerance_ps: float | None = None,
    max_lag_ps: float | None = None,
) -> MetalSites:
    """Check input.

    ``ion``: element or selection (default: the only metal there is, else Mg); ``ligands``: elements or selection;
    ``cutoff`` in Å of the first shell, by default :data:`CUTOFFS` of the element.
    """
    labels = sampling.trajectory.labels
    sampling.need_frames(2, "a metal site over time")
    ions = _ions(labels, ion)
    elements = np.unique(labels.elements[ions])
    if len(elements) > 1:
        raise InputError(f"--ion {ion!r} selects {', '.join(elements)}; analyse one element at a time")
    element = str(elements[0])
    if cutoff is None and element not in CUTOFFS:
        raise InputError(f"there is no usual cutoff for the first shell of {element}; give one with --cutoff Å")
    radius = CUTOFFS[element] if cutoff is None else cutoff
    if not (np.isfinite(radius) and radius > 0):
        raise InputError(f"--cutoff {cutoff} is no distance; give Å above zero, such as 2.9")
    around = np.setdiff1d(labels.select(ligands, "--ligands"), ions)
    if not len(around):
        raise InputError(f"--ligands {ligands!r} are the ions themselves; choose other atoms")
    tolerance = tolerance_frames(sampling, DEFAULT_TOLERANCE_PS if tolerance_ps is None else tolerance_ps)
    return MetalSites(sampling, element, ions, around, radius, tolerance, lag_frames(sampling, max_lag_ps))


class MetalSites:
    """Measures the shell of every ion in every frame."""

    verb, tables = "metal", ("series", "sites", "distances", "angles", "exchanges")

    def __init__(self, sampling, element: str, ions, ligands, cutoff: float, tolerance: int, lag: int):
        self.sampling, self.element, self.ions, self.ligands = sampling, element, ions, ligands
        labels = self.labels = sampling.trajectory.labels
        self.near = NearPairs(ions, ligands, cutoff)
        self.phosphorus = np.flatnonzero(labels.elements == "P")
        self._p_of = _bonded_phosphorus(labels, ligands)
        water = np.isin(labels.kinds[ligands], ("H2O", "O"))  # crystal structures have no hydrogens
        self._kind = np.where(self._p_of >= 0, 1, np.where(water, 0, 2))
        self.reach = _reach(sampling)
        self._outer = NearPairs(ions, self.phosphorus, self.reach) if len(self.phosphorus) else None
        f, n, b = len(sampling), len(ions), sampling.n_blocks
        self.counts = np.zeros((f, len(_KINDS)))  # ligands of each kind per ion, mean over ions
        self.inner, self.outer = np.zeros(f), np.zeros(f)  # phosphorus per ion
        self._site_counts, self._site_length = np.zeros((n, len(_KINDS))), np.zeros((n, len(_KINDS)))
        self.length = [BlockMean(b) for _ in _KINDS]
        self.to_p, self.cis, self.trans, self.bend = (BlockMean(b) for _ in range(4))
        self.six, self.variance = BlockMean(b), BlockMean(b)
        self.distances = [Histogram(1.5, OUTER, 0.02) for _ in range(4)]  # water, phosphate, other; M-P
        self.angles = [Histogram(0.0, 180.0 + 2.0, 2.0) for _ in range(2)]  # L-M-L, M-O-P
        self.survival = Survival(f, b, lag, tolerance, keep_stays=True)

    def add(self, position: int, frame: Frame) -> None:
        i, j, distance = self.near(frame)
        block = self.sampling.block(position)
        kind = self._kind[j]
        n = len(self.ions)
        for k in range(len(_KINDS)):
            mine = kind == k
            self.counts[position, k] = mine.sum() / n
            self.length[k].add(block, distance[mine])
            self.distances[k].add(distance[mine])
            self._site_counts[:, k] += np.bincount(i[mine], minlength=n)
            self._site_length[:, k] += np.bincount(i[mine], weights=distance[mine], minlength=n)
        self._add_shells(block, i, self._vectors(frame, self.ions[i], self.ligands[j]))
        self._add_phosphates(position, block, frame, i, j)
        self.survival.add(position, i * len(self.ligands) + j)

    @staticmethod
    def _vectors(frame: Frame, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Nearest-image vectors from atoms a to atoms b, (n, 3) Å."""
        from MDAnalysis.lib.distances import minimize_vectors

        vectors = frame.positions[b] - frame.positions[a]
        return vectors if frame.box is None or not len(a) else minimize_vectors(vectors, frame.box)

    def _add_shells(self, block: int, i: np.ndarray, vectors: np.ndarray) -> None:
        """Ligands by ion ``i`` (n,), sorted, and vectors to them (n, 3): angles of all pairs of one shell."""
        units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        size = np.bincount(i, minlength=len(self.ions))
        behind = np.repeat(np.cumsum(size), size) - np.arange(len(i)) - 1  # ligands of the same ion that come after
        first = np.repeat(np.arange(len(i)), behind)
        second = np.arange(behind.sum()) - np.repeat(np.cumsum(behind) - behind, behind) + first + 1
        cosine = np.einsum("ij,ij->i", units[first], units[second])
        angles = np.degrees(np.arccos(np.clip(cosine, -1.0, 1.0)))
        self.angles[0].add(angles)
        self.cis.add(block, angles[angles < TRANS])
        self.trans.add(block, angles[angles >= TRANS])
        self.six.add(block, (size == 6).astype(float))
        of_six = np.sort(angles[size[i[first]] == 6].reshape(-1, 15), axis=1)
        self.variance.add(block, ((of_six[:, :12] - 90.0) ** 2).sum(axis=1) / 11.0)

    def _add_phosphates(self, position: int, block: int, frame: Frame, i: np.ndarray, j: np.ndarray) -> None:
        if self._outer is None:
            return
        bound = self._p_of[j] >= 0
        ions, oxygens, phosphorus = self.ions[i[bound]], self.ligands[j[bound]], self._p_of[j[bound]]
        if len(ions):
            a, b = self._vectors(frame, oxygens, ions), self._vectors(frame, oxygens, phosphorus)
            cosine = (a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
            bend = np.degrees(np.arccos(np.clip(cosine, -1.0, 1.0)))
            self.bend.add(block, bend)
            self.angles[1].add(bend)
        n = len(self.labels.elements)
        inner = np.unique(ions * n + phosphorus)
        p_i, p_j, p_distance = self._outer(frame)
        pairs = self.ions[p_i] * n + self.phosphorus[p_j]
        is_inner = np.isin(pairs, inner)
        self.to_p.add(block, p_distance[is_inner])
        self.distances[3].add(p_distance)
        self.inner[position] = len(inner) / len(self.ions)
        self.outer[position] = (~is_inner).sum() / len(self.ions)

    def result(self) -> Result:
        self.survival.finish()
        frames, dt = np.array(self.sampling.frames), self.sampling.dt_ps
        series = {"frame": frames} | ({"time_ps": self.sampling.times} if dt else {})
        series |= {f"n_{kind}": self.counts[:, k] for k, kind in enumerate(_KINDS)}
        series |= {"inner_sphere_P": self.inner, "outer_sphere_P": self.outer} if self._outer else {}
        distances = {"r_angstrom": self.distances[0].centres}
        for kind, histogram in zip(_KINDS, self.distances, strict=False):
            distances[f"density_{self.element}-O_{kind}"] = histogram.density()
        distances |= {f"density_{self.element}-P": self.distances[3].density()} if self._outer else {}
        angles = {"angle_degrees": self.angles[0].centres, "density_L-M-L": self.angles[0].density()}
        angles |= {"density_M-O-P": self.angles[1].density()} if self._outer else {}
        exchanges, notes = self._exchanges()
        tables = {
            "series": series,
            "sites": self._sites(),
            "distances": distances,
            "angles": angles,
            "exchanges": exchanges,
        }
        settings = {
            "ion": self.element,
            "ions": len(self.ions),
            "cutoff_angstrom": self.near.cutoff,
            "outer_cutoff_angstrom": self.reach,
            "tolerance_frames": self.survival.tolerance,
        }
        return make_result("metal", self.sampling, settings, self._quantities(), tables, notes, self._draw)

    def _quantities(self) -> list[Quantity]:
        m, within = self.element, f"within {self.near.cutoff:g} Å"
        every = self.counts.sum(axis=1)
        found = [self._per_frame(f"ligands of {m}", every, within)]
        for k, kind in enumerate(_KINDS):
            if self.length[k].count.sum():
                found.append(self._per_frame(f"ligands of {m}, {kind}", self.counts[:, k], within))
                found.append(_mean(f"{m}-O({kind})", self.length[k], "Å"))
        found.append(_mean("angle L-M-L, cis", self.cis, "degrees"))
        found.append(_mean("angle L-M-L, trans", self.trans, "degrees"))
        six, error = self.six.mean()
        found.append(Quantity("six-fold", six, error, "", "fraction of ions and frames"))
        if self.variance.count.sum():
            found.append(_mean("bond-angle variance", self.variance, "degrees²", "0 for an octahedron; "))
        if self._outer is not None:
            found.append(self._per_frame("inner-sphere phosphates", self.inner, "P per ion"))
            found.append(self._per_frame("outer-sphere phosphates", self.outer, f"P per ion within {self.reach:.2f} Å"))
            if self.to_p.count.sum():
                found.append(_mean(f"{m}-P, inner sphere", self.to_p, "Å"))
                found.append(_mean(f"angle {m}-O-P", self.bend, "degrees"))
        found += self._known()
        return found + residence_quantities(f"ligand of {m}", self.survival, self.sampling.dt_ps)

    def _known(self) -> list[Quantity]:
        """What is known of such sites: of Mg those in RNA, of other ions their shell in water."""
        m = self.element
        named = {f"{m}-O peak": f"{m}-O", f"{m}-O coordination": f"ligands of {m}"}
        named |= {f"O-{m}-O cis": "angle L-M-L, cis", f"O-{m}-O trans": "angle L-M-L, trans"}
        if self._outer is not None:
            named[f"P-O-{m}"] = f"angle {m}-O-P"
        return [known.quantity(name) for key, name in named.items() for known in references(key)]

    def _per_frame(self, name: str, values: np.ndarray, note: str) -> Quantity:
        return series_quantity(name, values, self.sampling, "", note)

    def _sites(self) -> dict[str, np.ndarray]:
        table = {"ion": np.array([self.labels.atom(k) for k in self.ions])}
        moves = np.zeros(len(self.ions), dtype=int)
        for key, first, last in self.survival.stays:
            moves[key // len(self.ligands)] += (first > 0) + (last < len(self.sampling) - 1)
        with np.errstate(invalid="ignore"):
            for k, kind in enumerate(_KINDS):
                table[f"n_{kind}"] = self._site_counts[:, k] / len(self.sampling)
                table[f"r_{kind}_angstrom"] = self._site_length[:, k] / self._site_counts[:, k]
        return table | {"exchanges": moves}

    def _exchanges(self) -> tuple[dict[str, list], list[str]]:
        dt, n = self.sampling.dt_ps, len(self.ligands)
        events = []
        for key, first, last in self.survival.stays:
            events += [(first, key, "enters")] * (first > 0)
            events += [(last + 1, key, "leaves")] * (last < len(self.sampling) - 1)
        events.sort()
        notes = [f"the first {_MAX_EVENTS} of {len(events)} exchanges are listed"] if len(events) > _MAX_EVENTS else []
        events = events[:_MAX_EVENTS]
        table = {"frame": [self.sampling.frames[k] for k, _, _ in events]}
        table |= {"time_ps": [self.sampling.times[k] for k, _, _ in events]} if dt else {}
        table["ion"] = [self.labels.atom(self.ions[key // n]) for _, key, _ in events]
        table["ligand"] = [self.labels.atom(self.ligands[key % n]) for _, key, _ in events]
        return table | {"event": [what for _, _, what in events]}, notes

    def _draw(self, figure) -> None:
        figure.set_size_inches(12.0, 3.9)
        left, middle, right = figure.subplots(1, 3)
        names = [f"{self.element}-O({kind})" for kind in _KINDS] + [f"{self.element}-P"]
        for k, (name, histogram) in enumerate(zip(names, self.distances, strict=True)):
            if histogram.counts.any():
                left.plot(histogram.centres, histogram.density(), color=f"C{k}", linewidth=1.3, label=name)
        self._draw_known(left, middle)
        seen = np.flatnonzero(sum(histogram.counts for histogram in self.distances))
        if len(seen):
            left.set_xlim(self.distances[0].centres[seen[0]] - 0.2, self.distances[0].centres[seen[-1]] + 0.2)
        finish(left, "distance (Å)", "density (1/Å)", legend=True)
        for histogram, name in zip(self.angles, (f"L-{self.element}-L", f"{self.element}-O-P"), strict=True):
            if histogram.counts.any():
                middle.plot(histogram.centres, histogram.density(), linewidth=1.3, label=name)
        for angle in (90.0, 180.0):
            middle.axvline(angle, color="0.75", linewidth=0.8, linestyle=":", zorder=0)
        finish(middle, "angle (degrees)", "density (1/degree)", legend=True)
        dt = self.sampling.dt_ps
        time = self.sampling.times
        for k, kind in enumerate(_KINDS):
            if self.counts[:, k].any():
                right.plot(time, self.counts[:, k], color=f"C{k}", linewidth=0.9, label=kind)
        finish(right, f"time ({'ps' if dt else 'frames'})", "ligands per ion", legend=True)
        right.set_ylim(bottom=0)

    def _draw_known(self, lengths, angles) -> None:
        """Measured distance and angles as grey bands, as wide as their uncertainties."""
        m = self.element
        keys = {f"{m}-O peak": lengths, f"O-{m}-O cis": angles, f"O-{m}-O trans": angles, f"P-O-{m}": angles}
        for key, axis in keys.items():
            known = reference(key, EXPERIMENT)
            if known is None or (key.startswith("P") and self._outer is None):
                continue
            label = f"measured, {known.condition}"
            first = not any(line.get_label() == label for line in axis.lines)
            axis.axvline(known.value, color=MEASURED, linewidth=0.9, linestyle="--",
                         label=label if first else None)  # fmt: skip
            if known.uncertainty:
                axis.axvspan(known.value - known.uncertainty, known.value + known.uncertainty,
                             color=MEASURED, alpha=0.1, linewidth=0)  # fmt: skip


def _mean(name: str, values: BlockMean, unit: str, note: str = "") -> Quantity:
    return Quantity(name, *values.mean(), unit, f"{note}spread {values.spread():.3g}")


def _reach(sampling: Sampling) -> float:
    """How far outer phosphates are looked for, Å: what the first box allows, with room for one that shrinks."""
    box = next(sampling.trajectory.frames(sampling.frames[:1])).box
    return OUTER if box is None else min(OUTER, 0.95 * float(volume_and_heights(box)[1].min()) / 2)


def _ions(labels: Labels, ion: str | None) -> np.ndarray:
    if ion is not None:
        return labels.select(ion, "--ion")
    alone = labels.kinds == labels.elements
    present = [e for e in CUTOFFS if (alone & (labels.elements == e)).any()]
    if not present:
        raise InputError(f"there is no metal ion; name another with --ion; there are {holds(labels)}")
    if len(present) > 1 and "Mg" not in present:
        raise InputError(f"there are several metals, {', '.join(present)}; choose one with --ion")
    return np.flatnonzero(alone & (labels.elements == ("Mg" if "Mg" in present else present[0])))


def _bonded_phosphorus(labels: Labels, ligands: np.ndarray) -> np.ndarray:
    """The P that each ligand is bonded to (L,), -1 for none."""
    found = np.full(len(ligands), -1)
    for row, atom in enumerate(ligands):
        partners = labels.bonded_to[atom]
        phosphorus = partners[labels.elements[partners] == "P"]
        if len(phosphorus):
            found[row] = phosphorus[0]
    return found
