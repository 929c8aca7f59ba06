"""Bonds, angles and dihedrals of molecules, and the backbone of peptides.

    angle      at the middle atom, degrees
    dihedral   of four bonded atoms, IUPAC sign: 0 cis, 180 trans, positive clockwise along the middle bond
    phi        C(i-1)-N-CA-C       psi  N-CA-C-N(i+1)       omega  CA(i-1)-C(i-1)-N-CA

Kinds are named by elements (H-O-H); bonds come from the topology, or from the first frame by distance. Means of
dihedrals are circular, arg < exp(i phi) >, their spread is sqrt(-2 ln |< exp(i phi) >|) (Mardia, "Statistics of
directional data", 1972). Errors of circular means are jackknives of deviations from the mean.
"""

from __future__ import annotations

import numpy as np

from omnicalc.analysis.blocks import MIN_BLOCKS, jackknife_error
from omnicalc.analysis.labels import Labels
from omnicalc.analysis.plots import finish
from omnicalc.analysis.report import Quantity, Result, make_result, series_quantity
from omnicalc.analysis.sampling import Sampling
from omnicalc.analysis.tallies import BlockMean, Histogram
from omnicalc.analysis.trajectory import Frame
from omnicalc.analysis.verbs import measured
from omnicalc.analysis.within import within
from omnicalc.errors import InputError

_HISTOGRAMS = {2: (0.5, 3.5, 0.01), 3: (0.0, 181.0, 1.0), 4: (-180.0, 180.0, 2.0)}  # low, high, width
_UNITS = {2: "Å", 3: "degrees", 4: "degrees"}
_NAMES = {2: "bond", 3: "angle", 4: "dihedral"}
_MAP = 5.0  # degrees: bins of the Ramachandran map
_COARSER = {2: 1, 3: 2, 4: 3}  # bins drawn as one
_MAX_DRAWN = 6  # kinds of each sort in the figure
_MAX_PRINTED = 12  # kinds of each sort in the printed table; the CSV has all


def geometries(source, *, top=None, progress=None, **settings) -> Result:
    """Bond lengths, angles, dihedrals and backbone angles of a trajectory.

    ``source`` is a trajectory file, a run's folder, an MDAnalysis Universe or a Trajectory. Settings: those of
    :func:`plan_geometry`, and ``start``, ``stop``, ``step``, ``n_blocks``, ``dt_ps``. Raises InputError.
    """
    return measured(plan_geometry, source, top, progress, **settings)


def plan_geometry(sampling: Sampling, *, select: str | None = None, measures: list[str] | None = None) -> Geometry:
    """Check input.

    ``select``: only bonds, angles and dihedrals whose atoms are all selected; ``measures``: two to four atom numbers
    from 0 such as ``"0,4,5"``, followed frame by frame.
    """
    labels = sampling.trajectory.labels
    chosen = np.ones(len(labels.elements), dtype=bool)
    if select is not None:
        chosen = np.isin(np.arange(len(chosen)), labels.select(select, "--select"))
    followed = [_parse(text, len(labels.elements)) for text in measures or []]
    groups = _groups(labels, chosen)
    if not groups and not followed:
        raise InputError(
            "there is no bond" + (f" inside --select {select!r}" if select else "")
            + "; follow distances between any atoms with --measure I,J"
        )  # fmt: skip
    return Geometry(sampling, groups, _backbone(labels, chosen), followed)


