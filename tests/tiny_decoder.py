"""A decoder with random weights, and molecules that shake and turn, for tests of everything around them."""

import hashlib
from pathlib import Path

import numpy as np
import torch
from ase import Atoms
from ase.build import molecule
from ase.units import fs
from safetensors.torch import save

from omnicalc.card import DECODER_CARD, WEIGHTS
from omnicalc.data.trajectories import Trajectory
from omnicalc.decoding.card import DecoderCard, write_decoder_card
from omnicalc.models.atom.physical import PhysicalAtom, PhysicalConfig

TINY = PhysicalConfig(vectors=8, scalars=16, spatial_layers=1, temporal_layers=1, radial=6, pair_width=8)


def tiny_network(seed: int = 0) -> PhysicalAtom:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = PhysicalAtom(TINY)
        torch.nn.init.normal_(network.heads.weight, std=0.03)
    return network.eval().requires_grad_(False)


def write_decoder(folder: Path, *, accuracy: dict | None = None) -> DecoderCard:
    """``model.safetensors`` and ``decoder.toml`` in ``folder``; the card."""
    network = tiny_network()
    content = save(dict(network.named_parameters()))
    card = DecoderCard(
        name="tiny",
        tag="a",
        version="1.0",
        family="atom",
        summary="untrained, for tests",
        elements=("H", "C", "N", "O"),
        horizon_fs=500.0,
        level_of_theory="none",
        dtype="float32",
        sha256=hashlib.sha256(content).hexdigest(),
        licence="MIT",
        citation=("nobody",),
        config=network.config.to_dict(),
        training={},
        accuracy={"horizons_fs": [50.0, 500.0], "rmse_A": [0.1, 0.25]} if accuracy is None else accuracy,
    )
    folder.mkdir(parents=True)
    (folder / WEIGHTS).write_bytes(content)
    write_decoder_card(folder / DECODER_CARD, card)
    return card


def moving(name: str = "CH3CH2OH", speed: float = 0.01, seed: int = 0) -> Atoms:
    """A molecule of ASE's collection with random velocities (Å/fs)."""
    atoms = molecule(name)
    atoms.set_velocities(speed * np.random.default_rng(seed).normal(size=(len(atoms), 3)) / fs)
    return atoms


def shaking(name: str, frames: int = 120, segments: int = 2, spacing: float = 2.0) -> Trajectory:
    """A molecule whose atoms swing with periods of their own while it drifts: x(-t) is as good a course as x(t)."""
    atoms, rng = molecule(name), np.random.default_rng(len(name))
    shape = (segments, 1, len(atoms), 3)
    rate, phase = 2 * np.pi / rng.uniform(20, 200, shape), rng.uniform(0, 6, shape)
    t = spacing * np.arange(frames)[None, :, None, None]
    drift = 0.001 * rng.normal(size=(segments, 1, 1, 3))
    x = atoms.positions + 0.05 * np.sin(rate * t + phase) + drift * t
    v = 0.05 * rate * np.cos(rate * t + phase) + drift
    bounds = tuple((k * frames, (k + 1) * frames) for k in range(segments))
    return Trajectory(
        name,
        atoms.numbers.astype(np.int64),
        x.reshape(-1, len(atoms), 3).astype(np.float32),
        v.reshape(-1, len(atoms), 3).astype(np.float32),
        spacing,
        bounds,
    )
