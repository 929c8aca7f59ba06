"""The ASE calculator: right numbers, right caching, and never a head that does not fit the structure."""

import copy
import multiprocessing
import os
import pickle
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms, units
from ase.build import molecule
from ase.calculators.calculator import PropertyNotImplementedError
from ase.calculators.fd import calculate_numerical_forces, calculate_numerical_stress
from ase.db import connect
from ase.filters import FrechetCellFilter, UnitCellFilter
from ase.io import read
from ase.md import nose_hoover_chain
from ase.md.verlet import VelocityVerlet
from ase.optimize import BFGS, FIRE

from omnicalc import (
    AllScAIPCalculator,
    E2FormerCalculator,
    OmniCalc,
    OmnimolCalculator,
    SCDCalculator,
    load_potential,
)
from omnicalc.card import CARD, read_card
from omnicalc.errors import InputError, OmniCalcWarning, RunError, WeightsError
from omnicalc.neighbors import neighbors
from omnicalc.potential import Potential
from omnicalc.registry import BUNDLED
from omnicalc.single_point import single_point, single_points
from omnicalc.systems import Systems
from tests.tiny_weights import write_weights

WATER = Path(__file__).parents[1] / "examples" / "water.xyz"


class Counting(Potential):
    """Notes what was asked of it: (forces, stress) of every call."""

    def forward(self, systems, found, *, head, forces=True, stress=False, **kwargs):
        self.calls.append((forces, stress))
        if self.broken:
            raise RuntimeError("broken on purpose")
        return super().forward(systems, found, head=head, forces=forces, stress=stress, **kwargs)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    write_weights(folder, charges=(0, 1))
    return folder


@pytest.fixture
def potential(folder):
    potential = load_potential(folder, dtype="float64")
    potential.__class__ = Counting
    potential.calls, potential.broken = [], False
    return potential


def water(**kwargs) -> Atoms:
    atoms = molecule("H2O", **kwargs)
    atoms.rattle(0.05, seed=1)
    return atoms


def box() -> Atoms:
    atoms = water(cell=[[3.2, 0.1, 0.3], [-0.2, 3.1, 0.2], [0.4, 0.0, 3.3]], pbc=True)
    return atoms


def salt() -> Atoms:
    return Atoms("NaCl", [[0, 0, 0], [2.4, 0.1, 0.2]])


def test_settings_cannot_be_changed_afterwards(potential):
    """ASE's `set` would only change what is said, not what is done."""
    calc = OmniCalc(potential, head="water-theory")
    with pytest.raises(InputError, match="head cannot be set afterwards; make a new calculator.*head='salt-theory'"):
        calc.set(head="salt-theory")
    assert calc.head == calc.todict()["head"] == "water-theory" and calc.set() == {}


