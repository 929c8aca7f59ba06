"""From the files of a published UBio-MolFM checkpoint to a weights folder under a name of ours, once.

The checkpoint is what ``torch.save({"model": tensors, ...})`` writes, the config the flat YAML file beside it. Of the
checkpoint tensors alone are read: a file with Python objects in it is refused before any of it runs. The tensors are
checked against the config by name and shape, renamed, and kept in float32 as safetensors, with a card that says where
they came from. Nothing is written unless everything fits, and nothing that is there is overwritten.
"""

import hashlib
import json
import pickle
import re
import shutil
import warnings
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from omnicalc.card import CARD, NAME_PART, WEIGHTS, Card, CardHead, write_card
from omnicalc.decoding.weights import is_decoder
from omnicalc.errors import InputError, WeightsError
from omnicalc.files import made_folder, not_writable, sha256_of, write_atomically
from omnicalc.models.e2former import E2FormerConfig, from_published
from omnicalc.models.e2former.published import dead_tensors
from omnicalc.models.e2former.published_config import aliases
from omnicalc.models.e2former.published_references import reference_table, table_names
from omnicalc.models.e2former.smooth import changes, smoothed
from omnicalc.registry import Published, folder_name, list_models, resolve, split_name
from omnicalc.weights_home import weights_home

SMOOTH = "-smooth"  # end of the tag of smooth variants
UNKNOWN = "unknown; see the publisher"
_CHARGES, _SPINS = range(-10, 11), range(1, 21)  # rows of the release's tables that stand for one value
_LEVELS = {
    "omol25": "ωB97M-V/def2-TZVPD (OMol25)",
    "svp": "the publisher's def2-SVP data; see arXiv:2602.17709",
    "tzvpd": "the publisher's def2-TZVPD data; see arXiv:2602.17709",
    "oc20": "RPBE (OC20)",
    "oc22": "PBE+U (OC22)",
}


@dataclass(frozen=True)
class Source:
    """Where the files came from, for the card."""

    licence: str = UNKNOWN
    citation: tuple[str, ...] = (UNKNOWN,)
    hub: dict | None = None  # repository and revision

    @classmethod
    def of(cls, known: Published, revision: str) -> "Source":
        return cls(known.licence, known.citation, {"repository": known.repository, "revision": revision})


@dataclass(frozen=True)
class Imported:
    """What an import did."""

    folder: Path
    card: Card
    dropped: tuple[str, ...]  # published tensors that never reach the output
    rebuilt: int  # published tensors that are constants of the architecture
    changes: tuple[str, ...]  # against the published network, of a smooth variant
    jumps: tuple[str, ...]  # what a smooth variant would change, of one that is not


def free_name(name: str, smooth: bool) -> tuple[str, str]:
    """Name and tag to import under. Raises before anything is read or written if that cannot be.

    Raises:
        WeightsError: no ``name:tag``, a name that is bundled, one that is installed, or that of a decoder.
        InputError: a weights folder that cannot be written to.
    """
    wanted, tag, version = split_name(name)
    if version is not None or tag is None or not NAME_PART.fullmatch(wanted) or not NAME_PART.fullmatch(tag):
        raise WeightsError(
            f"'{name}' given; a name and a tag are needed, as in ubio-s3:24m (letters, digits, '.', '_', single '-'); "
            "the version is made from the files"
        )
    if tag.endswith(SMOOTH) and not smooth:
        raise WeightsError(f"'{name}' given without --smooth; tags that end in '{SMOOTH}' are those of smooth variants")
    if smooth and not tag.endswith(SMOOTH):
        tag += SMOOTH
    if is_decoder(f"{wanted}:{tag}"):
        raise WeightsError(
            f"{wanted}:{tag} is a decoder on this machine; nothing was written. Import the files under another name or "
            f"tag (--as {wanted}:OTHER)"
        )
    taken = next((m for m in list_models() if m.here and (m.name, m.tag) == (wanted, tag)), None)
    if taken is not None:
        where = resolve(taken.full_name)[0]
        remedy = f", or remove it first: rm -r '{where}'" if taken.status == "installed" else ""
        raise WeightsError(
            f"{taken.full_name} is already on this machine ({where}); nothing was written. Use it with "
            f"--model {wanted}:{tag}, import the files under another tag (--as {wanted}:OTHER){remedy}"
        )
    problem = not_writable(weights_home())
    if problem:
        raise InputError(
            f"weights cannot be put into {weights_home()}: {problem}; type OMNICALC_HOME=FOLDER before the command "
            "to use another folder (there, and in commands that use the weights)"
        )
    return wanted, tag


