"""The DFT labels in data/: no droplet that is judged on is trained on under another name."""

from pathlib import Path

from ase import Atoms

from omnicalc.data.readers import open_frames

FILES = sorted((Path(__file__).parents[2] / "data").glob("ubio-dft*.extxyz.gz"))


def compositions(frames: list[Atoms]) -> dict[str, set[tuple[str, int]]]:
    """Sum formula and charge of everything without carbon, by ``trained`` and ``judged``."""
    found = {"trained": set(), "judged": set()}
    for atoms in frames:
        if "C" not in atoms.get_chemical_symbols():
            part = "trained" if atoms.info["split"] == "train" else "judged"
            found[part].add((atoms.get_chemical_formula(), int(atoms.info["charge"])))
    return found


def test_droplets_are_of_one_split():
    found = compositions([atoms for file in FILES for atoms in open_frames(file)])
    assert len(FILES) >= 7 and len(found["trained"]) > 50 and len(found["judged"]) > 5
    assert found["trained"].isdisjoint(found["judged"])


def test_another_name_hides_nothing():
    judged = Atoms("MgOH2OH2OH2", info={"split": "test", "charge": 2, "system": "mg water*3"})
    trained = Atoms("MgOHOH3OH2", info={"split": "train", "charge": 2, "system": "mg hydroxide hydronium water"})
    found = compositions([judged, trained])
    assert found["trained"] == found["judged"]