class TestResults:
    def test_equal_the_potential(self, potential):
        atoms = box()
        atoms.calc = OmniCalc(potential)
        systems = Systems.from_atoms(atoms)
        found = neighbors(systems, potential.cutoff)
        expected = potential(systems, found, head="water-theory", stress=True)
        assert atoms.get_potential_energy() == pytest.approx(float(expected.energy[0]), abs=1e-12)
        assert atoms.get_potential_energy(force_consistent=True) == atoms.get_potential_energy()
        assert atoms.get_potential_energies().sum() == pytest.approx(atoms.get_potential_energy(), abs=1e-9)
        assert np.allclose(atoms.get_forces(), expected.forces.numpy(), atol=1e-12)
        assert np.allclose(atoms.get_stress(voigt=False), expected.stress[0].detach().numpy(), atol=1e-12)
        for name in ("energy", "free_energy"):
            assert type(atoms.calc.results[name]) is float
        assert atoms.get_forces().dtype == atoms.get_stress().dtype == np.float64

    @pytest.mark.parametrize("make", [water, box])
    def test_forces_and_stress_are_derivatives(self, potential, make):
        atoms = make()
        atoms.calc = OmniCalc(potential)
        forces = atoms.get_forces()
        assert np.abs(forces).max() > 1e-4
        assert np.allclose(forces, calculate_numerical_forces(atoms, eps=1e-4), atol=1e-7)
        if atoms.pbc.all():
            stress = atoms.get_stress()
            assert np.abs(stress).max() > 1e-6
            assert np.allclose(stress, calculate_numerical_stress(atoms, eps=1e-5), atol=1e-9)

    def test_float32_is_the_default(self, folder):
        atoms = box()
        single, double = OmniCalc(folder), OmniCalc(folder, dtype="float64")
        assert single.potential.dtype == torch.float32
        a, b = single.get_property("forces", atoms), double.get_property("forces", atoms)
        assert a.dtype == np.float64 and np.allclose(a, b, atol=1e-5) and not np.array_equal(a, b)

    def test_one_atom(self, potential):
        atoms = Atoms("H")
        atoms.calc = OmniCalc(potential)
        assert np.isfinite(atoms.get_potential_energy())
        assert np.array_equal(atoms.get_forces(), np.zeros((1, 3)))

    @pytest.mark.parametrize("kernel", ["auto", "torch"])
    def test_inside_inference_mode(self, folder, kernel):
        atoms, other = box(), box()
        atoms.calc, outside = OmniCalc(folder, kernel=kernel), OmniCalc(folder, kernel=kernel)
        with torch.inference_mode():
            made_inside = OmniCalc(folder, kernel=kernel)
            found = [(c.get_forces(other), c.get_stress(other)) for c in (atoms.calc, made_inside)]
        expected = outside.get_forces(other), outside.get_stress(other)
        assert np.abs(expected[0]).max() > 1e-4
        for forces, stress in found:
            assert np.array_equal(forces, expected[0]) and np.array_equal(stress, expected[1])
        for calc in (atoms.calc, made_inside):  # what they keep serves outside too
            moved = other.copy()
            moved.positions[0, 0] += 0.01
            assert np.array_equal(calc.get_forces(moved), outside.get_forces(moved))

    @pytest.mark.parametrize("model", ["ubio-s3", "ubio-s1", "omnimol-direct", "allscaip", "scd"])
    def test_what_is_set_for_other_networks(self, model):
        """Torch's default dtype and device and autocast: neither loading nor computing goes by them."""
        atoms = water()
        atoms.calc = OmniCalc(model)
        expected = atoms.get_potential_energy(), atoms.get_forces()
        try:
            torch.set_default_dtype(torch.bfloat16)
            torch.set_default_device("meta")  # as "cuda" would, one where the weights are not
            atoms.calc = OmniCalc(model, device="cpu")
            with torch.autocast("cpu", dtype=torch.bfloat16):
                found = atoms.get_potential_energy(), atoms.get_forces()
            assert (torch.get_default_dtype(), torch.get_default_device().type) == (torch.bfloat16, "meta")
        finally:
            torch.set_default_dtype(torch.float32)
            torch.set_default_device(None)
        assert found[0] == pytest.approx(expected[0], abs=1e-6)
        assert found[1] == pytest.approx(expected[1], abs=1e-6)

    def test_a_walk_equals_fresh_calculators(self, potential):
        """The kept neighbour list never shows in a result."""
        atoms, rng = box(), np.random.default_rng(0)
        atoms.calc = OmniCalc(potential, skin=0.3)
        for k in range(20):
            atoms.positions += rng.normal(size=(3, 3)) * 0.05
            if k % 7 == 6:
                atoms.set_cell(atoms.cell.array * 1.01, scale_atoms=True)
            assert np.array_equal(atoms.get_forces(), OmniCalc(potential).get_property("forces", atoms))


class TestStressOnlyWhereDefined:
    @pytest.mark.parametrize("pbc", [False, (True, True, False)])
    def test_refused(self, potential, pbc):
        atoms = water(cell=[4, 4, 4], pbc=pbc)
        atoms.calc = OmniCalc(potential)
        with pytest.raises(PropertyNotImplementedError, match="periodic along all three axes"):
            atoms.get_stress()
        with pytest.raises(InputError):
            atoms.get_stress()
        assert np.isfinite(atoms.get_forces()).all()

    def test_refused_of_direct_forces(self, tmp_path):
        """It would be that of an energy with other forces; a cell that moved by it would go astray."""
        config = {"elements": [1, 8], "channels": 8, "layers": 1, "values": ["both"], "forces": "linear"}
        write_weights(tmp_path, heads={"a": ("H", "O")}, settings=config)
        atoms = box()
        atoms.calc = OmniCalc(tmp_path, dtype="float64")
        with pytest.raises(PropertyNotImplementedError, match="which the forces of .* are not"):
            atoms.get_stress()
        assert np.abs(atoms.get_forces()).max() > 0
        for points in ([single_point(atoms, atoms.calc)], single_points([atoms, water()], atoms.calc)):
            assert next(iter(points))["stress_eV_per_A3"] is None
        with pytest.raises(InputError, match="frame 0: stress is the derivative of an energy"):
            list(single_points([atoms, atoms], atoms.calc, stress=True))


