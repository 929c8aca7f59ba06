"""Published SCD settings and tensors as our :class:`SCD`, strictly.

Modules bear the tensor names of the release, so a state dict is ours but for the name of the scalar head.
"""

import re

from torch import Tensor

from omnicalc.errors import WeightsError
from omnicalc.models.published_tensors import misfits, refuse
from omnicalc.models.scd.config import SCDConfig
from omnicalc.models.scd.model import SCD

HEAD = "energy"  # our name for the one scalar head of the release
_BACKBONES = {"CET": "ct", "ET": "et", "CFrad": "cgt"}
_SAME = {  # released name -> ours, where the value is the same
    "emb_dim": "channels",
    "num_layers": "layers",
    "num_heads": "attention_heads",
    "num_rbf": "n_basis",
    "rbf_type": "basis",
    "trainable_rbf": "trainable_basis",
    "cutoff_upper": "cutoff",
    "max_z": "rows",
    "max_num_neighbors": "max_neighbors",
    "neighbor_embedding": "neighbor_embedding",
    "distance_influence": "distance_influence",
    "vector_cutoff": "vector_cutoff",
    "inv_post_norm": "scalar_post_norm",
    "vec_post_norm": "vector_post_norm",
    "p_dropcond": "condition_dropout",
    "p_droppath": "drop_path",
    "add_head_to_pred": "embedding_adds_to_energy",
    "int_emb_size": "angle_width",
    "basis_emb_size_dist": "distance_basis_width",
    "basis_emb_size_angle": "angle_basis_width",
    "basis_emb_size_torsion": "torsion_basis_width",
    "num_before_skip": "residuals_before",
    "num_after_skip": "residuals_after",
}
_FIXED = {  # settings of the release with one supported value
    "cutoff_lower": (0, 0.0),
    "activation": ("silu",),
    "attn_activation": ("silu",),
    "num_spherical": (3,),
    "num_radial": (6,),
    "envelope_exponent": (5,),
    "md17": (False,),
    "seperate_noise": (False,),
    "legacy": (False, True),
    "allow_node_mask": (False,),  # of the trainer: values of a ligand's atoms alone
    "direct_force_pred": (False,),  # of the trainer: the vector head gives forces, no noise
}
_POOLS = {"sum": "sum", "add": "sum", "mean": "mean-plus-one", "min": "min", "max": "max"}
_DEFAULTS = {  # of the release's networks, for settings that a config file leaves out
    "emb_dim": 256, "num_layers": 8, "num_heads": 8, "num_rbf": 64, "rbf_type": "expnorm", "trainable_rbf": True,
    "cutoff_upper": 5.0, "max_z": 118, "max_num_neighbors": 32, "neighbor_embedding": True,
    "distance_influence": "both", "vector_cutoff": True, "inv_post_norm": False, "vec_post_norm": False,
    "p_dropcond": 0.2, "p_droppath": 0.1, "emb_agg": "sum", "head_agg": "sum", "derivative": False,
    "layernorm_on_vec": False, "vec_prenorm": True,
}  # fmt: skip
_OF_TRAINER = ("allow_periodic", "noise_in_loader", "set_head_agg", "self_cond")  # they change the network too
_SWITCHES = (
    "trainable_rbf", "neighbor_embedding", "vector_cutoff", "inv_post_norm", "vec_post_norm", "vec_prenorm",
    "layernorm_on_vec", "derivative", "add_head_to_pred", "self_cond",
)  # fmt: skip
SETTINGS = ("model", *_SAME, *_FIXED, *_DEFAULTS, *_OF_TRAINER)  # all that are read


