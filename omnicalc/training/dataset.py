"""The structures of a recipe: found, checked, split, and served as examples without holding them all."""

import hashlib
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from omnicalc.data.geometry_digest import geometry_digest, placed_anywhere_digest
from omnicalc.data.only import has_one_of
from omnicalc.data.readers import open_frames
from omnicalc.data.stress_label import stress_label
from omnicalc.errors import InputError
from omnicalc.files import sha256_of
from omnicalc.systems import Systems
from omnicalc.training.example import Example, pairs_of
from omnicalc.training.label_checks import UnitCheck, check_labels, check_references_scale, check_stress
from omnicalc.training.packing import Size
from omnicalc.training.recipe import DataSource, Recipe
from omnicalc.training.references import fit_references
from omnicalc.training.sampler import seed_of

_CACHE_BYTES = 2 << 30  # of examples kept in memory; beyond it, files are read again


@dataclass(frozen=True, slots=True)
class Entry:
    """Where one structure lies, and what is known of it without reading it again."""

    file: int
    frame: int
    size: Size
    counts: dict  # atomic number -> atoms
    energy: float  # eV, NaN where there is none
    charge: int
    spin: int
    molecule: str
    config_type: str
    digest: bytes  # of its geometry
    structure: bytes  # digest of its geometry wherever it stands
    has_energy: bool
    has_forces: bool
    has_stress: bool
    periodic: bool

    @property
    def n_atoms(self) -> int:
        return self.size.atoms


@dataclass
class Source:
    """One ``[[data]]`` of a recipe with its files."""

    settings: DataSource
    paths: list[Path]
    files: list[Sequence]
    head: int
    digest: str  # sha256 of its file; of several, that of the list of their sha256 in the order of the names
    train: list[Entry] = field(default_factory=list)
    valid: list[Entry] = field(default_factory=list)
    test: dict[bytes, str] = field(default_factory=dict)  # where these frames lie, by their structure
    left_out: int = 0

    def where(self, entry: Entry) -> str:
        return f"frame {entry.frame} of '{self.paths[entry.file]}'"


class Dataset:
    """All sources of a recipe. ``references``: head -> atomic number -> eV, taken off the labels of examples."""

    def __init__(self, sources: list[Source], references: dict[str, dict[int, float]], cutoff: float):
        self.sources, self.references, self.cutoff = sources, references, cutoff
        self.heads = tuple(references)
        total = sum(s.settings.weight for s in sources)
        self.weights = [s.settings.weight / total for s in sources]
        self._cache: OrderedDict[tuple, Example] = OrderedDict()
        self._cached = 0

    def example(self, source: int, entry: Entry) -> Example:
        """The structure of one entry, from memory or from its file."""
        key = (source, entry.file, entry.frame)
        found = self._cache.get(key)
        if found is not None:
            self._cache.move_to_end(key)
            return found
        mine = self.sources[source]
        found = self._made(mine, entry, mine.files[entry.file][entry.frame])
        self._cache[key] = found
        self._cached += found.n_bytes
        while self._cached > _CACHE_BYTES and len(self._cache) > 1:
            self._cached -= self._cache.popitem(last=False)[1].n_bytes
        return found

    def replace_references(self, references: dict[str, dict[int, float]]) -> None:
        """Take others off the labels, those that a run began with."""
        self.references = references
        self._cache.clear()
        self._cached = 0

    def _made(self, source: Source, entry: Entry, atoms) -> Example:
        systems = Systems.from_atoms(atoms)
        table = self.references[self.heads[source.head]]
        labels = {} if atoms.calc is None else atoms.calc.results
        residue = atoms.arrays.get("residue")  # as `omnicalc data split` writes it of complexes
        forces = labels["forces"] if entry.has_forces else np.zeros((len(atoms), 3))
        return Example(
            systems,
            *pairs_of(systems, self.cutoff),
            head=source.head,
            energy=entry.energy - sum(n * table[z] for z, n in entry.counts.items()) if entry.has_energy else 0.0,
            forces=torch.from_numpy(np.array(forces, dtype=np.float32)),
            stress=torch.from_numpy(_stress(atoms) if entry.has_stress else np.zeros((3, 3))),
            has_energy=entry.has_energy,
            has_forces=entry.has_forces,
            has_stress=entry.has_stress,
            residue=None if residue is None else torch.from_numpy(np.array(residue, dtype=np.int64)),
        )


def _stress(atoms) -> np.ndarray:
    from ase.stress import voigt_6_to_full_3x3_stress

    return voigt_6_to_full_3x3_stress(stress_label(atoms))


