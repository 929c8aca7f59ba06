"""What a recipe's data must be, and what is said of data that are not: by file and frame."""

import numpy as np
import pytest
from ase import Atoms, units
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read, write

from omnicalc.errors import InputError
from omnicalc.training.dataset import build_dataset
from omnicalc.training.label_checks import other_unit
from omnicalc.training.recipe import read_recipe
from omnicalc.training.references import fit_references
from tests.training.toy import recipe_in, water


def relabel(atoms, energy=None, forces=None):
    """Other labels; False takes one away."""
    changed = {"energy": energy, "forces": forces}
    labels = {k: atoms.calc.results[k] if v is None else v for k, v in changed.items() if v is not False}
    atoms.calc = SinglePointCalculator(atoms, **labels)


def built(folder, frames=None, change=None, **parts):
    """The data set of the toy's recipe, from ``frames`` or from its own with ``change`` made to them."""
    path = folder / "frames.extxyz"
    if change is not None:
        frames = read(path, ":")
        change(frames)
    if frames is not None:
        write(path, frames)
    return build_dataset(recipe_in(folder, **parts), folder, 4.5, report=lambda line: None)


def refused(folder, match, change, **parts):
    original = (folder / "frames.extxyz").read_bytes()
    with pytest.raises(InputError, match=match):
        built(folder, change=change, **parts)
    (folder / "frames.extxyz").write_bytes(original)
    built(folder)  # the unchanged file is fine


def test_bad_labels_are_named_by_file_and_frame(folder):
    refused(folder, "frame 7 of '.*frames.extxyz' lacks forces", lambda f: relabel(f[7], forces=False))
    refused(folder, "frame 7 of .* lacks energy", lambda f: relabel(f[7], energy=False))

    def nan(frames):
        forces = frames[5].get_forces().copy()
        forces[1, 2] = np.nan
        relabel(frames[5], forces=forces)

    refused(folder, "frame 5 of .*: forces not finite", nan)

    def huge(frames):
        forces = frames[9].get_forces().copy()
        forces[2] = [0, 2e3, 0]
        relabel(frames[9], forces=forces)

    refused(folder, "frame 9 of .*: the force on atom 2 is 2000 eV/Å.*omnicalc data subset --max-force", huge)

    def parity(frames):
        frames[4].info.update(charge=0, spin=2)

    refused(folder, "frame 4 of .*: spin 2 does not fit: 10 electrons", parity)
    charged = r"frame 3 of .* has charge \+1, the recipe's charges are \[0\]"
    refused(folder, charged, lambda f: f[3].info.update(charge=1))
    refused(folder, "frame 2 of .* lacks the key split", lambda f: f[2].info.pop("split"))


def test_labels_under_other_names_are_found(folder):
    def renamed(frames):
        for atoms in frames:
            atoms.info |= {"REF_energy": atoms.get_potential_energy(), "energy_std": 0.1}
            atoms.arrays["REF_forces"] = atoms.get_forces()
            atoms.calc = None

    said = "frame 0 of .* lacks energy and forces .there is REF_energy and REF_forces: .* 's/REF_energy/energy/; s/REF_"
    refused(folder, said + "forces/forces/'", renamed)

    def twice(frames):  # which of them it is, only their owner knows
        frames[0].info |= {"dft_energy": -13.6, "xtb_energy": -2.0}
        frames[0].calc.results.pop("energy")

    refused(folder, "lacks energy .there is dft_energy and xtb_energy: rename those that are the labels", twice)


def test_the_same_structure_in_both_splits(folder):
    def copy(frames):
        frames[6] = frames[1].copy()
        frames[6].calc = frames[1].calc
        frames[6].info["split"] = "valid"
        frames[6].positions += 1e-6

    refused(folder, "frame 6 of .* .valid. is the same structure as frame 1 of .* .train.", copy)

    def shifted(frames):  # a molecule may stand anywhere; a decimal of a file is no border between structures
        frames[1].positions = np.round(frames[1].positions, 4)
        frames[6].positions = np.round(frames[1].positions + [3, 0.0001, -1], 4)

    refused(
        folder, "frame 6 of .* .valid. is the same structure as frame 1 of .* .train.; .* validation error", shifted
    )

    def tested(frames):
        frames[2].info["split"] = "test"
        frames[2].positions = frames[1].positions + 0.5

    refused(folder, "frame 2 of .* .test. is the same structure as frame 1 of .* .train.; .* test error means", tested)


def test_elements_without_a_row_or_a_reference_energy(folder):
    def sulphur(frames):
        frames[8].numbers[0] = 16

    refused(folder, r"frame 8 of .* holds atomic numbers \[16\]; add them to elements", sulphur)
    table = '[references."toy-theory"]\nH = -13.6'
    with pytest.raises(InputError, match=r"frame 1 of .*: atomic numbers \[8\] have no reference energy"):
        built(folder, batch=table)


