"""Labels that a frame may have under names that readers do not take for labels, as in REF_energy."""

from collections.abc import Sequence

from ase import Atoms

_ENDINGS = {"energy": "energy", "forces": ("force", "forces")}


def misnamed_labels(atoms: Atoms, missing: Sequence[str]) -> str:
    """What to say of the ``missing`` labels ("energy", "forces") where keys of the frame sound like them; else ""."""
    keys = (*atoms.info, *atoms.arrays)
    found = {key: label for label in missing for key in keys if key.lower().endswith(_ENDINGS[label])}
    if not found:
        return ""
    renamed = "; ".join(f"s/{key}/{label}/" for key, label in found.items())
    return f" (there is {' and '.join(found)}: if these are the labels, rename them by sed '{renamed}' FILE > NEW)"
