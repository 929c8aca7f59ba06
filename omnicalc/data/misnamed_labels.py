"""Labels that a frame may have under names that readers do not take for labels, as in REF_energy."""

from collections.abc import Sequence

from ase import Atoms

_ENDINGS = {"energy": "energy", "forces": ("force", "forces")}


def misnamed_labels(atoms: Atoms, missing: Sequence[str]) -> str:
    """What to say of the ``missing`` labels ("energy", "forces") where keys of the frame sound like them; else ""."""
    keys = (*atoms.info, *atoms.arrays)
    found = {label: [key for key in keys if key.lower().endswith(_ENDINGS[label])] for label in missing}
    listed = " and ".join(key for several in found.values() for key in several)
    if not listed:
        return ""
    if max(map(len, found.values())) > 1:
        names = " and ".join(label for label, several in found.items() if several)
        return f" (there is {listed}: rename those that are the labels to {names})"
    renamed = "; ".join(f"s/{key}/{label}/" for label, several in found.items() for key in several)
    return f" (there is {listed}: if these are the labels, rename them by sed '{renamed}' FILE > NEW)"