def test_units_that_look_wrong(folder):
    factor = units.Hartree

    def hartree(frames):  # the whole data set: energies agree with each other, not with the forces
        for atoms in frames:
            relabel(atoms, energy=atoms.get_potential_energy() / factor)

    said = r"what the forces say \(energies in Hartree with forces in eV/Å\?\); energies in eV and forces"
    refused(folder, said, hartree)

    def gradients(frames):
        for atoms in frames:
            relabel(atoms, forces=-atoms.get_forces())

    refused(folder, r"gradients, not forces\?\); energies in eV and", gradients)

    def kcal(frames):
        for atoms in frames:
            relabel(atoms, forces=atoms.get_forces() * 23.06)

    refused(folder, "forces in kcal/mol/Å", kcal)

    def all_electron(frames):
        for atoms in frames:
            relabel(atoms, energy=-76.4)

    refused(folder, "those of the free atoms in Hartree .frame 0 of .*: -76.4000", all_electron)

    def all_electron_kcal(frames):
        for atoms in frames:
            relabel(atoms, energy=-76.4 * units.Hartree / (units.kcal / units.mol))

    refused(folder, "those of the free atoms in kcal/mol .* multiply energies by 0.04336", all_electron_kcal)


# total energies of PBE0/def2-SVP, Hartree
MADE = {"KOH": -675.363, "HBr": -2574.144, "HI": -298.307}


@pytest.mark.parametrize("formula", MADE)
def test_units_of_heavy_elements_by_their_free_atoms(formula):
    """All electrons to Kr; from Rb on also with the core potentials of def2."""
    numbers = Atoms(formula).numbers
    assert other_unit(numbers, MADE[formula]) == "Hartree"
    assert other_unit(numbers, MADE[formula] * units.Hartree / (units.kJ / units.mol)) == "kJ/mol"
    assert other_unit(numbers, MADE[formula] * units.Hartree) == ""
    all_electrons = {"HI": -6918.48}.get(formula, MADE[formula])
    assert other_unit(numbers, all_electrons) == "Hartree" and other_unit(numbers, all_electrons * units.Hartree) == ""


def test_an_energy_in_electronvolts_is_no_other_unit_by_chance():
    """Palladium and ammonia with a core potential: in eV as many as in Hartree with all electrons."""
    energy = -(127.0 + 56.5) * units.Hartree
    numbers = Atoms("PdNH3").numbers
    assert other_unit(numbers, energy) == ""
    assert 0.985 < energy / -(4937.92 + 54.589 + 1.5) < 1.015  # the wrong variant: all electrons alone, Hartree first
    assert other_unit(numbers, -20.0) is None  # a larger core left out: nothing is known
    assert other_unit(np.array([79]), -1.0) is None


def test_one_energy_may_look_like_hartree_by_chance(folder):
    """As valence energies in eV of some compositions do: -792 eV of a GFN2-xTB cluster, for one."""
    frames = read(folder / "frames.extxyz", ":")
    relabel(frames[3], energy=-76.4)
    assert len(built(folder, frames).sources[0].train) > 3


def test_force_only_and_energy_only_sources(folder):
    entry = built(folder, data="energies = false").sources[0].train[0]
    assert not entry.has_energy and entry.has_forces
    frames = read(folder / "frames.extxyz", ":")
    for atoms in frames:
        relabel(atoms, forces=False)
    found = built(folder, frames, data="forces = false")
    assert found.sources[0].train[0].has_energy and not found.sources[0].train[0].has_forces
    assert found.example(0, found.sources[0].train[0]).forces.abs().max() == 0