class TestCaching:
    def test_energy_does_not_pay_for_forces(self, potential):
        atoms = box()
        atoms.calc = OmniCalc(potential)
        atoms.get_potential_energy()
        atoms.get_potential_energies()
        assert potential.calls == [(False, False)]
        atoms.get_forces()
        atoms.get_forces()
        atoms.get_potential_energy()
        assert potential.calls == [(False, False), (True, True)]
        atoms.get_stress()
        atoms.get_forces()
        assert len(potential.calls) == 2

    def test_forces_come_with_the_energy_where_both_are_asked_for_one_by_one(self, potential):
        """As by ASE's socket client for i-PI, and by its calculator for PLUMED."""
        atoms = box()
        atoms.calc = OmniCalc(potential)
        for k in range(4):
            atoms.positions[0, 0] += 0.01
            energy, forces = atoms.get_potential_energy(), atoms.get_forces()
            fresh = OmniCalc(potential)
            assert energy == pytest.approx(fresh.get_property("energy", atoms.copy()), abs=1e-12)
            np.testing.assert_allclose(forces, fresh.get_property("forces", atoms.copy()), atol=1e-12)
            del potential.calls[-2:]  # those of the fresh one
            assert len(potential.calls) == k + 2
        potential.calls.clear()
        for _ in range(3):  # energies alone from here on, as in a Monte Carlo
            atoms.positions[0, 0] += 0.01
            atoms.get_potential_energy()
        assert potential.calls == [(True, True), (False, False), (False, False)]

    def test_forces_bring_the_stress_along_where_there_is_one(self, potential):
        """Which ASE's barostats ask for right after the forces."""
        for pbc in (True, [True, True, False]):
            atoms = box()
            atoms.pbc = pbc
            atoms.calc = OmniCalc(potential)
            atoms.get_forces()
        assert potential.calls == [(True, True), (True, False)]
        potential.calls.clear()
        atoms = box()
        atoms.calc = OmniCalc(potential)
        if not hasattr(nose_hoover_chain, "MTKNPT"):
            pytest.skip("ASE has this barostat from 3.26 on")
        settings = {"temperature_K": 300, "tdamp": 100 * units.fs, "pressure_au": 0.0, "pdamp": 1000 * units.fs}
        nose_hoover_chain.MTKNPT(atoms, timestep=0.5 * units.fs, **settings).run(5)
        assert potential.calls == [(True, True)] * 6

    def test_a_stress_that_nobody_asked_for_may_be_anything(self, potential, monkeypatch):
        monkeypatch.setattr("omnicalc.potential.stress_of", lambda virial, systems: torch.full_like(virial, torch.nan))
        atoms = box()
        atoms.calc = OmniCalc(potential)
        assert np.isfinite(atoms.get_forces()).all()
        with pytest.raises(RunError, match="stress that are not finite"):
            atoms.get_stress()

    def test_asked_together_computed_together(self, potential):
        calc = OmniCalc(potential)
        calc.calculate(box(), ["energy", "forces", "stress"])
        assert potential.calls == [(True, True)] and {"energy", "forces", "stress"} <= set(calc.results)

    @pytest.mark.parametrize(
        "change",
        [
            lambda atoms: atoms.rattle(1e-3),
            lambda atoms: atoms.set_cell(atoms.cell.array * 1.001),
            lambda atoms: atoms.set_pbc([True, True, False]),
            lambda atoms: atoms.info.update(charge=1),
            lambda atoms: atoms.info.update(spin=3),
            lambda atoms: atoms.set_initial_charges([1, 0, 0]),
            lambda atoms: atoms.symbols.__setitem__(1, "O"),
        ],
    )
    def test_every_change_is_noticed(self, potential, change):
        atoms = box()
        atoms.calc = OmniCalc(potential)
        atoms.get_forces()
        change(atoms)
        atoms.get_forces()
        assert len(potential.calls) == 2

    def test_ase_alone_would_not_notice_the_charge(self, potential, monkeypatch):
        """The wrong variant: without our check_state the energy of another charge comes from the cache."""
        monkeypatch.delattr(OmniCalc, "check_state")
        atoms = box()
        atoms.calc = OmniCalc(potential)
        atoms.get_forces()
        atoms.info["charge"] = 1
        atoms.get_forces()
        assert len(potential.calls) == 1

    def test_other_info_is_not_a_change(self, potential):
        atoms = box()
        atoms.calc = OmniCalc(potential)
        atoms.get_forces()
        atoms.info["note"] = "something"
        atoms.get_forces()
        assert len(potential.calls) == 1

    def test_nothing_stale_after_a_failure(self, potential):
        atoms = box()
        atoms.calc = OmniCalc(potential)
        before = atoms.get_forces()
        atoms.rattle(0.01)
        potential.broken = True
        for _ in range(2):
            with pytest.raises(RuntimeError, match="on purpose"):
                atoms.get_forces()
            assert atoms.calc.results == {}
        with pytest.raises(RuntimeError, match="on purpose"):
            atoms.calc.calculate(atoms, ["energy"])
        potential.broken = False
        assert not np.array_equal(atoms.get_forces(), before)

    def test_direct_call_forgets_the_last_structure(self, potential):
        calc = OmniCalc(potential)
        calc.calculate(box(), ["stress"])
        calc.calculate(water(), ["energy"])
        assert set(calc.results) == {"energy", "free_energy", "energies"}

    def test_results_are_not_shared_with_the_caller(self, potential):
        atoms = box()
        atoms.calc = OmniCalc(potential)
        atoms.get_forces()[:] = 0
        assert np.abs(atoms.get_forces()).max() > 0


