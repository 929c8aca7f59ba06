"""How far a network is from rotation equivariance: released checkpoints are not, by design of their vector norm."""

from dataclasses import dataclass

import numpy as np
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from omnicalc.models.graph import Graph
from omnicalc.models.scd.model import SCD
from omnicalc.neighbors import neighbors
from omnicalc.systems import Systems


@dataclass(frozen=True)
class EquivarianceError:
    """Largest deviation over random rotations, relative to the largest value of the same kind; 0 is equivariant."""

    embedding: float  # of the pooled embedding, which must not change
    noise: float  # of the denoising vectors, which must turn along
    value: float  # of the scalar heads' sums, which must not change

    @property
    def worst(self) -> float:
        return max(self.embedding, self.noise, self.value)


def equivariance_error(model: SCD, systems: Systems, *, rotations: int = 4, seed: int = 0) -> EquivarianceError:
    """Turn all structures ``rotations`` times and compare; in the dtype of the model, in evaluation mode."""
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            first = _outputs(model, systems, np.eye(3))
            turned = [
                _outputs(model, systems, Rotation.random(random_state=seed + k).as_matrix()) for k in range(rotations)
            ]
    finally:
        model.train(training)
    worst = [max(float((t[k] - first[k]).abs().max()) for t in turned) for k in range(3)]
    scale = [float(value.abs().max()) or 1.0 for value in first]
    return EquivarianceError(*(w / s for w, s in zip(worst, scale, strict=True)))


def _outputs(model: SCD, systems: Systems, matrix: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
    """Embedding, noise turned back, and values, with positions and cells turned by ``matrix``."""
    turn = torch.from_numpy(matrix)
    moved = Systems(**{**vars(systems), "positions": systems.positions @ turn.T, "cell": systems.cell @ turn.T})
    found = neighbors(moved, model.cutoff)
    vectors = found.vectors(moved.positions, moved.cell, moved.system).to(model.std.dtype)
    graph = Graph.build(moved, found, vectors, torch.zeros(moved.n_systems, dtype=torch.int64))
    edges = model.edges(graph)
    x, v = model.features(edges)
    values = model.shares(x, model.atom_outputs(x, v, graph.head[graph.system]), edges)
    noise = model.noise_head(x, v)[1].double() @ turn
    pooled = model.embedding_head(x, graph.system, edges.n_systems)
    return pooled, noise, values.new_zeros(edges.n_systems).index_add(0, graph.system, values)
