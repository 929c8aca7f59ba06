"""What frozen features know of properties: kernel ridge regression on what pretrained weights say of a structure.

    python -m analysis.scd.probe scd_study/pretrain-scd/weights molecules_xtb.extxyz data/molecules-dft.extxyz.gz \
        --target gap --target dipole_moment --target gap_dft --target dipole_moment_dft

Features are the pooled embedding, and the mean over atoms of scalars and lengths of vectors without a condition; beside
them the latter of random weights. Frames are split as in the study beside; width and ridge are those with the least
error on the validation molecules. Prints mean absolute errors on the test molecules.
"""

from itertools import product
from pathlib import Path

import click
import numpy as np
import torch
from ase import Atoms

from analysis.scd.study import few_labels, splits, with_target
from omnicalc import load_potential
from omnicalc.data.readers import open_frames
from omnicalc.embedding import embed, untrained_twin
from omnicalc.potential import Potential
from omnicalc.systems import Systems
from omnicalc.training.denoising import graph_of

WIDTHS, RIDGES = (0.03, 0.1, 0.3, 1.0), (1e-4, 1e-3, 1e-2, 1e-1)
BATCH = 64  # structures


def atoms_mean(frames: list[Atoms], potential: Potential) -> np.ndarray:
    """(S, 2 C): scalars and lengths of vectors, averaged over the atoms of each structure."""
    network, found = potential.model.eval(), []
    with torch.no_grad():
        for first in range(0, len(frames), BATCH):
            systems = Systems.from_atoms(frames[first : first + BATCH])
            x, v = network.node_features(graph_of(network, systems, torch.zeros_like(systems.positions)), None)
            rows = torch.cat([x, v.square().sum(1).sqrt()], 1)
            total = rows.new_zeros(systems.n_systems, rows.shape[1]).index_add(0, systems.system, rows)
            found.append(total / systems.counts[:, None])
    return torch.cat(found).double().numpy()


def ridge_error(features: list[np.ndarray], labels: list[np.ndarray]) -> float:
    """Mean absolute error on the last of three parts, trained on the first, settings chosen on the second."""
    centre, spread = features[0].mean(0), features[0].std(0) + 1e-9
    train, valid, test = ((f - centre) / spread for f in features)
    mean, best = labels[0].mean(), (np.inf, np.inf)
    for width, ridge in product(WIDTHS, RIDGES):
        kernel = _kernel(train, train, width)
        weights = np.linalg.solve(kernel + ridge * np.eye(len(kernel)), labels[0] - mean)
        errors = [
            float(np.abs(_kernel(part, train, width) @ weights + mean - wanted).mean())
            for part, wanted in ((valid, labels[1]), (test, labels[2]))
        ]
        best = min(best, tuple(errors))
    return best[1]


def _kernel(a: np.ndarray, b: np.ndarray, width: float) -> np.ndarray:
    squares = (a * a).sum(1)[:, None] + (b * b).sum(1) - 2 * a @ b.T
    return np.exp(-width / a.shape[1] * np.maximum(squares, 0.0))


@click.command()
@click.argument("weights")
@click.argument("labelled", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--target", "targets", multiple=True, default=("gap", "dipole_moment"), show_default=True)
def main(weights, labelled, targets):
    """Kernel ridge regression of properties of LABELLED molecules on features of pretrained WEIGHTS."""
    potential = load_potential(weights)
    parts = splits([a for file in labelled for a in open_frames(file)])
    for target in targets:
        few_labels(parts["pool"], target, 1)  # refuses a target that no frame has
    twin = untrained_twin(potential)
    kinds = {
        "random weights": lambda frames: atoms_mean(frames, twin),
        "mean over atoms": lambda frames: atoms_mean(frames, potential),
        "embedding": lambda frames: embed(frames, potential),
    }
    for name, features in kinds.items():
        errors = []
        for target in targets:
            chosen = [with_target(parts[key], target) for key in ("pool", "valid", "test")]
            labels = [np.array([a.info[target] for a in part]) for part in chosen]
            errors.append(ridge_error([features(part) for part in chosen], labels))
        click.echo(f"{name:<16}" + "".join(f"  {t} {e:.3f}" for t, e in zip(targets, errors, strict=True)))


if __name__ == "__main__":
    main()