class TestHeads:
    def test_fixed_by_the_first_structure(self, potential):
        calc = OmniCalc(potential)
        assert calc.head is None
        calc.get_property("energy", salt())
        assert calc.head == "salt-theory"
        calc.get_property("energy", water())  # the salt head knows water: it stays
        assert calc.head == "salt-theory"

    def test_a_later_structure_that_needs_another_head(self, potential):
        calc = OmniCalc(potential)
        calc.get_property("energy", water())
        assert calc.head == "water-theory"
        with pytest.raises(InputError) as caught:
            calc.get_property("energy", salt())
        for text in ("element Na, Cl", "'water-theory'", "knows H, O", "head='salt-theory'", "--head salt-theory"):
            assert text in str(caught.value)
        calc.get_property("energy", water())
        assert calc.head == "water-theory"

    def test_chosen_by_the_user(self, potential):
        calc = OmniCalc(potential, head="salt-theory")
        other = OmniCalc(potential)
        assert calc.get_property("energy", water()) != other.get_property("energy", water())
        with pytest.raises(InputError, match="unknown head 'salt'; .* has: water-theory, salt-theory"):
            OmniCalc(potential, head="salt")

    def test_an_element_that_no_head_knows(self, potential):
        for calc in (OmniCalc(potential), OmniCalc(potential, head="water-theory")):
            with pytest.raises(InputError) as caught:
                calc.get_property("energy", molecule("SiH4"))
            assert "element Si" in str(caught.value) and "H, O" in str(caught.value)
            assert "omnicalc models" in str(caught.value) or "no model here" in str(caught.value)
        for head in (None, "water-theory"):
            with pytest.raises(InputError, match="element C.*odels that know all .*:.*ubio-s2:small@") as caught:
                OmniCalc(potential, head=head).get_property("energy", molecule("CH4"))
            assert "scd:pretrained" not in str(caught.value)  # which knows carbon, but no energies

    def test_a_structure_that_failed_does_not_fix_the_head(self, potential):
        calc = OmniCalc(potential)
        bad = salt()
        bad.positions[0] = np.nan
        with pytest.raises(InputError, match="atom 0"):
            calc.get_property("energy", bad)
        calc.get_property("energy", water())
        assert calc.head == "water-theory"


class TestChargeAndSpin:
    def test_charges_the_weights_were_not_trained_for(self, potential):
        atoms = water()
        atoms.calc = OmniCalc(potential)
        atoms.info["charge"] = -1
        with pytest.raises(InputError, match="total charge -1, but .* was trained for 0, 1 only"):
            atoms.get_potential_energy()
        atoms.info["charge"] = 1
        assert np.isfinite(atoms.get_potential_energy())

    def test_default_for_structures_without_their_own(self, potential):
        atoms = water()
        atoms.calc = OmniCalc(potential, charge=-1)
        with pytest.raises(InputError, match="total charge -1, but .* was trained for 0, 1 only"):
            atoms.get_potential_energy()
        atoms.info["charge"] = 0
        with pytest.raises(InputError, match="is 0 but charge=-1"):
            atoms.get_potential_energy()

    def test_multiplicity_that_cannot_be(self, potential):
        atoms = water()
        atoms.calc = OmniCalc(potential, spin=2)
        with pytest.raises(InputError, match="need an odd multiplicity"):
            atoms.get_potential_energy()


