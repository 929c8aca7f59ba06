"""Self-conditioned denoising (arXiv:2603.17196) as a loss of any network that can be conditioned.

A network is asked for ``embed(graph)``: pooled embeddings (G, D), ``node_features(graph, condition)``: scalars (N, D)
and vectors (N, 3, D), ``noise_head(x, v)``: a pair whose second is (N, 3), and a ``noise_normalizer``.
:class:`omnicalc.models.scd.SCD` is one; :mod:`omnicalc.training.denoisers` makes one of other backbones.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from omnicalc.models.graph import Graph


@dataclass(frozen=True)
class Denoised:
    """What a denoising step found; ``prediction`` and ``target`` (N, 3) are normalised."""

    loss: Tensor  # () mean square over all components
    prediction: Tensor
    target: Tensor
    condition: Tensor | None  # (G, D), pooled embeddings of the clean pass

    def absolute(self) -> Tensor:
        """Mean absolute error, the figure reported on test structures."""
        return (self.prediction - self.target).abs().mean()


def denoise(network: nn.Module, corrupted: Graph, noise: Tensor, clean: Graph | None = None) -> Denoised:
    """Predict ``noise`` (N, 3), Å, of ``corrupted`` structures, conditioned on the embeddings of the ``clean`` ones.

    Gradients pass through both passes. Without ``clean`` this is plain coordinate denoising. In training the normaliser
    sees the noise before it is used; the network drops conditions by itself.
    """
    condition = None if clean is None else network.embed(clean)
    x, v = network.node_features(corrupted, condition)
    _, prediction = network.noise_head(x, v)
    normalizer = network.noise_normalizer
    if network.training:
        normalizer.update(noise)
    target = normalizer.normalised(noise)
    return Denoised(F.mse_loss(prediction, target), prediction, target, condition)


def gaussian_noise(system: Tensor, scale: float, generator: torch.Generator, *, centred: bool) -> Tensor:
    """(N, 3) float64, Å; ``centred``: without its mean per structure, as the release does for molecules."""
    noise = scale * torch.randn(len(system), 3, dtype=torch.float64, generator=generator)
    if not centred:
        return noise
    n = int(system[-1]) + 1
    mean = noise.new_zeros(n, 3).index_add(0, system, noise) / torch.bincount(system, minlength=n)[:, None]
    return noise - mean[system]
