"""A System made with our potential has the ASE calculator's energy and forces, or is refused as ASE's atoms are."""

import subprocess
import sys

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule

pytest.importorskip("openmmml")

import openmm  # noqa: E402
from openmm import app, unit  # noqa: E402

from omnicalc import OmniCalc  # noqa: E402
from omnicalc.errors import InputError, WeightsError  # noqa: E402
from omnicalc.interfaces.openmm_system import DEFAULTS  # noqa: E402
from tests.interfaces.waters import box, cell, cluster, context, energy_and_forces, positions, topology  # noqa: E402
from tests.tiny_weights import write_weights  # noqa: E402

PER_ATOM, FORCE = 1e-6, 1e-5  # eV, eV/Å


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """Weights that know total charges 0 and 1."""
    folder = tmp_path_factory.mktemp("weights")
    write_weights(folder, charges=(0, 1))
    return str(folder)


def skewed() -> Atoms:
    """A box small enough for several images of each pair, in OpenMM's reduced form."""
    atoms = Atoms("OHH", [[0, 0, 0], [0.96, 0.05, 0], [-0.24, 0.93, 0.1]], pbc=True)
    atoms.set_cell([[3.4, 0, 0], [0.9, 3.3, 0], [-0.7, 1.1, 3.6]])
    return atoms


def salt() -> Atoms:
    atoms = cluster(20)
    atoms.symbols[[0, 3]] = ["Na", "Cl"]
    del atoms[[1, 2, 4, 5]]
    return atoms


def assert_equal(of: openmm.Context, atoms: Atoms, groups=-1, **options):
    energy, forces = energy_and_forces(of, groups)
    atoms = atoms.copy()
    atoms.calc = OmniCalc(**options)
    assert energy == pytest.approx(atoms.get_potential_energy(), abs=PER_ATOM * len(atoms))
    assert np.abs(forces - atoms.get_forces()).max() < FORCE


class TestEqualsASE:
    @pytest.mark.parametrize("make", [box, skewed, lambda: cluster(12), salt], ids=["box", "skewed", "cluster", "salt"])
    @pytest.mark.parametrize("platform", ["Reference", "CPU"])
    def test_double(self, MLPotential, make, platform):
        atoms = make()
        system = MLPotential("ubio-s3").createSystem(topology(atoms), precision="double")
        assert system.usesPeriodicBoundaryConditions() == atoms.pbc.all()
        assert_equal(context(system, atoms, platform=platform), atoms, dtype="float64")

    def test_single_is_the_native_kernel_of_the_calculator(self, MLPotential):
        atoms = box()
        system = MLPotential("ubio-s3").createSystem(topology(atoms))
        assert_equal(context(system, atoms), atoms)

    def test_another_box_and_other_positions(self, MLPotential):
        """As after a barostat's move; the box of before gives other forces."""
        atoms = skewed()
        of = context(MLPotential("ubio-s3").createSystem(topology(atoms), precision="double"), atoms)
        stale = energy_and_forces(of)[1]
        atoms.set_cell(atoms.cell.array * 1.02, scale_atoms=False)
        of.setPeriodicBoxVectors(*atoms.cell.array / 10)
        assert_equal(of, atoms, dtype="float64")
        assert np.abs(energy_and_forces(of)[1] - stale).max() > 100 * FORCE
        atoms.positions += [[0, 0, 0], [3.4, 0, 0], [0, 0, 0.1]]
        of.setPositions(atoms.positions / 10)
        assert_equal(of, atoms, dtype="float64")

    def test_no_box_though_the_topology_has_one(self, MLPotential):
        atoms = skewed()
        system = MLPotential("ubio-s3", precision="double").createSystem(topology(atoms), periodic=False)
        assert not system.usesPeriodicBoundaryConditions()
        free = Atoms(atoms.numbers, atoms.positions)
        assert_equal(context(system, free), free, dtype="float64")

    def test_head(self, MLPotential):
        atoms = cluster(3)
        system = MLPotential("ubio-s3").createSystem(topology(atoms), head="revpbe0-d3")
        assert_equal(context(system, atoms), atoms, head="revpbe0-d3")
        assert any("head revpbe0-d3" in force.getName() for force in system.getForces())

    def test_charge_and_multiplicity(self, MLPotential, tiny):
        atoms = molecule("H2O")
        made = MLPotential("omnicalc", modelPath=tiny)
        for charge, multiplicity in ((0, 1), (0, 3), (1, 2)):
            system = made.createSystem(topology(atoms), charge=charge, multiplicity=multiplicity)
            of = context(system, atoms)
            assert_equal(of, atoms, model=tiny, charge=charge, spin=multiplicity)
        call = made._impl._call(topology(atoms), openmm.System(), None, {**DEFAULTS, "charge": 1})
        assert (call.charge, call.spin) == (1, 2)

    def test_a_subset_of_the_atoms(self, MLPotential):
        """In any order, with the rest of the box as if it were not there."""
        atoms = box()
        chosen = [33, 34, 35, 5, 3, 4]
        made, system = MLPotential("ubio-s3", precision="double"), openmm.System()
        for mass in atoms.get_masses():
            system.addParticle(mass)
        made._impl.addForces(topology(atoms), system, chosen, 3)
        energy, forces = energy_and_forces(context(system, atoms), groups={3})
        part = atoms[chosen]
        part.calc = OmniCalc(dtype="float64")
        assert energy == pytest.approx(part.get_potential_energy(), abs=PER_ATOM * 6)
        assert np.abs(forces[chosen] - part.get_forces()).max() < FORCE
        assert not np.delete(forces, chosen, axis=0).any()


