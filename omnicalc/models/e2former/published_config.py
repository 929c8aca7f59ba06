"""Settings of a published UBio-MolFM config, read strictly into ours.

The release ignores settings that it does not know and loads tensors that do not fit in silence; here a setting that
changes what is computed is either understood or refused. Names on the left are facts of the release.
"""

import re

from omnicalc.errors import WeightsError
from omnicalc.models.e2former.config import E2FormerConfig

GATES = {"QK_alpha": "qk", "QKdot_alpha": "qkdot", "QKdotS_alpha": "qkdots"}
WEIGHTS = ("softplus", "sigmoid")  # suffixes of tp_type; softmax without one
VALUES = {"so2-first-order": "first-order", "zero-order": "zero-order"}
_KERNELS = ("triton",)  # a suffix that chooses kernels, not arithmetic
_NO_CLUSTER = ("False", "false", "0", "None", "none")
_RENAMED = ("svp-enhance", "tzvpd-small", "tzvpd-forceatomfilter")  # data sets that are predicted by head "tzvpd"


def translate(config: dict) -> E2FormerConfig:
    """Our settings for a published config: flat top-level settings with the network's under ``backbone_config``.

    Raises:
        WeightsError: a setting that is missing, is not of its type, or is not supported.
    """
    b = backbone(config)
    gate, weights = _tp_type(_text(b, "tp_type"))
    _supported("loss_unit", str(config.get("loss_unit", "ev")).lower(), ("ev",))  # the unit it predicts in
    _supported("encoder", b.get("encoder", "default"), ("default",))
    _supported("basis_type", b.get("basis_type", "gaussiansmear"), ("gaussiansmear",))
    _supported("norm_layer", b.get("norm_layer", "rms_norm_sh"), ("rms_norm_sh", "rms_norm_sh_BL"))
    _supported("ffn_type", b.get("ffn_type", "default"), ("s3", "default"))
    with_moe = str(config.get("with_moe") or "None")
    _supported("with_moe", with_moe, ("None", "False", "painn"))
    direct = "painn" if with_moe == "painn" else "linear"
    channels, l_max = _irreps(_text(b, "irreps_node_embedding"))
    cluster = str(b.get("with_cluster", False))
    long = has_long_range(config)
    _supported("with_cluster", "node" if long else cluster, (*_NO_CLUSTER, "node"))
    cap = _cap(b)
    layers = _whole(b, "num_layers")
    lower = _number(b, "long_cutoff_lower", 0.1) if long or b.get("long_cutoff_lower") else 0.1
    return E2FormerConfig(
        heads=(*network_heads(config), *aliases(config)),
        channels=channels,
        l_max=l_max,
        layers=layers,
        attention_heads=_whole(b, "num_attn_heads"),
        query_width=_whole(b, "attn_scalar_head"),
        value_multiplicity=_irreps(_text(b, "irreps_head"))[0],
        cutoff=_number(b, "max_radius"),
        max_neighbors=cap,
        basis="gaussian",
        n_basis=_whole(b, "number_of_basis"),
        radial="per-block",
        embedding_layernorm="wolayernorm" not in str(b.get("edge_embedtype", "default")),
        gate=gate,
        weights=weights,
        values=_values(str(b.get("attn_type", "so2-first-order")), layers),
        mirror_symmetric=False,
        type_embedding=False,
        system_input="charge-spin",
        embedding_scale=_number(b, "avg_degree", 23.01),
        forces="gradient" if _gradient_forces(config) else direct,
        long_layers=_whole(b, "long_range_layers", 2) if long else 0,
        long_lower=lower,
        long_upper=_number(b, "long_cutoff_upper", 12.0),
        long_envelope="bell" if "bell" in cluster else "poly7",
        long_max_neighbors=None if cap is None else int(2.5 * cap),
        image_limit=_whole(b, "pbc_expanded_num_cell_per_direction", 4),
    )


def backbone(config: dict) -> dict:
    """The network's settings. Raises :class:`WeightsError` for a config of another form or another network."""
    if not isinstance(config, dict):
        raise WeightsError("published config: a table of settings is needed, as in the config.yaml beside the weights")
    if "defaults" in config and not isinstance(config.get("backbone_config"), dict):
        raise WeightsError(
            "published config: this is the file that composes training settings ('defaults'); the flat config.yaml "
            "beside the published weights is needed"
        )
    b = config.get("backbone_config")
    if not isinstance(b, dict):
        raise WeightsError("published config: the table 'backbone_config' is missing")
    _supported("backbone", config.get("backbone", "e2former"), ("e2former",))
    if b.get("name") == "e2formerv2":
        raise WeightsError(
            "published backbone name 'e2formerv2' is not supported: that branch has another envelope and another "
            "meaning of ffn_type 'default', for tensors of the same names. If these are weights of release V1 or V1.5, "
            "write name: e2former into the config"
        )
    _supported("backbone name", b.get("name", "e2former"), ("e2former",))
    return b


