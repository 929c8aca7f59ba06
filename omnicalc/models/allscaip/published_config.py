"""Settings of a published AllScAIP model (fairchem), read strictly into ours.

The release drops settings that it does not know in silence; here a setting that changes what is computed is either
understood or refused. Names on the left are facts of the release, its spelling included. Settings that change how it
computes, not what, are known and have no effect: fusing, padding of batches, chunks, compilation.
"""

from collections.abc import Mapping

from omnicalc.errors import WeightsError
from omnicalc.models.allscaip.config import ACTIVATIONS, AllScAIPConfig
from omnicalc.models.allscaip.lone_atoms import OMOL

_NORMS = {"rmsnorm": "rms", "layernorm": "layer", "skip": "none"}
_RADIALS = {"gaussian": "gaussian", "sigmoid": "sigmoid", "linear_sigmoid": "linear_sigmoid"}
_RADIALS["linearsigmoid"] = "linear_sigmoid"  # the name in the release's type hint; its code knows the other
_DEFAULTS = {
    "activation": "gelu", "use_padding": True, "use_residual_scaling": True, "use_node_path": True,
    "knn_pad_size": 30, "knn_soft": True, "knn_sigmoid_scale": 0.2, "knn_lse_scale": 0.1, "knn_use_low_mem": True,
    "distance_function": "gaussian", "use_envelope": True, "node_direction_expansion_size": 10,
    "edge_direction_expansion_size": 6, "edge_distance_expansion_size": 512, "output_hidden_layer_multiplier": 2,
    "ffn_hidden_layer_multiplier": 2, "attn_num_freq": 32, "freequency_list": (20, 10, 4, 10, 20),
    "energy_reduce": "sum", "use_freq_mask": True, "use_sincx_mask": True, "normalization": "rmsnorm",
}  # fmt: skip
_REQUIRED = (
    "direct_forces", "hidden_size", "num_layers", "max_num_elements", "max_radius", "knn_k", "atten_num_heads",
)  # fmt: skip
_HARMLESS = {  # how, not what
    "model", "regress_forces", "regress_stress", "use_compile", "dataset_list", "single_system_no_padding",
    "max_atoms", "max_batch_size", "use_chunked_graph", "graph_chunk_size", "preprocess_on_cpu", "atten_name",
    "mlp_dropout", "atten_dropout",
    "cutoff_radius", "max_neighbors", "use_pbc", "use_pbc_single", "otf_graph", "always_use_pbc",  # dropped upstream
}  # fmt: skip


def settings(config: Mapping) -> dict:
    """The network's settings of a config: under "backbone" (a checkpoint's), "model" (golden cases'), or bare.

    Raises:
        WeightsError: a config of another form or of another network.
    """
    if not isinstance(config, Mapping):
        raise WeightsError("published AllScAIP config: a table of settings is needed, as in the checkpoint")
    table = config if "hidden_size" in config else config.get("backbone", config.get("model"))
    if not isinstance(table, Mapping):
        raise WeightsError("published AllScAIP config: the table 'backbone' with the network's settings is missing")
    name = table.get("model", "AllScAIP_backbone")
    if "allscaip" not in str(name).lower():
        raise WeightsError(f"published backbone '{name}' is not supported; AllScAIP_backbone is needed")
    return dict(table)


def translate(config: Mapping) -> AllScAIPConfig:
    """Our settings for a published config, without scale and lone atoms, which stand elsewhere in a checkpoint.

    Raises:
        WeightsError: a setting that is missing, unknown, or not supported.
    """
    given = settings(config)
    missing = [key for key in _REQUIRED if key not in given]
    unknown = sorted(set(given) - set(_DEFAULTS) - set(_REQUIRED) - _HARMLESS)
    if missing or unknown:
        parts = {"missing": missing, "unknown": unknown}
        what = "; ".join(f"{kind}: {', '.join(keys)}" for kind, keys in parts.items() if keys)
        raise WeightsError(f"published AllScAIP settings {what}")
    s = {**_DEFAULTS, **given}
    if s["distance_function"] == "silu":
        raise WeightsError(
            "published distance_function 'silu' is not supported: the release draws its weights anew at every call"
        )
    ranking = "hard" if not s["knn_soft"] else "near" if s["knn_use_low_mem"] else "all"
    return AllScAIPConfig(
        heads=(_level_name(s),),
        width=s["hidden_size"],
        layers=s["num_layers"],
        attention_heads=s["atten_num_heads"],
        activation=_one_of("activation", s, {name: name for name in ACTIVATIONS}),
        norm=_one_of("normalization", s, _NORMS),
        cutoff=s["max_radius"],
        neighbors=s["knn_k"],
        ranking=ranking,
        rank_scale=s["knn_sigmoid_scale"],
        limit_scale=s["knn_lse_scale"],
        envelope=_flag("use_envelope", s),
        max_slots=_slots(s),
        image_limit=True,
        radial=_one_of("distance_function", s, _RADIALS),
        n_radial=s["edge_distance_expansion_size"],
        direction_degrees=s["edge_direction_expansion_size"],
        order_degrees=s["node_direction_expansion_size"],
        angular=_degrees(s) if _flag("use_freq_mask", s) else (),
        sinc=s["attn_num_freq"] if _flag("use_sincx_mask", s) and _flag("use_node_path", s) else 0,
        node_attention=_flag("use_node_path", s),
        residual_scaling=_flag("use_residual_scaling", s),
        ffn_multiplier=s["ffn_hidden_layer_multiplier"],
        head_multiplier=s["output_hidden_layer_multiplier"],
        max_elements=s["max_num_elements"],
        forces="direct" if _flag("direct_forces", s) else "gradient",
        reduce=_one_of("energy_reduce", s, {"sum": "sum", "mean": "mean"}),
    )


def _level_name(s: dict) -> str:
    """The data set's name, which stands for its level of theory: the list names data, and chooses nothing."""
    given = s.get("dataset_list") or [OMOL]
    names = [given] if isinstance(given, str) else given
    if not isinstance(names, (list, tuple)) or not all(isinstance(name, str) for name in names):
        raise WeightsError(f"published dataset_list = {given!r}: a list of names is needed, as in ['{OMOL}']")
    return OMOL if OMOL in names else names[0]


def _slots(s: dict) -> int | None:
    """Slots for an atom's neighbours; None: as many as it has."""
    if not _flag("use_padding", s):
        return None
    if s["knn_pad_size"] is None:
        raise WeightsError("published knn_pad_size = None with use_padding = true: a whole number of slots is needed")
    return s["knn_pad_size"]


def _degrees(s: dict) -> tuple[int, ...]:
    given = s["freequency_list"]
    if not isinstance(given, (list, tuple)) or not given or not all(type(n) is int for n in given):
        raise WeightsError(
            f"published freequency_list = {given!r} with use_freq_mask = true: whole numbers are needed, as in "
            f"{list(_DEFAULTS['freequency_list'])}"
        )
    return tuple(given)


def _flag(key: str, s: dict) -> bool:
    if type(s[key]) is not bool:
        raise WeightsError(f"published {key} = {s[key]!r}: true or false is needed")
    return s[key]


def _one_of(key: str, s: dict, allowed: dict):
    if s[key] not in allowed:
        raise WeightsError(f"published {key} '{s[key]}' is not supported; supported: {', '.join(allowed)}")
    return allowed[s[key]]