class TestMolecules:
    def test_are_those_of_the_topology(self, MLPotential):
        atoms = box()
        of = context(MLPotential("ubio-s3").createSystem(topology(atoms)), atoms)
        assert sorted(map(sorted, of.getMolecules())) == [[k, k + 1, k + 2] for k in range(0, 192, 3)]

    def test_without_bonds_every_atom_is_one(self, MLPotential):
        atoms = Atoms("H2", [[0, 0, 0], [0.74, 0, 0]])
        system = MLPotential("ubio-s3").createSystem(topology(atoms))
        assert len(context(system, atoms).getMolecules()) == 2


class TestSaved:
    def test_xml(self, MLPotential):
        atoms = cluster(4)
        system = MLPotential("ubio-s3").createSystem(topology(atoms), precision="double")
        text = openmm.XmlSerializer.serialize(system)
        again = openmm.XmlSerializer.deserialize(text)
        assert openmm.XmlSerializer.serialize(again) == text
        assert_equal(context(again, atoms), atoms, dtype="float64")

    def test_xml_in_a_process_that_knows_only_openmm(self, MLPotential, tmp_path):
        atoms = cluster(1)
        system = MLPotential("ubio-s3").createSystem(topology(atoms))
        (tmp_path / "system.xml").write_text(openmm.XmlSerializer.serialize(system))
        np.save(tmp_path / "positions.npy", atoms.positions / 10)
        code = (
            "import numpy, openmm, sys\n"
            "system = openmm.XmlSerializer.deserialize(open('system.xml').read())\n"
            "context = openmm.Context(system, openmm.VerletIntegrator(0.001))\n"
            "context.setPositions(numpy.load('positions.npy'))\n"
            "print(context.getState(energy=True).getPotentialEnergy()._value)"
        )
        done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
        expected = context(system, atoms).getState(energy=True).getPotentialEnergy()
        assert done.returncode == 0, done.stderr
        assert float(done.stdout) == pytest.approx(expected.value_in_unit(unit.kilojoule_per_mole), rel=1e-9)

    def test_other_weights_under_the_same_name_are_refused(self, MLPotential, tmp_path):
        atoms = molecule("H2O")
        write_weights(tmp_path / "weights")
        system = MLPotential("omnicalc", modelPath=f"{tmp_path}/weights").createSystem(topology(atoms))
        text = openmm.XmlSerializer.serialize(system)
        write_weights(tmp_path / "weights", seed=1)
        with pytest.raises(openmm.OpenMMException, match="this System was made with .* of sha256"):
            energy_and_forces(context(openmm.XmlSerializer.deserialize(text), atoms))


