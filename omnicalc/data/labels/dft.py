"""Density-functional theory through PySCF, with density fitting; on a GPU where GPU4PySCF finds one.

wB97M-D3(BJ) is wB97M-V (Mardirossian and Head-Gordon, J. Chem. Phys. 144, 214110 (2016)) with its nonlocal correlation
replaced by D3(BJ) (Najibi and Goerigk, J. Chem. Theory Comput. 14, 5725 (2018): s8 0.3908, a1 0.5660, a2 3.1280, no
three-body term), which PySCF knows as ``wb97m-d3bj`` and takes from pyscf-dispersion.
"""

from __future__ import annotations

import contextlib
import functools
import warnings
from typing import TYPE_CHECKING

import numpy as np
from ase.units import Bohr, Hartree

from omnicalc.data.labels.electrons import charge_and_unpaired, check_not_periodic
from omnicalc.data.labels.label import Label, LabelError
from omnicalc.data.labels.method import DEFAULT, MIXED, XTB, Method
from omnicalc.data.labels.rescue import converge
from omnicalc.errors import InputError

if TYPE_CHECKING:
    from ase import Atoms

AUXILIARY = "def2-universal-jkfit"  # Weigend, J. Comput. Chem. 29, 167 (2008); one for all orbital bases
_STEEPEST = 1.5  # Z²/bohr²: s exponents of bases for all electrons reach 1.8 (STO-3G) or more, of valence ones less


class Dft:
    """Energies and forces of one method; restricted for singlets, unrestricted for all else."""

    def __init__(self, method: Method):
        self._method = method
        _check(method)

    def __call__(self, atoms: Atoms) -> Label:
        """Raises :class:`LabelError` when no rung of the ladder converges, or the basis lacks an element."""
        field, rung = self.converged(atoms)
        gradients = field.nuc_grad_method()
        gradients.verbose = 0
        forces = -np.asarray(gradients.kernel()) * (Hartree / Bohr) if len(atoms) > 1 else np.zeros((1, 3))
        energy = float(field.e_tot) * Hartree
        if not (np.isfinite(energy) and np.isfinite(forces).all()):
            raise LabelError("energy or forces are not finite")
        notes = {"settings": f"{self._method.settings}, {AUXILIARY}"}
        if field.mol.spin:
            notes["s_squared"] = round(float(field.spin_square()[0]), 4)
        return Label(energy, forces, notes | ({"scf_rung": rung} if rung else {}))

    def converged(self, atoms: Atoms) -> tuple[object, int]:
        """PySCF's mean field of these atoms, and the rung of the ladder that it took.

        Raises :class:`LabelError` when no rung converges, or the basis lacks an element.
        """
        check_not_periodic(atoms)
        return converge(functools.partial(self._field, self._molecule(atoms)), self._method)

    def _molecule(self, atoms: Atoms):
        from pyscf import gto

        charge, unpaired = charge_and_unpaired(atoms)
        symbols = atoms.get_chemical_symbols()
        try:
            return gto.M(
                atom=list(zip(symbols, atoms.positions.tolist(), strict=True)),
                basis=_basis(self._method.basis, symbols),
                ecp=_cores(self._method.basis, symbols),
                charge=charge,
                spin=unpaired,
                verbose=0,
                unit=Bohr,  # Å per bohr: of ASE, so that forces are the slope of the energy
            )
        except (KeyError, RuntimeError, ValueError) as error:
            raise LabelError(f"basis {self._method.basis}: {' '.join(str(error).split())}") from None

    def _field(self, molecule, grid: int):
        """A fresh mean-field object with grid level ``grid``."""
        from pyscf import dft

        kind = dft.UKS if molecule.spin else dft.RKS
        field = kind(molecule, xc=self._method.functional).density_fit(auxbasis=AUXILIARY)
        if _has_gpu():
            field = field.to_gpu()
        field.verbose = 0
        field.grids.level = grid
        return field


def versions() -> str:
    """Programs and versions, as written into every entry."""
    from importlib.metadata import version

    _pyscf()
    parts = [f"pyscf {version('pyscf')}"]
    if _has_gpu():
        parts.append(f"gpu4pyscf {_gpu_version()}")
    return ", ".join(parts)


def _pyscf():
    try:
        import pyscf
    except ImportError:
        raise InputError("DFT labels need PySCF; type: pip install 'omnicalc[label]'") from None
    return pyscf


