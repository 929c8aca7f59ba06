"""Published AllScAIP state dicts (fairchem) as our :class:`AllScAIP`, strictly.

Tensor names on the left of the table are facts of the release. Heads go by arbitrary names there
(``output_heads.omol_energy``, ``output_heads.energyandforcehead.head``), so they are found by what they end in.
"""

import re
from collections.abc import Mapping

from torch import Tensor

from omnicalc.errors import WeightsError
from omnicalc.models.allscaip.model import AllScAIP
from omnicalc.models.allscaip.published_config import translate
from omnicalc.models.published_tensors import MISSHAPEN, misfits, refuse, renamed

_RENAME = (
    (r"^backbone\.input_block\.", "input."),
    (r"^backbone\.transformer_blocks\.", "blocks."),
    (r"^input\.atomic_embedding\.", "input.element."),
    (r"^input\.node_direction_embedding\.0\.", "input.order."),
    (r"^input\.node_norm\.", "input.norm."),
    (r"^input\.node_linear\.0\.", "input.atom."),
    (r"^input\.edge_attr_linear\.0\.", "input.edge."),
    (r"^input\.edge_feature_linear\.0\.", "input.state."),
    (r"^input\.(charge|spin)_embedding\.rand_emb\.", r"input.\1."),
    (r"^input\.charge_spin_linear\.0\.", "input.system."),
    (r"\.neighborhood_attention\.src_attn(?=[._])", ".source"),
    (r"\.neighborhood_attention\.dst_attn(?=[._])", ".target"),
    (r"\.(source|target)_norm\.", r".\1.norm."),
    (r"\.(source|target)_res_scale$", r".\1.scale"),
    (r"\.node_attention\.node_norm\.", ".nodes.norm."),
    (r"\.node_attention\.node_attn_res_scale$", ".nodes.scale"),
    (r"\.node_attention\.", ".nodes."),
    (r"\.attn_in_proj_q\.", ".query."),
    (r"\.attn_in_proj_k\.", ".key."),
    (r"\.attn_in_proj_v\.", ".value."),
    (r"\.attn_out_proj\.", ".out."),
    (r"_ffn\.ffn_norm\.", "_ffn.norm."),
    (r"_ffn\.ffn_res_scale$", "_ffn.scale"),
    (r"_ffn\.ffn\.0\.(?:0\.)?(?=weight|bias)", "_ffn.mlp.first."),
    (r"_ffn\.ffn\.1\.0\.", "_ffn.mlp.second."),
)
_HEAD = re.compile(r"(?P<head>output_heads\..+)\.(?P<kind>energy|force)_ffn\.")


def from_published(config: Mapping, tensors: Mapping[str, Tensor]) -> AllScAIP:
    """The network of published settings and tensors, in float64 until cast; energies in units of the network.

    ``config`` holds the release's settings under "backbone" (as in a checkpoint) or "model"; ``tensors`` its state
    dict by released names.

    Raises:
        WeightsError: unsupported setting, or missing, unexpected and mis-shaped tensors (all of them named).
    """
    return load_published(AllScAIP(translate(config)), tensors)


def load_published(model: AllScAIP, tensors: Mapping[str, Tensor]) -> AllScAIP:
    """``model`` with the published ``tensors``, in float64."""
    names = _our_names(tensors, model.config.heads[0])
    state = {ours: tensors[theirs] for ours, theirs in names.items()}
    lines = {"unexpected": "unexpected {shape} {theirs}", "misshapen": f"{MISSHAPEN} ({{theirs}})"}
    refuse(misfits(state, model.double().state_dict(), names, **lines))
    model.load_state_dict({key: value.double() for key, value in state.items()}, strict=True)
    return model


def _our_names(tensors: Mapping[str, Tensor], level: str) -> dict[str, str]:
    """Our name -> published name; names that fit nothing of ours stay as they are."""
    heads = {"energy": {}, "force": {}}
    for key in tensors:
        if found := _HEAD.match(key):
            heads[found["kind"]][found["head"]] = None
    for kind, prefixes in heads.items():
        if len(prefixes) > 1:
            raise WeightsError(
                f"published tensors have more than one {kind} head: {', '.join(prefixes)}; nothing was loaded"
            )
    places = {prefix: f"{kind}_heads.{level}" for kind, prefixes in heads.items() for prefix in prefixes}
    names = {}
    for key in tensors:
        ours = _rename(key, places)
        names[key if ours in names else ours] = key  # two for one place: the second is unexpected
    return names


def _rename(key: str, heads: dict[str, str]) -> str:
    for prefix, ours in heads.items():
        if key.startswith(prefix + "."):
            rest = re.sub(r"^node_norm\.", "norm.", key[len(prefix) + 1 :])
            rest = re.sub(r"^(energy|force)_ffn\.0\.(?:0\.)?(?=weight|bias)", "mlp.first.", rest)
            return f"{ours}." + re.sub(r"^(energy|force)_ffn\.1\.0\.", "mlp.second.", rest)
    return renamed(key, _RENAME)