class Geometry:
    """Measures every bond, angle and dihedral in every frame."""

    verb, tables = "geometry", ("kinds", "histograms", "backbone", "ramachandran", "measures")

    def __init__(self, sampling: Sampling, groups: list[_Group], backbone: _Backbone, followed: list[np.ndarray]):
        self.sampling, self.backbone, self.followed = sampling, backbone, followed
        for group in groups:
            group.start(sampling.n_blocks)
        self.groups = groups
        self.series = np.zeros((len(followed), len(sampling)))
        backbone.start(sampling.n_blocks)

    def add(self, position: int, frame: Frame) -> None:
        block = self.sampling.block(position)
        for group in self.groups:
            group.add(block, frame)
        for row, atoms in enumerate(self.followed):
            self.series[row, position] = values_of(frame, atoms[None, :])[0]
        self.backbone.add(block, frame)

    def result(self) -> Result:
        quantities, kinds, histograms = [], _columns("sort", "kind", "count", "mean", "stderr", "spread"), None
        printed = dict.fromkeys(_NAMES, 0)
        for group in self.groups:
            mean, error, spread = group.summary()
            unit, sort = _UNITS[group.size], _NAMES[group.size]
            row = (sort, group.name, len(group.atoms), mean, np.nan if error is None else error, spread)
            for column, value in zip(kinds.values(), row, strict=True):
                column.append(value)
            printed[group.size] += 1
            if group.size < 4 and printed[group.size] <= _MAX_PRINTED:
                note = f"{len(group.atoms)} per frame, spread {spread:.3g}"
                quantities.append(Quantity(f"{sort} {group.name}", mean, error, unit, note))
        histograms = _columns("sort", "kind", "x", "density")
        for group in self.groups:
            some = np.flatnonzero(group.histogram.counts)
            inside = slice(some[0], some[-1] + 1) if len(some) else slice(0, 0)
            x, density = group.histogram.centres[inside], group.histogram.density()[inside]
            rows = ([_NAMES[group.size]] * len(x), [group.name] * len(x), x, density)
            for column, values in zip(histograms.values(), rows, strict=True):
                column.extend(values)
        backbone, ramachandran = self.backbone.tables()
        quantities += self.backbone.quantities() + self._followed()
        tables = {
            "kinds": kinds,
            "histograms": histograms,
            "backbone": backbone,
            "ramachandran": ramachandran,
            "measures": self._measures(),
        }
        left_out = sum(max(0, n - _MAX_PRINTED) for size, n in printed.items() if size < 4)
        notes = [f"{left_out} more kinds of bonds and angles are in geometry_kinds.csv"] if left_out else []
        settings = {
            "bonds_from": self.sampling.trajectory.labels.bonds_from,
            "measures": [atoms.tolist() for atoms in self.followed],
        }
        return make_result("geometry", self.sampling, settings, quantities, tables, notes, self._draw)

    def _measure_name(self, atoms: np.ndarray) -> str:
        labels = self.sampling.trajectory.labels
        sort = {2: "distance", 3: "angle", 4: "dihedral"}[len(atoms)]
        return f"{sort} {' '.join(labels.atom(k) for k in atoms)}"

    def _followed(self) -> list[Quantity]:
        found = []
        for atoms, values in zip(self.followed, self.series, strict=True):
            name, unit = self._measure_name(atoms), _UNITS[len(atoms)]
            if len(atoms) < 4:
                found.append(series_quantity(name, values, self.sampling, unit, f"spread {values.std():.3g}"))
                continue
            circular = _Circular(1, self.sampling.n_blocks)
            for position, value in enumerate(values):
                circular.add(self.sampling.block(position), np.array([value]))
            mean, error, spread = (x[0] for x in circular.summary())
            error = None if np.isnan(error) else float(error)
            found.append(Quantity(name, float(mean), error, unit, f"circular; spread {spread:.3g}"))
        return found

    def _measures(self) -> dict[str, np.ndarray]:
        frames, dt = np.array(self.sampling.frames), self.sampling.dt_ps
        table = {"frame": frames} | ({"time_ps": self.sampling.times} if dt else {})
        for atoms, values in zip(self.followed, self.series, strict=True):
            table[self._measure_name(atoms).replace(" ", "_")] = values
        return table

    def _draw(self, figure) -> None:
        shown = [size for size in (2, 3, 4) if any(g.size == size for g in self.groups)]
        panels = len(shown) + (len(self.backbone.residues) > 0)
        figure.set_size_inches(4.2 * max(panels, 1) + 0.4, 4.4)
        axes = figure.subplots(1, max(panels, 1), squeeze=False)[0]
        for axis, size in zip(axes, shown, strict=False):
            commonest = sorted((g for g in self.groups if g.size == size), key=lambda g: -len(g.atoms))[:_MAX_DRAWN]
            for k, group in enumerate(commonest):
                x, density = _drawn(group.histogram, _COARSER[size])
                axis.plot(x, density, color=f"C{k}", linewidth=1.1, label=group.name)
            finish(axis, f"{_NAMES[size]} ({_UNITS[size]})", f"density (1/{_UNITS[size]})")
            axis.legend(fontsize=7.5, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=3)
            axis.set_ylim(bottom=0)
        if self.backbone.residues:
            self.backbone.draw(axes[-1])
        elif not shown:
            for k, (atoms, values) in enumerate(zip(self.followed, self.series, strict=True)):
                axes[0].plot(values, color=f"C{k}", linewidth=0.8, label=self._measure_name(atoms))
            finish(axes[0], "frame", "Å or degrees", legend=True)


def _drawn(histogram: Histogram, bins: int) -> tuple[np.ndarray, np.ndarray]:
    """Centres and densities between the outermost values, ``bins`` bins in one, so that a short run makes a curve."""
    whole = len(histogram.counts) // bins * bins
    centres = histogram.centres[:whole].reshape(-1, bins).mean(axis=1)
    density = histogram.density()[:whole].reshape(-1, bins).mean(axis=1)
    some = np.flatnonzero(density)
    part = slice(max(some[0] - 1, 0), some[-1] + 2) if len(some) else slice(0, 0)
    return centres[part], density[part]


