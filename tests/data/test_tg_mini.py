"""TG-mini: its molecules, its dynamics, and a build that goes on where it was."""

import json
from itertools import pairwise

import numpy as np
import pytest

from omnicalc.data.tg_mini import (
    SETTINGS,
    SPLITS,
    Settings,
    Surface,
    _constant_energy,
    build,
    molecules,
    similarity_table,
    trajectory,
)
from omnicalc.errors import InputError
from tests.command import omnicalc

SHORT = Settings(segments=2, frames=60, equilibration_fs=20.0)


@pytest.fixture(scope="module")
def methanol():
    pytest.importorskip("tblite", exc_type=ImportError)
    return trajectory(molecules()[0], SHORT)


def test_molecules():
    found = molecules()
    assert len({a.info["name"] for a in found}) == len(found) >= 40
    assert {z for a in found for z in a.numbers.tolist()} == {1, 6, 7, 8}
    parts = {split: {a.info["smiles"] for a in found if a.info["split"] == split} for split in SPLITS}
    assert len(parts["train"]) >= 30 and len(parts["test"]) >= 10
    assert all(parts[a].isdisjoint(parts[b]) for a, b in pairwise((*SPLITS, SPLITS[0])))
    assert all(a.info["similarity"] < 1 for a in found if a.info["split"] != "train")
    assert len(similarity_table().splitlines()) == 1 + len(found)


def test_similarities_are_those_of_rdkit():
    chem = pytest.importorskip("rdkit.Chem")
    from rdkit.Chem import DataStructs, rdFingerprintGenerator

    generator = rdFingerprintGenerator.GetMorganGenerator(radius=2, fpSize=2048)
    prints = {a.info["name"]: generator.GetFingerprint(chem.MolFromSmiles(a.info["smiles"])) for a in molecules()}
    trained = [a.info["name"] for a in molecules() if a.info["split"] == "train"]
    for atoms in molecules():
        name, formula = atoms.info["name"], atoms.get_chemical_formula()
        near = [DataStructs.TanimotoSimilarity(prints[name], prints[other]) for other in trained if other != name]
        assert atoms.info["similarity"] == pytest.approx(max(near)), name
        with_hydrogens = chem.AddHs(chem.MolFromSmiles(atoms.info["smiles"]))
        assert sorted(a.GetSymbol() for a in with_hydrogens.GetAtoms()) == sorted(atoms.symbols), formula


def test_velocity_verlet_keeps_the_energy_and_the_momentum(methanol):
    """The error of the energy is of second order in the step, which it is not with any wrong force or unit."""
    potential, masses = Surface(molecules()[0].numbers), methanol["masses"][:, None]
    x, v = (methanol[key][0, 0].astype(float) for key in ("coords", "velocities"))

    def spread(spacing: float, force: float = 1.0) -> float:
        potential.acceleration = lambda x, masses: force * Surface.acceleration(potential, x, masses)
        settings = Settings(spacing_fs=spacing, frames=round(60 / spacing))
        frames = _constant_energy(potential, x, v, masses, settings)
        return (frames["energies"] + frames["kinetic"]).std()

    assert 3 < spread(1.0) / spread(0.5) < 5
    assert spread(1.0, force=1.1) / spread(0.5, force=1.1) < 2
    momentum = (methanol["masses"][:, None] * methanol["velocities"]).sum(2)
    assert np.abs(momentum).max() < 1e-5
    step = np.diff(methanol["coords"], axis=1) / float(methanol["spacing_fs"])
    mean = 0.5 * (methanol["velocities"][:, 1:] + methanol["velocities"][:, :-1])
    assert np.abs(step - mean).max() < 0.1 * np.abs(mean).max()


def test_segments_start_anew_and_seeds_decide(methanol):
    assert methanol["coords"].shape == (2, 60, 6, 3) and methanol["coords"].dtype == np.float32
    assert np.abs(methanol["velocities"][1, 0] - methanol["velocities"][0, -1]).max() > 1e-3
    again = trajectory(molecules()[0], SHORT)
    assert np.array_equal(again["coords"], methanol["coords"])
    other = trajectory(molecules()[0], Settings(**{**vars(SHORT), "seed": 1}))
    assert not np.array_equal(other["coords"], methanol["coords"])


def test_forces_are_the_gradient(methanol):
    potential, x = Surface(molecules()[0].numbers), molecules()[0].positions + 0.03
    x[0, 0] += 0.1
    force, energies = potential.forces(x)[0, 0], []
    for sign in (1, -1):
        moved = x.copy()
        moved[0, 0] += sign * 1e-3
        potential.forces(moved)
        energies.append(potential.energy)
    assert force == pytest.approx((energies[1] - energies[0]) / 2e-3, rel=1e-4)


def test_a_stopped_build_goes_on(tmp_path):
    pytest.importorskip("tblite", exc_type=ImportError)
    words = ["data", "build", "tg-mini", "--out", tmp_path / "set", "--frames", 20, "--equilibration", 5]
    omnicalc(*words, "--molecule", "methanol")
    first = (tmp_path / "set" / "methanol.npz").read_bytes()
    (tmp_path / "set" / ".ethanol.npz.part").write_bytes(b"half")
    said = omnicalc(*words, "--molecule", "methanol", "--molecule", "ethanol")
    assert "methanol: there already" in said and "ethanol: 40 frames" in said
    assert (tmp_path / "set" / "methanol.npz").read_bytes() == first
    assert not (tmp_path / "set" / ".ethanol.npz.part").exists()
    assert json.loads((tmp_path / "set" / SETTINGS).read_text())["frames"] == 20
    with pytest.raises(InputError, match="other settings"):
        build(tmp_path / "set", Settings(frames=21))


def test_what_cannot_be_built(tmp_path):
    with pytest.raises(InputError, match="nonsensol"):
        build(tmp_path / "set", SHORT, ["nonsensol"])
    with pytest.raises(InputError, match="functional/basis"):
        build(tmp_path / "set", Settings(method="magic"))
    with pytest.raises(InputError, match="1.5 fs"):
        build(tmp_path / "set", Settings(spacing_fs=5.0))
    with pytest.raises(InputError, match="segments 0 given; 1 or more"):
        build(tmp_path / "set", Settings(segments=0))
    with pytest.raises(InputError, match="frames 2 given; 3 or more"):
        build(tmp_path / "set", Settings(frames=2))
    for bad in ({"seed": -1}, {"temperature": np.inf}, {"equilibration_fs": np.inf}, {"equilibration_fs": np.nan}):
        with pytest.raises(InputError, match=f"{min(bad)} .* given"):
            build(tmp_path / "set", Settings(**bad))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").touch()
    with pytest.raises(InputError, match="not an empty folder"):
        build(tmp_path / "mine", SHORT)
    assert not (tmp_path / "set").exists()
    with pytest.raises(InputError, match="--out"):
        omnicalc("data", "build", "tg-mini")


def test_the_list_needs_no_out():
    assert "uracil" in omnicalc("data", "build", "tg-mini", "--list")


def test_other_methods(tmp_path):
    """Density functional theory moves the same start elsewhere."""
    pytest.importorskip("pyscf")
    settings = Settings(segments=1, frames=3, equilibration_fs=1.0, method="pbe/sto-3g")
    build(tmp_path / "set", settings, ["methanol"], report=lambda text: None)
    found = np.load(tmp_path / "set" / "methanol.npz")
    assert found["coords"].shape == (1, 3, 6, 3)
    assert found["energies"][0, 0] < 27.2 * -110  # all electrons, which GFN2-xTB does not count
