"""Published UBio-MolFM state dicts (release V1/V1.5) as our :class:`E2Former`, strictly.

Tensor names on the left of the tables are facts of the release. Tensors that never reach its output are dropped and
listed in ``DEAD``; constants are compared with ours (:mod:`omnicalc.models.e2former.published_constants`).
"""

import re

import torch
from torch import Tensor

from omnicalc.models.e2former.model import E2Former
from omnicalc.models.e2former.published_config import aliases, has_long_range, translate
from omnicalc.models.e2former.published_constants import CONSTANT, other_constants
from omnicalc.models.published_tensors import MISSHAPEN, UNEXPECTED, misfits, refuse, renamed

DEAD = (
    r"decoder\.embedding\.weight",
    r"decoder\.unifiedtokentoembedding\..*",
    r"decoder\.decoder\.default_node_embedding\..*",
    r"decoder\.decoder\.heads2basis\..*",
    r"decoder\.decoder\.edge_deg_embed_dense\.(proj\..*|sph\.W)",
    r".*\.f_linear\..*",
)
_RENAME = (
    (r"^decoder\.embedding_charge\.", "system_embedding.charge."),
    (r"^decoder\.embedding_multiplicity\.", "system_embedding.spin."),
    (r"^decoder\.mix_cm\.0\.", "system_embedding.mix."),
    (r"^decoder\.decoder\.", ""),
    (r"^rbf\.", "basis."),
    (r"^rbf_long\.", "long_basis."),
    (r"^pre_norm_node\.", "norm_long_in."),
    (r"^norm_cluster\.", "norm_long_out."),
    (r"^final_linear\.", "merge_long."),
    (r"^edge_deg_embed_dense\.gbf_projs\.(\d)\.", r"edge_embedding.radial.\1."),
    (r"^edge_deg_embed_dense\.(source|target)_embedding\.", r"edge_embedding.\1."),
    (r"\.norm_1\.", ".norm_attention."),
    (r"\.affine_weight$", ".gamma"),
    (r"\.affine_bias$", ".beta"),
    (r"\.ga\.(source|target)_embedding\.", r".gate.\1."),
    (r"\.ga\.fc_easy\.", ".gate.radial."),
    (r"\.ga\.rad_func_m0\.", ".gate.radial_project."),
    (r"\.ga\.fc_m0\.", ".gate.mix."),
    (r"\.ga\.dot_linear\.", ".gate.project."),
    (r"\.ga\.direction_linear\.", ".gate.direction."),
    (r"\.ga\.(query|key)_linear\.final_linear\.", r".attention.\1.mlp."),
    (r"\.ga\.(query|key)_linear\.weight2$", r".attention.\1.second.weight"),
    (r"\.ga\.(query|key)_linear\.", r".attention.\1.first."),
    (r"\.ga\.proj_value\.", ".attention.value."),
    (r"\.ga\.first_order_tp\.so2_tp\.out_linear\.", ".attention.aggregate.mix."),
    (r"\.ga\.proj_(first|zero)\.", ".attention.aggregate.project."),
    (r"\.ffn\.slinear_1\.", ".ffn.linear_in."),
    (r"\.ffn\.slinear_2\.", ".ffn.linear_out."),
    (r"\.ffn\.gate\.gates\.", ".ffn.gate."),
    (r"\.net\.0\.", ".first."),
    (r"^head\.energy_heads\.([^.]+)\.mlp\.", r"energy_heads.\1."),
    (r"^head\.force_heads\.([^.]+)\.sing_linear\.", r"force_heads.\1."),
    (r"^head\.force_heads\.([^.]+)\.output_network\.(\d)\.", r"force_heads.\1.blocks.\2."),
    (r"\.(vec[12])_proj\.", r".\1."),
    (r"\.update_net\.", ".update."),
)


