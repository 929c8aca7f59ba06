"""Does a network that was pretrained by self-conditioned denoising look at its condition?

    python -m analysis.scd.condition scd_study/pretrain-scd/weights geometries.extxyz

The mean square of predicted against normalised noise, without dropped conditions, when denoising is conditioned on the
structure's own embedding, on that of another structure, and on nothing.
"""

from collections.abc import Sequence
from pathlib import Path

import click
import torch
from ase import Atoms

from omnicalc import load_potential
from omnicalc.data.readers import open_frames
from omnicalc.errors import InputError
from omnicalc.systems import Systems
from omnicalc.training.denoising import NoiseSettings, graph_of, noise_of

OWN, OTHER, NONE = "its own embedding", "another structure's", "nothing"
AT_ONCE = 64  # structures


def losses(network, frames: Sequence[Atoms], settings: NoiseSettings, seed: int = 0) -> dict[str, float]:
    """Mean square errors over all components of ``frames``, the same noise for each condition."""
    generator, sums, atoms = torch.Generator().manual_seed(seed), dict.fromkeys((OWN, OTHER, NONE), 0.0), 0
    for k in range(0, len(frames), AT_ONCE):
        systems = Systems.from_atoms(frames[k : k + AT_ONCE])
        noise = noise_of(systems, settings.corrupt_noise, generator)
        clean = graph_of(network, systems, noise_of(systems, settings.clean_noise, generator))
        corrupted = graph_of(network, systems, noise)
        with torch.no_grad():
            own = network.embed(clean)
            target = network.noise_normalizer.normalised(noise.to(own))
            for name, condition in ((OWN, own), (OTHER, own.roll(1, 0)), (NONE, None)):
                x, v = network.node_features(corrupted, condition)
                sums[name] += float((network.noise_head(x, v)[1] - target).square().sum())
        atoms += systems.n_atoms
    return {name: total / (3 * atoms) for name, total in sums.items()}


@click.command()
@click.argument("weights", type=click.Path(path_type=Path))
@click.argument("structures", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--structures-used", "most", default=512, show_default=True, type=click.IntRange(min=2))
@click.option("--noise", default=NoiseSettings.corrupt_noise, show_default=True, help="Å")
def main(weights, structures, most, noise):
    """Of the last frames of STRUCTURES."""
    frames = list(open_frames(structures))[-most:]
    if len(frames) < 2:
        raise InputError(f"{structures} holds {len(frames)} structures; at least 2 are needed")
    network = load_potential(weights).model.eval()
    for name, loss in losses(network, frames, NoiseSettings(corrupt_noise=noise)).items():
        click.echo(f"conditioned on {name:<20} {loss:.4f}")


if __name__ == "__main__":
    main()
