"""Published ATOM settings and state dicts as our :class:`Atom`, strictly.

Names on the left of the tables are facts of the release.
"""

import re

from torch import Tensor

from omnicalc.errors import WeightsError
from omnicalc.models.atom.config import AtomConfig
from omnicalc.models.atom.model import Atom
from omnicalc.models.published_tensors import MISSHAPEN, UNEXPECTED, misfits, refuse, renamed

_PLAIN = {  # published setting -> ours, with the same value
    "lifting_dim": "width",
    "num_layers": "layers",
    "num_heads": "attention_heads",
    "output_heads": "output_heads",
    "num_timesteps": "frames",
    "rrwp_length": "rrwp",
    "norm": "norm",
    "activation": "activation",
    "use_rope": "rope",
    "rope_base": "rope_base",
    "use_spherical_harmonics": "harmonics",
    "learnable_attention_denom": "learnable_denominator",
    "delta_update": "displacement",
}
_VALUES = {
    "heterogenous_attention_type": ("attention", {"ghca": "heterogeneous", "self": "self"}),
    "equivariant_lifting_type": (
        "lifting",
        {"equivariant": "tensor-product", "no_tensor_product": "linear", "none": "affine"},
    ),
    "value_residual_type": ("value_residual", {"learnable": "learnable", "none": "none", "fixed": "none"}),
}
_TYPES = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
_CONSTANT = re.compile(r".*\.output_mask|(lifting_layers|projection_layers?)\..*bias|.*rotary.*|.*\.freqs")
_RENAME = (
    (r"^lifting_layers\.x_0\.", "lifting.positions."),
    (r"^lifting_layers\.v_0\.", "lifting.velocities."),
    (r"^lifting_layers\.vz_0\.", "lifting.moving."),
    (r"^lifting_layers\.concatenated_features\.", "lifting.features."),
    (r"^transformer_blocks\.", "blocks."),
    (r"\.lambda_v_residual$", ".mix"),
    (r"\.pre_norm\.", ".norm."),
    (r"\.ffn\.", ".feed_forward."),
    (r"^weight_pred_gate_net\.0\.", "gate."),
    (r"\.spherical_harmonics\.", ".bias."),
    (r"\.layers\.[13]\.linear_(gate|value)\.", r".activation.\1."),
    (r"\.layers\.0\.", ".linear.0."),
    (r"\.layers\.2\.", ".linear.1."),
    (r"\.layers\.5\.", ".linear.2."),
    (r"^gate\.layers\.", "gate."),
    (r"\.attention\.kv_projs\.", ".attention.key_value."),
    (r"\.attention\.out_proj\.", ".attention.out."),
    (r"\.attention\.feature_weights$", ".attention.source_weights"),
    (r"\.attention\.attention_denom$", ".attention.denominator"),
    (r"^projection_layer\.", "heads.0."),
    (r"^projection_layers\.", "heads."),
)


def from_published(config: dict, tensors: dict[str, Tensor]) -> Atom:
    """The network of a published state dict, in float64 until cast, with dropout off.

    ``config`` holds the release's settings, flat or in a table ``model``; ``tensors`` its state dict by released names,
    that of a compiled model included.

    Raises:
        WeightsError: a setting that is missing or not supported, or missing, unexpected and mis-shaped tensors, or
            copies of a shared tensor that differ (all of them named).
    """
    model = Atom(translate(config)).double()
    wanted = model.state_dict()
    state, published, problems = {}, {}, []
    for name, tensor in tensors.items():
        name = name.removeprefix("_orig_mod.")
        ours = renamed(name, _RENAME)
        if ours not in wanted and _CONSTANT.fullmatch(name):
            continue
        if not isinstance(tensor, Tensor):
            raise WeightsError(f"{name} is of type {type(tensor).__name__}, no tensor; nothing was loaded")
        if ours in state and not state[ours].equal(tensor):
            problems.append(f"{published[ours]} and {name} are one tensor in the network but differ")
        state[ours], published[ours] = tensor, name
    theirs = {"unexpected": UNEXPECTED.replace("ours", "theirs"), "misshapen": MISSHAPEN.replace("ours", "theirs")}
    refuse(problems + misfits(state, wanted, published, **theirs))
    model.load_state_dict({k: t.double() for k, t in state.items()}, strict=True)
    return model.eval()


def translate(config: dict) -> AtomConfig:
    """Our settings for the release's. Raises :class:`WeightsError` for what is missing, mistyped or not known."""
    table = config.get("model", config) if isinstance(config, dict) else None
    if not isinstance(table, dict):
        raise WeightsError("published config: a table of settings is needed, flat or in a table 'model'")
    known = {*_PLAIN, *_VALUES}
    missing, unknown = sorted(known - set(table)), sorted(set(table) - known)
    if missing or unknown:
        parts = [f"{what}: {', '.join(names)}" for what, names in (("missing", missing), ("unknown", unknown)) if names]
        raise WeightsError(f"published config: settings {'; '.join(parts)}")
    ours = {new: _typed(old, table[old], type(getattr(AtomConfig, new))) for old, new in _PLAIN.items()}
    for old, (new, values) in _VALUES.items():
        if not isinstance(table[old], str) or table[old] not in values:
            raise WeightsError(f"published config: {old} = {table[old]!r}; supported: {', '.join(values)}")
        ours[new] = values[table[old]]
    return AtomConfig(**ours)


def _typed(name: str, value: object, kind: type):
    if kind is float and type(value) is int:
        value = float(value)
    if type(value) is not kind:
        raise WeightsError(f"published config: {name} = {value!r}; {_TYPES[kind]} is needed")
    return value