def from_published(config: dict, tensors: dict[str, Tensor], *, gives: str = "energies") -> SCD:
    """The network of published settings and tensors, in float64 until cast.

    ``config`` holds the settings of a released model file, ``model`` (CET, ET or CFrad) among them, either flat or
    with the others under ``model_kwargs``; ``detach_modulation`` may be added (false: exact gradient). ``tensors``
    is a state dict by released names, with or without the training checkpoint's prefix ``model.``. ``gives``:
    "embeddings" for a pretrained network, which then refuses to give energies.

    Raises:
        WeightsError: unsupported settings, or missing, unexpected and mis-shaped tensors (all of them named).
    """
    tensors = without_prefix(tensors)
    references = tensors.get("prior_model.0.atomref.weight")
    rows = references.numel() if isinstance(references, Tensor) else None
    model = SCD(translate(config, reference_rows=rows, gives=gives)).double()
    state = {re.sub(r"^scalar_head\.", f"scalar_heads.{HEAD}.", key): value for key, value in tensors.items()}
    for key in ("mean", "std"):  # of one number, or of one target, as the release takes them from its data
        if isinstance(state.get(key), Tensor) and state[key].numel() == 1:
            state[key] = state[key].reshape(())
    refuse(misfits(state, model.state_dict()))
    model.load_state_dict({key: value.double() for key, value in state.items()}, strict=True)
    return model


def without_prefix(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The network's tensors of a training checkpoint: those under ``model.``, not the copies under ``ema_model.``."""
    if not any(key.startswith("model.") for key in tensors):
        return dict(tensors)
    return {key.removeprefix("model."): value for key, value in tensors.items() if key.startswith("model.")}


def translate(config: dict, *, reference_rows: int | None = None, gives: str = "energies") -> SCDConfig:
    """Our settings for published ones. Raises :class:`WeightsError` for what is not supported."""
    given = {**config, **config.get("model_kwargs", {})}
    name = given.get("model")
    if not isinstance(name, str) or name not in _BACKBONES:
        raise WeightsError(f"model = {name!r} given; supported are {', '.join(_BACKBONES)}")
    for key, allowed in _FIXED.items():
        if given.get(key, allowed[0]) not in allowed:
            raise WeightsError(f"{key} = {given[key]!r} is not supported; {' or '.join(map(repr, allowed))} is")
    backbone = _BACKBONES[name]
    table = {**_DEFAULTS, **given}
    for key in _SWITCHES:
        if table.get(key) not in (True, False, None, "whitened" if key == "layernorm_on_vec" else None):
            raise WeightsError(f"{key} = {table[key]!r} given; true or false is needed")
    if given.get("set_head_agg") is not None:
        table["head_agg"] = given["set_head_agg"]
    if backbone == "et" or _never_truncated(given):
        table["max_num_neighbors"] = None
    for key in ("emb_agg", "head_agg"):
        if not isinstance(table[key], str) or table[key] not in _POOLS:
            raise WeightsError(f"{key} = {table[key]!r} is not supported; one of {', '.join(_POOLS)} is")
    settings = {ours: table[theirs] for theirs, ours in _SAME.items() if theirs in table}
    whitening = table["layernorm_on_vec"] not in (False, None)
    return SCDConfig(
        **settings,
        heads=(HEAD,),
        backbone=backbone,
        cutoff_power=1,
        normalise_self_images=False,
        vector_prenorm="component" if table["vec_prenorm"] else "none",
        final_whitening=whitening,
        layer_whitening=not table["derivative"],
        clamp=1e3 if backbone == "ct" else None,
        detach_modulation=bool(given.get("detach_modulation", False)),
        embedding_pool=_POOLS[table["emb_agg"]],
        energy_pool=_POOLS[table["head_agg"]],
        reference_rows=reference_rows,
        self_conditioned=gives == "properties" and backbone != "et" and bool(given.get("self_cond")),
        gives=gives,
    )


def _never_truncated(given: dict) -> bool:
    """Whether the release's trainer used its molecular neighbour search, which keeps every neighbour (and stops at
    ``max_num_neighbors`` per atom on average); the general one, for crystals too, leaves out the farther ones.
    """
    return given.get("model") == "CET" and given.get("allow_periodic") is False and not given.get("noise_in_loader")