def from_published(config: dict, tensors: dict[str, Tensor]) -> E2Former:
    """The network of a published checkpoint, in the dtype of float64 until cast.

    ``config`` holds the release's flat top-level settings (``dataset_name_list``, ``AutoGradForce``, ``with_moe``)
    with the network's under ``backbone_config``; ``tensors`` its state dict by released names. Names that the release
    predicts with another data set's head become heads with a copy of its tensors, so that every kernel runs them like
    any other. Energies come without reference energies.

    Raises:
        WeightsError: unsupported setting, or missing, unexpected and mis-shaped tensors (all of them named).
    """
    model = E2Former(translate(config)).double()
    unused = dead_tensors(config, tensors)
    rename = _rename if model.config.embedding_layernorm else _rename_without_layernorm
    published = {rename(k): k for k in tensors if k not in unused and not _matches(k, CONSTANT)}
    state = {ours: tensors[k] for ours, k in published.items()}
    for key in ("attention.query.first.bias", "attention.key.first.bias"):
        state = {k: v.reshape(-1) if k.endswith(key) else v for k, v in state.items()}
    copied = aliases(config)
    wanted = {k: v for k, v in model.state_dict().items() if _head(k) not in copied}
    theirs = {"unexpected": f"{UNEXPECTED} ({{theirs}})", "misshapen": f"{MISSHAPEN} ({{theirs}})"}
    refuse(
        misfits(state, wanted, published, **theirs)
        + _other_bases(model, tensors)
        + other_constants(model.config, tensors)
    )
    for alias, head in copied.items():
        state |= {k.replace(f"_heads.{head}.", f"_heads.{alias}."): v for k, v in state.items() if _head(k) == head}
    model.load_state_dict({k: v.double() for k, v in state.items()}, strict=True)
    return model


def dead_tensors(config: dict, tensors: dict[str, Tensor]) -> list[str]:
    """Published names of the tensors that never reach the output of such a network, and are not kept."""
    patterns = DEAD
    if has_long_range(config):
        patterns = (*patterns, r"decoder\.decoder\.norm_final\.affine_(weight|bias)")  # unused by the release there
    return sorted(k for k in tensors if _matches(k, patterns))


def _rename(key: str) -> str:
    key = renamed(key, _RENAME)
    # radial networks: the first layer is kept apart, the rest is numbered from its norm
    shift = re.search(r"\.net\.(\d)\.", key)
    return key.replace(shift[0], f".rest.{int(shift[1]) - 1}.") if shift else key


def _rename_without_layernorm(key: str) -> str:
    """Where the initial embedding has no norms the release numbers its layers 0, 2, 4; ours stay where they are."""
    shift = re.search(r"(\.gbf_projs\.\d\.net\.)([24])\.", key)
    return _rename(key.replace(shift[0], f"{shift[1]}{int(shift[2]) * 3 // 2}.") if shift else key)


def _matches(key: str, patterns: tuple[str, ...]) -> bool:
    return any(re.fullmatch(p, key) for p in patterns)


def _head(key: str) -> str | None:
    """The head that one of our tensors belongs to, None for the trunk."""
    found = re.match(r"(energy|force)_heads\.([^.]+)\.", key)
    return found[2] if found else None


def _other_bases(model: E2Former, tensors: dict[str, Tensor]) -> list[str]:
    """Radial grids of the release that are not the config's: the only trace of the cutoffs among the tensors."""
    problems = []
    for name, ours in (("rbf", "basis"), ("rbf_long", "long_basis")):
        grid, basis = tensors.get(f"decoder.decoder.{name}.offset"), getattr(model, ours, None)
        if grid is None or basis is None:
            continue
        reach = float(basis.offset[-1])
        rounding = torch.finfo(grid.dtype).eps if grid.is_floating_point() else 0.0  # of half precision, 1e-2 or so
        same = grid.shape == basis.offset.shape
        apart = float((grid.double() - basis.offset).abs().max()) if same else torch.inf
        if apart > max(1e-5, rounding) * reach:
            problems.append(
                f"decoder.decoder.{name}.offset has {grid.numel()} points to {float(grid.max()):g} Å, the config asks "
                f"for {basis.offset.numel()} to {reach:g} Å" + (f" (up to {apart:.2g} Å apart)" if same else "")
            )
    return problems