def values_of(frame: Frame, atoms: np.ndarray) -> np.ndarray:
    """Distances (Å), angles or dihedrals (degrees) of rows of two, three or four atoms (n, k)."""
    from MDAnalysis.lib.distances import calc_angles, calc_dihedrals

    if atoms.shape[1] == 2:
        return within(frame, *np.ascontiguousarray(atoms.T, dtype=np.int64), np.inf)[1]
    x, box = frame.compact
    ends = [x[atoms[:, k]] for k in range(atoms.shape[1])]
    return np.degrees((calc_angles if atoms.shape[1] == 3 else calc_dihedrals)(*ends, box=box))


class _Group:
    """All bonds, angles or dihedrals of one kind."""

    def __init__(self, name: str, atoms: np.ndarray):
        self.name, self.atoms, self.size = name, atoms, atoms.shape[1]
        self.histogram = Histogram(*_HISTOGRAMS[self.size])

    def start(self, n_blocks: int) -> None:
        self.mean = BlockMean(n_blocks)
        self.circular = _Circular(1, n_blocks)

    def add(self, block: int, frame: Frame) -> None:
        values = values_of(frame, self.atoms)
        self.histogram.add(np.where(values >= 180.0, -180.0, values) if self.size == 4 else values)
        if self.size == 4:
            self.circular.add_pooled(block, values)
        else:
            self.mean.add(block, values)

    def summary(self) -> tuple[float, float | None, float]:
        if self.size < 4:
            return *self.mean.mean(), self.mean.spread()
        mean, error, spread = (float(x[0]) for x in self.circular.summary())
        return mean, None if np.isnan(error) else error, spread