class TestConstruction:
    def test_names_and_provenance(self, folder):
        calc = OmniCalc(folder)
        assert calc.name_resolved == str(folder)
        assert calc.todict()["sha256"] == calc.potential.sha256
        with pytest.raises(WeightsError, match="unknown model 'nonsense'"):
            OmniCalc("nonsense")

    def test_a_database_tells_charges_apart(self, folder, tmp_path):
        """ase.db drops atoms.info: two energies of the same atoms, and nothing else that says why they differ."""
        atoms, rows = molecule("H2O"), connect(tmp_path / "a.db")
        for charge, spin, dtype in ((None, None, "float32"), (1, 2, "float64")):
            atoms.calc = OmniCalc(folder, charge=charge, spin=spin, dtype=dtype)
            atoms.get_potential_energy()
            rows.write(atoms)
        stored = [[row.calculator_parameters[key] for key in ("charge", "spin", "dtype")] for row in rows.select()]
        assert stored == [[None, None, "float32"], [1, 2, "float64"]]

    def test_a_loaded_potential_keeps_its_device_and_dtype(self, potential):
        for kwargs in ({"dtype": "float64"}, {"device": "cpu"}):
            with pytest.raises(InputError, match="loaded potential, which has its own"):
                OmniCalc(potential, **kwargs)

    def test_settings_stay_with_a_calculator(self, folder):
        """Calculators that share a loaded potential share its weights, and nothing else."""
        potential = load_potential(folder, kernel="native")
        first, other = OmniCalc(potential), OmniCalc(potential, kernel="torch")
        assert first.potential.kernel.wanted == "native" and other.potential.kernel.wanted == "torch"
        assert other.potential.model is potential.model
        potential = load_potential("allscaip")
        turned = AllScAIPCalculator(potential, rotations=24)
        assert turned.parameters["rotations"] == turned.potential.model.config.rotations == 24
        assert "rotations" not in AllScAIPCalculator(potential).parameters and potential.model.config.rotations == 1

    def test_families(self, potential):
        assert isinstance(E2FormerCalculator(potential), OmniCalc)
        object.__setattr__(potential.card, "family", "other")
        with pytest.raises(InputError, match="family 'e2former', but .* of the family 'other'"):
            E2FormerCalculator(potential)

    @pytest.mark.parametrize(
        ("family", "tag"),
        [(OmnimolCalculator, "organics"), (SCDCalculator, "organics"), (AllScAIPCalculator, "tiny")],
    )
    def test_without_a_name_a_family_takes_its_bundled_weights(self, family, tag):
        assert family().potential.card.full_name.startswith(f"{family.family}:{tag}@")

    @pytest.mark.parametrize("model", [None, 3, [], {}, b"ubio-s3", ""])
    def test_what_is_no_name(self, model):
        with pytest.raises(WeightsError, match="is no model name; a name as in ubio-s3"):
            OmniCalc(model)

    @pytest.mark.parametrize(
        ("name", "value", "said"),
        [
            ("charge", 1.5, "charge is 1.5; a whole number is needed"),
            ("charge", "1", "a whole number is needed"),
            ("spin", [1, 2], "a whole number is needed"),
            ("skin", "a", "a length in Å is needed"),
            ("skin", None, "a length in Å is needed"),
            ("skin", -1, "0 or more is needed"),
            ("skin", 100, "at most 10 Å"),
            ("device", "meta", "unknown device 'meta'; use auto, cpu"),
            ("device", "mps", "device 'mps' given; Apple's GPUs have no float64, which is needed: use auto or cpu"),
            ("device", None, "unknown device 'None'"),
            ("dtype", "float16", "float32 or float64"),
            ("dtype", None, "float32 or float64"),
        ],
    )
    def test_refused_before_any_structure(self, folder, name, value, said):
        with pytest.raises(InputError, match=said):
            OmniCalc(folder, **{name: value})

    @pytest.mark.parametrize(
        ("given", "said"),
        [
            ({"atoms": 42}, "42 given; ase.Atoms are needed"),
            ({"atoms": "water.xyz"}, r"ase.io.read\('file.xyz'\) makes them"),
            ({"properties": None}, "properties=None given; a list of names is needed"),
        ],
    )
    def test_what_is_no_structure(self, potential, given, said):
        with pytest.raises(InputError, match=said):
            OmniCalc(potential).calculate(**({"atoms": water()} | given))

    def test_no_structure(self, potential):
        with pytest.raises(InputError, match="no structure was given"):
            OmniCalc(potential).calculate()


