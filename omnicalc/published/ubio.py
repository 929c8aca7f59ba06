"""Published UBio-MolFM checkpoints: a file of tensors and the flat YAML file beside it.

The checkpoint is what ``torch.save({"model": tensors, ...})`` writes. Its tensors are checked against the config by
name and shape, and renamed.
"""

from pathlib import Path

from torch import Tensor

from omnicalc.card import CardHead
from omnicalc.errors import WeightsError
from omnicalc.files import sha256_of
from omnicalc.models.e2former import E2Former, E2FormerConfig, from_published
from omnicalc.models.e2former.published import dead_tensors
from omnicalc.models.e2former.published_config import aliases
from omnicalc.models.e2former.published_references import reference_table, table_names
from omnicalc.models.e2former.smooth import changes, smoothed
from omnicalc.models.published_tensors import checked_tensors
from omnicalc.published.container import read_container
from omnicalc.published.install import UNKNOWN, Converted, Imported, Source, free_name, install
from omnicalc.published.yaml_settings import read_settings

_CHARGES, _SPINS = range(-10, 11), range(1, 21)  # rows of the release's tables that stand for one value
_LEVELS = {
    "omol25": "ωB97M-V/def2-TZVPD (OMol25)",
    "svp": "the publisher's def2-SVP data; see arXiv:2602.17709",
    "tzvpd": "the publisher's def2-TZVPD data; see arXiv:2602.17709",
    "oc20": "RPBE (OC20)",
    "oc22": "PBE+U (OC22)",
}


def import_ubio(
    file: Path,
    config_file: Path,
    name: str,
    *,
    smooth: bool = False,
    zero_references: bool = False,
    source: Source | None = None,
) -> Imported:
    """Convert a published checkpoint and its config into installed weights ``name`` ("name:tag").

    ``smooth`` takes the neighbour cap and the jump of the softmax maximum out and appends "-smooth" to the tag;
    ``zero_references`` gives heads without a table of reference energies 0 eV for every element, as the release does.

    Raises:
        WeightsError: a name that is taken, files that are not what they should be, tensors that do not fit the config.
        InputError: files that are not there, or a weights folder that cannot be written to.
    """
    wanted = free_name(name, smooth)
    config, tensors = read_settings(config_file), read_tensors(file)
    model = from_published(config, tensors)
    published, dropped = model.config, dead_tensors(config, tensors)
    used = smoothed(published) if smooth else published
    heads = _heads(config, used, zero_references)
    made = Converted(
        file=file,
        model=model,
        config=used.to_dict(),
        heads=heads,
        charges=_CHARGES,
        spins=_SPINS,
        family="e2former",
        summary=f"published UBio-MolFM checkpoint {file.name}" + (", smooth variant" if smooth else ""),
        origin={
            "source": "published UBio-MolFM checkpoint, converted; not trained here",
            "config_file": config_file.name,
            "config_sha256": sha256_of(config_file),
            "smooth": smooth,
            "dropped": dropped,
            **_images(published),
        },
        facts=({head.name: dict(head.reference) for head in heads},),
        dropped=tuple(dropped),
        rebuilt=len(tensors) - len(dropped) - _own_tensors(model, config),
        changes=tuple(changes(published)) if smooth else (),
        jumps=() if smooth else tuple(changes(published)),
    )
    return install(wanted, made, source or Source())


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors under "model" in a published checkpoint.

    Raises:
        InputError: no such file.
        WeightsError: a file that is no checkpoint, holds Python objects, or lacks the tensors.
    """
    container = read_container(path)
    if not isinstance(container, dict) or not isinstance(container.get("model"), dict):
        raise WeightsError(
            f"{path}: not a published checkpoint: 'model' with the tensors is needed, found {_found(container, path)}"
        )
    tensors = checked_tensors(container["model"], "model", path)
    for prefix in ("module.", "_orig_mod."):
        if all(name.startswith(prefix) for name in tensors):
            bare = f"{{name.removeprefix('{prefix}'): t for name, t in found['model'].items()}}"
            raise WeightsError(
                f"{path}: the names of all tensors begin with '{prefix}', which those of the release do not; take it "
                f"off, in Python: {_saved(path, bare)}"
            )
    return tensors


def _found(container: object, path: Path) -> str:
    """What is in the place of "model", and what to type where it may be the tensors."""
    if not isinstance(container, dict):
        return type(container).__name__
    if container and all(isinstance(value, Tensor) for value in container.values()):
        return f"{len(container)} tensors without it; put them there, in Python: {_saved(path, 'found')}"
    found = ", ".join(map(str, list(container)[:8]))
    inside = [key for key, value in container.items() if isinstance(value, dict) and value]
    inside = [key for key in inside if all(isinstance(value, Tensor) for value in container[key].values())]
    if len(inside) == 1:
        found += f"; if '{inside[0]}' holds them, type in Python: {_saved(path, f'found[{inside[0]!r}]')}"
    return found


def _saved(path: Path, tensors: str) -> str:
    """What to type for a file of the published form, of ``tensors`` that are in the file ``path``."""
    load = f"import torch; found = torch.load({path.name!r}, weights_only=True, map_location='cpu')"
    return f"{load}; torch.save({{'model': {tensors}}}, 'model.pt')"


def _heads(config: dict, network: E2FormerConfig, zero_references: bool) -> tuple[CardHead, ...]:
    tables = {name: reference_table(name) for name in network.heads}
    without = [name for name, table in tables.items() if table is None]
    if without and not zero_references:
        raise WeightsError(
            f"no reference energies are known for head {', '.join(without)} (there are tables for "
            f"{', '.join(table_names())}); nothing was written. With --zero-references such heads get 0 eV for every "
            "element, as in the release; their energies are then relative to free atoms nobody knows"
        )
    elsewhere = aliases(config)
    return tuple(_head(name, table, elsewhere.get(name)) for name, table in tables.items())


def _head(name: str, table, tensors_of: str | None) -> CardHead:
    from ase.data import chemical_symbols

    level = UNKNOWN if table is None else _LEVELS[table.name]
    shared = f"; predicted by the tensors of head '{tensors_of}', as in the release" if tensors_of else ""
    energies = dict.fromkeys(chemical_symbols[1:], 0.0) if table is None else dict(table.energies)
    origin = "zero: the release has no table" if table is None else f"table '{table.name}' of the UBio-MolFM release"
    return CardHead(
        name=name,
        level_of_theory=level + shared,
        elements=tuple(energies),
        reference_source=origin,
        data=UNKNOWN,
        reference=energies,
    )


def _images(published: E2FormerConfig) -> dict[str, str]:
    """What the card says of a network that sums lattice images which the release leaves out: one that cuts no lists."""
    if published.max_neighbors is not None or published.long_layers:
        return {}
    cutoff, shells = published.cutoff, published.image_limit
    return {
        "lattice_images": f"all within {cutoff:g} Å; the release stops at {shells} shells, so that its energies are "
        f"others in cells thinner than {cutoff / shells:g} Å"
    }


def _own_tensors(model: E2Former, config: dict) -> int:
    """How many tensors of the network were published: all but the copies of another head's."""
    copies = tuple(f"{kind}_heads.{name}." for name in aliases(config) for kind in ("energy", "force"))
    return sum(not key.startswith(copies) for key in model.state_dict())