def import_published(
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
    wanted, tag = free_name(name, smooth)
    config, tensors = read_config(config_file), read_tensors(file)
    model = from_published(config, tensors)
    published, dropped = model.config, dead_tensors(config, tensors)
    used = smoothed(published) if smooth else published
    state = {key: tensor.float().contiguous() for key, tensor in model.state_dict().items()}
    heads = _heads(config, used, zero_references)
    origin = {
        "source": "published UBio-MolFM checkpoint, converted; not trained here",
        **(source and source.hub or {}),
        "file": file.name,
        "file_sha256": sha256_of(file),
        "config_file": config_file.name,
        "config_sha256": sha256_of(config_file),
        "smooth": smooth,
        "dropped": dropped,
    }
    content = save(state)
    card = Card(
        name=wanted,
        tag=tag,
        version=_version(origin["file_sha256"], used, heads),
        family="e2former",
        summary=f"published UBio-MolFM checkpoint {file.name}" + (", smooth variant" if smooth else ""),
        conservative=model.conservative,
        cutoff=model.cutoff,
        dtype="float32",
        sha256=hashlib.sha256(content).hexdigest(),
        licence=(source or Source()).licence,
        citation=(source or Source()).citation,
        charges=tuple(_CHARGES),
        spins=tuple(_SPINS),
        config=used.to_dict(),
        heads=heads,
        training=origin,
        accuracy={},
    )
    folder = install(card, content)
    kept = len(tensors) - len(dropped)
    return Imported(
        folder=folder,
        card=card,
        dropped=tuple(dropped),
        rebuilt=kept - sum(not key.startswith(_copies(config)) for key in state),
        changes=tuple(changes(published)) if smooth else (),
        jumps=() if smooth else tuple(changes(published)),
    )


def read_config(path: Path) -> dict:
    """The settings in a published config.yaml. Raises :class:`InputError` or :class:`WeightsError`."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(
            f"{path}: no such file; the flat config.yaml that is published beside the weights is needed: "
            "--config config.yaml"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as text ({error})") from None
    try:
        import yaml
    except ImportError:
        raise InputError("reading a published config needs PyYAML; type: pip install pyyaml") from None
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:
        raise WeightsError(f"{path}: not a YAML file ({' '.join(str(error).split())})") from None


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors under "model" in a published checkpoint, which may hold nothing but tensors and plain values.

    Raises:
        InputError: no such file.
        WeightsError: a file that is no checkpoint, holds Python objects, or lacks the tensors.
    """
    return _tensors(read_container(path), path)


def read_container(path: Path) -> object:
    """What ``torch.save`` put into a file, if it is tensors and plain values; raises as :func:`read_tensors`."""
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        with warnings.catch_warnings():  # about the pickle's protocol, before the error that says all
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        found = re.search(r"(?:GLOBAL|class|type) ([\w.]+\.[\w.]+)", str(error))
        if found is None:
            raise WeightsError(f"{path}: not a checkpoint that torch.save wrote") from None
        raise WeightsError(
            f"{path}: refused, because it holds more than tensors ({found[1]}), and loading that could run code; "
            "nothing of it was run. A published checkpoint holds tensors and plain values"
        ) from None
    except Exception as error:  # whatever torch's readers make of bytes that are no checkpoint
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise WeightsError(f"{path}: not a checkpoint that torch.save wrote ({reason})") from None


def _tensors(container, path: Path) -> dict[str, Tensor]:
    if not isinstance(container, dict) or not isinstance(container.get("model"), dict):
        found = ", ".join(map(str, list(container)[:8])) if isinstance(container, dict) else type(container).__name__
        raise WeightsError(f"{path}: not a published checkpoint: 'model' with the tensors is needed, found {found}")
    return checked_tensors(container["model"], "model", path)


def checked_tensors(tensors: dict, key: str, path: Path) -> dict[str, Tensor]:
    """``tensors``, found under ``key`` in a file, if they are tensors of finite numbers."""
    others = [str(key) for key, value in tensors.items() if not isinstance(value, Tensor) or not isinstance(key, str)]
    if others or not tensors:
        raise WeightsError(f"{path}: '{key}' has entries that are no tensors: {', '.join(others) or 'none at all'}")
    broken = [key for key, value in tensors.items() if value.is_floating_point() and not value.isfinite().all()]
    if broken:
        raise WeightsError(f"{path}: tensors with values that are not finite: {', '.join(sorted(broken))}")
    return tensors


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

    level = "unknown; see the publisher" if table is None else _LEVELS[table.name]
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


def _copies(config: dict) -> tuple[str, ...]:
    """How the names of tensors begin that are copies of another head's."""
    return tuple(f"{kind}_heads.{name}." for name in aliases(config) for kind in ("energy", "force"))


def _version(file_sha256: str, network: E2FormerConfig, heads: tuple[CardHead, ...]) -> str:
    """Eight digits that stand for what is computed: the checkpoint's bytes, the settings, the reference energies."""
    facts = [file_sha256, network.to_dict(), {head.name: dict(head.reference) for head in heads}]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:8]


def install(card: Card, content: bytes) -> Path:
    """The folder of new weights, wholly there or not at all."""
    home = weights_home()
    folder, part = home / folder_name(card), home / f".{folder_name(card)}.part"
    try:
        with made_folder(home):
            shutil.rmtree(part, ignore_errors=True)  # of an import that was killed
            part.mkdir()
            try:
                write_atomically(part / WEIGHTS, lambda path: path.write_bytes(content))
                write_card(part / CARD, card)
                part.rename(folder)
            finally:
                shutil.rmtree(part, ignore_errors=True)
    except OSError as error:
        raise InputError(
            f"weights could not be written to {folder} ({error.strerror}); nothing was installed. Make room there, or "
            "type OMNICALC_HOME=FOLDER before the command to use another folder"
        ) from None
    return folder
