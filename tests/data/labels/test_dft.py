"""DFT labels: against Psi4's tabulated atoms, the dispersion's own program, and finite differences."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.units import Bohr, Hartree

from omnicalc.data.labels.free_atoms import free_atoms
from omnicalc.data.labels.label import LabelError
from omnicalc.data.labels.method import parse_method
from omnicalc.errors import InputError

pytest.importorskip("pyscf")
pytest.importorskip("pyscf.dispersion")
from omnicalc.data.labels import rescue  # noqa: E402
from omnicalc.data.labels.dft import Dft  # noqa: E402

# Ha, wB97M-D3BJ/def2-TZVPPD by Psi4 1.5: the atom energies of the SPICE data set (openmm/spice-dataset)
SPICE_ATOMS = {"C": -37.87264507233593, "N": -54.62327513368922, "O": -75.11317840410095}
SPICE_IONS = {"Na+1": -162.11366478783253, "Mg+2": -199.2688420040449}


@pytest.mark.parametrize("symbols", ["O", pytest.param("C N O Na Mg", marks=pytest.mark.slow)])
def test_atoms_are_those_of_psi4(symbols):
    """Within 0.8 meV. Heavier atoms differ by up to 9 meV (P), of which density fitting is less than 2: the rest is
    radial grids.
    """
    found = free_atoms(symbols.split(), parse_method("wb97m-d3bj/def2-tzvppd", grid=1 if symbols == "O" else 2))
    for table, part in ((SPICE_ATOMS, "atoms"), (SPICE_IONS, "ions")):
        for name, energy in table.items():
            if name.rstrip("+12") not in symbols.split():
                continue
            assert found[part][name] / Hartree == pytest.approx(energy, abs=3e-5), name
    smaller = free_atoms(["O"], parse_method("wb97m-d3bj/def2-svp", grid=1))["atoms"]["O"] / Hartree
    assert abs(smaller - SPICE_ATOMS["O"]) > 3e-2  # a wrong basis would be seen


def test_dispersion_is_that_of_its_parameters():
    """s6 1, s8 0.3908, a1 0.5660, a2 3.1280 and no three-body term, as Najibi and Goerigk give them."""
    interface = pytest.importorskip("dftd3.interface")
    from pyscf import dft, gto

    atoms = molecule("CH3OH")
    own = interface.RationalDampingParam(s6=1.0, s8=0.3908, a1=0.5660, a2=3.1280, s9=0.0)
    there = interface.DispersionModel(atoms.numbers, atoms.positions / Bohr).get_dispersion(own, grad=False)["energy"]
    mole = gto.M(atom=list(zip(atoms.symbols, atoms.positions, strict=True)), basis="sto-3g", verbose=0)
    assert dft.RKS(mole, xc="wb97m-d3bj").get_dispersion() == pytest.approx(there, abs=1e-8)


@pytest.mark.parametrize(("formula", "charge"), [("H2O", 0), ("OH", 0)])  # closed and open shell
def test_forces_are_the_slope_of_the_energy(formula, charge):
    atoms = molecule(formula)
    atoms.rattle(0.05, seed=2)
    atoms.info = {"charge": charge}
    label, step = Dft(parse_method("wb97m-d3bj/def2-svp", grid=3)), 2e-3
    found = label(atoms)
    moved = [atoms.copy(), atoms.copy()]
    for sign, copy in zip((1, -1), moved, strict=True):
        copy.positions[0, 2] += sign * step
    slope = (label(moved[1]).energy - label(moved[0]).energy) / (2 * step)
    assert found.forces[0, 2] == pytest.approx(slope, abs=2e-3)
    assert abs(slope) > 0.1
    assert np.abs(found.forces.sum(axis=0)).max() < 2e-3
    assert ("s_squared" in found.notes) == (formula == "OH")


def test_mixed_basis_differs_by_element():
    from omnicalc.data.labels.dft import _basis

    assert _basis("def2-mixed", ["H", "O", "Mg"]) == {"H": "def2-tzvp", "O": "def2-tzvpd", "Mg": "def2-tzvp"}
    atoms = Atoms("H")
    mixed = Dft(parse_method("wb97m-d3bj/def2-mixed", grid=1))(atoms)
    assert mixed.energy == pytest.approx(Dft(parse_method("wb97m-d3bj/def2-tzvp", grid=1))(atoms).energy, abs=1e-6)


def test_valence_bases_come_with_their_cores():
    """HBr: 8 electrons in lanl2dz; the core of an element without one, or of another basis, is no more than wrong."""
    from omnicalc.data.labels.dft import _cores

    bromide, rest = Atoms("HBr", [[0, 0, 0], [0, 0, 1.41]]), [("lanl2dz", {"Br": 28}), ("def2-svp", {})]
    for basis, cores in [*rest, ("crenbl", {"Br": 18}), ("aug-cc-pvdz-pp", {"Br": 10})]:
        symbols = ["Br"] if basis.endswith("pp") else ["H", "Br"]
        assert {symbol: core[0] for symbol, core in _cores(basis, symbols).items()} == cores
    assert {s: c[0] for s, c in _cores("def2-mixed", ["H", "I", "Na"]).items()} == {"I": 28}
    label = Dft(parse_method("pbe0/lanl2dz", grid=1))
    assert label(bromide).energy == pytest.approx(-374.1078, abs=1e-3)  # eV; PySCF called by hand with ecp="lanl2dz"
    moved = [bromide.copy(), bromide.copy()]
    for sign, atoms in zip((1, -1), moved, strict=True):
        atoms.positions[1, 2] += sign * 2e-3
    slope = (label(moved[1]).energy - label(moved[0]).energy) / 4e-3
    assert label(bromide).forces[1, 2] == pytest.approx(slope, abs=5e-3)


def test_a_valence_basis_without_a_core_is_refused():
    with pytest.raises(LabelError, match="basis gth-szv: no functions for the core electrons of C"):
        Dft(parse_method("pbe/gth-szv"))(molecule("CO"))


@pytest.mark.parametrize("functional", ["pbe0-d3", "svwn-d3bj"])  # no such damping; no parameters
def test_a_dispersion_that_pyscf_lacks_is_refused_before_any_work(functional):
    with pytest.raises(InputError, match="PySCF does not know its dispersion .* as in --method pbe0-d3bj/sto-3g"):
        Dft(parse_method(f"{functional}/sto-3g"))


def test_unknown_names_are_refused_before_any_work():
    with pytest.raises(InputError, match="functional 'nonsense'.*as in --method wb97m-d3bj/def2-svp"):
        Dft(parse_method("nonsense/def2-svp"))
    with pytest.raises(LabelError, match="cc-pvdz-pp"):  # known, but without hydrogen
        Dft(parse_method("pbe/cc-pvdz-pp"))(molecule("H2"))


def test_a_number_in_a_name_is_no_functional_to_be_subtracted():
    for name in ("wb97x-2", "pbe0-2"):
        with pytest.raises(InputError, match=f"functional '{name}'.*a functional to be subtracted"):
            Dft(parse_method(f"{name}/def2-svp"))
    for name in ("b97-2", "m06-2x", "b3lyp"):
        Dft(parse_method(f"{name}/def2-svp"))


def test_a_basis_that_nobody_knows_is_refused_before_any_structure():
    with pytest.raises(InputError, match="basis 'nonsense'.*--method pbe/def2-svp"):
        Dft(parse_method("pbe/nonsense"))


@pytest.mark.parametrize("basis", ["sto-3g", "def2-mixed", "cc-pvdz-pp", "6-31g*"])
def test_bases_that_lack_some_elements_are_known(basis):
    Dft(parse_method(f"pbe/{basis}"))


def test_ladder(monkeypatch):
    """A first rung that cannot converge is followed by one that can; none that can is an error."""
    method = parse_method("pbe/sto-3g", grid=0)
    plain = Dft(method)(molecule("H2O"))
    monkeypatch.setattr(rescue, "_RUNGS", ({"max_cycle": 1}, {"level_shift": 0.3}))
    rescued = Dft(method)(molecule("H2O"))
    assert rescued.notes["scf_rung"] == 1 and "scf_rung" not in plain.notes
    assert rescued.energy == pytest.approx(plain.energy, abs=1e-5)
    monkeypatch.setattr(rescue, "_RUNGS", ({"max_cycle": 1},))
    newton = Dft(method)(molecule("H2O"))
    assert newton.notes["scf_rung"] == 1 and newton.energy == pytest.approx(plain.energy, abs=1e-5)
    monkeypatch.setattr(rescue, "_MOST_CYCLES", 1)
    with pytest.raises(LabelError, match="did not converge on any of 2 rungs"):
        Dft(method)(molecule("H2O"))
