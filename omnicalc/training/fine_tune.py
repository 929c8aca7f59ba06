"""A recipe for fine-tuning: weights and a file of labelled frames in, all other settings chosen here."""

import glob
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ase import Atoms

from omnicalc.card import WEIGHTS, Card, CardHead
from omnicalc.data.readers import open_frames
from omnicalc.errors import InputError
from omnicalc.models.config_table import names_tensors
from omnicalc.potential import Potential
from omnicalc.registry import load_potential, resolve
from omnicalc.systems import Systems
from omnicalc.training.dataset import split_of_frame, split_of_molecule
from omnicalc.training.label_checks import check_labels
from omnicalc.training.recipe import Batching, DataSource, Optimiser, Recipe, Stage
from omnicalc.training.references import fit_references
from omnicalc.training.replay import ENERGIES, FORCES, LEARN, VALIDATED, replay_of

_SAME_LEVEL = 0.1  # eV per atom; mean deviation of energies beyond which they are of another level of theory
_CHECKED = 20  # frames that the start is compared with
_FITTED = 200  # frames that the reference energies of a new head are fitted to
_ATOMS = 128  # in a pack, or the largest structure
_ALIKE, _LARGEST_SCALE = 0.7, 2.5  # cosine of labels with the start's forces, and ratio beyond which units differ
_VALID = 0.1  # of the frames, where they do not say
_REPLAYED = 0.5  # of the structures drawn
_SMALL, _RATE, _RATE_OF_LARGE = 1_000_000, 2e-3, 5e-4  # parameters; learning rates of networks below and above


@dataclass(frozen=True)
class FineTune:
    """What a user may choose; see the options of ``omnicalc train``."""

    start: str
    data: Path
    head: str | None = None
    level: str | None = None
    replay: str | None = None  # a file, "none", or None for the one beside the weights
    trains: str = "all"
    lora_rank: int = 4
    length: int = 3000
    learning_rate: float | None = None  # None: by the size of the network
    matrices: str | None = None  # "adam" or "muon", as in recipes; None: as the start was trained
    seed: int = 0


class _Measured(NamedTuple):
    """What is kept of a frame."""

    elements: frozenset[int]
    n_atoms: int
    charge: int
    spin: int
    info: dict


def fine_tune_recipe(wish: FineTune, progress: Callable[[int, int], object] = lambda read, total: None) -> Recipe:
    """The recipe of a fine-tuning run. ``progress``: frames read, all frames.

    Raises :class:`InputError` for frames that these weights cannot learn from, and for labels of another level of
    theory than that of the head they are meant for.
    """
    folder, card = resolve(wish.start)
    frames = _frames(wish.data)
    measured = []
    for k in range(len(frames)):
        measured.append(_measured(frames[k], k, wish.data))
        progress(k + 1, len(frames))
    infos = [m.info for m in measured]
    elements = set().union(*(m.elements for m in measured))
    _check_elements(elements, card, wish.start)
    stated = _stated_level(wish, infos)
    head, copied = _head(wish, card, frames, elements, stated)
    replay = _replay(wish.replay, folder, card)
    own = _own(wish, infos, head, copied, stated)
    data = [own, *replay]
    trained = {source.head for source in data}
    old = {h.name: dict(h.reference) for h in card.heads if h.name in trained}
    if head != copied.name and elements <= copied.numbers:
        old[head] = _refitted(wish, frames, infos, copied, own)
    return Recipe(
        name=f"{card.name}-tuned",
        tag=card.tag,
        version="0.1",
        family=card.family,
        summary=f"{card.full_name}, fine-tuned on {wish.data.name}",
        licence=f"that of {card.full_name} ({card.licence}) and of {wish.data.name}",
        model=_model(card),
        optimiser=_optimiser(wish, card),
        stages=(_stage(wish, folder),),
        data=tuple(data),
        reference_note=f"least squares of energies less what head {copied.name} of the start says beyond its own",
        reference_prior=dict(copied.reference),
        references=old,
        batch=Batching(atoms=max(_ATOMS, max(m.n_atoms for m in measured))),
        charges=_also(card.charges, (m.charge for m in measured)),
        spins=() if card.spins == "ignored" else _also(card.spins, (m.spin for m in measured)),
        start=wish.start,
        copy_heads={} if head == copied.name else {head: copied.name},
        kept_heads=tuple(h.name for h in card.heads if h.name not in trained),
        trains=wish.trains,
        lora_rank=wish.lora_rank,
    )