def has_long_range(config: dict) -> bool:
    """Whether the network has long-range "node" blocks."""
    return "node" in str(backbone(config).get("with_cluster", False))


def network_heads(config: dict) -> tuple[str, ...]:
    """Heads that have tensors: one for each data set trained on, after the release's renaming."""
    rename = _renaming(config)
    return tuple(dict.fromkeys(rename.get(name, name) for name in _data_names(config)))


def aliases(config: dict) -> dict[str, str]:
    """Data-set names that the release predicts with another data set's head: name -> head that has the tensors."""
    heads = network_heads(config)
    return {name: head for name, head in _renaming(config).items() if head in heads}


def _renaming(config: dict) -> dict[str, str]:
    if "share" in str(config.get("head_cfg_str") or ""):
        return dict.fromkeys(("tzvpd", *_RENAMED), "omol25")
    return dict.fromkeys(_RENAMED, "tzvpd")


def _data_names(config: dict) -> list[str]:
    given = config.get("dataset_name_list")
    names = [name.strip() for name in given.split(",")] if isinstance(given, str) else []
    if not names or not all(names):
        raise WeightsError(
            f"published config: dataset_name_list = {given!r}: names of heads with commas between them are needed, as "
            "in omol25,svp"
        )
    return names


def _tp_type(text: str) -> tuple[str, str]:
    """Our gate and weights for the release's "gate[+suffix...]"."""
    prefix, *suffixes = text.split("+")
    _supported("tp_type", prefix, GATES)
    for suffix in suffixes:
        _supported("suffix of tp_type", suffix, (*WEIGHTS, *_KERNELS))
    weights = [suffix for suffix in dict.fromkeys(suffixes) if suffix in WEIGHTS]
    if len(weights) > 1:
        raise WeightsError(f"published tp_type '{text}' is not supported: one of {' and '.join(weights)} can be")
    return GATES[prefix], weights[0] if weights else "softmax"


def _irreps(text: str) -> tuple[int, int]:
    """Multiplicity and largest degree of irreps such as "256x0e+256x1e+256x2e"."""
    parts = [re.fullmatch(r"\s*(\d+)x(\d+)e\s*", part) for part in text.split("+")]
    if not all(parts) or len({part[1] for part in parts}) > 1 or [int(p[2]) for p in parts] != list(range(len(parts))):
        raise WeightsError(
            f"published irreps '{text}' are not supported; one multiplicity for all degrees from 0 on is needed, "
            "as in 256x0e+256x1e+256x2e"
        )
    return int(parts[0][1]), len(parts) - 1


def _gradient_forces(config: dict) -> bool:
    value = config.get("AutoGradForce", True)
    if type(value) is not bool:
        raise WeightsError(f"published config: AutoGradForce = {value!r}: true or false is needed")
    return value


def _cap(b: dict) -> int | None:
    value = _given(b, "max_neighbors")
    return None if value is None or str(value) == "None" else _whole(b, "max_neighbors")


def _values(attn_type: str, layers: int) -> tuple[str, ...]:
    """ "A+B" uses A in the first half of the layers and B in the rest."""
    parts = attn_type.split("+")
    for part in parts:
        _supported("attn_type", part, VALUES)
    if len(parts) > 2:
        raise WeightsError(f"published attn_type '{attn_type}' is not supported; one kind, or two with '+' between, is")
    first = layers if len(parts) == 1 else layers // 2
    return tuple(VALUES[parts[0] if k < first else parts[-1]] for k in range(layers))


def _given(b: dict, key: str):
    if key not in b:
        raise WeightsError(f"published config: backbone_config lacks '{key}'")
    return b[key]


def _text(b: dict, key: str) -> str:
    value = _given(b, key)
    if not isinstance(value, str):
        raise WeightsError(f"published config: {key} = {value!r}: a text is needed")
    return value


def _whole(b: dict, key: str, default: int | None = None) -> int:
    value = _given(b, key) if default is None else b.get(key, default)
    if type(value) is not int or value < 1:
        raise WeightsError(f"published config: {key} = {value!r}: a whole number above zero is needed")
    return value


def _number(b: dict, key: str, default: float | None = None) -> float:
    value = _given(b, key) if default is None else b.get(key, default)
    if type(value) not in (int, float) or not 0 < value < float("inf"):
        raise WeightsError(f"published config: {key} = {value!r}: a number above zero is needed")
    return float(value)


def _supported(key: str, value, allowed) -> None:
    if value not in allowed:
        raise WeightsError(f"published {key} '{value}' is not supported; supported: {', '.join(allowed)}")
