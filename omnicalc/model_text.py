"""The registry for people: the list of models, one card, and the check of the files. Never loads torch."""

from collections.abc import Iterator, Mapping

from omnicalc.card import CardHead
from omnicalc.registry import list_models, resolve, verified_bytes
from omnicalc.toml_writer import to_toml


def model_list() -> str:
    """One paragraph per model."""
    lines = []
    for entry in list_models():
        default = f", the default for '{entry.name}'" if entry.default else ""
        lines.append(f"{entry.full_name}  ({entry.status}{default})")
        lines.append(f"    {entry.summary}")
        lines += [f"    head {head}: {' '.join(elements)}" for head, elements in entry.heads.items()]
    lines += ["", "The card of one: omnicalc models NAME. To use it: omnicalc md STRUCTURE --model NAME"]
    return "\n".join(lines)


def model_card(name: str) -> str:
    """The card of one model. Raises :class:`WeightsError` for a name that is not there."""
    folder, card = resolve(name)
    spins = card.spins if isinstance(card.spins, str) else ", ".join(map(str, card.spins))
    rows = {
        "folder": folder,
        "sha256": card.sha256,
        "family": card.family,
        "forces": "gradient of the energy" if card.conservative else "direct, not a gradient of the energy",
        "cutoff": f"{card.cutoff:g} Å",
        "charges": ", ".join(f"{charge:+d}" if charge else "0" for charge in card.charges),
        "spins": spins,
        "licence": card.licence,
        "citation": "; ".join(card.citation),
    }
    lines = [card.full_name, card.summary, "", *(f"{key:<9} {value}" for key, value in rows.items())]
    for k, head in enumerate(card.heads):
        lines += ["", *_head(head, card.accuracy, preferred=k == 0)]
    return "\n".join([*lines, *_training(card.training)])


def verified(name: str | None) -> Iterator[str]:
    """One line per model that is here, or for the one named; WeightsError at the first damaged one."""
    names = [e.full_name for e in list_models() if e.status == "bundled"] if name is None else [name]
    if not names:
        yield "no weights are on this machine"
    for each in names:
        folder, card = resolve(each)
        size = len(verified_bytes(folder, card))
        what = each if each == card.full_name else f"{each} ({card.full_name})"
        yield f"{what}: ok, {size} bytes, sha256 {card.sha256}"


def _head(head: CardHead, accuracy: Mapping, preferred: bool) -> list[str]:
    note = " (preferred)" if preferred else ""
    lines = [
        f"head {head.name}{note}",
        f"  level of theory   {head.level_of_theory}",
        f"  elements          {' '.join(head.elements)}",
        f"  reference (eV)    {', '.join(f'{s} {e:.4f}' for s, e in head.reference.items())}",
        f"                    {head.reference_source}",
        f"  data              {head.data}",
    ]
    measured = accuracy.get(head.name)
    if isinstance(measured, Mapping):
        lines += [f"  {key:<17} {value}" for key, value in measured.items()]
    return lines


def _training(training: Mapping) -> list[str]:
    if not training:
        return []
    return ["", "training", *(f"  {line}" if line else "" for line in to_toml(training).splitlines())]