def build_dataset(
    recipe: Recipe, folder: Path, cutoff: float, *, report: Callable = print, progress: Callable | None = None,
    kept: Mapping[str, dict[int, float]] | None = None,
) -> Dataset:  # fmt: skip
    """Read every frame of a recipe's sources once: check it, measure it, put it into its split.

    ``progress`` (frames read, all frames); ``kept``: reference energies of heads that are kept from the start.
    Raises :class:`InputError` naming file and frame for what cannot be used.
    """
    heads = recipe.heads
    sources = [_open(settings, folder, heads.index(settings.head)) for settings in recipe.data]
    total, done = sum(len(f) for s in sources for f in s.files), 0
    stress = any(stage.stress_weight > 0 for stage in recipe.stages)
    for source in sources:
        units, seen = UnitCheck(), Counter()
        for entry, split in _scan(source, cutoff, units, stress):
            done += 1
            if progress is not None:
                progress(done, total)
            if split is not None:
                seen[split] += 1
            if entry is not None:
                getattr(source, split).append(entry)
        _check_source(source, recipe, seen)
        verdict = units.verdict(f"[[data]] '{source.settings.label}'")
        if verdict is not None:
            raise InputError(f"{verdict}; energies in eV and forces (minus the gradient) in eV/Å are needed")
        _limit(source, recipe.optimiser.seed)
        if source.left_out:
            report(f"{source.settings.label}: {source.left_out} frames left out, as the recipe says")
    if stress and not any(e.has_stress for s in sources for e in s.train):
        raise InputError(
            "stress_weight is above 0 in [[stages]], and no training frame has a stress (stress= of a frame that is "
            "periodic along all axes); leave that key out"
        )
    _check_splits(sources)
    _check_elements(sources, recipe)
    references = _references(sources, recipe)
    return Dataset(sources, {h: references.get(h) or dict(kept[h]) for h in heads}, cutoff)


def _open(settings: DataSource, folder: Path, head: int) -> Source:
    paths = _paths(settings, folder)
    return Source(settings, paths, [open_frames(path) for path in paths], head, _digest_of(paths))


def _digest_of(paths: list[Path]) -> str:
    found = [sha256_of(path) for path in paths]
    return found[0] if len(found) == 1 else hashlib.sha256("".join(found).encode()).hexdigest()


def _paths(settings: DataSource, folder: Path) -> list[Path]:
    """Local files of one source. Raises InputError when they are not there or not the ones the recipe means."""
    if settings.shards:
        pattern = Path(settings.shards)
        base = Path(pattern.anchor) if pattern.is_absolute() else folder
        parts = pattern.relative_to(pattern.anchor) if pattern.is_absolute() else pattern
        found = sorted(p for p in base.glob(str(parts)) if p.is_file())
        if not found:
            raise InputError(f"no file matches shards = '{settings.shards}' below '{base}'")
        return found
    if not folder.is_dir():
        raise InputError(f"'{folder}' is no folder; --data takes the folder that holds the recipe's data files")
    matches = [folder / settings.file] if (folder / settings.file).is_file() else sorted(folder.rglob(settings.file))
    origin = ""
    if settings.repository:
        made = f": {settings.conversion}" if settings.conversion else ""
        origin = f"; it comes from {settings.repository} (commit {settings.commit[:12]}, {settings.path}){made}"
    if not matches:
        raise InputError(f"'{settings.file}' is not below '{folder}'{origin}. Say where with --data")
    if settings.sha256:
        found = sha256_of(matches[0])
        if found != settings.sha256:
            raise InputError(
                f"'{matches[0]}' has sha256 {found}, the recipe asks for {settings.sha256}{origin}. For a file of your "
                "own making take a copy of the recipe without this sha256"
            )
    return [matches[0]]


def _scan(source: Source, cutoff: float, units: UnitCheck, stress: bool):
    """(Entry, split) of every frame; (None, split) for those of other splits, (None, None) for those the recipe rules
    out. ``stress``: whether it is learned.
    """
    settings = source.settings
    for f, frames in enumerate(source.files):
        for k in range(len(frames)):
            atoms, where = frames[k], f"frame {k} of '{source.paths[f]}'"
            if _ruled_out(atoms, settings, where):
                source.left_out += 1
                yield None, None
                continue
            split = split_of_frame(atoms, settings, where, k)
            if split == "test":
                source.test[placed_anywhere_digest(atoms)] = where
            if split not in ("train", "valid"):
                yield None, split
                continue
            check_labels(atoms, where, settings.energies, settings.forces)
            if stress:
                check_stress(atoms, where)
            if settings.energies:
                units.add_energy(atoms, where)
            if settings.energies and settings.forces:
                units.add(atoms)
            yield _entry(atoms, f, k, settings, cutoff, where), split


