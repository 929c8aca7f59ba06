"""Published UBio-MolFM configs and state dicts (release V1/V1.5) as our :class:`E2Former`, strictly.

Tensor names on the left of the tables are facts of the release. Tensors that never reach its output are dropped and
listed in ``DEAD``; constants that we build ourselves are listed in ``CONSTANT``.
"""

import re

from torch import Tensor

from omnicalc.errors import WeightsError
from omnicalc.models.e2former.config import E2FormerConfig
from omnicalc.models.e2former.model import E2Former

DEAD = (
    r"decoder\.embedding\.weight",
    r"decoder\.unifiedtokentoembedding\..*",
    r"decoder\.decoder\.default_node_embedding\..*",
    r"decoder\.decoder\.heads2basis\..*",
    r"decoder\.decoder\.edge_deg_embed_dense\.(proj\..*|sph\.W)",
    r".*\.f_linear\..*",
)
CONSTANT = (
    r".*\.(expand_index|balance_degree_weight|path_norm|selected_idx|CG_weight|sum_vec)",
    r"decoder\.decoder\.Jd_list\.\d+",
    r"decoder\.decoder\.rbf(_long)?\.offset",
)
_RENAME = (  # applied in order; every pattern is tried
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
    with the network's under ``backbone_config``; ``tensors`` its state dict by released names. Energies come without
    reference energies.

    Raises:
        WeightsError: unsupported setting, or missing, unexpected and mis-shaped tensors (all of them named).
    """
    model = E2Former(_translate(config)).double()
    state = {_rename(k): v for k, v in tensors.items() if not _matches(k, DEAD + CONSTANT)}
    if config["backbone_config"].get("with_cluster") and "node" in str(config["backbone_config"]["with_cluster"]):
        state = {k: v for k, v in state.items() if not k.startswith("norm_final.")}  # unused by the release there
    wanted = model.state_dict()
    for key in ("attention.query.first.bias", "attention.key.first.bias"):
        state = {k: v.reshape(-1) if k.endswith(key) else v for k, v in state.items()}
    _check(state, wanted)
    model.load_state_dict({k: v.double() for k, v in state.items()}, strict=True)
    return model


def _rename(key: str) -> str:
    for pattern, replacement in _RENAME:
        key = re.sub(pattern, replacement, key)
    # radial networks: the first layer is kept apart, the rest is numbered from its norm
    shift = re.search(r"\.net\.(\d)\.", key)
    return key.replace(shift[0], f".rest.{int(shift[1]) - 1}.") if shift else key


def _matches(key: str, patterns: tuple[str, ...]) -> bool:
    return any(re.fullmatch(p, key) for p in patterns)


def _check(state: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    problems = [f"missing {k} {tuple(wanted[k].shape)}" for k in sorted(wanted.keys() - state.keys())]
    problems += [f"unexpected {k} {tuple(state[k].shape)}" for k in sorted(state.keys() - wanted.keys())]
    problems += [
        f"{k} has shape {tuple(state[k].shape)}, the config asks for {tuple(wanted[k].shape)}"
        for k in sorted(wanted.keys() & state.keys())
        if wanted[k].shape != state[k].shape
    ]
    if problems:
        raise WeightsError("published tensors do not fit the config; nothing was loaded:\n  " + "\n  ".join(problems))


def _translate(config: dict) -> E2FormerConfig:
    b = config["backbone_config"]
    gates = {"QK_alpha": "qk", "QKdot_alpha": "qkdot", "QKdotS_alpha": "qkdots"}
    prefix, *suffixes = b["tp_type"].split("+")
    _supported("tp_type", prefix, gates)
    weights = next((w for w in ("softplus", "sigmoid") if w in suffixes), "softmax")
    _supported("basis_type", b.get("basis_type", "gaussiansmear"), ("gaussiansmear",))
    _supported("norm_layer", b.get("norm_layer", "rms_norm_sh"), ("rms_norm_sh", "rms_norm_sh_BL"))
    _supported("ffn_type", b.get("ffn_type", "default"), ("s3", "default"))
    with_moe = str(config.get("with_moe") or "None")
    _supported("with_moe", with_moe, ("None", "False", "painn"))
    direct = "painn" if with_moe == "painn" else "linear"
    multiplicities = [int(m) for m in re.findall(r"(\d+)x\d+e", b["irreps_node_embedding"])]
    cluster = str(b.get("with_cluster", False))
    _supported("with_cluster", "node" if "node" in cluster else cluster, ("False", "None", "node"))
    long = "node" in cluster
    cap = b.get("max_neighbors", 32)
    cap = None if str(cap) == "None" else int(cap)
    return E2FormerConfig(
        heads=tuple(name.strip() for name in config["dataset_name_list"].split(",")),
        channels=multiplicities[0],
        l_max=len(multiplicities) - 1,
        layers=b["num_layers"],
        attention_heads=b["num_attn_heads"],
        query_width=b["attn_scalar_head"],
        value_multiplicity=int(re.match(r"\d+", b["irreps_head"])[0]),
        cutoff=float(b["max_radius"]),
        max_neighbors=cap,
        basis="gaussian",
        n_basis=b["number_of_basis"],
        radial="per-block",
        embedding_layernorm="wolayernorm" not in b.get("edge_embedtype", "default"),
        gate=gates[prefix],
        weights=weights,
        values=_values(b.get("attn_type", "so2-first-order"), b["num_layers"]),
        mirror_symmetric=False,
        type_embedding=False,
        system_input="charge-spin",
        forces="gradient" if config.get("AutoGradForce", True) else direct,
        long_layers=b.get("long_range_layers", 2) if long else 0,
        long_lower=float(b.get("long_cutoff_lower", 0.1)),
        long_upper=float(b.get("long_cutoff_upper", 12.0)),
        long_envelope="bell" if "bell" in cluster else "poly7",
        long_max_neighbors=None if cap is None else int(2.5 * cap),
        image_limit=b.get("pbc_expanded_num_cell_per_direction", 4),
    )


def _values(attn_type: str, layers: int) -> tuple[str, ...]:
    """ "A+B" uses A in the first half of the layers and B in the rest."""
    names = {"so2-first-order": "first-order", "zero-order": "zero-order"}
    parts = attn_type.split("+")
    for part in parts:
        _supported("attn_type", part, names)
    first = layers if len(parts) == 1 else layers // 2
    return tuple(names[parts[0] if k < first else parts[-1]] for k in range(layers))


def _supported(key: str, value, allowed) -> None:
    if value not in allowed:
        raise WeightsError(f"published {key} '{value}' is not supported; supported: {', '.join(allowed)}")
