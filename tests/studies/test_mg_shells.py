"""Octahedra of Mg2+ among waters or at a phosphate, and what is kept of a frame of their dynamics."""

import numpy as np
import pytest

pytest.importorskip("rdkit")

from analysis.curriculum.mg_shells import AROUND, PHOSPHATES, WATER, droplet, main, octahedron, shell
from omnicalc.data.build.geometry import piece

EVERY = {name: smiles for part in PHOSPHATES.values() for name, smiles in part.items()}


def _built(name: str, seed: int):
    acid = piece(EVERY[name], seed).atoms
    return octahedron(acid, piece("O", 1).atoms, np.random.default_rng(seed)), len(acid)


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_mg_has_one_bare_oxygen_of_the_phosphate_and_five_waters(name, seed):
    built, mg = _built(name, seed)
    assert built.numbers[mg] == 12
    oxygens = np.flatnonzero(built.numbers == 8)
    away = built.get_distances(mg, oxygens)
    near = oxygens[away < 2.5]
    assert (near < mg).sum() == 1 and (near > mg).sum() == 5 and np.sort(away)[6] > 2.6  # no second oxygen
    corner, phosphorus = near[0], np.flatnonzero(built.numbers == 15)[0]
    assert built.get_angle(phosphorus, corner, mg) == pytest.approx(148.0, abs=0.01)
    light = np.flatnonzero(np.isin(built.numbers, (1, 6)))
    assert built.get_distances(corner, light[light < mg]).min() > 1.7  # neither an ester's nor an acid's
    angles = np.sort([built.get_angle(a, mg, b) for k, a in enumerate(near) for b in near[:k]])
    np.testing.assert_allclose(angles, [90.0] * 12 + [180.0] * 3, atol=0.01)
    for oxygen in near[1:]:
        assert built.get_distances(mg, [oxygen + 1, oxygen + 2]).min() > 2.4


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_without_a_phosphate_mg_has_six_waters(seed):
    built = octahedron(None, piece("O", 1).atoms, np.random.default_rng(seed))
    assert str(built.symbols) == "Mg" + "OH2" * 6
    oxygens = np.arange(1, 19, 3)
    np.testing.assert_allclose(built.get_distances(0, oxygens), 2.1, atol=1e-9)
    angles = np.sort([built.get_angle(a, 0, b) for k, a in enumerate(oxygens) for b in oxygens[:k]])
    np.testing.assert_allclose(angles, [90.0] * 12 + [180.0] * 3, atol=0.01)


def test_a_droplet_of_water_keeps_its_nearest_waters():
    atoms = droplet(WATER, "train", np.random.default_rng(0))
    assert len(atoms) == 1 + 3 * (6 + AROUND) and atoms.info["charge"] == 2 and atoms.info["config_type"] == "ion"
    cut = shell(atoms, 9)
    assert cut.info["system"] == "mg water*9" and len(cut) == 28 and cut.info["molecule"] == "mg"
    kept, every = (np.sort(a.get_distances(0, range(1, len(a), 3))) for a in (cut, atoms))
    np.testing.assert_allclose(kept, every[:9], atol=1e-9)


@pytest.mark.parametrize(
    "words, says",
    [(["--ligands", "dpm"], "dpm; allowed"), (["--waters", "13"], "1 to 12"), (["--waters", "0"], "1 to 12")],
)
def test_what_it_does_not_know_is_refused(words, says, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr("sys.argv", ["mg_shells", "--out", str(tmp_path / "x.xyz"), *words])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2 and says in capsys.readouterr().err


def test_a_droplet_knows_its_charge():
    atoms = droplet("dmp", "train", np.random.default_rng(0))
    assert len(atoms) == 13 + 1 + 3 * (5 + AROUND)
    assert atoms.info["charge"] == 1 and atoms.info["spin"] == 1 and atoms.info["split"] == "train"


@pytest.mark.parametrize("waters", [4, 5])
def test_a_shell_has_the_nearest_waters_whole(waters):
    atoms = droplet("methylphosphonate-h", "train", np.random.default_rng(3))
    mg = int(np.flatnonzero(atoms.numbers == 12)[0])
    tail = np.arange(mg + 1, len(atoms)).reshape(-1, 3)[::-1].ravel()  # the far waters first
    cut = shell(atoms[[*range(mg + 1), *tail]], waters)
    assert cut.info["system"] == f"mg methylphosphonate-h water*{waters}" and cut.info["charge"] == 1
    assert list(cut.symbols[mg + 1 :]) == list("OHH" * waters) and len(cut) == mg + 1 + 3 * waters
    kept = np.sort(cut.get_distances(mg, range(mg + 1, len(cut), 3)))
    every = np.sort(atoms.get_distances(mg, range(mg + 1, len(atoms), 3)))
    np.testing.assert_allclose(kept, every[:waters], atol=1e-9)
    for oxygen in range(mg + 1, len(cut), 3):
        assert cut.get_distances(oxygen, [oxygen + 1, oxygen + 2]).max() < 1.1
