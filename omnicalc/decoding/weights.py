"""Decoders by name: ``name``, ``name:tag``, ``name:tag@version``, or the path of a weights folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from omnicalc import registry
from omnicalc.card import DECODER_CARD, WEIGHTS
from omnicalc.decoding.card import DecoderCard, read_decoder_card
from omnicalc.errors import WeightsError
from omnicalc.registry import COPY_AGAIN, bytes_of_sha256, is_path, split_name, version_key
from omnicalc.weights_home import weights_home

if TYPE_CHECKING:
    from omnicalc.models.atom.physical import PhysicalAtom


def list_decoders() -> list[tuple[Path, DecoderCard]]:
    """Folder and card of the decoders on this machine, newest version first."""
    found = []
    for home in (registry.BUNDLED, weights_home()):
        found += [(card.parent, read_decoder_card(card)) for card in sorted(home.glob(f"*/{DECODER_CARD}"))]
    return sorted(found, key=lambda item: version_key(item[1].version), reverse=True)


def resolve_decoder(name: str | Path) -> tuple[Path, DecoderCard]:
    """Raises :class:`WeightsError` saying what there is."""
    if is_path(name):
        folder = Path(name).expanduser()
        if not (folder / DECODER_CARD).is_file():
            raise WeightsError(
                f"{folder} is no weights folder of a decoder: it has no {DECODER_CARD} (potentials have card.toml and "
                "are for omnicalc md)"
            )
        return folder, read_decoder_card(folder / DECODER_CARD)
    wanted, tag, version = split_name(name)
    everything = list_decoders()
    for folder, card in everything:
        if card.name == wanted and tag in (None, card.tag) and version in (None, card.version):
            return folder, card
    names = ", ".join(card.full_name for _, card in everything)
    raise WeightsError(
        f"no decoder '{name}' on this machine; there is: {names or 'none'}. "
        "Train one with: omnicalc decoder train atom-small --data tg-mini --out DIR, and give DIR/weights"
    )


def is_decoder(name: str | Path) -> bool:
    """Whether a name or path stands for a decoder on this machine."""
    if is_path(name):
        return (Path(name).expanduser() / DECODER_CARD).is_file()
    wanted, tag, version = split_name(name)
    cards = [card for _, card in list_decoders()]
    return any((c.name, tag or c.tag, version or c.version) == (wanted, c.tag, c.version) for c in cards)


def verified_bytes(folder: Path, card: DecoderCard) -> bytes:
    """The bytes of ``model.safetensors``. Raises :class:`WeightsError` unless their sha256 is the card's."""
    return bytes_of_sha256(folder / WEIGHTS, card.sha256, DECODER_CARD, COPY_AGAIN)


def load_decoder(name: str | Path) -> tuple[PhysicalAtom, DecoderCard, str]:
    """Network in evaluation mode, its card, and the name that loads the same again.

    Raises:
        WeightsError: unknown name, a damaged file, tensors that do not fit.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load

    from omnicalc.models.atom.physical import PhysicalAtom, PhysicalConfig
    from omnicalc.models.torch_defaults import own_defaults

    folder, card = resolve_decoder(name)
    path, content = folder / WEIGHTS, verified_bytes(folder, card)
    try:
        with own_defaults(), torch.random.fork_rng(devices=[]):  # it draws its weights before it gets these
            model = PhysicalAtom(PhysicalConfig.from_dict(dict(card.config)))
        model.load_state_dict(load(content), strict=True)
    except (SafetensorError, RuntimeError, TypeError) as error:
        raise WeightsError(f"{path} does not fit its {DECODER_CARD}: {' '.join(str(error).split())}") from None
    name_resolved = str(folder.resolve()) if is_path(name) else card.full_name
    return model.eval().requires_grad_(False), card, name_resolved