def _model(card: Card) -> dict:
    """Settings of the network: heads are the recipe's, and a committee was fitted to features that change."""
    return {k: 0 if k == "committee" else v for k, v in card.config.items() if k != "heads"}


def _frames(data: Path) -> Sequence:
    if not data.is_file():
        raise InputError(f"'{data}' is no file; without a recipe --data takes a file of labelled frames")
    frames = open_frames(data)
    if len(frames) < 2:
        raise InputError(f"'{data}' has {len(frames)} frame; two are needed, one to learn from and one to check")
    return frames


def _also(known: Iterable[int], found: Iterable) -> tuple[int, ...]:
    """Charges or spins that the start knows, and those of the frames."""
    return tuple(sorted({*known, *map(int, found)}))


def _optimiser(wish: FineTune, card: Card) -> Optimiser:
    return Optimiser(
        seed=wish.seed,
        matrices=wish.matrices or _matrices(wish, card),
        ema=0.99,
        validate_every=max(1, wish.length // 5),
        checkpoint_every=200,
        validate_frames=VALIDATED,
    )


def _stage(wish: FineTune, folder: Path) -> Stage:
    return Stage(
        steps=wish.length,
        learning_rate=wish.learning_rate or _rate(folder),
        warmup=min(50, wish.length),
        energy_weight=0.5,
        energy_weight_late=20.0,
    )


def _rate(folder: Path) -> float:
    """Large networks know more that a high rate would undo; their tensors are float32."""
    return _RATE if (folder / WEIGHTS).stat().st_size < 4 * _SMALL else _RATE_OF_LARGE


def _matrices(wish: FineTune, card: Card) -> str:
    """As the start's own; the small matrices of LoRA, which begin at zero, by Adam."""
    return str(card.training.get("matrices", "adam")) if wish.trains == "all" else "adam"


def _measured(atoms: Atoms, k: int, data: Path) -> _Measured:
    check_labels(atoms, f"frame {k} of '{data}'", energies=True, forces=True)
    try:
        systems = Systems.from_atoms(atoms)
    except InputError as error:
        raise InputError(f"frame {k} of '{data}': {error}") from None
    elements = frozenset(atoms.numbers.tolist())
    return _Measured(elements, len(atoms), int(systems.charge), int(systems.spin), atoms.info)


def _check_elements(elements: set[int], card: Card, start: str) -> None:
    from ase.data import chemical_symbols

    rows = card.config.get("elements")
    known = set(rows) if rows is not None else set().union(*(h.numbers for h in card.heads))
    if not elements <= known:
        missing = ", ".join(chemical_symbols[z] for z in sorted(elements - known))
        raise InputError(f"{start} has never seen {missing}; begin with other weights (`omnicalc models` lists them)")


def _stated_level(wish: FineTune, infos: Sequence[dict]) -> str | None:
    """The level of theory that frames say they are of; None where they say nothing."""
    stated = sorted({str(info["level_of_theory"]) for info in infos if "level_of_theory" in info})
    if len(stated) > 1:
        raise InputError(
            f"frames of '{wish.data}' say level_of_theory = {', '.join(stated)}; a head learns one. Take the frames of "
            f"one with omnicalc data subset FILE --only level_of_theory={stated[0]} --out NEW"
        )
    return stated[0] if stated else None


def _head(wish: FineTune, card: Card, frames: Sequence, elements: set[int], stated: str | None) -> tuple[str, CardHead]:
    """The head to train, and the one of the start that it begins as: the same, or for a new one the first that knows
    the elements.
    """
    by_name = {h.name: h for h in card.heads}
    name = wish.head
    if name is None:
        name = stated if stated in by_name else _named_after(wish.data)
    if name not in by_name:
        return name, next((h for h in card.heads if elements <= h.numbers), card.heads[0])
    if stated is not None and stated not in (name, by_name[name].level_of_theory):
        raise InputError(
            f"frames of '{wish.data}' say level_of_theory = {stated}, head '{name}' is "
            f"{by_name[name].level_of_theory}; give a new name with --head to make a head of their own"
        )
    _check_level(wish, name, frames, by_name[name])
    return name, by_name[name]


def _named_after(data: Path) -> str:
    """Name of a new head: that of the file, but for words that torch needs for itself, such as train or keys."""
    stem = data.name.split(".")[0]
    return stem if names_tensors(stem) else f"{stem}-data"


def _check_level(wish: FineTune, name: str, frames: Sequence, head: CardHead) -> None:
    """Refuse energies far from those of the head: another level of theory has other reference energies."""
    from omnicalc.evaluation import evaluate, labelled_frames

    chosen = [frames[k] for k in np.linspace(0, len(frames) - 1, min(_CHECKED, len(frames))).astype(int)]
    if any(not set(a.numbers.tolist()) <= head.numbers for a in chosen):
        raise InputError(
            f"head '{name}' has no reference energy for some elements of '{wish.data}'; give a new name with --head"
        )
    found = evaluate(_start(wish), labelled_frames(chosen, None, str(wish.data)), name)
    _check_forces(wish, found)
    off = float(np.mean([c.energy_error / len(c.atoms) for c in found.frames]))
    if abs(off) > _SAME_LEVEL:
        raise InputError(
            f"energies of '{wish.data}' are {-off:+.3f} eV per atom off those of head '{name}' "
            f"({head.level_of_theory}): they are of another level of theory, or of another zero. Give a new name "
            "with --head, and the reference energies of that new head are fitted to them"
        )


def _start(wish: FineTune) -> Potential:
    potential = load_potential(wish.start, device="cpu")
    # frames of a kind that the start does not know are what it is to learn
    potential.any_box, potential.charges, potential.spins = True, None, None
    return potential


def _check_forces(wish: FineTune, found) -> None:
    """Refuse forces that are those of the start in another unit or with the other sign. Methods differ by far less, and
    where the start says nothing about these structures, nothing is said here.
    """
    from ase import units

    labels = np.concatenate([c.label_forces.ravel() for c in found.frames])
    said = np.concatenate([c.forces.ravel() for c in found.frames])
    size = float(np.sqrt((labels @ labels) * (said @ said)))
    cosine = float(labels @ said) / size if size else 0.0
    if cosine < -_ALIKE:
        raise InputError(
            f"forces of '{wish.data}' point against those of {wish.start} (cosine {cosine:.2f}): they look like "
            "gradients; forces, minus the gradient, are needed"
        )
    if cosine < _ALIKE:
        return
    scale = float(np.sqrt((labels @ labels) / (said @ said)))
    names = {units.kcal / units.mol: "kcal/mol/Å", units.Hartree / units.Bohr: "Hartree/Bohr", 1e-3: "meV/Å",
             units.kJ / units.mol: "kJ/mol/Å"}  # fmt: skip
    if 1 / _LARGEST_SCALE < scale < _LARGEST_SCALE:
        return
    unit = min(names, key=lambda u: abs(np.log(scale * u)))
    guess = f" (in {names[unit]}?)" if abs(np.log(scale * unit)) < 0.4 else ""
    raise InputError(f"forces of '{wish.data}' are {scale:.3g} times those of {wish.start}{guess}; eV/Å is needed")


def _refitted(
    wish: FineTune, frames: Sequence, infos: Sequence[dict], copied: CardHead, own: DataSource
) -> dict[str, float]:
    """Reference energies of a new head, such that the network of the head it begins as has least to unlearn: fitted to
    the labels of training frames less what that head says beyond its own reference energies.
    """
    from ase.data import chemical_symbols

    from omnicalc.evaluation import evaluate, labelled_frames

    train = [
        k
        for k, info in enumerate(infos)  # which alone decides the split
        if split_of_frame(Atoms(info=info), own, f"frame {k} of '{wish.data}'", k) == "train"
    ]
    if not train:  # what there is in their place is said where the data set is built
        return dict(copied.reference)
    chosen = [frames[train[k]] for k in np.linspace(0, len(train) - 1, min(_FITTED, len(train))).astype(int)]
    labelled = labelled_frames(chosen, None, str(wish.data))
    found = evaluate(_start(wish), labelled, copied.name)
    _check_forces(wish, found)
    old = copied.reference_by_number
    counts = [dict(Counter(c.atoms.numbers.tolist())) for c in found.frames]
    beyond = [c.energy - sum(n * old[z] for z, n in m.items()) for c, m in zip(found.frames, counts, strict=True)]
    table = fit_references(counts, [c.label - b for c, b in zip(found.frames, beyond, strict=True)], old)
    return {**copied.reference, **{chemical_symbols[z]: energy for z, energy in table.items()}}


def _own(wish: FineTune, infos: Sequence[dict], head: str, copied: CardHead, stated: str | None) -> DataSource:
    without = [k for k, i in enumerate(infos) if "split" not in i]
    if 0 < len(without) < len(infos):
        raise InputError(
            f"frame {without[0]} of '{wish.data}' lacks the key split=train|valid, which other frames have; give it to "
            "all of them, or to none"
        )
    split_by = "frame" if without else "key"
    if split_by == "frame" and all("molecule" in i for i in infos):
        molecules = {str(i["molecule"]) for i in infos}
        both = {split_of_molecule(name, _VALID) for name in molecules} == {"train", "valid"}
        split_by = "molecule" if len(molecules) >= 10 and both else "frame"
    own = copied.level_of_theory if head == copied.name else stated or f"as labelled in {wish.data.name}"
    return DataSource(
        head=head,
        level_of_theory=wish.level or own,
        shards=glob.escape(str(wish.data.resolve())),
        name=wish.data.name.split(".")[0],
        split_by=split_by,
        valid_fraction=max(_VALID, 1 / len(infos)),
        split_note={"key": "as the frames say", "frame": "every tenth frame", "molecule": "by molecule"}[split_by],
    )


def _replay(given: str | None, folder: Path, card: Card) -> list[DataSource]:
    """Sources of old frames, one for each head in the file, or more where it says that only some labels count."""
    if given == "none":
        return []
    path = replay_of(folder, card) if given is None else Path(given)
    if path is None:
        return []
    if not path.is_file():
        raise InputError(f"--replay '{given}': no such file; give one with the frame keys head and split, or 'none'")
    parts = Counter((str(atoms.info.get("head")), atoms.info.get(LEARN)) for atoms in open_frames(path))
    heads = {head for head, _ in parts}
    unknown = sorted(heads - {h.name for h in card.heads})
    if unknown:
        raise InputError(
            f"'{path}' has frames of head '{unknown[0]}'; every frame to replay needs the key head, one of "
            f"{', '.join(h.name for h in card.heads)}"
        )
    odd = next((learn for _, learn in parts if learn not in (None, ENERGIES, FORCES)), None)
    if odd is not None:
        raise InputError(f"'{path}' has frames with {LEARN}={odd}; {ENERGIES} or {FORCES}, or no such key, is needed")
    whole = sum(map(sqrt, parts.values()))
    own = _REPLAYED / (1 - _REPLAYED)  # the user's own frames have weight 1
    return [
        DataSource(
            head=head.name,
            level_of_theory=head.level_of_theory,
            shards=glob.escape(str(path.resolve())),
            name=f"replay {head.name}" + (f", {learn}" if learn else ""),
            energies=learn != FORCES,
            forces=learn != ENERGIES,
            only={"head": head.name} | ({LEARN: learn} if learn else {}),
            exclude={} if learn else {LEARN: f"{ENERGIES},{FORCES}"},
            weight=own * sqrt(parts[head.name, learn]) / whole,  # few frames are soon known by heart
            split_note="of the weights that were fine-tuned",
        )
        for head in card.heads
        for learn in (None, ENERGIES, FORCES)
        if (head.name, learn) in parts
    ]
