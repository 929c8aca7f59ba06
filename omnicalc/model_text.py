"""The registry for people: the list of models, one card, and the check of the files. Never loads torch."""

from __future__ import annotations

import shlex
import textwrap
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from omnicalc.card import PERIODIC, Card, CardHead
from omnicalc.decoding import weights as decoders
from omnicalc.decoding.card import DecoderCard
from omnicalc.registry import list_models, published, resolve, unreadable, verified_bytes
from omnicalc.toml_writer import to_toml

if TYPE_CHECKING:
    from omnicalc.published.install import Imported

_WIDTH = 120
_MANY = 20  # elements that a list still names one by one
_WITHOUT_CUTOFF = ("omnimol",)  # every atom looks at every other one; the number is that of a list nobody uses


def model_list() -> str:
    """One paragraph per model."""
    lines, fetchable = [], {(p.name, p.tag) for p in published() if p.repository}
    for entry in list_models():
        default = f", the default for '{entry.name}'" if entry.default else ""
        lines.append(f"{entry.full_name}  ({entry.status}{default})")
        lines.append(f"    {entry.summary}")
        lines += [f"    head {head}: {_elements(elements)}" for head, elements in entry.heads.items()]
        if (entry.name, entry.tag) in fetchable and not entry.here:
            lines.append(f"    to get it: omnicalc models fetch {entry.full_name}")
    lines += [f"not usable: {problem}" for problem in unreadable()]
    for folder, card in decoders.list_decoders():
        lines += [f"{card.full_name}  (a decoder, for omnicalc decode; {folder.name})", f"    {card.summary}"]
    lines += ["", "The card of one: omnicalc models NAME. To use it: omnicalc md STRUCTURE --model NAME"]
    return "\n".join(lines)


def model_card(name: str) -> str:
    """The card of one model. Raises :class:`WeightsError` for a name that is not there."""
    if decoders.is_decoder(name):
        return _decoder_card(*decoders.resolve_decoder(name))
    folder, card = resolve(name)
    spins = card.spins if isinstance(card.spins, str) else _numbers(card.spins)
    rows = {
        "folder": folder,
        "sha256": card.sha256,
        "family": card.family,
        "forces": _forces(card),
        "cutoff": "none, molecules only" if card.family in _WITHOUT_CUTOFF else f"{card.cutoff:g} Å",
        "charges": _numbers(card.charges, sign=True),
        "spins": spins,
        "licence": card.licence,
        "citation": "; ".join(card.citation),
    }
    lines = [card.full_name, card.summary, "", *(f"{key:<9} {value}" for key, value in rows.items())]
    for k, head in enumerate(card.heads):
        lines += ["", *_head(head, card.accuracy, preferred=k == 0)]
    return "\n".join([*lines, *_training(card.training)])


def _forces(card: Card) -> str:
    if card.no_potential is not None:
        return f"none, and no energies: {card.no_potential}"
    return "gradient of the energy" if card.conservative else "direct, not a gradient of the energy"


def _decoder_card(folder: Path, card: DecoderCard) -> str:
    rows = {
        "folder": folder,
        "sha256": card.sha256,
        "family": f"{card.family}, a decoder of later frames: no energies (omnicalc decode)",
        "elements": " ".join(card.elements),
        "horizon": f"{card.horizon_fs:g} fs",
        "trained on": card.level_of_theory,
        "error": card.error_growth() or "not measured here",
        "licence": card.licence,
        "citation": "; ".join(card.citation),
    }
    lines = [card.full_name, card.summary, "", *(f"{key:<10} {value}" for key, value in rows.items())]
    return "\n".join([*lines, *_training({k: v for k, v in card.training.items() if k != "recipe"})])


def verified(name: str | None) -> Iterator[str]:
    """One line per model or decoder that is here, or for the one named; WeightsError at the first damaged one."""
    names = [e.full_name for e in list_models() if e.here] if name is None else [name]
    names += [card.full_name for _, card in decoders.list_decoders()] if name is None else []
    if not names:
        yield "no weights are on this machine"
    for each in names:
        kind = (decoders.resolve_decoder, decoders.verified_bytes)
        resolved, read = kind if decoders.is_decoder(each) else (resolve, verified_bytes)
        folder, card = resolved(each)
        size = len(read(folder, card))
        what = each if each == card.full_name else f"{each} ({card.full_name})"
        yield f"{what}: ok, {size} bytes, sha256 {card.sha256}"