def test_frames_are_chosen_by_one_of_several_values(folder):
    frames = read(folder / "frames.extxyz", ":")
    for k, atoms in enumerate(frames):
        atoms.info["origin"] = ("md300", "md400", "rattle")[k // 8]

    def origins(data):
        (source,) = built(folder, frames, data=data).sources
        return {frames[entry.frame].info["origin"] for entry in (*source.train, *source.valid)}

    assert origins("") == {"md300", "md400", "rattle"}
    assert origins('only = { origin = "md300, md400" }') == {"md300", "md400"}
    assert origins('only = { origin = "md300" }') == {"md300"}
    assert origins('exclude = { origin = "md300,rattle" }') == {"md400"}


def test_frames_are_left_out_as_the_recipe_says(folder):
    all_of_them = built(folder)
    largest = sorted(np.linalg.norm(a.get_forces(), axis=1).max() for a in read(folder / "frames.extxyz", ":"))
    fewer = built(folder, data=f"max_force = {largest[-4] + 1e-6}")
    assert fewer.sources[0].left_out == 3
    assert len(fewer.sources[0].train) + len(fewer.sources[0].valid) == 21
    assert len(built(folder, data="limit = 7").sources[0].train) == 7 < len(all_of_them.sources[0].train)
    frames = read(folder / "frames.extxyz", ":")
    for k, atoms in enumerate(frames):
        atoms.arrays["other"] = atoms.get_forces() * (-1 if k in (2, 3) else 0.5)
    filtered = built(folder, frames, data='cosine_key = "other"\nmin_cosine = 0.5')
    assert filtered.sources[0].left_out == 2
    with pytest.raises(InputError, match="has no per-atom column 'another'"):
        built(folder, data='cosine_key = "another"')


def test_splits_by_molecule(folder):
    frames = read(folder / "frames.extxyz", ":")
    for k, atoms in enumerate(frames):
        del atoms.info["split"]
        atoms.info["molecule"] = f"m{k // 2}"
    found = built(folder, frames, data='split_by = "molecule"\nvalid_fraction = 0.3')
    train, valid = ({e.molecule for e in part} for part in (found.sources[0].train, found.sources[0].valid))
    assert train and valid and not train & valid
    by_frame = built(folder, frames, data='split_by = "frame"\nvalid_fraction = 0.3').sources[0]
    assert {e.molecule for e in by_frame.train} & {e.molecule for e in by_frame.valid}


def test_given_references_are_used_as_they_are(folder):
    found = built(folder, batch='[references."toy-theory"]\nH = -13.0\nO = -431.0')
    assert found.references["toy-theory"] == {1: -13.0, 8: -431.0}
    entry = found.sources[0].train[0]
    assert found.example(0, entry).energy == pytest.approx(entry.energy + 2 * 13.0 + 431.0)


def test_recipe_keys_are_strict(folder):
    recipe_in(folder)
    file = folder / "recipe.toml"
    text = file.read_text()
    file.write_text(text.replace("warmup", "warmpu"))
    with pytest.raises(InputError, match="unknown keys in .*warmpu"):
        read_recipe(file)
    file.write_text(text.replace('licence = "MIT"\nreference_note', "reference_note"))
    with pytest.raises(InputError, match="missing .*licence"):
        read_recipe(file)
    file.write_text(text.replace('file = "frames.extxyz"', ""))
    with pytest.raises(InputError, match="give file or shards, and not both"):
        read_recipe(file)
    with pytest.raises(InputError, match="sets no limit"):
        recipe_in(folder, batch="[batch]\npacks = 2")
    with pytest.raises(InputError, match="learns from neither"):
        recipe_in(folder, data="energies = false\nforces = false")


def test_references_at_one_composition_keep_the_prior():
    counts = [{1: 2 * n, 8: n} for n in (2, 2, 4)]
    found = fit_references(counts, [-460.0 * n for n in (2, 2, 4)], {1: -13.6, 8: -432.0})
    assert 2 * found[1] + found[8] == pytest.approx(-460.0, abs=1e-9)
    # the correction of -0.8 eV per water is shared 2:1 as least squares of smallest size does
    assert found[1] == pytest.approx(-13.6 - 0.32, abs=1e-6)
    without = fit_references(counts, [-460.0 * n for n in (2, 2, 4)], {})
    assert 2 * without[1] + without[8] == pytest.approx(-460.0, abs=1e-9)
    with pytest.raises(InputError, match=r"lacks atomic numbers \[8\]"):
        fit_references(counts, [-1.0] * 3, {1: -13.6})


def test_stress_labels_of_periodic_structures(folder):
    frames = [water(np.random.default_rng(k)) for k in range(12)]
    for k, atoms in enumerate(frames):
        atoms.set_cell([9.0] * 3)
        atoms.pbc = k % 2 == 0
        atoms.info["split"] = "valid" if k > 9 else "train"
        atoms.calc.results["stress"] = np.arange(6) * 0.01
    found = built(folder, frames)
    entries = found.sources[0].train
    assert [e.has_stress for e in entries[:4]] == [True, False, True, False]
    stress = found.example(0, entries[0]).stress.numpy()
    assert stress[0, 0] == 0 and stress[1, 2] == stress[2, 1] == pytest.approx(0.03)
    learned = {"stage": "stress_weight = 1.0"}
    built(folder, frames, **learned)
    frames[4].calc.results["stress"] = np.array([np.nan] * 6)
    built(folder, frames)  # not looked at
    with pytest.raises(InputError, match="frame 4 of .*: stress not finite"):
        built(folder, frames, **learned)
    frames[4].calc.results["stress"] = np.zeros(6)
    for atoms in frames:
        atoms.pbc = [True, True, False]
    with pytest.raises(InputError, match="stress_weight is above 0 .* no training frame has a stress"):
        built(folder, frames, **learned)