def _ruled_out(atoms, settings: DataSource, where: str) -> bool:
    if any(has_one_of(atoms, key, values) for key, values in settings.exclude.items()):
        return True
    if not all(has_one_of(atoms, key, values) for key, values in settings.only.items()):
        return True
    labels = {} if atoms.calc is None else atoms.calc.results
    forces = labels.get("forces")
    if forces is None:
        return False
    if settings.max_force is not None and np.linalg.norm(forces, axis=1).max() > settings.max_force:
        return True
    if not settings.cosine_key:
        return False
    other = atoms.arrays.get(settings.cosine_key)
    if other is None:
        raise InputError(f"{where} has no per-atom column '{settings.cosine_key}', which cosine_key asks for")
    length = np.linalg.norm(forces) * np.linalg.norm(other)
    return length > 0 and float((forces * other).sum() / length) < settings.min_cosine


def split_of_frame(atoms, settings: DataSource, where: str, k: int) -> str:
    """The split of frame ``k`` of a file. Raises :class:`InputError` for one that should say it and does not."""
    if settings.split_by == "key":
        if "split" not in atoms.info:
            raise InputError(
                f'{where} lacks the key split=train|valid; add it, or set split_by = "molecule" in [[data]]'
            )
        return str(atoms.info["split"])
    fraction = settings.valid_fraction
    if settings.split_by == "frame":  # evenly spaced
        return "valid" if int((k + 1) * fraction) > int(k * fraction) else "train"
    return split_of_molecule(str(atoms.info.get("molecule", atoms.get_chemical_formula())), fraction)


def split_of_molecule(name: str, fraction: float) -> str:
    """The split of all frames of a molecule: "valid" for about ``fraction`` of the names, by their hash."""
    return "valid" if seed_of("split", name) / 2**63 < fraction else "train"


def _entry(atoms, f: int, k: int, settings: DataSource, cutoff: float, where: str) -> Entry:
    try:
        systems, stress = Systems.from_atoms(atoms), stress_label(atoms)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    i, _, _ = pairs_of(systems, cutoff)
    width = int(torch.bincount(i, minlength=1).max()) if len(i) else 0
    labels = {} if atoms.calc is None else atoms.calc.results
    return Entry(
        file=f,
        frame=k,
        size=Size(len(atoms), len(i), width),
        counts=dict(Counter(atoms.numbers.tolist())),
        energy=float(labels.get("energy", np.nan)),
        charge=int(systems.charge),
        spin=int(systems.spin),
        molecule=str(atoms.info.get("molecule", "")),
        config_type=str(atoms.info.get("config_type", "")),
        digest=geometry_digest(atoms),
        structure=placed_anywhere_digest(atoms),
        has_energy=settings.energies,
        has_forces=settings.forces,
        has_stress=stress is not None,
        periodic=bool(atoms.pbc.any()),
    )


def _check_source(source: Source, recipe: Recipe, seen: Counter) -> None:
    """``seen``: how many frames each split has."""
    label = source.settings.label
    for split in ("train", "valid"):
        if not getattr(source, split):
            if source.settings.split_by == "key":
                there = ", ".join(f"{name} ({count})" for name, count in sorted(seen.items())) or "none"
                raise InputError(
                    f"no frame of '{label}' has the key split={split}; train and valid are both needed, there are: "
                    f"{there}"
                )
            raise InputError(
                f"split_by = \"{source.settings.split_by}\" leaves no {split} frame of '{label}' (valid_fraction = "
                f"{source.settings.valid_fraction:g}); set another valid_fraction, or the key split in the frames"
            )
    for entry in (*source.train, *source.valid):
        if entry.charge not in recipe.charges:
            raise InputError(
                f"{source.where(entry)} has charge {entry.charge:+d}, the recipe's charges are {list(recipe.charges)}; "
                "add it there"
            )
        if entry.periodic and recipe.periodic == "refused":
            raise InputError(
                f'{source.where(entry)} is periodic, and the recipe says periodic = "refused"; leave that key out'
            )
        if recipe.spins and entry.spin not in recipe.spins:
            raise InputError(
                f"{source.where(entry)} has spin {entry.spin}, the recipe's spins are {list(recipe.spins)}; add it"
            )