class TestRefused:
    def refused(self, make, *args, **options) -> str:
        with pytest.raises(InputError) as caught:
            make(*args, **options)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    def test_element(self, MLPotential):
        top = topology(molecule("CH3OH"))
        assert "does not know element C" in self.refused(MLPotential("ubio-s3").createSystem, top)
        top = topology(salt())
        assert "knows all of them" in self.refused(MLPotential("ubio-s3").createSystem, top, head="pbe0-ts")

    def test_charge_and_multiplicity(self, MLPotential, tiny):
        make, top = MLPotential("ubio-s3").createSystem, topology(molecule("H2O"))
        assert "total charge 1" in self.refused(make, top, charge=1)
        assert "need an odd multiplicity" in self.refused(make, top, multiplicity=2)
        assert "charge is 0.5; a whole number" in self.refused(make, top, charge=0.5)
        assert "multiplicity is 'two'" in self.refused(make, top, multiplicity="two")
        assert "createSystem(topology, charge=" in self.refused(make, top, charge=0, multiplicity=0)

    def test_messages_name_what_can_be_typed_here(self, MLPotential):
        top = topology(molecule("CH3CH2OH"))
        top.setPeriodicBoxVectors(np.eye(3) * 2.0 * openmm.unit.nanometer)
        make = MLPotential("scd").createSystem
        assert "periodic=False" in self.refused(make, top)
        assert "createSystem(topology, charge=" in self.refused(make, top, periodic=False, charge=2)
        make(top, periodic=False)

    def test_formal_charges_count(self, MLPotential, tiny):
        top = topology(molecule("H2O"))
        next(top.atoms()).formalCharge = 1
        make = MLPotential("omnicalc", modelPath=tiny).createSystem
        assert "contradicts the formal charges" in self.refused(make, top, charge=0)
        of = context(make(top), molecule("H2O"))
        assert_equal(of, molecule("H2O"), model=tiny, charge=1)
        assert "total charge 1" in self.refused(MLPotential("ubio-s3").createSystem, top)

    def test_names_of_options(self, MLPotential):
        made, top = MLPotential("ubio-s3"), topology(molecule("H2O"))
        assert "'multiplicty' (is multiplicity meant?)" in self.refused(made.createSystem, top, multiplicty=1)
        assert "'spin' (is multiplicity meant?)" in self.refused(made.createSystem, top, spin=1)
        assert "'colour'; OmniCalc takes: charge" in self.refused(made.createSystem, top, colour="red")
        assert "unknown option 'colour'" in self.refused(MLPotential, "ubio-s3", colour="red")
        made._impl.addForces(top, openmm.System(), [0, 1, 2], 0, linkAtomDistances=[])  # the embedding's own
        assert "is precision meant?" in self.refused(
            made._impl.addForces, top, openmm.System(), [0, 1, 2], 0, precison="double"
        )

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            ({"precision": "half"}, "'single' or 'double'"),
            ({"device": "abacus"}, "unknown device 'abacus'"),
            ({"kernel": "magic"}, "unknown kernel 'magic'"),
            ({"skin": -1}, "skin -1.0 Å given"),
            ({"head": "mp2"}, "unknown head 'mp2'"),
            ({"periodic": True}, "the topology has no box"),
            ({"periodic": "no"}, "periodic='no' given; True, False or None"),
            ({"kernel": "native", "precision": "double"}, "kernel='native' is single precision"),
        ],
    )
    def test_values_of_options(self, MLPotential, options, said):
        assert said in self.refused(MLPotential("ubio-s3").createSystem, topology(molecule("H2O")), **options)

    def test_models(self, MLPotential):
        assert "needs modelPath" in self.refused(MLPotential, "omnicalc")
        assert "use MLPotential('omnicalc', modelPath='./mine')" in self.refused(
            MLPotential, "ubio-s3", modelPath="./mine"
        )
        with pytest.raises(WeightsError, match="unknown model 'ubio-s33'"):
            MLPotential("omnicalc", modelPath="ubio-s33")
        with pytest.raises(WeightsError, match="no such folder"):
            MLPotential("omnicalc", modelPath="./nowhere")

    def test_atoms(self, MLPotential):
        made, top = MLPotential("ubio-s3"), topology(molecule("H2O"))
        for atoms, said in (
            ([], "none is"),
            ([0, 3], "atom 3 is"),
            ([-1], "atom -1 is"),
            ([1, 1], "one of them twice"),
        ):
            assert said in self.refused(made._impl.addForces, top, openmm.System(), atoms, 0)
        top.addAtom("M", None, next(top.residues()))
        assert "atom 3 (M of HOH 1) has no element" in self.refused(made.createSystem, top)

    def test_an_old_openmm(self, MLPotential, monkeypatch):
        monkeypatch.delattr(openmm, "PythonForce")
        said = self.refused(MLPotential("ubio-s3").createSystem, topology(molecule("H2O")))
        assert "too old" in said and "pip install" in said


