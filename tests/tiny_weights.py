"""Weights folders with a tiny untrained network, for tests of everything around the physics."""

import hashlib
from pathlib import Path

import torch
from ase.data import atomic_numbers
from safetensors.torch import save

from omnicalc.card import CARD, WEIGHTS, Card, CardHead, write_card
from omnicalc.models import build_model

HEADS = {"water-theory": ("H", "O"), "salt-theory": ("H", "O", "Na", "Cl")}
SETTINGS = {
    "channels": 8, "l_max": 1, "layers": 1, "attention_heads": 2, "query_width": 2, "value_multiplicity": 2,
    "cutoff": 3.0, "n_basis": 4, "radial_width": 4, "values": ["first-order"],
}  # fmt: skip


def write_weights(
    folder: Path,
    *,
    name: str = "tiny",
    tag: str = "a",
    version: str = "1.0",
    heads: dict[str, tuple[str, ...]] = HEADS,
    charges: tuple[int, ...] = (0,),
    spins="ignored",
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    family: str = "e2former",
    settings: dict | None = None,
) -> Card:
    """Write ``model.safetensors`` and ``card.toml`` into ``folder``; the card. ``settings``: of another family."""
    if settings is None:
        settings = {"elements": sorted({atomic_numbers[s] for symbols in heads.values() for s in symbols}), **SETTINGS}
    config = {"heads": list(heads), **settings}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build_model(family, config)
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    content = save({key: tensor.to(dtype) for key, tensor in model.state_dict().items()})
    card = Card(
        name=name,
        tag=tag,
        version=version,
        family=family,
        summary="untrained, for tests",
        conservative=model.conservative,
        cutoff=model.cutoff,
        dtype=str(dtype).removeprefix("torch."),
        sha256=hashlib.sha256(content).hexdigest(),
        licence="MIT",
        citation=("nobody, nowhere",),
        charges=charges,
        spins=spins,
        config=model.config.to_dict(),
        heads=tuple(
            CardHead(
                name=head,
                level_of_theory=f"theory of {head}",
                elements=symbols,
                reference_source="made up",
                data="none",
                reference={s: -10.0 - 0.1 * k * atomic_numbers[s] for s in symbols},
            )
            for k, (head, symbols) in enumerate(heads.items(), start=1)
        ),
        training={},
        accuracy={},
    )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / WEIGHTS).write_bytes(content)
    write_card(folder / CARD, card)
    return card
