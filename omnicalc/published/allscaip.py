"""From a published AllScAIP checkpoint (facebook/OMol25) to a weights folder under a name of ours, once.

The checkpoint holds its settings, so no other file is needed. Energies are scale * network + reference, with the scale
from the checkpoint's tasks and the element references of OMol25; a lone atom's energy is in a table of its own. All of
them end up in the card.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from omnicalc.card import CardHead
from omnicalc.errors import InputError, WeightsError
from omnicalc.models.allscaip.config import CHARGES, SPINS
from omnicalc.models.allscaip.lone_atoms import OMOL
from omnicalc.models.allscaip.model import AllScAIP
from omnicalc.models.allscaip.published import load_published
from omnicalc.models.allscaip.published_config import translate
from omnicalc.published.allscaip_tasks import HIGHEST, recorded_references, recorded_scale
from omnicalc.published.fairchem import ema_tensors, read_checkpoint
from omnicalc.published.install import Converted, Imported, Source, free_name, install

_REFERENCES = Path(__file__).parents[1] / "models" / "allscaip" / "omol_references.json"
CITATION = ("Qu, Wood, Krishnapriyan, Ulissi, AllScAIP (2026), arXiv:2603.06567",)


def import_allscaip(
    file: Path, name: str, *, source: Source | None = None, smooth: bool = False, zero_references: bool = False
) -> Imported:
    """Convert a published checkpoint into installed weights ``name`` ("name:tag").

    Raises:
        WeightsError: a name that is taken, a file that is no such checkpoint, tensors that do not fit the settings.
        InputError: a file that is not there, a weights folder that cannot be written to, or ``smooth``, which would
            make another function of published weights.
    """
    if smooth:
        raise InputError(
            "--smooth given: AllScAIP was trained with the bond orders that make its energy jump, and without them it "
            "is another function; leave --smooth out (weights trained by omnicalc are smooth)"
        )
    wanted = free_name(name)
    parts = read_checkpoint(file)
    tensors = ema_tensors(parts, file)
    table = json.loads(_REFERENCES.read_text(encoding="utf-8"))
    config, tasks = translate(parts["model_config"]), parts["tasks_config"]
    level = config.heads[0]
    own = None if zero_references else recorded_references(tasks, file)
    energies, origin_of_energies = _references(level, own, table, zero_references)
    scale, origin_of_scale = _scale(level, recorded_scale(tasks, file), table, file)
    isolated = _isolated(table, energies) if level == OMOL and not zero_references else None
    config = replace(config, scale=scale, isolated=isolated)
    model = load_published(AllScAIP(config), tensors)
    made = Converted(
        file=file,
        model=model,
        config=config.to_dict(),
        heads=(
            CardHead(
                name=level,
                level_of_theory="ωB97M-V/def2-TZVPD (OMol25)" if level == OMOL else "see the publisher",
                elements=tuple(energies),
                reference_source=origin_of_energies,
                data="OMol25; see arXiv:2505.08762",
                reference=energies,
            ),
        ),
        charges=CHARGES,
        spins=[s for s in SPINS if s],
        family="allscaip",
        summary=f"published AllScAIP checkpoint {file.name}" + ("" if model.conservative else ", direct forces"),
        origin={
            "source": "published AllScAIP checkpoint, converted; not trained here",
            "averaged": "the exponential moving average of the tensors",
            "scale": f"{scale:g}, {origin_of_scale}",
        },
        facts=(energies,),
        jumps=(
            "bond orders: an unweighted mean over neighbours, so that the energy jumps where one comes or goes; it is "
            "part of what was trained, and stays",
        ),
    )
    return install(wanted, made, source or Source(citation=CITATION))


def _references(level: str, own: list[float] | None, table: Mapping, zero: bool) -> tuple[dict[str, float], str]:
    """Reference energies, eV, by symbol, and where they come from: the checkpoint's own, else the table of OMol25."""
    from ase.data import chemical_symbols

    if zero:
        values, origin = [0.0] * (HIGHEST + 1), "zero, as asked"
    elif own is not None:
        values, origin = own, "element references in the checkpoint"
    elif level == OMOL:
        values, origin = table["linear_references_by_atomic_number"], table["source"]
    else:
        raise WeightsError(
            f"no reference energies are known for level '{level}' (there is a table for {OMOL}); nothing was written. "
            "With --zero-references every element gets 0 eV"
        )
    return {chemical_symbols[z]: float(values[z]) for z in range(1, HIGHEST + 1)}, origin


def _scale(level: str, recorded: float | None, table: Mapping, file: Path) -> tuple[float, str]:
    """What the network's energies and forces are multiplied by, and where it comes from."""
    if recorded is not None:
        return recorded, "rmsd of the checkpoint's tasks"
    if level == OMOL:
        return table["scale"], "usual for OMol25; the checkpoint records none"
    raise WeightsError(
        f"{file}: its tasks record no scale (normalizer with 'rmsd'), and for level '{level}' none is known; nothing "
        "was written"
    )


def _isolated(table: Mapping, references: Mapping[str, float]) -> dict[str, dict[str, float]]:
    """Energies of lone atoms above their references, eV: symbol -> charge -> energy."""
    from ase.data import chemical_symbols

    found = {}
    for number, row in table["isolated_atom_energy_by_Z_and_charge"].items():
        symbol = chemical_symbols[int(number)]
        if symbol in references:
            found[symbol] = {str(charge): energy - references[symbol] for charge, energy in row.items()}
    return found
