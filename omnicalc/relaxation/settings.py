"""What a relaxation is asked to do, checked before anything is loaded or written."""

from __future__ import annotations

import math
from dataclasses import dataclass

from omnicalc.errors import InputError
from omnicalc.md.settings import COUPLINGS, MAX_PRESSURE_BAR

OPTIMIZERS = ("lbfgs", "fire")


@dataclass(frozen=True)
class RelaxSettings:
    """Settings of a relaxation; raises :class:`InputError` when one of them cannot be."""

    steps: int = 500  # at most, of each structure; 0: energies and forces alone
    fmax: float = 0.02  # eV/Å, largest force on an atom at the end
    optimizer: str = "lbfgs"
    relax_cell: str = ""  # one of COUPLINGS: what of the cell moves; empty: nothing
    pressure_bar: float = 0.0
    smax_GPa: float = 0.02  # noqa: N815 - largest deviation of a stress component from the pressure at the end
    max_step: float = 0.2  # Å, of any atom in one step
    fix: str = ""  # atoms that stay where they are; see omnicalc.md.selection
    atoms_per_batch: int = 1000

    def __post_init__(self) -> None:
        if self.optimizer not in OPTIMIZERS:
            raise InputError(f"unknown optimizer '{self.optimizer}'; known: {', '.join(OPTIMIZERS)} (--optimizer)")
        if self.relax_cell and self.relax_cell not in COUPLINGS:
            raise InputError(f"unknown cell move '{self.relax_cell}'; known: {', '.join(COUPLINGS)} (--relax-cell)")
        if self.steps < 0:
            raise InputError(f"steps is {self.steps}; 0 or more is needed (--steps)")
        for name, value, unit in (("fmax", self.fmax, "eV/Å"), ("smax", self.smax_GPa, "GPa")):
            if not 0 < value < math.inf:
                raise InputError(f"{name} is {value} {unit}; a positive number is needed, such as 0.02 (--{name})")
        if not 0 < self.max_step <= 1:
            raise InputError(f"the largest step is {self.max_step} Å; a number up to 1 is needed (--max-step)")
        if not abs(self.pressure_bar) <= MAX_PRESSURE_BAR:
            raise InputError(
                f"the pressure is {self.pressure_bar} bar; a number up to {MAX_PRESSURE_BAR:g} is needed (--pressure)"
            )
        if self.pressure_bar and not self.relax_cell:
            raise InputError(
                "a pressure moves nothing while the cell rests; add --relax-cell isotropic, or leave --pressure out"
            )
        if self.fix and self.relax_cell:
            raise InputError("a moving cell takes every atom along; leave out --fix or --relax-cell")
        if self.atoms_per_batch < 1:
            raise InputError(f"{self.atoms_per_batch} atoms per batch; at least 1 is needed (--batch-atoms)")