def _head(head: CardHead, accuracy: Mapping, preferred: bool) -> list[str]:
    note = " (preferred)" if preferred else ""
    lines = [
        f"head {head.name}{note}",
        f"  level of theory   {head.level_of_theory}",
        *_wrapped("  elements          ", " ".join(head.elements)),
        *_wrapped("  reference (eV)    ", ", ".join(f"{s}\xa0{e:.4f}" for s, e in head.reference.items())),
        f"                    {head.reference_source}",
        f"  data              {head.data}",
    ]
    if head.periodic:
        lines.append(f"  periodic          {PERIODIC[head.periodic]}")
    measured = accuracy.get(head.name)
    if isinstance(measured, Mapping):
        lines += [f"  {key:<17} {value}" for key, value in measured.items() if not isinstance(value, Mapping)]
        for domain, errors in measured.get("domains", {}).items():
            values = ", ".join(f"{key} {value}" for key, value in errors.items())
            lines += _wrapped(f"    {domain}: ", values)
    elif not accuracy:
        lines.append("  accuracy          not measured here")
    return lines


def imported(done: Imported) -> str:
    """What an import did: name and folder, heads, what was left out, and what the network does at its cutoff."""
    card, made = done.card, done.made
    lines = [f"{card.full_name}: {done.folder}", f"sha256 {card.sha256}"]
    lines += [f"head {head.name}: {len(head.elements)} elements, {head.level_of_theory}" for head in card.heads]
    lines.append(f"licence: {card.licence}")
    if made.dropped:
        lines.append(f"left out, because it never reaches the output ({len(made.dropped)} tensors):")
        lines += [f"    {name}" for name in _grouped(made.dropped)]
    if made.rebuilt:
        lines.append(f"built anew, because it is constant: {made.rebuilt} tensors")
    if card.training.get("smooth"):
        lines.append("changed against the published network, so that the energy is continuous:")
        lines += [f"    {change}" for change in made.changes or ("nothing: there was nothing to change",)]
    elif made.jumps:
        remedy = "--smooth would change" if "smooth" in card.training else "because of its"
        lines.append(f"as published, which jumps in energy; {remedy}:")
        lines += [f"    {change}" for change in made.jumps]
    if "lattice_images" in card.training:
        lines.append(f"lattice images: {card.training['lattice_images']}")
    lines.append(f"To use it: {use_of(card, f'{card.name}:{card.tag}')}")
    return "\n".join(lines)


def _grouped(names: Sequence[str]) -> list[str]:
    """The names themselves; where they are many, how many begin with each first part."""
    if len(names) <= _MANY:
        return list(names)
    return [f"{first}.*: {count}" for first, count in Counter(name.split(".")[0] for name in names).items()]


def use_of(card: Card, model: str) -> str:
    """What to type next with weights that go by the name or path ``model``."""
    if card.config.get("gives") == "properties":
        return f'omnicalc.properties(structures, "{model}", head="{card.heads[0].name}") in Python'
    use = "md STRUCTURE" if card.no_potential is None else "embed STRUCTURES --out FOLDER"
    return f"omnicalc {use} --model {shlex.quote(model)}"


def _numbers(values: Sequence[int], sign: bool = False) -> str:
    """Whole numbers; "-100 to +100" where they are many and none between is left out."""
    texts = [f"{x:+d}" if sign and x else str(x) for x in values]
    gapless = list(values) == list(range(values[0], values[0] + len(values)))
    return f"{texts[0]} to {texts[-1]}" if gapless and len(values) > _MANY else ", ".join(texts)


def _elements(symbols: Sequence[str]) -> str:
    if len(symbols) <= _MANY:
        return " ".join(symbols)
    return f"{' '.join(symbols[:_MANY])} ... {symbols[-1]} ({len(symbols)} elements)"


def _wrapped(key: str, text: str) -> list[str]:
    lines = textwrap.wrap(text, _WIDTH - len(key), break_on_hyphens=False)
    indent = " " * len(key)
    return [(indent if k else key) + line.replace("\xa0", " ") for k, line in enumerate(lines)]


def _training(training: Mapping) -> list[str]:
    if not training:
        return []
    return ["", "training", *(f"  {line}" if line else "" for line in to_toml(training).splitlines())]
