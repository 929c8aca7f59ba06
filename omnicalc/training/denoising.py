"""Self-conditioned denoising (arXiv:2603.17196) as a loss of any network that can be conditioned.

A network is asked for ``embed(graph)``: pooled embeddings (G, D), ``node_features(graph, condition)``: scalars (N, D)
and vectors (N, 3, D), ``noise_head(x, v)``: a pair whose second is (N, 3), ``noise_normalizer`` and ``cutoff``.
:class:`omnicalc.models.scd.SCD` is one; :class:`omnicalc.models.denoiser.Denoiser` makes one of other backbones.
"""

from dataclasses import dataclass

import numpy as np
import torch
from ase import Atoms
from torch import Tensor, nn

from omnicalc.errors import InputError
from omnicalc.gradients import geometry
from omnicalc.models.graph import Graph
from omnicalc.neighbors import neighbors
from omnicalc.systems import Systems
from omnicalc.training.cell_tiling import random_repeats, tiled


@dataclass(frozen=True)
class NoiseSettings:
    """How a batch is made noisy."""

    clean_noise: float = 0.005  # Å, of the view that is embedded
    corrupt_noise: float = 0.04  # Å, of the view that is denoised
    widest_noise: float | None = None  # Å: each structure's noise is drawn from corrupt_noise to this, log-uniformly
    self_conditioned: bool = True  # false: plain coordinate denoising, one pass
    tile_cells: bool = True  # random supercells of periodic structures
    most_atoms: int | None = None  # of a batch after tiling; structures beyond it are left out at random


@dataclass(frozen=True)
class Denoised:
    """What a denoising step found; ``prediction`` and ``target`` (N, 3) are normalised."""

    loss: Tensor  # () mean square over all components
    prediction: Tensor
    target: Tensor
    condition: Tensor | None  # (G, D), pooled embeddings of the clean pass
    system: Tensor  # (N,) of the structures that were denoised


def denoise(
    network: nn.Module, corrupted: Graph, noise: Tensor, clean: Graph | None = None, even: bool = False
) -> Denoised:
    """Predict ``noise`` (N, 3), Å, of ``corrupted`` structures, conditioned on the embeddings of the ``clean`` ones.

    Gradients pass through both passes. Without ``clean`` this is plain coordinate denoising. In training the normaliser
    sees the noise before it is used; the network drops conditions by itself. ``even``: a structure's squared errors are
    divided by the root mean square of its noise, halfway to counting all structures alike however noisy they are.
    """
    condition = None if clean is None else network.embed(clean)
    x, v = network.node_features(corrupted, condition)
    _, prediction = network.noise_head(x, v)
    normalizer, noise = network.noise_normalizer, noise.to(prediction)
    if network.training:
        normalizer.update(noise)
    target = normalizer.normalised(noise)
    square = (prediction - target).square()
    loss = (square / _rms(target, corrupted.system)).mean() if even else square.mean()
    return Denoised(loss, prediction, target, condition, corrupted.system)


def _rms(noise: Tensor, system: Tensor) -> Tensor:
    """(N, 1): over the components of each atom's structure; 1 for an atom alone, which has none."""
    mean = torch.bincount(system).to(noise).unsqueeze(1)
    mean = torch.zeros_like(mean).index_add_(0, system, noise.square().mean(1, keepdim=True)) / mean
    return torch.where(mean > 0, mean, 1.0).sqrt()[system]


def denoise_systems(
    network: nn.Module, systems: Systems, settings: NoiseSettings, generator: torch.Generator
) -> Denoised:
    """One step on a batch of structures: tiled, made noisy and denoised; the same ``generator``, the same step.

    Two independent draws make the clean and the corrupted view. Noise of molecules has no mean per structure, as in the
    release; that of crystals keeps it.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_seed(generator))  # of the draws inside the network: dropped conditions and paths
        if network.training and settings.tile_cells and bool(systems.pbc.any()):
            systems = tiled_systems(systems, settings, np.random.default_rng(_seed(generator)))
        noise = noise_of(systems, settings.corrupt_noise, generator, settings.widest_noise)
        clean = None
        if settings.self_conditioned:
            clean = graph_of(network, systems, noise_of(systems, settings.clean_noise, generator))
        even = settings.widest_noise is not None
        return denoise(network, graph_of(network, systems, noise), noise, clean, even)


def denoise_pairs(
    network: nn.Module, condition: Systems, denoised: Systems, settings: NoiseSettings, generator: torch.Generator
) -> Denoised:
    """The pocket variant: structure k of ``denoised`` on the embedding of structure k of ``condition``, which it does
    not see otherwise; for pocket and ligand, or the other way round.
    """
    if condition.n_systems != denoised.n_systems:
        raise InputError(f"{condition.n_systems} conditions given for {denoised.n_systems} structures; as many needed")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_seed(generator))
        noise = noise_of(denoised, settings.corrupt_noise, generator, settings.widest_noise)
        clean = graph_of(network, condition, noise_of(condition, settings.clean_noise, generator))
        return denoise(network, graph_of(network, denoised, noise), noise, clean, settings.widest_noise is not None)


def noise_of(systems: Systems, scale: float, generator: torch.Generator, widest: float | None = None) -> Tensor:
    """(N, 3) float64, Å; without its mean over each structure that is periodic nowhere. With ``widest`` each structure
    has a scale of its own between the two.
    """
    noise = scale * torch.randn(systems.n_atoms, 3, dtype=torch.float64, generator=generator)
    noise = noise.to(systems.device)
    if widest is not None:
        wider = (widest / scale) ** torch.rand(systems.n_systems, 1, dtype=torch.float64, generator=generator)
        noise = noise * wider.to(systems.device)[systems.system]
    mean = noise.new_zeros(systems.n_systems, 3).index_add(0, systems.system, noise) / systems.counts[:, None]
    mean = torch.where(systems.pbc.any(1, keepdim=True), 0.0, mean)
    return noise - mean[systems.system]


def graph_of(network: nn.Module, systems: Systems, displacement: Tensor) -> Graph:
    """What the network sees of ``systems`` with ``displacement`` (N, 3), Å, added."""
    moved = systems.with_positions(systems.positions + displacement)
    dtype = next(network.parameters()).dtype
    head = torch.zeros(systems.n_systems, dtype=torch.int64, device=systems.device)
    return geometry(network, moved, neighbors(moved, network.cutoff), dtype, False).graph(head)


def tiled_systems(systems: Systems, settings: NoiseSettings, rng: np.random.Generator) -> Systems:
    """Random supercells of the periodic structures, cut to ``most_atoms``; at least one structure stays."""
    frames = [tiled(a, random_repeats(len(a), a.pbc, rng)) if a.pbc.any() else a for a in systems.to_atoms()]
    if settings.most_atoms is not None:
        frames = _within(frames, settings.most_atoms, rng)
    for atoms in frames:
        atoms.info = {"charge": 0} if atoms.pbc.any() else atoms.info  # charges do not repeat with the cell
    return Systems.from_atoms(frames).to(systems.device)


def _within(frames: list[Atoms], most: int, rng: np.random.Generator) -> list[Atoms]:
    """Those of ``frames``, gone through at random, that fit into ``most`` atoms together; the smallest if none does."""
    if sum(map(len, frames)) <= most:
        return frames
    kept = []
    for k in rng.permutation(len(frames)):
        if sum(map(len, kept)) + len(frames[k]) <= most:
            kept.append(frames[k])
    return kept or [min(frames, key=len)]


def _seed(generator: torch.Generator) -> int:
    return int(torch.randint(2**62, (1,), generator=generator))
