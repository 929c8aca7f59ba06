"""From a published SCD training checkpoint (``last.ckpt``) to a weights folder under a name of ours, once.

The checkpoint holds the network's tensors in ``state_dict`` under ``model.`` and its settings, as far as they were
recorded, in ``hyper_parameters``; copies under ``ema_model.`` were never trained and are dropped. Both published ones
(``ct-scd-pcq``, ``ct-scd-amp``) are pretrained only: they give embeddings and denoising, and no energies.
"""

from pathlib import Path

from torch import Tensor

from omnicalc.card import CardHead
from omnicalc.errors import WeightsError
from omnicalc.models.published_tensors import checked_tensors
from omnicalc.models.scd.published import HEAD, from_published, without_prefix
from omnicalc.published.container import read_container
from omnicalc.published.install import Converted, Imported, Source, free_name, install
from omnicalc.published.yaml_settings import read_settings

LICENCE = "MIT (as the repository of the code says)"
CITATION = ("Perez et al., Self-Conditioned Denoising for Atomistic Representation Learning (2026), arXiv:2603.17196",)
_FLAGS = {  # of the published model files, which a checkpoint may not repeat
    "scd": {"model": "CET", "vec_prenorm": True, "inv_post_norm": True, "vec_post_norm": False,
            "layernorm_on_vec": False, "num_heads": 8},
    "scd_small": {"model": "CET", "vec_prenorm": True, "inv_post_norm": True, "vec_post_norm": False,
                  "layernorm_on_vec": True, "num_heads": 8},
}  # fmt: skip
_SETTINGS = (
    "model", "num_heads", "rbf_type", "trainable_rbf", "cutoff_upper", "cutoff_lower", "max_num_neighbors",
    "distance_influence", "activation", "derivative", "layernorm_on_vec", "p_dropcond", "p_droppath", "inv_post_norm",
    "vec_post_norm", "vec_prenorm", "emb_agg", "head_agg", "vector_cutoff", "add_head_to_pred",
)  # fmt: skip


def import_scd(file: Path, name: str, config_file: Path | None = None, *, source: Source | None = None) -> Imported:
    """Convert a published checkpoint into installed weights ``name`` ("name:tag").

    ``config_file``: a published model file (``scd.yaml``) whose settings come before those of the checkpoint.

    Raises:
        WeightsError: a name that is taken, a file that is no such checkpoint, tensors that do not fit the settings.
        InputError: files that are not there, or a weights folder that cannot be written to.
    """
    wanted = free_name(name)
    container = read_container(file)
    if not isinstance(container, dict) or not isinstance(container.get("state_dict"), dict):
        raise WeightsError(f"{file}: not a published SCD checkpoint: 'state_dict' with the tensors is needed")
    every = checked_tensors(container["state_dict"], "state_dict", file)
    tensors = without_prefix(every)
    if not any(key.startswith("rep_model.") for key in tensors):
        raise WeightsError(f"{file}: 'state_dict' holds no tensors under model.rep_model, so it is no SCD checkpoint")
    given = {} if config_file is None else read_settings(config_file)
    recorded = container.get("hyper_parameters") or {}
    if not isinstance(recorded, dict):
        raise WeightsError(f"{file}: 'hyper_parameters' is a {type(recorded).__name__}; a table of settings is needed")
    settings = _settings(recorded, given, tensors, file)
    model = from_published(settings, tensors, gives="embeddings")
    made = Converted(
        file=file,
        model=model,
        config=model.config.to_dict(),
        heads=(_untrained_head(model.config.rows),),
        charges=(0,),
        spins="ignored",
        family="scd",
        summary=f"published SCD checkpoint {file.name}: pretrained only, gives embeddings and denoising, no energies",
        origin={
            "source": "published SCD checkpoint, converted; not trained here. Pretrained only: no energies",
            **{key: n if type(n := container.get(key)) is int else -1 for key in ("global_step", "epoch")},
        },
        dropped=tuple(sorted(set(every) - {f"model.{key}" for key in tensors} - set(tensors))),
    )
    return install(wanted, made, source or Source(LICENCE, CITATION))


def _settings(recorded: dict, given: dict, tensors: dict[str, Tensor], file: Path) -> dict:
    """Published settings: sizes from the tensors, flags from the model file, the checkpoint, or the published ones."""
    sizes = _sizes(tensors, file)
    flags = _FLAGS["scd_small" if sizes["emb_dim"] == 128 else "scd"]
    if isinstance(recorded.get("model_config"), str):
        flags = _FLAGS.get(Path(recorded["model_config"]).stem, flags)
    known = {key: recorded[key] for key in _SETTINGS if recorded.get(key) is not None}
    named = {key: given[key] for key in _SETTINGS if given.get(key) is not None}
    return {**flags, **known, **named, **sizes}


def _sizes(tensors: dict[str, Tensor], file: Path) -> dict:
    shapes = {}
    for name in ("rep_model.embedding.weight", "rep_model.attention_layers.0.dk_proj.weight"):
        if name not in tensors:
            raise WeightsError(f"{file}: the tensor {name} is missing, so this is no CT checkpoint")
        shapes[name] = tuple(tensors[name].shape)
        if len(shapes[name]) != 2:
            raise WeightsError(f"{file}: {name} has shape {shapes[name]}, no matrix, so this is no CT checkpoint")
    (rows, channels), (_, basis) = shapes.values()
    layers = {key.split(".")[2] for key in tensors if key.startswith("rep_model.attention_layers.")}
    return {"emb_dim": channels, "num_layers": len(layers), "num_rbf": basis, "max_z": rows}


def _untrained_head(rows: int) -> CardHead:
    from ase.data import chemical_symbols

    return CardHead(
        name=HEAD,
        level_of_theory="none: never trained",
        elements=tuple(chemical_symbols[1:rows]),
        reference_source="none",
        data="pretrained on geometries alone",
        reference=dict.fromkeys(chemical_symbols[1:rows], 0.0),
    )
