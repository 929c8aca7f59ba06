"""From weights to the same weights with a committee, in a folder of their own."""

import hashlib
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load, save

from omnicalc.card import CARD, WEIGHTS, write_card
from omnicalc.committee import Calibration, draw_calibration, fit_committee
from omnicalc.errors import InputError
from omnicalc.evaluation import labelled_frames
from omnicalc.files import made_folder, write_atomically
from omnicalc.known_surroundings import FILE as KNOWN
from omnicalc.registry import load_potential, resolve, verified_bytes
from omnicalc.systems import Systems
from omnicalc.training.replay import REPLAY, SHARED, replay_of

_MOST_VALID = 200
_UNLIKE = 3.0  # times the largest spread in a thousand of the validation atoms: the limit that the card tells a run


@dataclass(frozen=True)
class Added:
    """What came of it."""

    head: str
    frames: int
    calibration: Calibration


def add_committee(
    name: str, frames: Sequence, origin: str, out: Path, head: str | None, members: int, most: int, seed: int,
    progress: Callable,
) -> Added:  # fmt: skip
    """Weights ``name`` with a committee for one head, written to ``out``; see :func:`omnicalc.committee.fit_committee`.

    Raises :class:`InputError` before anything is written.
    """
    if out.exists() and any(out.iterdir()):
        raise InputError(f"'{out}' is not empty; choose another with --out")
    folder, card = resolve(name)
    tensors = load(verified_bytes(folder, card))
    old = tensors.get("committee")
    if old is not None and old.shape[1] != members:
        raise InputError(f"{name} has committees of {old.shape[1]} already; use --members {old.shape[1]}")
    potential = load_potential(name, device="cpu", dtype="float64")
    _check_splits(frames, origin)
    parts = {}
    for split, count in _counts(most).items():
        labelled = labelled_frames(frames, split, origin)
        for k, atoms in enumerate(labelled):
            try:
                head = potential.choose_head(Systems.from_atoms(atoms), head)
            except InputError as error:
                raise InputError(f"frame {k} of those with split={split} in '{origin}': {error}") from None
        parts[split] = _spaced(labelled, count)
    draws, calibration = fit_committee(potential, head, parts["train"], parts["valid"], members, seed, progress)
    shape = (len(card.heads), *draws.shape)
    table = old.clone() if old is not None else torch.zeros(shape, dtype=next(iter(tensors.values())).dtype)
    table[[h.name for h in card.heads].index(head)] = draws.to(table.dtype)
    weights = save({**{k: t.contiguous() for k, t in tensors.items()}, "committee": table})
    numbers = calibration.to_dict()
    limit = round(float(_UNLIKE * np.quantile(calibration.spread, 0.999)), 3)
    replay = replay_of(folder, card)
    training = {key: value for key, value in card.training.items() if key != SHARED}  # the frames go along
    training = {**training, "uncertainty_limit": max(limit, card.training.get("uncertainty_limit", 0.0))}
    measured = {f"spread_{k}": v for k, v in numbers.items()}
    accuracy = {**card.accuracy, head: {**card.accuracy.get(head, {}), **measured}}
    card = replace(
        card,
        sha256=hashlib.sha256(weights).hexdigest(),
        config={**card.config, "committee": members},
        training=training,
        accuracy=accuracy,
    )
    with made_folder(out):
        write_atomically(out / WEIGHTS, lambda temporary: temporary.write_bytes(weights))
        write_card(out / CARD, card)
        if (known := folder / KNOWN).is_file():
            shutil.copyfile(known, out / KNOWN)
        if replay is not None:
            shutil.copyfile(replay, out / REPLAY)
        draw_calibration(calibration, out / "calibration.png", f"{head}: ")
    return Added(head, len(parts["train"]), calibration)


def _check_splits(frames: Sequence, origin: str) -> None:
    found = {str(frames[k].info.get("split")) for k in range(len(frames))}
    missing = [split for split in ("train", "valid") if split not in found]
    if missing:
        raise InputError(
            f"no frame of '{origin}' has the key split={missing[0]}; a committee is drawn on frames that the weights "
            "were trained on (split=train), and its spread is scaled on others (split=valid)"
        )


def _counts(most: int) -> dict[str, int]:
    return {"train": most, "valid": _MOST_VALID}


def _spaced(frames: list, count: int) -> list:
    if len(frames) <= count:
        return frames
    return [frames[k * len(frames) // count] for k in range(count)]