def _check(method: Method) -> None:
    """Refuse what cannot work before the first structure."""
    _pyscf()
    from pyscf.dft import dft_parser, libxc

    try:
        functional, _, dispersion = dft_parser.parse_dft(method.functional)
        parts = libxc.parse_xc(functional)[1]
        if any(weight < 0 for _, weight in parts):  # so it takes the number in wb97x-2, a double hybrid
            raise ValueError("it takes what follows a hyphen for a functional to be subtracted")
    except Exception as error:
        reason = " ".join(str(error).split())
        raise InputError(
            f"functional '{method.functional}': PySCF does not know it ({reason}); give one that it knows, as in "
            f"--method {DEFAULT}, pbe0/{method.basis} or b3lyp-d3bj/{method.basis}, or --method {XTB}"
        ) from None
    if not _is_basis(method.basis):
        raise InputError(
            f"basis '{method.basis}': PySCF does not know it; give another, as in --method {method.functional}/def2-svp"
        )
    if dispersion:
        _check_dispersion(method)


def _check_dispersion(method: Method) -> None:
    """Refuse a dispersion that PySCF does not have, or not for this functional, by asking for that of an atom."""
    from pyscf import dft, gto

    try:
        import pyscf.dispersion  # noqa: F401
    except ImportError:
        raise InputError(
            f"'{method.functional}' needs the dispersion of PySCF; type: pip install pyscf-dispersion"
        ) from None
    try:
        dft.RKS(gto.M(atom="He", basis="sto-3g", verbose=0), xc=method.functional).get_dispersion()
    except Exception as error:
        reason = " ".join(str(error).split())
        raise InputError(
            f"functional '{method.functional}': PySCF does not know its dispersion ({reason}); give one that it knows, "
            f"as in --method pbe0-d3bj/{method.basis}, pbe0-d3zero/{method.basis} or pbe0-d4/{method.basis}"
        ) from None


def _is_basis(name: str) -> bool:
    """Whether PySCF has the basis ``name`` for any of some common elements; not every basis has hydrogen."""
    from pyscf.gto import basis

    if name in MIXED:
        return True
    for symbol in ("H", "C", "Zn", "I"):
        with contextlib.suppress(Exception), warnings.catch_warnings():  # of a name unknown, PySCF warns and raises
            warnings.simplefilter("ignore")
            basis.load(name, symbol)
            return True
    return False


def _basis(name: str, symbols: list[str]) -> dict[str, str] | str:
    if name not in MIXED:
        return name
    first, second, special = MIXED[name]
    return {symbol: second if symbol in special else first for symbol in set(symbols)}


def _cores(name: str, symbols: list[str]) -> dict[str, list]:
    """Effective core potentials that belong to a basis, of every element that has one there.

    Raises :class:`LabelError` for a basis of valence electrons alone without one.
    """
    basis = _basis(name, symbols)
    by_symbol = basis if isinstance(basis, dict) else dict.fromkeys(symbols, basis)
    found = {symbol: _core(own, symbol) for symbol, own in by_symbol.items()}
    bare = sorted(symbol for symbol, core in found.items() if not core and _lacks_core(by_symbol[symbol], symbol))
    if bare:
        raise LabelError(
            f"basis {name}: no functions for the core electrons of {', '.join(bare)}, and PySCF knows no effective "
            "core potential of that name; give another, as in def2-svp"
        )
    return {symbol: core for symbol, core in found.items() if core}


def _core(basis: str, symbol: str) -> list:
    """The effective core potential that PySCF has under the name of a basis; empty where there is none."""
    from pyscf.gto.basis import load_ecp

    with contextlib.suppress(Exception), warnings.catch_warnings():  # whatever its readers run into
        warnings.simplefilter("ignore")
        return load_ecp(basis.removeprefix("aug-"), symbol)  # diffuse functions do not change the core
    return []


def _lacks_core(basis: str, symbol: str) -> bool:
    """Whether the steepest s function is too flat for the 1s electrons of this element."""
    from ase.data import atomic_numbers
    from pyscf.gto.basis import load

    primitives = [row[0] for shell in load(basis, symbol) if shell[0] == 0 for row in shell[1:] if np.ndim(row)]
    number = atomic_numbers[symbol]
    return number > 2 and max(primitives, default=0.0) < _STEEPEST * number**2


@functools.cache
def _has_gpu() -> bool:
    """Whether GPU4PySCF is installed and sees a device."""
    try:
        import cupy
        import gpu4pyscf  # noqa: F401

        return cupy.cuda.runtime.getDeviceCount() > 0
    except Exception:  # no such package, no driver, a driver too old: all mean the CPU
        return False


def _gpu_version() -> str:
    from importlib.metadata import PackageNotFoundError, packages_distributions, version

    try:
        return version(packages_distributions()["gpu4pyscf"][0])
    except (KeyError, IndexError, PackageNotFoundError):
        return "of unknown version"
