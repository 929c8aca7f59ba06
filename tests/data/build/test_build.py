"""omnicalc data build: the same structures every time, resumable, and pieces that are what they are called."""

import numpy as np
import pytest
from ase.build import molecule
from ase.io import read

from omnicalc.data.build.composition import composition, molecules_of
from omnicalc.data.build.distort import bonded_pairs, pressed, rattled, stretched
from omnicalc.data.build.job import Job, jobs, run_job
from omnicalc.data.build.peptides import peptide_smiles
from omnicalc.data.build.placing import contacts, random_rotation
from omnicalc.data.build.recipe import RECIPES, read_recipe
from omnicalc.data.split import split_of
from omnicalc.errors import InputError
from tests.command import omnicalc

pytest.importorskip("rdkit")
pytest.importorskip("tblite", exc_type=ImportError)
from omnicalc.data.build.geometry import piece  # noqa: E402
from omnicalc.data.build.placing import place, place_apart  # noqa: E402
from omnicalc.data.labels.xtb import Xtb  # noqa: E402

SMALL = """
name = "small"
seed = 3
summary = "for tests"
jobs_per_shard = 2

[components]
water = "O"
na = "[Na+]"
methanol = "CO"

[[groups]]
config_type = "water"
systems = ["water*2"]
md_frames = 2
md_every = 3
relax_steps = 4

[[groups]]
config_type = "ion"
systems = ["na"]
waters = [1, 2]
md_frames = 1
md_every = 3
relax_steps = 4

[[groups]]
config_type = "drug"
kind = "approach"
systems = ["methanol water"]
frames = 4
"""


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "small.toml"
    path.write_text(SMALL)
    return path


def test_shards(recipe, tmp_path):
    out = tmp_path / "out"
    assert "all shards" in omnicalc("data", "build", recipe, "--out", out)
    frames = [a for path in sorted(out.glob("shard-*.extxyz")) for a in read(path, ":")]
    assert {a.info["config_type"] for a in frames} == {"water", "ion", "drug"}
    for atoms in frames:
        info = atoms.info
        assert info["charge"] == (info["config_type"] == "ion") and info["spin"] == 1
        assert info["split"] == split_of([info["molecule"]]) and info["level_of_theory"] == "gfn2-xtb"
        assert np.abs(atoms.get_forces().sum(axis=0)).max() < 1e-4
        assert np.linalg.norm(atoms.get_forces(), axis=1).max() <= 30
        assert not atoms.pbc.any() and "momenta" not in atoms.arrays and "masses" not in atoms.arrays
    assert {a.info["molecule"] for a in frames} == {"water*2", "na water*1", "na water*2", "methanol"}
    assert {a.info["origin"] for a in frames} >= {"relax", "md300", "rattle", "approach"}


def test_a_build_goes_on_and_ends_the_same(recipe, tmp_path):
    whole, again = tmp_path / "whole", tmp_path / "again"
    omnicalc("data", "build", recipe, "--out", whole)
    omnicalc("data", "build", recipe, "--out", again)
    (again / "shard-0001.extxyz").unlink()
    kept = (again / "shard-0000.extxyz").stat().st_mtime_ns
    omnicalc("data", "build", recipe, "--out", again)
    assert (again / "shard-0000.extxyz").stat().st_mtime_ns == kept
    for k in range(2):
        one, two = (read(folder / f"shard-{k:04d}.extxyz", ":") for folder in (whole, again))
        assert len(one) == len(two) > 0
        for a, b in zip(one, two, strict=True):
            np.testing.assert_array_equal(a.positions, b.positions)
            np.testing.assert_array_equal(a.get_forces(), b.get_forces())
    other = recipe.with_name("other.toml")
    other.write_text(SMALL.replace("seed = 3", "seed = 4"))
    with pytest.raises(InputError, match="another recipe"):
        omnicalc("data", "build", other, "--out", again)


