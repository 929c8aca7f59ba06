"""From a published SCD training checkpoint (``last.ckpt``) to a weights folder under a name of ours, once.

The checkpoint holds the network's tensors in ``state_dict`` under ``model.`` and its settings, as far as they were
recorded, in ``hyper_parameters``; copies under ``ema_model.`` were never trained and are dropped. Both published ones
(``ct-scd-pcq``, ``ct-scd-amp``) are pretrained only: they give embeddings and denoising, and no energies. One that the
release's trainer fine-tuned (``pretraining`` is false in its settings) gives its property, in the unit of its data.
"""

from pathlib import Path

from torch import Tensor

from omnicalc.card import CardHead
from omnicalc.errors import WeightsError
from omnicalc.models.published_tensors import checked_tensors
from omnicalc.models.scd.published import HEAD, SETTINGS, from_published, without_prefix
from omnicalc.published.container import read_container
from omnicalc.published.install import Converted, Imported, Source, free_name, install
from omnicalc.published.yaml_settings import read_settings

PRETRAINED = "pretrained only, gives embeddings and denoising, no energies"
LICENCE = "MIT (as the repository of the code says)"
CITATION = ("Perez et al., Self-Conditioned Denoising for Atomistic Representation Learning (2026), arXiv:2603.17196",)
_FLAGS = {  # of the published model files, which a checkpoint may not repeat
    "scd": {"model": "CET", "vec_prenorm": True, "inv_post_norm": True, "vec_post_norm": False,
            "layernorm_on_vec": False, "num_heads": 8, "trainable_rbf": False},
    "scd_small": {"model": "CET", "vec_prenorm": True, "inv_post_norm": True, "vec_post_norm": False,
                  "layernorm_on_vec": True, "num_heads": 8, "trainable_rbf": False},
}  # fmt: skip


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
    tuned = recorded.get("pretraining") is False
    model = from_published(settings, tensors, gives="properties" if tuned else "embeddings")
    what = f"fine-tuned, gives a property ({_target(recorded)})" if tuned else PRETRAINED
    made = Converted(
        file=file,
        model=model,
        config=model.config.to_dict(),
        heads=(_head(model.config.known_rows, _target(recorded) if tuned else None),),
        charges=(0,),
        spins="ignored",
        family="scd",
        summary=f"published SCD checkpoint {file.name}: {what}",
        origin={
            "source": f"published SCD checkpoint, converted; not trained here: {what}",
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
    known = {key: recorded[key] for key in SETTINGS if recorded.get(key) is not None}
    named = {key: given[key] for key in SETTINGS if given.get(key) is not None}
    return {**flags, **known, **named, **sizes}


def _sizes(tensors: dict[str, Tensor], file: Path) -> dict:
    """Widths and numbers that the shapes tell."""
    table = _of_dimension(tensors, 2, "embedding.weight", file=file)
    basis = _of_dimension(tensors, 1, "distance_expansion.means", "distance_expansion.offset", file=file)
    layers = {key.split(".")[2] for key in tensors if key.startswith("rep_model.attention_layers.")}
    return {"emb_dim": table[1], "num_layers": len(layers), "num_rbf": basis[0], "max_z": table[0]}


def _of_dimension(tensors: dict[str, Tensor], dimension: int, *names: str, file: Path) -> tuple[int, ...]:
    """The shape of the first of the backbone's tensors ``names`` that is there."""
    names = [f"rep_model.{name}" for name in names]
    found = next((name for name in names if name in tensors), None)
    if found is None:
        raise WeightsError(f"{file}: the tensor {' or '.join(names)} is missing, so this is no SCD checkpoint")
    shape = tuple(tensors[found].shape)
    if len(shape) != dimension:
        kind = {1: "vector", 2: "matrix"}[dimension]
        raise WeightsError(f"{file}: {found} has shape {shape}, no {kind}, so this is no SCD checkpoint")
    return shape


def _target(recorded: dict) -> str:
    """What a fine-tuned network was trained on, as far as its settings say."""
    words = [str(recorded[key]) for key in ("dataset", "dataset_arg") if recorded.get(key) is not None]
    return " ".join(" ".join(words).split()) or "of data that the checkpoint does not name"


def _head(rows: int, target: str | None) -> CardHead:
    from ase.data import chemical_symbols

    return CardHead(
        name=HEAD,
        level_of_theory="none: never trained" if target is None else f"{target}, in the unit of that data",
        elements=tuple(chemical_symbols[1:rows]),
        reference_source="none",
        data="pretrained on geometries alone" if target is None else target,
        reference=dict.fromkeys(chemical_symbols[1:rows], 0.0),
    )