class TestBadPositions:
    """OpenMM's own exception carries our message."""

    def say(self, of: openmm.Context) -> str:
        with pytest.raises(openmm.OpenMMException) as caught:
            energy_and_forces(of)
        return str(caught.value)

    @pytest.mark.parametrize("after_a_good_one", [False, True])
    def test_not_finite(self, MLPotential, after_a_good_one):
        atoms = cluster(2)
        of = context(MLPotential("ubio-s3").createSystem(topology(atoms)), atoms)
        if after_a_good_one:
            energy_and_forces(of)
        atoms.positions[4, 1] = np.nan
        of.setPositions(atoms.positions / 10)
        said = self.say(of)
        assert "atom 4" in said and "nan" in said, said

    def test_on_top_of_each_other(self, MLPotential):
        atoms = cluster(2)
        atoms.positions[3] = atoms.positions[0]
        of = context(MLPotential("ubio-s3").createSystem(topology(atoms)), atoms)
        assert "atom 0 (O) and atom 3 (O) are 0 Å apart" in self.say(of)

    def test_forces_that_are_not_finite(self, MLPotential, monkeypatch):
        atoms = cluster(1)
        made = MLPotential("ubio-s3", kernel="torch")
        system = made.createSystem(topology(atoms))
        potential = made._impl._potential({**DEFAULTS, "kernel": "torch"})
        monkeypatch.setattr(potential.model, "forward", lambda graph: _nan_energies(potential.model, graph))
        assert "minimizeEnergy" in self.say(context(system, atoms))


def _nan_energies(model, graph):
    from dataclasses import replace

    output = type(model).forward(model, graph)
    return replace(output, energies=output.energies * float("nan"))


def test_simulation_writes_whole_molecules(MLPotential, tmp_path):
    """``app.Simulation`` with a reporter, as users write it."""
    atoms = box()
    system = MLPotential("ubio-s3").createSystem(topology(atoms))
    run = app.Simulation(topology(atoms), system, openmm.LangevinMiddleIntegrator(300, 1, 5e-4))
    run.context.setPositions((atoms.positions + [[3, 0, 0]]) / 10)
    run.reporters.append(app.PDBReporter(str(tmp_path / "out.pdb"), 2, enforcePeriodicBox=True))
    run.step(2)
    found = app.PDBFile(str(tmp_path / "out.pdb")).getPositions(asNumpy=True).value_in_unit(unit.angstrom)
    bonds = np.linalg.norm(found[1::3] - found[0::3], axis=1)
    assert bonds.max() < 1.3 and positions(run.context).shape == (192, 3) and cell(run.context)[0, 0] > 12
