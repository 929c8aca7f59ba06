"""Levels of theory by name: ``gfn2-xtb``, or ``functional/basis`` as in ``wb97m-d3bj/def2-svp``."""

from __future__ import annotations

from dataclasses import dataclass

from omnicalc.errors import InputError

XTB = "gfn2-xtb"
DEFAULT = "wb97m-d3bj/def2-svp"
# Bases that differ between elements: name -> (symbols that take the second one, first, second)
_METALS = ("Li", "Na", "K", "Rb", "Cs", "Mg", "Ca", "Sr", "Ba", "Zn", "Fe", "Mn", "Cu", "Co", "Ni")
MIXED = {"def2-mixed": ("def2-tzvpd", "def2-tzvp", ("H", *_METALS))}
SHIPPED = (XTB, DEFAULT, "wb97m-d3bj/def2-mixed")


@dataclass(frozen=True)
class Method:
    """A level of theory, and the numerical settings that its labels depend on."""

    functional: str  # "" for GFN2-xTB
    basis: str = ""
    grid: int = 3  # PySCF's level of the integration grid
    convergence: float = 1e-8  # Ha: change of the energy in the last cycle

    @property
    def name(self) -> str:
        """The level of theory, as heads are named."""
        return f"{self.functional}/{self.basis}" if self.functional else XTB

    @property
    def settings(self) -> str:
        """What else decides the numbers; part of the entry's key."""
        return f"grid {self.grid}, scf {self.convergence:.0e} Ha" if self.functional else ""

    @property
    def identity(self) -> str:
        return f"{self.name}, {self.settings}" if self.settings else self.name


def parse_method(text: str, grid: int = 3, convergence: float = 1e-8) -> Method:
    """A method from its name.

    Raises:
        InputError: a name that is neither; a functional or basis that PySCF does not know is found out later.
    """
    name = text.strip().lower()
    if name in (XTB, "gfn2", "xtb"):
        return Method("")
    functional, slash, basis = name.partition("/")
    if not (slash and functional and basis) or "/" in basis:
        raise InputError(
            f"method '{text}' given; --method takes {XTB}, or functional/basis as in {', '.join(SHIPPED[1:])}"
        )
    if not 1e-12 <= convergence <= 1e-6:  # of total energies in double precision no more can be asked; nan is none
        raise InputError(
            f"--convergence {convergence:g} Ha given; from 1e-12 to 1e-6 is needed: forces depend on it, and a field "
            "that never converges has no label"
        )
    return Method(functional, basis, grid, convergence)


def labeller(method: Method):
    """The function from ``Atoms`` to :class:`Label` of a method.

    Raises:
        InputError: its program is not installed, or does not know the functional or basis.
    """
    if not method.functional:
        from omnicalc.data.labels.xtb import Xtb

        return Xtb()
    from omnicalc.data.labels.dft import Dft

    return Dft(method)


def program(method: Method) -> str:
    """Name and version of the program behind a method. Raises :class:`InputError` when it is not installed."""
    if not method.functional:
        from omnicalc.data.labels.xtb import versions
    else:
        from omnicalc.data.labels.dft import versions
    return versions()
