"""The contract as a test class: a family supplies ``make``, ``head``, ``box`` and ``molecules`` and inherits the tests.

Every promise is tested in float32 and float64, each beside a wrong variant that must fail.
"""

import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from ase import Atoms

from omnicalc.calculator import OmniCalc
from omnicalc.errors import InputError
from omnicalc.neighbors import neighbors
from omnicalc.potential import Potential
from omnicalc.systems import Systems

from . import checks
from .checks import Evaluate, Wrong, add_energy, scale_forces
from .structures import symmetric_molecules, triclinic_waters, waters


class PotentialContract:
    head: str
    elements: tuple[str, ...]
    mirror_symmetric = True
    separation = 30.0  # Å, beyond which two neutral systems must not feel each other
    rounding = checks.TOLERANCE[torch.float32].force  # eV/Å, what single precision may cost; more if a network is steep
    energy_rounding_per_atom = checks.TOLERANCE[torch.float32].energy  # eV, likewise
    step_at_the_cutoff = 1e-4  # eV, of the wrong variant: what must be seen beside the network's own bends there
    charge_sensitive = False  # whether the model looks at charge and spin; if not, it must refuse what it does not know

    def make(self, dtype: torch.dtype) -> Potential:
        raise NotImplementedError

    def box(self) -> Atoms:
        """A small periodic structure, triclinic, with a few atoms per element."""
        return triclinic_waters()

    def molecules(self) -> list[Atoms]:
        """At least two non-periodic structures of different sizes."""
        return [waters(3, None, seed=2), waters(2, None, seed=3)]

    @pytest.fixture(params=[torch.float32, torch.float64], ids=["float32", "float64"])
    def evaluate(self, request) -> Evaluate:
        single = replace(checks.TOLERANCE[torch.float32], force=self.rounding, energy=self.energy_rounding_per_atom)
        return Evaluate(self.make(request.param), self.head, single)

    @pytest.fixture
    def reference(self) -> Evaluate:
        return Evaluate(self.make(torch.float64), self.head)

    @pytest.mark.parametrize("periodic", [True, False], ids=["box", "molecule"])
    def test_rotation(self, evaluate, periodic):
        atoms = self.box() if periodic else self.molecules()[0]
        matrix = checks.rotation(np.random.default_rng(4))
        checks.check_orthogonal(evaluate, atoms, matrix)
        wrong = Wrong(evaluate, add_energy(lambda s: 1e-3 * s.positions[:, 0].tanh()))
        with pytest.raises(AssertionError):
            checks.check_orthogonal(wrong, atoms, matrix)

    def test_mirror(self, evaluate):
        if not self.mirror_symmetric:
            pytest.skip("this model mixes parities and says so")
        atoms, mirror = self.molecules()[0], np.diag([-1.0, 1.0, 1.0])
        checks.check_orthogonal(evaluate, atoms, mirror)

        def handed(systems):  # a triple product changes sign in the mirror
            d = systems.positions - systems.positions.mean(0)
            return 1e-3 * torch.linalg.det(d[:3]).expand(len(d))

        with pytest.raises(AssertionError):
            checks.check_orthogonal(Wrong(evaluate, add_energy(handed)), atoms, mirror)

    def test_translation(self, evaluate):
        checks.check_translation(evaluate, self.box())
        wrong = Wrong(evaluate, add_energy(lambda s: 1e-6 * s.positions.square().sum(1)))
        with pytest.raises(AssertionError):
            checks.check_translation(wrong, self.box())

    def test_permutation(self, evaluate):
        checks.check_permutation(evaluate, self.box())
        wrong = Wrong(evaluate, add_energy(lambda s: 1e-3 * torch.arange(s.n_atoms)))
        with pytest.raises(AssertionError):
            checks.check_permutation(wrong, self.box())

    @pytest.mark.parametrize("periodic", [True, False], ids=["box", "molecule"])
    def test_forces_are_the_gradient(self, evaluate, reference, periodic):
        atoms = self.box() if periodic else self.molecules()[0]
        checks.check_forces(evaluate, reference, atoms)
        with pytest.raises(AssertionError):
            checks.check_forces(Wrong(evaluate, scale_forces(0.95)), reference, atoms)

    def test_second_derivatives(self, reference):
        systems = Systems.from_atoms(self.molecules()[0])

        def energy(positions):
            moved, found = systems.with_positions(positions), neighbors(systems, reference.potential.cutoff)
            return reference.potential(moved, found, head=self.head, forces=False, create_graph=True).energy.sum()

        checks.check_second_derivatives(energy, systems.positions)
        with pytest.raises(AssertionError):  # of positions that were taken out of the graph
            checks.check_second_derivatives(lambda r: energy(r.detach() + 0.5 * (r - r.detach())), systems.positions)

    def test_stress_is_the_strain_derivative(self, evaluate, reference):
        checks.check_stress(evaluate, reference, self.box())
        wrong = Wrong(evaluate, lambda systems, right: replace(right, stress=-right.stress))
        with pytest.raises(AssertionError):
            checks.check_stress(wrong, reference, self.box())

    def test_smooth_at_the_cutoff(self, reference):
        cutoff = reference.potential.cutoff
        atoms = Atoms([self.elements[0]] * 4, [[0, 0, 0], [1.9, 0, 0], [0, 2.0, 0], [cutoff, 0, 0]])
        distances = np.linspace(cutoff - 0.02, cutoff + 0.02, 41)
        checks.check_smooth(reference, atoms, 3, distances)

        def step(systems):  # a pair term that is cut off without an envelope
            d = systems.positions - systems.positions[0]
            return self.step_at_the_cutoff * (d.norm(dim=1) < cutoff)

        with pytest.raises(AssertionError):
            checks.check_smooth(Wrong(reference, add_energy(step)), atoms, 3, distances)

    @pytest.mark.parametrize("atoms", symmetric_molecules(), ids=["line", "tetrahedron"])
    def test_smooth_at_symmetric_geometries(self, reference, atoms):
        checks.check_smooth_at_symmetry(reference, atoms)

        def pull(systems, right):  # the gradient of the length of a sum of vectors, which vanishes in the middle
            bonds = systems.positions[1:] - systems.positions[0]
            return replace(right, forces=right.forces + 0.1 * torch.nn.functional.normalize(bonds.sum(0), dim=0))

        with pytest.raises(AssertionError):
            checks.check_smooth_at_symmetry(Wrong(reference, pull), atoms)

    def test_batch_equals_single_runs(self, evaluate):
        structures = [*self.molecules(), self.box()]
        checks.check_batch(evaluate, structures)
        wrong = Wrong(evaluate, add_energy(lambda s: torch.full((s.n_atoms,), 1e-3 * s.n_systems)))
        with pytest.raises(AssertionError):
            checks.check_batch(wrong, structures)

    def test_far_systems_add_up(self, evaluate):
        one, other = self.molecules()[:2]
        checks.check_separation(evaluate, one, other, self.separation)
        wrong = Wrong(evaluate, add_energy(lambda s: torch.full((s.n_atoms,), 1e-3 * s.n_atoms)))
        with pytest.raises(AssertionError):
            checks.check_separation(wrong, one, other, self.separation)

    def test_isolated_atoms(self, evaluate):
        for symbol in self.elements:
            checks.check_isolated(evaluate, symbol)
        wrong = Wrong(evaluate, add_energy(lambda s: torch.zeros(s.n_atoms) / 0))
        with pytest.raises(AssertionError):
            checks.check_isolated(wrong, self.elements[0])

    def test_charge_and_spin_are_honoured(self):
        """On the tensor path and on the ASE path alike: another energy, or a refusal, never silence."""
        potential, atoms = self.make(torch.float64), self.molecules()[0]
        states = [{"charge": 0, "spin": 1}, {"charge": 1, "spin": 2}, {"charge": 0, "spin": 3}]

        def energies(evaluate):
            return [evaluate(Systems.from_atoms(atoms, **state)).energy.item() for state in states]

        if not self.charge_sensitive:
            with pytest.raises(InputError, match="total charge 1"):
                OmniCalc(potential, head=self.head, charge=1).get_potential_energy(atoms)
            with pytest.raises(InputError, match="total charge 1"):
                potential.bind(Systems.from_atoms(atoms, charge=1), head=self.head)
            return
        right = energies(Evaluate(potential, self.head))
        assert len({round(e, 9) for e in right}) == len(states)
        for state, energy in zip(states, right, strict=True):
            by_argument = OmniCalc(potential, head=self.head, **state).get_potential_energy(atoms)
            labelled = atoms.copy()
            labelled.info.update(state)
            by_info = OmniCalc(potential, head=self.head).get_potential_energy(labelled)
            assert by_argument == pytest.approx(energy, abs=1e-9)
            assert by_info == pytest.approx(energy, abs=1e-9)

        def forgetful(systems):  # the wrong variant: charge and spin dropped on the way
            return Evaluate(potential, self.head)(
                replace(systems, charge=systems.charge * 0, spin=systems.spin * 0 + 1)
            )

        assert len(set(energies(forgetful))) == 1

    def test_float32_is_close_to_float64(self, reference):
        systems = Systems.from_atoms(self.box())
        rough, fine = Evaluate(self.make(torch.float32), self.head)(systems), reference(systems)
        assert abs(rough.energy - fine.energy).item() / systems.n_atoms < 1e-5
        assert (rough.forces - fine.forces).abs().max() < self.rounding
        assert (rough.forces - fine.forces).abs().max() > 0

    def test_nve_drift_is_bounded(self, evaluate):
        checks.check_nve(evaluate, self.box(), bound=2e-4)

        def friction(systems, right):  # a force that is no gradient: it pushes every atom round the axis
            d = systems.positions - systems.positions.mean(0)
            turn = torch.stack([-d[:, 1], d[:, 0], torch.zeros_like(d[:, 0])], 1)
            return replace(right, forces=right.forces + 0.3 * turn)

        with pytest.raises(AssertionError):
            checks.check_nve(Wrong(evaluate, friction), self.box(), bound=2e-4)

    def test_process_is_left_as_found(self):
        def settings():
            return (
                torch.get_default_dtype(),
                torch.get_num_threads(),
                torch.backends.cuda.matmul.allow_tf32,
                torch.get_rng_state().tolist(),
                np.random.get_state()[1].tolist(),
                random.getstate(),
                torch.is_grad_enabled(),
            )

        before = settings()
        Evaluate(self.make(torch.float64), self.head)(Systems.from_atoms(self.box()), stress=True)
        assert settings() == before
        with torch.random.fork_rng():
            torch.manual_seed(5)  # the wrong variant: seeding is noticed
            assert settings() != before