def test_a_seed_is_a_set_of_structures(recipe):
    first = read_recipe(recipe)
    recipe.write_text(SMALL.replace("seed = 3", "seed = 4"))
    second = read_recipe(recipe)
    job = Job(group=0, system="water*2", start=0)
    a, b = run_job(job, first)[0][0], run_job(job, second)[0][0]
    assert np.abs(a.positions - b.positions).max() > 0.01


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"water*2"', '"wotter*2"', "'wotter' is no component of the recipe; known: water, na, methanol"),
        ('"water*2"', '"water*two"', "name or name.count is needed"),
        ('"water*2"', '"ACE-X-NME"', "unknown residue 'X'"),
        ("md_every", "md_evry", "unknown keys in .*md_evry"),
        ('kind = "approach"', 'kind = "aproach"', "kind = 'aproach'"),
        ("seed = 3", "seed =", "not valid TOML"),
        ("waters = [1, 2]", "waters = [2, 2]", "asks for ion/sample/na water.2/0 more than once"),
        ('config_type = "ion"', "", "missing .*config_type"),
        ("seed = 3", "seed = -1", "seed = -1 in .*: a whole number from 0"),
        ("seed = 3", 'seed = "3"', "seed = '3' in .*: a whole number is needed"),
        ("jobs_per_shard = 2", "jobs_per_shard = 0", "jobs_per_shard = 0 in .*: a number of at least 1"),
        ("jobs_per_shard = 2", "decimals = -1", "decimals = -1 in .*: a whole number from 3 to 15"),
        ("jobs_per_shard = 2", "step_fs = nan", "step_fs = nan in .*: a number is needed"),
        ("jobs_per_shard = 2", 'always_train = "water"', "always_train = 'water' in .*: a list"),
        ('water = "O"', "water = 8", "components = .*: a table of values, each text"),
        ('["na"]', '"na"', "systems = 'na' in .*groups.. 2 of .*: a list"),
        ("waters = [1, 2]", "waters = []", "waters = .* in .*: a list of whole numbers of 0 or more"),
        ("waters = [1, 2]", "starts = 0", "starts = 0 in .*: a number of at least 1"),
        ("waters = [1, 2]", "temperatures = []", "temperatures = .*: a list of numbers of 0 or more"),
        ("waters = [1, 2]", "rattle_width = [0.5, 0.1]", "rattle_width = .*: a list of two numbers"),
        ("waters = [1, 2]", "stretched = 2.0", "stretched = 2.0 in .*: a number from 0 to 1"),
        ("waters = [1, 2]", "max_force = 0.0", "max_force = 0.0 in .*: a number above 0"),
        ("waters = [1, 2]", "frames = 9", "frames in .* has no say in kind 'sample', only in stretch, approach"),
        ("waters = [1, 2]", "radius = [3.0, 4.0]", "radius in .* has no say in kind 'sample', only in carve"),
        ("frames = 4", "md_frames = 4", "md_frames in .* has no say in kind 'approach', only in sample, apart, carve"),
        ('"methanol water"', '"methanol"', "system 'methanol' in .*: kind 'approach' needs two pieces"),
        ('kind = "approach"\nsystems = ["methanol water"]\nframes = 4', 'kind = "carve"\nsystems = ["all"]', "file is"),
    ],
)
def test_bad_recipes(recipe, tmp_path, old, new, message):
    recipe.write_text(SMALL.replace(old, new))
    with pytest.raises(InputError, match=message):
        omnicalc("data", "build", recipe, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_unknown_recipe_names_the_shipped_ones(tmp_path):
    with pytest.raises(InputError, match="shipped recipes: .*ubio-xtb"):
        omnicalc("data", "build", "nonsense", "--out", tmp_path / "out")


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.toml")), ids=lambda path: path.stem)
def test_shipped_recipes(path):
    """Every piece of every system has a geometry's worth of chemistry: RDKit knows it, with whole electron pairs."""
    from omnicalc.data.build.geometry import _molecule

    recipe = read_recipe(path)
    groups = [group for group in recipe.groups if group.kind != "carve"]
    smiles = {one for group in groups for system in group.systems for one in composition(system, recipe)}
    for one in smiles:
        atoms = _molecule(one).GetAtoms()
        assert sum(a.GetAtomicNum() - a.GetFormalCharge() for a in atoms) % 2 == 0, one
    if len(groups) < len(recipe.groups) or recipe.only_split:
        return  # spheres say only when cut what they are of
    parts = {split_of(molecules_of(job.system, recipe), recipe.split_salt, recipe.always_train) for job in jobs(recipe)}
    assert parts == {"train", "valid", "test"}


def test_splits_keep_molecules_together(recipe):
    made = read_recipe(recipe)
    assert molecules_of("methanol na water*3", made) == ["methanol"]
    assert molecules_of("na water*3", made) == ["na water*3"]
    names = [f"m{k}" for k in range(2000)]
    parts = {name: split_of([name]) for name in names}
    share = np.mean([part == "test" for part in parts.values()])
    assert 0.07 < share < 0.13
    test = next(n for n in names if parts[n] == "test")
    valid = next(n for n in names if parts[n] == "valid")
    train = next(n for n in names if parts[n] == "train")
    assert split_of([train, test]) == split_of([valid, test]) == "test" and split_of([train, valid]) == "valid"
    assert split_of([test], always_train=[test]) == "train"


def test_peptides():
    """Formula, charge and handedness; the wrong hand is told apart."""
    from rdkit import Chem

    def mirrored(code, smiles):
        return Chem.CanonSmiles(peptide_smiles(code)) == Chem.CanonSmiles(smiles)

    assert mirrored("A", "CC(=O)N[C@@H](C)C(=O)NC") and not mirrored("dA", "CC(=O)N[C@@H](C)C(=O)NC")
    assert mirrored("mL", "CC(=O)N(C)[C@@H](CC(C)C)C(=O)NC")
    assert mirrored("P", "CC(=O)N1CCC[C@H]1C(=O)NC")  # L, as in the data bank
    assert piece(peptide_smiles("K"), 1).charge == 1 and piece(peptide_smiles("D-R"), 1).charge == 0
    assert len(piece(peptide_smiles("G"), 1).atoms) == 19
    codes = {Chem.FindMolChiralCenters(Chem.MolFromSmiles(peptide_smiles(c)), useLegacyImplementation=False)[0][1]
             for c in ("A", "mV", "S", "F", "P", "Abu", "N")}  # fmt: skip
    assert codes == {"S"}  # all L residues but cysteine


def test_clusters_touch_and_do_not_overlap():
    pieces = [piece("[Mg+2]", 0), *(piece("O", k) for k in range(6)), piece("COP(=O)([O-])OC", 1)]
    for seed in range(3):
        atoms = place(pieces, np.random.default_rng(seed))
        assert atoms.info == {"charge": 1, "spin": 1} and len(atoms) == 1 + 18 + 13
        distance = atoms.get_all_distances() + 10 * np.eye(len(atoms))
        owner = np.repeat(range(8), [1, *[3] * 6, 13])
        other = distance[owner[:, None] != owner[None]]
        assert 1.7 < other.min() < 3.0
        assert np.ptp(atoms.positions, axis=0).max() < 20
        water = atoms[1:4].get_all_distances()
        assert water[0, 1] == pytest.approx(0.97, abs=0.03)  # pieces stay whole
    cation, water = pieces[0], pieces[1]
    near = [place([cation, water], np.random.default_rng(k)) for k in range(12)]
    oxygen_first = [a.get_distance(0, 1) < min(a.get_distance(0, 2), a.get_distance(0, 3)) for a in near]
    assert sum(oxygen_first) >= 10  # electrostatics turns the oxygen to the cation


def test_distortions():
    rng = np.random.default_rng(0)
    atoms = molecule("CH3OH")
    bonds = bonded_pairs(atoms)
    assert len(bonds) == 5
    changed = 0
    for _ in range(20):
        copy = stretched(atoms, (1.4, 1.5), rng, most=1)
        ratio = [copy.get_distance(i, j) / atoms.get_distance(i, j) for i, j in bonds]
        assert sum(abs(r - 1) > 1e-6 for r in ratio) == 1 and 1.39 < max(ratio) < 1.51
        changed += ratio[0] > 1.1
    assert 0 < changed < 20  # not always the same bond
    ring = molecule("C6H6")
    copy = stretched(ring, (1.4, 1.5), rng)
    assert np.ptp(np.linalg.norm(copy.positions[:6], axis=1)) < 1e-6  # rings stay; only C-H bonds go
    assert np.abs(rattled(atoms, (0.1, 0.1), rng).positions - atoms.positions).std() == pytest.approx(0.06, abs=0.04)


def test_pressed_pieces_come_as_close_as_asked():
    water = molecule("H2O")
    limits = contacts(water.numbers, water.numbers)
    rng = np.random.default_rng(1)
    for factor in (0.5, 1.0, 2.0):
        both = pressed(water, water, limits, factor, rng)
        between = both.get_all_distances()[:3, 3:] / limits
        assert between.min() == pytest.approx(factor, abs=1e-3)


def test_rotations_are_proper():
    rng = np.random.default_rng(2)
    for _ in range(5):
        r = random_rotation(rng)
        np.testing.assert_allclose(r @ r.T, np.eye(3), atol=1e-12)
        assert np.linalg.det(r) == pytest.approx(1)


def test_what_is_larger_is_nowhere_in_the_training_data():
    """No system of the test recipe is one of the training recipe, and its solutes, but Ace-Ala-Nme and phosphate that
    stand in larger droplets, are new; all frames are to test on.
    """
    larger, trained = read_recipe("ubio-larger"), read_recipe("ubio-xtb")
    seen = {job.system for job in jobs(trained)}
    assert larger.only_split == "test" and not {job.system for job in jobs(larger)} & seen
    solutes = {molecule for job in jobs(larger) for molecule in molecules_of(job.system, larger)}
    known = {molecule for job in jobs(trained) for molecule in molecules_of(job.system, trained)}
    assert {"ApU", "ACE-A-A-A-NME", "ACE-mL-mL-A-dA-NME"} <= solutes - known


def test_fewer_decimals_are_those_of_the_labelled_structure(tmp_path):
    """Positions are rounded before the label, not after it."""
    path = tmp_path / "small.toml"
    path.write_text("decimals = 3" + SMALL)
    recipe = read_recipe(path)
    frames, _ = run_job(Job(group=0, system="water*2", start=0), recipe)
    for atoms in frames:
        np.testing.assert_array_equal(atoms.positions, atoms.positions.round(3))
        np.testing.assert_array_equal(atoms.get_forces(), atoms.get_forces().round(3))
        again = Xtb()(atoms)
        assert again.energy == pytest.approx(atoms.get_potential_energy(), abs=1e-6)
        np.testing.assert_allclose(again.forces, atoms.get_forces(), atol=6e-4)


def test_a_recipe_can_name_the_split_of_all_its_frames(tmp_path):
    path = tmp_path / "small.toml"
    path.write_text('only_split = "test"' + SMALL)
    recipe = read_recipe(path)
    frames, _ = run_job(jobs(recipe)[0], recipe)
    assert frames and {atoms.info["split"] for atoms in frames} == {"test"}
    path.write_text('only_split = "tests"' + SMALL)
    with pytest.raises(InputError, match="'tests'.*train, valid, test"):
        read_recipe(path)


@pytest.mark.parametrize(
    "name", ["ubio-more", "ubio-organics", "ubio-apart", "ubio-wider", "ubio-broad", "ubio-droplets"]
)
def test_more_to_train_on_holds_nothing_that_is_judged_on(name):
    """Neither by the molecules' names nor, where they are called otherwise, by what they are."""
    from rdkit.Chem import MolFromSmiles, MolToSmiles
    from rdkit.Chem.rdMolDescriptors import CalcMolFormula

    def flat(smiles: str) -> str:
        return MolToSmiles(MolFromSmiles(smiles), isomericSmiles=False)

    def hands(peptide: str) -> set[str]:  # a mirror image has the same energies
        smiles = peptide_smiles(peptide.removeprefix("ACE-").removesuffix("-NME"))
        mirrored = smiles.replace("@@", "?").replace("@", "@@").replace("?", "@")
        return {MolToSmiles(MolFromSmiles(one)) for one in (smiles, mirrored)}

    def formula(system: str, recipe) -> str:  # "mg hydroxide hydronium water" is "mg water*3"
        return CalcMolFormula(MolFromSmiles(".".join(composition(system, recipe))))

    def solvent_alone(system: str, recipe) -> bool:
        return {word.partition("*")[0] for word in system.split()} <= set(recipe.solvent)

    more, first = read_recipe(name), read_recipe("ubio-xtb")
    split = {
        solute: split_of([solute], first.split_salt, first.always_train)
        for job in jobs(first)
        for solute in molecules_of(job.system, first)
    }
    judged = {flat(first.components[m]) for m, part in split.items() if part != "train" and m in first.components}
    clusters = {formula(m, first) for m, part in split.items() if part != "train" and solvent_alone(m, first)}
    peptides = set().union(*(hands(m) for m, part in split.items() if part != "train" and m.startswith("ACE-")))
    assert more.only_split == "train" and len(judged) > 20 and len(clusters) > 10 and len(peptides) > 10
    for job in jobs(more):
        assert formula(job.system, more) not in clusters, job.system
        for solute in molecules_of(job.system, more):
            assert split.get(solute, "train") == "train", job.system
            assert solute not in more.components or flat(more.components[solute]) not in judged, job.system
            assert not solute.startswith("ACE-") or hands(solute).isdisjoint(peptides), job.system


@pytest.mark.parametrize("distance", [3.0, 6.5])
@pytest.mark.parametrize("smiles", [("[Na+]", "[Cl-]"), ("COP(=O)([O-])OC", "[Mg+2]"), ("c1ccccc1", "C[NH3+]")])
def test_pieces_are_placed_apart(smiles, distance):
    rng = np.random.default_rng(4)
    pieces = [piece(one, 1) for one in (*smiles, "O", "O", "O")]
    atoms = place_apart(pieces, distance, rng)
    cut = [0, *np.cumsum([len(p.atoms) for p in pieces])]
    parts = [atoms.positions[a:b] for a, b in zip(cut, cut[1:], strict=False)]
    gap = np.linalg.norm(parts[0][:, None] - parts[1][None], axis=2)
    assert gap.min() == pytest.approx(distance, abs=2e-3)
    (held,) = atoms.constraints
    assert atoms.get_distance(*held.pairs[0]) == pytest.approx(distance, abs=2e-3)
    assert atoms.info["charge"] == sum(p.charge for p in pieces)


def test_a_pair_that_is_held_apart_stays_so(tmp_path):
    path = tmp_path / "apart.toml"
    path.write_text(
        'name = "apart"\nseed = 1\nsummary = "for tests"\n[components]\nwater = "O"\nna = "[Na+]"\ncl = "[Cl-]"\n'
        '[[groups]]\nconfig_type = "ion"\nkind = "apart"\nsystems = ["na cl water*2"]\napart = [4.0, 4.5]\n'
        "relax_steps = 6\nmd_frames = 3\nmd_every = 4\nstretched = 0.0\n"
    )
    recipe = read_recipe(path)
    frames, left_out = run_job(jobs(recipe)[0], recipe)
    gaps = {a.info["origin"]: a.get_distance(0, 1) for a in frames}
    assert not left_out and not any(a.constraints for a in frames)
    assert 4.0 <= gaps["relax"] <= 4.5 and gaps["md300"] == pytest.approx(gaps["relax"], abs=1e-4)
    assert abs(gaps["rattle"] - gaps["relax"]) > 1e-4  # displaced on purpose, so labels say how it would move
