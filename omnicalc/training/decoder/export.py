"""From a training run to a weights folder: averaged weights, and a card with their measured errors."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from safetensors.torch import save

from omnicalc.card import DECODER_CARD, WEIGHTS
from omnicalc.decoding.card import DecoderCard, write_decoder_card
from omnicalc.decoding.evaluation import DECODER, Errors, horizons_up_to, molecule_errors
from omnicalc.files import write_atomically
from omnicalc.training.decoder.trainer import DecoderTrainer


def export(trainer: DecoderTrainer, unseen: Sequence, folder: Path, command: str = "") -> DecoderCard:
    """Write ``model.safetensors`` and ``decoder.toml``, with errors on the ``unseen`` trajectories, into ``folder``.

    ``command``: what makes these weights.
    """
    from ase.data import chemical_symbols

    recipe = trainer.recipe
    horizons = horizons_up_to(recipe.longest)
    errors = [molecule_errors([trainer.averaged_model()], t, horizons=horizons) for t in unseen]
    weights = save({n: t.contiguous() for n, t in trainer.averaged.items()})
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / WEIGHTS, lambda temporary: temporary.write_bytes(weights))
    config = trainer.model.config
    card = DecoderCard(
        name=recipe.name,
        tag=recipe.tag,
        version=recipe.version,
        family="atom",
        summary=recipe.summary,
        elements=tuple(chemical_symbols[z] for z in config.elements),
        horizon_fs=float(recipe.longest),
        level_of_theory=recipe.level_of_theory,
        dtype="float32",
        sha256=hashlib.sha256(weights).hexdigest(),
        licence=recipe.licence,
        citation=tuple(recipe.citation),
        config=config.to_dict(),
        training={
            "data": recipe.data_command,
            **({"command": command} if command else {}),
            "seed": recipe.seed,
            "steps": trainer.step,
            "parameters": sum(p.numel() for p in trainer.model.parameters()),
            "recipe": json.dumps(trainer.table()),
        },
        accuracy=_accuracy(errors, horizons),
    )
    write_decoder_card(folder / DECODER_CARD, card)
    return card


def _accuracy(errors: Sequence[Errors], horizons: Sequence[float]) -> dict:
    """Root mean square error per coordinate at each horizon (S2S), over molecules that were not trained on."""
    if not errors:
        return {}
    mean = np.mean([e.s2s[DECODER] for e in errors], 0)
    return {
        "molecules": [e.name for e in errors],
        "horizons_fs": [float(h) for h in horizons],
        "rmse_A": [round(float(x), 4) for x in np.sqrt(mean)],
    }