class _Circular:
    """Circular means of K angles in degrees, with block errors."""

    def __init__(self, k: int, n_blocks: int):
        self.n_blocks = n_blocks
        self.sums = np.zeros((max(n_blocks, 1), k), dtype=complex)
        self.counts = np.zeros(max(n_blocks, 1))

    def add(self, block: int, values: np.ndarray) -> None:
        self.sums[block] += np.exp(1j * np.radians(values))
        self.counts[block] += 1

    def add_pooled(self, block: int, values: np.ndarray) -> None:
        self.sums[block, 0] += np.exp(1j * np.radians(values)).sum()
        self.counts[block] += len(values)

    def summary(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Mean, error (not a number without blocks) and spread (K,), degrees."""
        mean = self.sums.sum(axis=0) / self.counts.sum()
        angle = np.degrees(np.angle(mean))
        with np.errstate(divide="ignore"):
            spread = np.degrees(np.sqrt(np.maximum(-2.0 * np.log(np.minimum(np.abs(mean), 1.0)), 0.0)))
        if self.n_blocks < MIN_BLOCKS:
            return angle, np.full(len(angle), np.nan), spread
        rest = self.sums.sum(axis=0) - self.sums
        away = np.degrees(np.angle(rest * np.exp(-1j * np.radians(angle))))
        return angle, jackknife_error(away), spread


class _Backbone:
    """phi, psi and omega of every residue that has both neighbours; a map of all phi and psi."""

    def __init__(self, residues: list[str], atoms: np.ndarray):
        self.residues, self.atoms = residues, atoms  # atoms (3, R, 4): phi, psi, omega

    def start(self, n_blocks: int) -> None:
        bins = int(360 / _MAP)
        self.map = np.zeros((bins, bins), dtype=np.int64)
        self.circular = [_Circular(len(self.residues), n_blocks) for _ in range(3)]
        self.cis = np.zeros(len(self.residues))
        self.frames = 0

    def add(self, block: int, frame: Frame) -> None:
        if not self.residues:
            return
        phi, psi, omega = (values_of(frame, atoms) for atoms in self.atoms)
        for circular, values in zip(self.circular, (phi, psi, omega), strict=True):
            circular.add(block, values)
        bins = len(self.map)
        at = [np.floor((values + 180.0) / _MAP).astype(int) % bins for values in (phi, psi)]
        np.add.at(self.map, tuple(at), 1)
        self.cis += np.abs(omega) < 90.0
        self.frames += 1

    def tables(self) -> tuple[dict, dict]:
        table = {"residue": np.array(self.residues, dtype=str)}
        if not self.residues:
            return table, {"phi": [], "psi": [], "fraction": []}
        for name, circular in zip(("phi", "psi", "omega"), self.circular, strict=True):
            mean, error, spread = circular.summary()
            table |= {f"{name}_degrees": mean, f"{name}_stderr": error, f"{name}_spread": spread}
        table["cis_fraction"] = self.cis / self.frames
        i, j = np.nonzero(self.map)
        centres = -180.0 + _MAP * (np.arange(len(self.map)) + 0.5)
        return table, {"phi": centres[i], "psi": centres[j], "fraction": self.map[i, j] / self.map.sum()}

    def quantities(self) -> list[Quantity]:
        found = []
        for row, residue in enumerate(self.residues[:_MAX_PRINTED]):
            for name, circular in zip(("phi", "psi"), self.circular, strict=False):
                mean, error, spread = (float(x[row]) for x in circular.summary())
                error = None if np.isnan(error) else error
                found.append(Quantity(f"{name} {residue}", mean, error, "degrees", f"circular; spread {spread:.3g}"))
        return found

    def draw(self, axis) -> None:
        shown = np.ma.masked_equal(self.map.T / max(self.map.max(), 1), 0.0)
        axis.imshow(shown, origin="lower", extent=(-180, 180, -180, 180), cmap="viridis", aspect="equal")
        axis.axhline(0, color="0.8", linewidth=0.6, zorder=0)
        axis.axvline(0, color="0.8", linewidth=0.6, zorder=0)
        axis.set_xticks(range(-180, 181, 90))
        axis.set_yticks(range(-180, 181, 90))
        finish(axis, "phi (degrees)", "psi (degrees)")


def _columns(*names: str) -> dict[str, list]:
    return {name: [] for name in names}


def _parse(text: str, n_atoms: int) -> np.ndarray:
    try:
        atoms = [int(part) for part in text.split(",")]
    except ValueError:
        atoms = []
    if not 2 <= len(atoms) <= 4 or len(set(atoms)) < len(atoms) or min(atoms) < 0 or max(atoms) >= n_atoms:
        raise InputError(
            f"--measure {text} is not two, three or four different atom numbers from 0 to {n_atoms - 1}; "
            f"write 0,4 for a distance, 0,4,5 for an angle, 0,4,5,6 for a dihedral"
        )
    return np.array(atoms)


def _groups(labels: Labels, chosen: np.ndarray) -> list[_Group]:
    """Bonds, angles and dihedrals inside the selection, by kind; commonest kinds first within each sort."""
    bonds = labels.bonds[chosen[labels.bonds].all(axis=1)] if len(labels.bonds) else labels.bonds
    partners: dict[int, list[int]] = {}
    for a, b in bonds.tolist():
        partners.setdefault(a, []).append(b)
        partners.setdefault(b, []).append(a)
    angles = [
        (a, middle, b)
        for middle, around in partners.items()
        for k, a in enumerate(sorted(around))
        for b in sorted(around)[k + 1 :]
    ]
    dihedrals = [
        (i, j, k, l)
        for j, k in bonds.tolist()
        for i in partners[j]
        for l in partners[k]
        if i != k and l != j and i != l
    ]
    groups = []
    for rows in (bonds.tolist(), angles, dihedrals):
        kinds: dict[str, list] = {}
        for row in rows:
            symbols = [str(labels.elements[k]) for k in row]
            if symbols[::-1] < symbols:
                row, symbols = row[::-1], symbols[::-1]
            kinds.setdefault("-".join(symbols), []).append(row)
        groups += [_Group(name, np.array(kinds[name])) for name in sorted(kinds, key=lambda n: (-len(kinds[n]), n))]
    return groups


def _backbone(labels: Labels, chosen: np.ndarray) -> _Backbone:
    """Residues whose N and C are bonded to the C and N of neighbours, by atom names and bonds."""

    def bonded(atom: int, name: str) -> int | None:
        found = [k for k in labels.bonded_to[atom].tolist() if labels.names[k] == name]
        return found[0] if found else None

    residues, rows = [], []
    for ca in np.flatnonzero((labels.names == "CA") & (labels.elements == "C") & chosen).tolist():
        n, c = bonded(ca, "N"), bonded(ca, "C")
        before = bonded(n, "C") if n is not None else None
        after = bonded(c, "N") if c is not None else None
        ca_before = bonded(before, "CA") if before is not None else None
        if None in (n, c, before, after):
            continue
        if ca_before is None:  # a cap such as ACE calls it CH3
            ca_before = next((k for k in labels.bonded_to[before].tolist() if labels.elements[k] == "C"), None)
        if ca_before is None:
            continue
        residues.append(f"{labels.resnames[ca]}{labels.resids[ca]}")
        rows.append(((before, n, ca, c), (n, ca, c, after), (ca_before, before, n, ca)))
    return _Backbone(residues, np.array(rows, dtype=int).reshape(-1, 3, 4).swapaxes(0, 1))
