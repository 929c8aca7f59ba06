"""Systems by their text: ``dmp mg water*3`` is one dimethyl phosphate, one magnesium ion and three waters."""

from omnicalc.data.build.peptides import peptide_smiles
from omnicalc.errors import InputError


def composition(system: str, recipe) -> list[str]:
    """SMILES of all pieces of a system, in order.

    Raises:
        InputError: a word that is neither a component of the recipe nor a peptide.
    """
    pieces = []
    for word in system.split():
        name, count = _name_and_count(word, system)
        pieces += [_smiles(name, recipe)] * count
    if not pieces:
        raise InputError("a system of the recipe is an empty text; components joined by blanks are needed")
    return pieces


def molecules_of(system: str, recipe) -> list[str]:
    """What a split by molecule must not tear apart: the names of the solutes; of solvent alone, the whole system."""
    solutes = {_name_and_count(word, system)[0] for word in system.split()} - set(recipe.solvent)
    return sorted(solutes) if solutes else [system]


def _name_and_count(word: str, system: str) -> tuple[str, int]:
    name, _, count = word.partition("*")
    if not (count.isdecimal() or count == "") or count == "0":
        raise InputError(f"'{word}' in system '{system}'; name or name*count is needed, as in water*3")
    return name, int(count or 1)


def _smiles(name: str, recipe) -> str:
    if name.startswith("ACE-") and name.endswith("-NME") and len(name) > 8:
        return peptide_smiles(name[4:-4])
    if name not in recipe.components:
        known = ", ".join(recipe.components)
        raise InputError(f"'{name}' is no component of the recipe; known: {known}, and peptides such as ACE-A-NME")
    return recipe.components[name]
