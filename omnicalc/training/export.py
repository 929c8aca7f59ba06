"""From a training run to a weights folder: averaged weights and a card that says how they were made."""

import hashlib
from pathlib import Path

from safetensors.torch import save

from omnicalc.card import CARD, WEIGHTS, Card, CardHead, write_card
from omnicalc.files import write_atomically
from omnicalc.training.dataset import Source
from omnicalc.training.errors_shown import on_cards
from omnicalc.training.replay import REPLAY, write_replay
from omnicalc.training.validation import ALL


def export(trainer, folder: Path) -> Card:
    """Write ``model.safetensors`` (the averaged weights of a :class:`~omnicalc.training.trainer.Trainer`) and
    ``card.toml``, with the errors of its last validation, into ``folder``.
    """
    recipe = trainer.recipe
    weights = save({n: t.detach().cpu().contiguous() for n, t in trainer.averaged.items()})
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / WEIGHTS, lambda temporary: temporary.write_bytes(weights))
    card = Card(
        name=recipe.name,
        tag=recipe.tag,
        version=recipe.version,
        family=recipe.family,
        summary=recipe.summary,
        conservative=trainer.model.conservative,
        cutoff=trainer.model.cutoff,
        dtype="float32",
        sha256=hashlib.sha256(weights).hexdigest(),
        licence=recipe.licence,
        citation=list(dict.fromkeys(s.citation for s in recipe.data if s.citation)),
        charges=list(recipe.charges),
        spins=list(recipe.spins) or "ignored",
        config=trainer.model.config.to_dict(),
        heads=[_head(trainer, name) for name in recipe.heads],
        training=_training(trainer),
        accuracy=_accuracy(trainer),
    )
    write_card(folder / CARD, card)
    if any(source.settings.replay for source in trainer.dataset.sources):
        write_replay(trainer.dataset.sources, folder / REPLAY)
    return card


def _head(trainer, name: str) -> CardHead:
    from ase.data import chemical_symbols

    old = _old_head(trainer, name)
    sources = [s for s in trainer.dataset.sources if s.settings.head == name]
    if not sources:
        return old
    reference = trainer.dataset.references[name]
    known = set().union(*(e.counts for s in sources for e in s.train))
    note, data = trainer.recipe.reference_note, "; ".join(_in_words(s) for s in sources)
    if old is not None and all(old.reference_by_number.get(z) == e for z, e in reference.items()):
        known |= set(old.reference_by_number)
        reference, note, data = old.reference_by_number, old.reference_source, f"{old.data}; then {data}"
    known = sorted(known & set(reference))
    return CardHead(
        name=name,
        elements=[chemical_symbols[z] for z in known],
        level_of_theory=sources[0].settings.level_of_theory,
        reference_source=note,
        data=data,
        reference={chemical_symbols[z]: reference[z] for z in known},
        periodic=_periodic(trainer, name, sources),
    )


def _periodic(trainer, name: str, sources: list[Source]) -> str:
    """What a head has seen of periodic structures. Where these data have none, what the head that it began as knew
    still holds.
    """
    if any(e.periodic for s in sources for e in s.train):
        return "trained"
    before = _old_head(trainer, name) or _old_head(trainer, trainer.recipe.copy_heads.get(name, ""))
    return trainer.recipe.periodic or ("untrained" if before is None else before.periodic)


def _old_head(trainer, name: str) -> CardHead | None:
    """The head as the weights that the run started from have it."""
    heads = () if trainer.start_card is None else trainer.start_card.heads
    return next((h for h in heads if h.name == name), None)


def _in_words(source: Source) -> str:
    s = source.settings
    origin = f"{s.repository} {s.path}" if s.repository else s.label
    text = f"{origin} ({s.licence}), split: {s.split_note or s.split_by}"
    if s.energies:
        return text
    return f"{text}; {'forces' if s.forces else 'structures'} only"


def _training(trainer) -> dict:
    recipe = trainer.recipe
    table = {"command": trainer.command} if trainer.command else {}
    table |= {
        "seed": recipe.optimiser.seed,
        "steps": trainer.step,
        "parameters": sum(p.numel() for p in trainer.model.parameters()),
        "sources": [_source(source) for source in trainer.dataset.sources],
    }
    if recipe.optimiser.matrices != "adam":
        table["matrices"] = recipe.optimiser.matrices  # fine-tuning then steps alike
    if recipe.start:
        table["start"] = trainer.start_report
    return table


def _source(source: Source) -> dict:
    s = source.settings
    table = {
        "source": s.label,
        "head": s.head,
        "repository": s.repository,
        "commit": s.commit,
        "path": s.path,
        "conversion": s.conversion,
        "file": s.file or s.shards,
        "sha256": source.digest,
        "licence": s.licence,
        "citation": s.citation,
        "train_frames": len(source.train),
        "valid_frames": len(source.valid),
        "train_molecules": _molecules(source.train),
        "valid_molecules": _molecules(source.valid),
        "valid_molecules_also_trained_on": _shared(source),
        "energies": s.energies,
        "forces": s.forces,
    }
    return {k: v for k, v in table.items() if v != ""}


def _molecules(entries) -> int:
    return len({e.molecule for e in entries if e.molecule})


def _shared(source: Source) -> int:
    trained = {e.molecule for e in source.train if e.molecule}
    return len({e.molecule for e in source.valid if e.molecule} & trained)


def _accuracy(trainer) -> dict:
    """Errors of the last validation by head: of its first source; in ``domains`` of every source and config_type."""
    table: dict = {}
    for g in trainer.last_errors:
        errors = on_cards(g.errors)
        mine = table.setdefault(g.head, {**errors, "domains": {}})
        name = g.source if g.group == ALL else f"{g.source}/{g.group}"
        mine["domains"][name] = {"structures": g.structures, **errors}
    return table