def _limit(source: Source, seed: int) -> None:
    limit = source.settings.limit
    if limit is not None and limit < len(source.train):
        order = np.random.default_rng(seed_of(seed, "limit", source.settings.label)).permutation(len(source.train))
        source.train = [source.train[k] for k in sorted(order[:limit])]


def _check_splits(sources: list[Source]) -> None:
    """No geometry to learn from among those to judge by, whichever sources it stands in (other levels of theory may
    share geometries).
    """
    for head in {s.head for s in sources}:
        mine = [s for s in sources if s.head == head]
        trained = {e.structure: s.where(e) for s in mine for e in s.train}
        judged = [(e.structure, s.where(e), "valid") for s in mine for e in s.valid]
        judged += [(structure, where, "test") for s in mine for structure, where in s.test.items()]
        for structure, where, split in judged:
            if structure in trained:
                raise InputError(
                    f"{where} ({split}) is the same structure as {trained[structure]} (train); take one of them out, "
                    f"or the {'validation' if split == 'valid' else split} error means nothing"
                )


def _check_elements(sources: list[Source], recipe: Recipe) -> None:
    """Raise :class:`InputError` for elements without a row in the model or without training frames at their head."""
    elements = recipe.model.get("elements")
    given = {head: set(_by_number(table)) for head, table in recipe.references.items()}
    trained: dict[str, set[int]] = {}
    for s in sources:
        trained.setdefault(s.settings.head, set()).update(*(e.counts for e in s.train))
    for s in sources:
        known = trained[s.settings.head] | given.get(s.settings.head, set())
        for entry in (*s.train, *s.valid):
            present = set(entry.counts)
            if elements is not None and not present <= set(elements):
                missing = sorted(present - set(elements))
                raise InputError(f"{s.where(entry)} holds atomic numbers {missing}; add them to elements in [model]")
            if not present <= known:
                raise InputError(
                    f"{s.where(entry)}: atomic numbers {sorted(present - known)} have no reference energy, for they "
                    f"are in valid frames only; head '{s.settings.head}' needs training frames with them"
                )


def _references(sources: list[Source], recipe: Recipe) -> dict[str, dict[int, float]]:
    """Reference energies of every head: given ones, or least squares over its training frames."""
    prior, found = _by_number(recipe.reference_prior), {}
    for k, head in enumerate(recipe.heads):
        mine = [s for s in sources if s.head == k]
        if not mine:
            continue
        present = set().union(*(e.counts for s in mine for e in s.train))
        if head in recipe.references:
            table = _by_number(recipe.references[head])
            for s in mine:
                _check_given(s, table, head)
            found[head] = {z: table[z] for z in sorted(table)}
            continue
        if not any(s.settings.energies or s.settings.forces for s in mine):  # nothing but structures
            found[head] = {z: prior.get(z, 0.0) for z in sorted(present)}
            continue
        entries = [e for s in mine for e in s.train if e.has_energy and np.isfinite(e.energy)]
        # a head that learns from forces alone still gets the zero of its own labels, where there are any
        entries = entries or [e for s in mine for e in s.train if np.isfinite(e.energy)]
        if not entries:
            missing = sorted(present - set(prior))
            if missing:
                raise InputError(
                    f"head '{head}' has no energies to fit reference energies to, and reference_prior lacks atomic "
                    f'numbers {missing}; give them, or a table [references."{head}"]'
                )
            found[head] = {z: prior[z] for z in sorted(present)}
            continue
        for s in mine:
            if prior and s.train and s.train[0].has_energy:
                check_references_scale(s.train[0].counts, s.train[0].energy, prior, s.where(s.train[0]), head)
        found[head] = fit_references([e.counts for e in entries], [e.energy for e in entries], prior)
    return found


def _check_given(source: Source, table: dict[int, float], head: str) -> None:
    for entry in (*source.train, *source.valid):
        missing = sorted(set(entry.counts) - set(table))
        if missing:
            raise InputError(
                f"{source.where(entry)}: atomic numbers {missing} have no reference energy in the recipe's table of "
                f"head '{head}'; add them, or leave the table out to have it fitted"
            )
        if entry.has_energy:
            check_references_scale(entry.counts, entry.energy, table, source.where(entry), head)


def _by_number(table: dict[str, float]) -> dict[int, float]:
    from ase.data import atomic_numbers

    return {atomic_numbers[symbol]: float(energy) for symbol, energy in table.items()}
