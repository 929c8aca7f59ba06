"""What a model says of a batch, differentiable in its parameters: the one way in which every family is trained."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from omnicalc.gradients import geometry, stress_of
from omnicalc.training.example import Batch


@dataclass(frozen=True)
class Prediction:
    """Float64, without reference energies."""

    energy: Tensor  # (S,) eV
    forces: Tensor | None  # (N, 3) eV/Å
    stress: Tensor | None  # (S, 3, 3) eV/Å^3, NaN for cells without volume


def predict(
    model: nn.Module, batch: Batch, *, forces: bool = True, stress: bool = False, create_graph: bool = False
) -> Prediction:
    """Energies and, on request, forces and stress of a batch: gradients of the energy, or the model's direct forces.

    ``create_graph``: keep what a further derivative by the parameters needs; otherwise results are detached.
    """
    dtype = next(model.parameters()).dtype
    gradients = model.conservative and forces or stress
    with torch.set_grad_enabled(gradients or create_graph):
        at = geometry(model, batch.systems, batch.neighbors, dtype, gradients)
        output = model(at.graph(batch.head))
        energies = output.energies.double()
        energy = energies.new_zeros(batch.systems.n_systems).index_add(0, batch.systems.system, energies)
        found, virial = None, None
        if gradients:
            found, virial = at.derivatives(energy, virial=stress, create_graph=create_graph)
        if not model.conservative:
            found = output.forces.double()
    tension = stress_of(virial, batch.systems) if stress else None
    result = Prediction(energy, found if forces else None, tension)
    return result if create_graph else Prediction(*(None if t is None else t.detach() for t in vars(result).values()))
