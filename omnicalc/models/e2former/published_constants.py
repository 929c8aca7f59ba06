"""Constants of the architecture that the release keeps among its tensors, and would compute with as they are in a file.

They are built here, not loaded; a file with others was made for another network.
"""

import torch
from torch import Tensor

from omnicalc.models.e2former.angular import coupling, coupling_paths, degree_of_row
from omnicalc.models.e2former.config import E2FormerConfig

CONSTANT = (
    r".*\.(expand_index|balance_degree_weight|path_norm|selected_idx|CG_weight|sum_vec)",
    r"decoder\.decoder\.Jd_list\.\d+",
    r"decoder\.decoder\.rbf(_long)?\.offset",
)
_ROUNDING = 5e-3  # of bfloat16, which a file may have been through


def other_constants(config: E2FormerConfig, tensors: dict[str, Tensor]) -> list[str]:
    """Lines about constants among published ``tensors`` that are not those of the network of ``config``."""
    ours, problems = _constants(config.l_max), []
    rotations = {f"decoder.decoder.Jd_list.{l}": (2 * l + 1, 2 * l + 1) for l in range(12)}  # no use is made of them
    for key, found in sorted(tensors.items()):
        wanted = ours.get(key.rsplit(".", 1)[-1])
        shape = rotations.get(key) if wanted is None else tuple(wanted.shape)
        if shape is not None and found.shape != shape:
            problems.append(f"{key} has shape {tuple(found.shape)}, the config asks for {shape}")
        elif wanted is not None and (found.double() - wanted).abs().max() > _ROUNDING:
            problems.append(f"{key} holds other numbers than this architecture's, and the release computes with them")
    return problems


def _constants(l_max: int) -> dict[str, Tensor]:
    """Last part of the published name -> what is there, float64."""
    degree = torch.tensor(degree_of_row(l_max))
    paths = coupling_paths(l_max, mirror_symmetric=False)
    count = torch.tensor([len(paths[l]) for l in degree.tolist()])
    rows, weights = _polar_couplings(paths)
    return {
        "expand_index": degree.double(),
        "balance_degree_weight": (1 / ((2.0 * degree + 1) * (l_max + 1))).double().unsqueeze(1),
        "path_norm": (1 / count.double().sqrt()).view(1, -1, 1),
        "selected_idx": torch.tensor(rows).double(),
        "CG_weight": torch.tensor(weights).double(),
        "sum_vec": torch.eye(l_max + 1, dtype=torch.float64)[degree],
    }


def _polar_couplings(paths: dict[int, list[int]]) -> tuple[list[int], list[float]]:
    """For a vector along y, each output (l3, path, m3): the one row of the features that it takes, and its factor."""
    rows, weights = [], []
    for l3, sources in paths.items():
        for l1 in sources:
            along = coupling(l1, l3)[:, 1]
            for column in along.unbind(1):
                m1 = int(column.abs().argmax())
                coupled = abs(column[m1]) > 1e-9  # else it is rounding
                rows.append(l1 * l1 + m1 if coupled else 0)
                weights.append(float(column[m1]) if coupled else 0.0)
    return rows, weights
