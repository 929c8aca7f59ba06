"""Capped peptides as SMILES from residue codes: ACE-X-...-NME, N-methylated and D residues among them."""

from omnicalc.errors import InputError

# Side chain after the alpha carbon, written so that [C@@H] is L.
SIDE_CHAINS = {
    "A": "C", "V": "C(C)C", "L": "CC(C)C", "I": "[C@@H](C)CC", "S": "CO", "T": "[C@@H](C)O", "C": "CS",
    "M": "CCSC", "F": "Cc1ccccc1", "Y": "Cc1ccc(O)cc1", "W": "Cc1c[nH]c2ccccc12", "N": "CC(N)=O", "Q": "CCC(N)=O",
    "D": "CC(=O)[O-]", "E": "CCC(=O)[O-]", "K": "CCCC[NH3+]", "R": "CCCNC(N)=[NH2+]", "H": "Cc1c[nH]cn1",
    "Abu": "CC", "Bmt": "[C@H](O)[C@H](C)C/C=C/C",
}  # fmt: skip


def peptide_smiles(code: str) -> str:
    """SMILES of ACE-...-NME; ``code`` is residues joined by ``-``: ``G``, ``A``, ``P``, with ``m`` before for
    N-methylated and ``d`` for D (``mL``, ``dA``, ``mBmt``; sarcosine is ``mG``).

    Raises:
        InputError: an unknown residue, named.
    """
    return "CC(=O)" + "".join(_residue(word) for word in code.split("-")) + "NC"


def _residue(word: str) -> str:
    name = word.lstrip("md")
    methyl, mirror = "m" in word[: len(word) - len(name)], "d" in word[: len(word) - len(name)]
    nitrogen = "N(C)" if methyl else "N"
    if name == "G":
        return f"{nitrogen}CC(=O)"
    if name == "P":
        return "N1CCC[C@H]1C(=O)"
    if name not in SIDE_CHAINS:
        raise InputError(f"unknown residue '{word}'; known: G, P, {', '.join(SIDE_CHAINS)}, with m or d before")
    # Neighbours in order N, H, side chain, C(=O): @@ is L, as in N[C@@H](C)C(=O)O.
    centre = "[C@H]" if mirror else "[C@@H]"
    return f"{nitrogen}{centre}({SIDE_CHAINS[name]})C(=O)"
