"""Systems: what goes in comes out, every bad structure is refused."""

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule

from omnicalc.errors import InputError
from omnicalc.systems import Systems, cat


def refused(text: str, *args, **kwargs):
    """The message of the InputError that ``Systems.from_atoms`` raises; it must hold ``text``."""
    with pytest.raises(InputError) as caught:
        Systems.from_atoms(*args, **kwargs)
    assert text in str(caught.value), str(caught.value)
    return str(caught.value)


def salt() -> Atoms:
    return bulk("NaCl", "rocksalt", a=5.64)


class TestRoundTrip:
    def test_a_batch_keeps_every_structure(self):
        frames = [molecule("H2O"), salt(), molecule("CH3")]
        frames[0].positions += 100.0  # far outside any cell: positions stay as given
        systems = Systems.from_atoms(frames)
        assert systems.n_atoms == 9 and systems.n_systems == 3
        assert systems.counts.tolist() == [3, 2, 4]
        assert systems.system.tolist() == [0] * 3 + [1] * 2 + [2] * 4
        for given, back in zip(frames, systems.to_atoms(), strict=True):
            assert np.array_equal(given.positions, back.positions)
            assert np.array_equal(given.numbers, back.numbers)
            assert np.array_equal(given.cell.array, back.cell.array)
            assert np.array_equal(given.pbc, back.pbc)
        assert [a.info["spin"] for a in systems.to_atoms()] == [1, 1, 2]

    def test_types(self):
        systems = Systems.from_atoms(Atoms("H2", np.array([[0, 0, 0], [1, 0, 0]], dtype=np.float32)))
        assert systems.positions.dtype == systems.cell.dtype == torch.float64
        assert systems.numbers.dtype == systems.charge.dtype == systems.spin.dtype == torch.int64
        assert systems.system.dtype == torch.int64 and systems.pbc.dtype == torch.bool

    def test_nothing_is_shared_with_the_atoms(self):
        atoms = salt()
        systems = Systems.from_atoms(atoms)
        atoms.positions += 1.0
        atoms.cell[0, 0] = 7.0
        assert torch.equal(systems.positions, Systems.from_atoms(salt()).positions)
        assert torch.equal(systems.cell, Systems.from_atoms(salt()).cell)

    def test_charge_and_spin_survive(self):
        atoms = molecule("OH")
        atoms.info.update(charge=-1, spin=3)
        again = Systems.from_atoms(Systems.from_atoms(atoms).to_atoms())
        assert again.charge.tolist() == [-1] and again.spin.tolist() == [3]

    def test_cat_equals_one_call(self):
        frames = [molecule("H2O"), salt(), molecule("CH4")]
        joined = cat([Systems.from_atoms(frames[:2]), Systems.from_atoms(frames[2])])
        whole = Systems.from_atoms(frames)
        for name in ("positions", "numbers", "cell", "pbc", "charge", "spin", "system"):
            assert torch.equal(getattr(joined, name), getattr(whole, name)), name

    def test_with_positions(self):
        systems = Systems.from_atoms(molecule("H2O"))
        moved = systems.with_positions(systems.positions + 1)
        assert torch.equal(moved.positions, systems.positions + 1) and moved.cell is systems.cell
        with pytest.raises(InputError, match=r"\(2, 3\) given; \(3, 3\) needed"):
            systems.with_positions(torch.zeros(2, 3))


class TestBadStructures:
    @pytest.mark.parametrize("given", [None, 3, "water.xyz", [None], [molecule("H2O"), "H2O"]])
    def test_what_is_no_structure(self, given):
        refused("given; ase.Atoms or a list of them is needed", given)

    def test_empty(self):
        refused("empty structure", Atoms())
        refused("no structure", [])
        refused("structure 1 of 2: empty structure", [molecule("H2O"), Atoms()])

    @pytest.mark.parametrize("value", [np.nan, np.inf])
    def test_position_that_is_not_finite(self, value):
        atoms = molecule("H2O")
        atoms.positions[2, 1] = value
        refused("atom 2 (H) has the position", atoms)

    def test_cell_that_is_not_finite(self):
        atoms = salt()
        atoms.cell[1, 1] = np.nan
        refused("not finite", atoms)

    @pytest.mark.parametrize("axis", range(3))
    def test_periodic_axis_without_cell_vector(self, axis):
        atoms = molecule("H2O", cell=[8, 8, 8])
        atoms.cell[axis] = 0
        atoms.pbc = True
        message = refused(f"periodic along {'abc'[axis]} but its cell vector is zero", atoms)
        assert "--cell" in message and "--no-pbc" in message
        atoms.pbc[axis] = False  # the same cell without the periodic axis is fine
        Systems.from_atoms(atoms)

    def test_cell_without_volume(self):
        atoms = molecule("H2O", cell=[[8, 0, 0], [16, 0, 0], [0, 0, 8]], pbc=True)
        refused("periodic along a and b and c but these cell vectors are linearly dependent", atoms)
        atoms.pbc = [True, False, True]
        Systems.from_atoms(atoms)

    @pytest.mark.parametrize("number", [0, -1, 119])
    def test_unknown_element(self, number):
        refused(f"atom 1 has atomic number {number}", Atoms([8, number], [[0, 0, 0], [2, 0, 0]]))

    def test_atoms_on_top_of_each_other(self):
        atoms = Atoms("OHO", [[0, 0, 0], [1, 0, 0], [0, 0, 0.05]])
        refused("atom 0 (O) and atom 2 (O) are 0.05 Å apart", atoms)
        atoms.positions[2, 2] = 0.11
        Systems.from_atoms(atoms)

    def test_atom_on_top_of_an_image(self):
        atoms = Atoms("OH", [[0, 0, 0], [7.96, 0, 0]], cell=[8, 8, 8], pbc=True)
        refused("atom 0 (O) and atom 1 (H) (a periodic image) are 0.04 Å apart", atoms)
        atoms.pbc = [False, True, True]
        Systems.from_atoms(atoms)

    def test_cell_shorter_than_an_atom(self):
        refused("atom 0 (He) and atom 0 (He)", Atoms("He", cell=[0.05, 5, 5], pbc=True))
