"""Harmonic restraints: springs between atoms and where they started.

``--restrain ATOMS:K`` with K in eV/Å^2, several with semicolons: ``--restrain "0-11:5;Na:0.5"``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from omnicalc.errors import InputError
from omnicalc.md.positive import positive
from omnicalc.md.selection import select

if TYPE_CHECKING:
    from ase import Atoms


class Springs:
    """U = Σ k |r - r₀|²/2 over the chosen atoms, r₀ their first positions."""

    def __init__(self, atoms: Tensor, centres: Tensor, stiffness: float):
        """``atoms`` (M,) int64, ``centres`` (M, 3) Å, ``stiffness`` eV/Å^2."""
        self.atoms, self.centres, self.stiffness = atoms, centres, stiffness

    def __call__(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Energy (), eV, and forces (N, 3), eV/Å."""
        away = positions.index_select(0, self.atoms) - self.centres
        forces = torch.zeros_like(positions).index_add(0, self.atoms, away, alpha=-self.stiffness)
        return 0.5 * self.stiffness * away.square().sum(), forces


def restraints(atoms: Atoms, text: str, device: torch.device | str = "cpu") -> list[Springs]:
    """Springs as ``text`` says; :class:`InputError` when it cannot be read or chooses no atoms."""
    found = []
    for part in filter(None, (piece.strip() for piece in text.split(";"))):
        chosen, _, stiffness = part.rpartition(":")
        members = select(atoms, chosen, "--restrain")
        if not members.size:
            raise InputError(f"'{part}' names no atoms; give atoms and eV/Å^2, as in --restrain 0-11:5")
        k = _stiffness(stiffness, part)
        index = torch.tensor(members, device=device)
        centres = torch.tensor(atoms.positions[members], dtype=torch.float64, device=device)
        found.append(Springs(index, centres, k))
    return found


def _stiffness(text: str, part: str) -> float:
    value = positive(text)
    if value is None:
        raise InputError(
            f"'{part}' has the stiffness '{text}'; a positive number of eV/Å^2 is needed, as in --restrain 0-11:5"
        )
    return value
