"""Converted weights under a name of ours: the name, the card, the version, the folder.

Nothing is written unless everything fits, and nothing that is there is overwritten.
"""

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omnicalc.card import CARD, NAME_PART, WEIGHTS, Card, CardHead, write_card
from omnicalc.decoding.weights import is_decoder
from omnicalc.errors import InputError, WeightsError
from omnicalc.files import made_folder, not_writable, sha256_of, write_atomically
from omnicalc.registry import Published, folder_name, list_models, resolve, split_name
from omnicalc.weights_home import weights_home

if TYPE_CHECKING:
    from torch import nn

SMOOTH = "-smooth"  # end of the tag of smooth variants
UNKNOWN = "unknown; see the publisher"


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
class Converted:
    """A published checkpoint as a network of ours, and what is to be said of it."""

    file: Path  # the checkpoint
    model: "nn.Module"
    config: Mapping[str, Any]  # of the network, as on the card
    heads: tuple[CardHead, ...]
    charges: Sequence[int]
    spins: str | Sequence[int]
    family: str
    summary: str
    origin: Mapping[str, Any]  # for the card; repository, file and its sha256 join it
    facts: tuple = ()  # beside file and config, what the version stands for
    dropped: tuple[str, ...] = ()  # published tensors that never reach the output
    rebuilt: int = 0  # published tensors that are constants of the architecture
    changes: tuple[str, ...] = ()  # against the published network, of a smooth variant
    jumps: tuple[str, ...] = ()  # where the energy jumps, of one that is not


@dataclass(frozen=True)
class Imported:
    """What an import did."""

    folder: Path
    card: Card
    made: Converted


def free_name(name: str, smooth: bool = False) -> tuple[str, str]:
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


def install(wanted: tuple[str, str], made: Converted, source: Source) -> Imported:
    """Weights of name and tag ``wanted``, in float32 as safetensors with their card, wholly there or not at all.

    Raises:
        InputError: a folder that cannot be written to.
    """
    from safetensors.torch import save

    content = save({key: tensor.float().contiguous() for key, tensor in made.model.state_dict().items()})
    card = _card(wanted, made, source, hashlib.sha256(content).hexdigest())
    return Imported(_write(card, content), card, made)


def _card(wanted: tuple[str, str], made: Converted, source: Source, sha256: str) -> Card:
    digest = sha256_of(made.file)
    place = {**(source.hub or {}), "file": made.file.name, "file_sha256": digest}
    return Card(
        name=wanted[0],
        tag=wanted[1],
        version=_version([digest, made.config, *made.facts]),
        family=made.family,
        summary=made.summary,
        conservative=made.model.conservative,
        cutoff=made.model.cutoff,
        dtype="float32",
        sha256=sha256,
        licence=source.licence,
        citation=source.citation,
        charges=tuple(made.charges),
        spins=made.spins if isinstance(made.spins, str) else tuple(made.spins),
        config=made.config,
        heads=made.heads,
        training={"source": made.origin["source"], **place, **made.origin},
        accuracy={},
    )


def _version(facts: list) -> str:
    """Eight digits that stand for what is computed: the checkpoint's bytes, the settings, the reference energies."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:8]


def _write(card: Card, content: bytes) -> Path:
    """The folder of new weights."""
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