class TestAmongASE:
    """What scripts do with calculators: optimise, run, copy, pickle."""

    @pytest.mark.parametrize("optimiser", [FIRE, BFGS])
    @pytest.mark.parametrize("around", [lambda atoms: atoms, FrechetCellFilter, UnitCellFilter])
    def test_optimisers_and_cell_filters(self, potential, optimiser, around):
        atoms = box()
        atoms.calc = OmniCalc(potential)
        energy, volume = atoms.get_potential_energy(), atoms.get_volume()
        optimiser(around(atoms), logfile=None).run(fmax=1e-9, steps=4)
        assert atoms.get_potential_energy() < energy
        assert (atoms.get_volume() != volume) == (around in (FrechetCellFilter, UnitCellFilter))

    def test_dynamics(self, potential):
        atoms = water()
        atoms.calc = OmniCalc(potential)
        before = atoms.get_total_energy()
        VelocityVerlet(atoms, timestep=0.05).run(5)
        assert atoms.get_kinetic_energy() > 0
        assert atoms.get_total_energy() == pytest.approx(before, abs=1e-4)

    @pytest.mark.parametrize("copied", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
    def test_copies_go_their_own_way(self, folder, copied):
        atoms = box()
        atoms.calc = OmniCalc(folder, dtype="float64")
        energy, forces = atoms.get_potential_energy(), atoms.get_forces()
        other = copied(atoms)
        assert other.calc is not atoms.calc
        assert other.get_potential_energy() == energy
        other.positions[0] += 0.1
        assert other.get_potential_energy() != energy
        assert other.calc.head == "water-theory"
        assert np.array_equal(atoms.get_forces(), forces) and atoms.get_potential_energy() == energy

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
    def test_atoms_that_went_to_another_process_go_on_here(self):
        """Torch would move tensors to shared memory, under arrays that the native kernel reads, and keep it open."""
        atoms = read(WATER)[:96]
        atoms.calc = OmniCalc("ubio-s3", device="cpu", kernel="native")
        atoms.get_forces()
        atoms.positions += 0.01  # so that the other process, too, has something to compute
        with multiprocessing.get_context("fork").Pool(1) as pool:
            (energy,) = pool.map(Atoms.get_potential_energy, [atoms])
            opened = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").is_dir() else None
            pool.map(Atoms.get_potential_energy, [atoms] * 2)
            if opened is not None:
                assert len(os.listdir("/proc/self/fd")) == opened
        assert energy == pytest.approx(atoms.get_potential_energy(), abs=1e-3)
        atoms.rattle(0.002, seed=1)  # less than the skin: the neighbour list is the one that was sent
        expected = OmniCalc(atoms.calc.potential).get_property("forces", atoms)
        assert atoms.calc._neighbor_list.rebuilds == 1
        assert np.abs(atoms.get_forces() - expected).max() < 1e-4

    def test_copied_atoms_have_no_calculator(self, potential):
        atoms = water()
        atoms.calc = OmniCalc(potential)
        assert atoms.copy().calc is None


def test_bundled_weights_know_whether_they_have_seen_a_box():
    """Single molecules refuse one, clusters warn, liquids say nothing."""
    box = read(WATER)
    for name in ("scd", "ubio-s3:organics"):
        with pytest.raises(InputError, match="single molecules in vacuum"):
            OmniCalc(name).get_property("energy", box)
    with pytest.warns(OmniCalcWarning, match="on no periodic structure"):
        OmniCalc("ubio-s2").get_property("energy", box)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", DeprecationWarning)  # by ASE, of what it does with NumPy 2.5
        OmniCalc("ubio-s3").get_property("energy", box)
        for name, head in (("scd", "ethanol-methanol"), ("ubio-s2", None)):
            OmniCalc(name, head=head).get_property("energy", molecule("CH3CH2OH"))


def test_every_bundled_potential_says_so():
    cards = [read_card(path) for path in BUNDLED.glob(f"*/{CARD}")]
    silent = [card.full_name for card in cards if not all(head.periodic for head in card.heads)]
    assert silent == ["scd:pretrained@0.1"]  # no energies
