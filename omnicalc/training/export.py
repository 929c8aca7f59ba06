"""From a training run to a weights folder: averaged weights and a card that says how they were made."""

import csv
import hashlib
from pathlib import Path

from safetensors.torch import save

from omnicalc.card import Card, CardHead, write_card
from omnicalc.files import write_atomically
from omnicalc.training.trainer import Trainer


def export(trainer: Trainer, folder: Path) -> Card:
    """Write ``model.safetensors`` (the averaged weights) and ``card.toml`` into ``folder``."""
    recipe = trainer.recipe
    weights = save({n: t.contiguous() for n, t in trainer.state.averaged.items()})
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / "model.safetensors", lambda temporary: temporary.write_bytes(weights))
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
        citation=[source.citation for source in recipe.data],
        charges=list(recipe.charges),
        spins="ignored",
        config=trainer.model.config.to_dict(),
        heads=[_head(trainer, name) for name in recipe.heads],
        training=_training(trainer),
        accuracy=_accuracy(trainer),
    )
    write_card(folder / "card.toml", card)
    return card


def _head(trainer: Trainer, name: str) -> CardHead:
    from ase.data import chemical_symbols

    reference = trainer.dataset.references[name]
    sources = [s for s in trainer.recipe.data if s.head == name]
    return CardHead(
        name=name,
        elements=[chemical_symbols[z] for z in reference],
        level_of_theory=sources[0].level_of_theory,
        reference_source=trainer.recipe.reference_note,
        data="; ".join(f"{s.repository} {s.path} ({s.licence}), split: {s.split_note}" for s in sources),
        reference={chemical_symbols[z]: energy for z, energy in reference.items()},
    )


def _training(trainer: Trainer) -> dict:
    recipe = trainer.recipe
    name = f"{recipe.name}-{recipe.tag}"
    return {
        "command": f"omnicalc train {name} --data FOLDER --out {name}",
        "seed": recipe.optimiser.seed,
        "steps": trainer.state.step,
        "parameters": sum(p.numel() for p in trainer.model.parameters()),
        "sources": [
            {
                "head": s.head,
                "repository": s.repository,
                "commit": s.commit,
                "path": s.path,
                "conversion": s.conversion,
                "file": s.file,
                "sha256": s.sha256,
                "licence": s.licence,
                "citation": s.citation,
                "train_frames": len(train),
                "valid_frames": len(valid),
            }
            for s, train, valid in zip(recipe.data, trainer.dataset.train, trainer.dataset.valid, strict=True)
        ],
    }


def _accuracy(trainer: Trainer) -> dict:
    """Validation errors of the last log lines, per head."""
    with (trainer.out / "log.csv").open(newline="") as file:
        rows = [r for r in csv.DictReader(file) if int(r["step"]) == trainer.state.step]
    return {
        r["head"]: {
            "force_mae_meV_per_A": round(1e3 * float(r["force_mae"]), 2),
            "energy_mae_meV_per_atom": round(1e3 * float(r["energy_mae"]), 3),
        }
        for r in rows
    }
