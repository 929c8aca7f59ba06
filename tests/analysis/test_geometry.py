import warnings

import numpy as np
import pytest

from omnicalc.analysis.geometry import geometries
from omnicalc.errors import InputError

from .conftest import waters
from .test_rdf import matrix

BOX = (12.0, 13.0, 12.5, 80.0, 95.0, 75.0)


def place(a, b, c, length, angle, dihedral):
    """The next atom of a chain a, b, c from internal coordinates (Å, degrees)."""
    angle, dihedral = np.radians(180.0 - angle), np.radians(dihedral)
    u = (c - b) / np.linalg.norm(c - b)
    n = np.cross(b - a, u)
    n /= np.linalg.norm(n)
    m = np.cross(n, u)
    return c + length * (np.cos(angle) * u + np.sin(angle) * (np.cos(dihedral) * m + np.sin(dihedral) * n))


def chain(phi, psi, omega=180.0, residues=4):
    """Backbone N, CA, C, O of glycines with the same phi, psi and omega: names, residue numbers, positions."""
    x = [np.zeros(3), np.array([1.46, 0.0, 0.0]), np.array([2.0, 1.42, 0.0])]
    for _ in range(residues - 1):
        for length, angle, dihedral in ((1.33, 116.0, psi), (1.46, 122.0, omega), (1.52, 111.0, phi)):
            x.append(place(*x[-3:], length, angle, dihedral))
    names, numbers, positions = [], [], []
    for k in range(residues):
        n, ca, c = x[3 * k : 3 * k + 3]
        after = x[3 * k + 3] if k < residues - 1 else place(n, ca, c, 1.33, 116.0, psi)
        away = (c - ca) / 1.52 + (c - after) / 1.33
        positions += [n, ca, c, c + 1.23 * away / np.linalg.norm(away)]
        names += ["N", "CA", "C", "O"]
        numbers += [k + 1] * 4
    return names, numbers, np.array(positions)


def write_chain(folder, frames_of, n_frames=20, box=None):
    import MDAnalysis

    names, numbers, positions = frames_of(0)
    lines = [
        f"ATOM  {k + 1:5d}  {name:<3s} GLY A{number:4d}    {x:8.3f}{y:8.3f}{z:8.3f}  1.00  0.00{name[0]:>12s}  "
        for k, (name, number, (x, y, z)) in enumerate(zip(names, numbers, positions, strict=True))
    ]
    (folder / "topology.pdb").write_text("\n".join([*lines, "END", ""]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        universe = MDAnalysis.Universe.empty(len(names), trajectory=True)
        with MDAnalysis.Writer(str(folder / "traj.dcd"), len(names)) as writer:
            for k in range(n_frames):
                universe.atoms.positions, universe.dimensions = frames_of(k)[2], box
                writer.write(universe.atoms)
    return folder


def test_water_has_its_shape_in_a_triclinic_box(write_traj):
    rng = np.random.default_rng(0)
    elements, positions = waters(3, 11.0, rng)
    whole = positions + rng.integers(-1, 2, size=positions.shape) @ matrix(BOX)
    result = geometries(write_traj(elements, [positions, whole] * 10, BOX), measures=["0,1,2", "1,2"])
    assert result["bond H-O"].value == pytest.approx((0.957 + np.hypot(0.240, 0.927)) / 2, abs=1e-5)
    angle = np.degrees(np.arccos(-0.240 / np.hypot(0.240, 0.927)))
    assert result["angle H-O-H"].value == pytest.approx(angle, abs=1e-3)
    assert result["angle H-O-H"].stderr == pytest.approx(0.0, abs=1e-4)
    kinds = result.tables["kinds"]
    assert (kinds["kind"], kinds["count"]) == (["H-O", "H-O-H"], [54, 27])
    assert result.tables["histograms"]["kind"].count("H-O-H") >= 1
    measured = result.tables["measures"]
    assert any(name.startswith("angle_HOH") or name.startswith("angle_") for name in measured)


@pytest.mark.parametrize(("phi", "psi"), [(-60.0, -45.0), (-135.0, 135.0), (60.0, 178.0)])
def test_backbone_angles_are_those_it_was_built_with(tmp_path, phi, psi):
    from MDAnalysis import Universe
    from MDAnalysis.analysis.dihedrals import Ramachandran

    rng = np.random.default_rng(1)
    offsets = 4.0 * rng.normal(size=(20, 2))
    folder = write_chain(tmp_path, lambda k: chain(phi + offsets[k, 0], psi + offsets[k, 1]))
    result = geometries(folder)
    truth = np.degrees(np.angle(np.exp(1j * np.radians([phi, psi] + offsets)).mean(axis=0)))
    for name, value in zip(("phi", "psi"), truth, strict=True):
        found = result[f"{name} GLY2"]
        assert found.value == pytest.approx(value, abs=1e-3)
        assert 0.3 < found.stderr < 2.5
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        universe = Universe(str(folder / "topology.pdb"), str(folder / "traj.dcd"))
        theirs = Ramachandran(universe.select_atoms("protein")).run().results.angles
    circular = np.degrees(np.angle(np.exp(1j * np.radians(theirs)).mean(axis=0)))
    table = result.tables["backbone"]
    ours = np.stack([table["phi_degrees"], table["psi_degrees"]], axis=1)
    assert table["residue"].tolist() == ["GLY2", "GLY3"]
    assert np.allclose(ours, circular, atol=1e-3)
    assert table["cis_fraction"].tolist() == [0.0, 0.0]
    if psi == 178.0:
        assert abs(theirs[:, 0, 1].mean() - psi) > 20, "a plain mean across 180 degrees is wrong"
    assert np.sum(result.tables["ramachandran"]["fraction"]) == pytest.approx(1.0)


def test_cis_peptide_bonds_are_counted(tmp_path):
    folder = write_chain(tmp_path, lambda k: chain(-75.0, 150.0, omega=0.0 if k % 4 == 0 else 180.0))
    assert geometries(folder).tables["backbone"]["cis_fraction"] == pytest.approx([0.25, 0.25])


def test_a_followed_dihedral_keeps_its_sign(write_traj):
    a, b, c = np.array([0.0, 1.0, 0.0]), np.zeros(3), np.array([1.5, 0.0, 0.0])
    frames = [np.array([a, b, c, place(a, b, c, 1.5, 110.0, 175.0 + 2.0 * k)]) for k in range(10)]
    result = geometries(write_traj(["C"] * 4, frames, None), measures=["0,1,2,3", "3,2,1,0"])
    same = [q for q in result.quantities if q.name.startswith("dihedral")]
    assert [abs(q.value) for q in same] == pytest.approx([176.0, 176.0], abs=1e-2)  # 175 to 193: mean 184
    assert all(q.value < 0 for q in same)
    assert np.std([abs(v) for v in list(result.tables["measures"].values())[-1]]) > 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"measures": ["0,1,99"]}, "--measure 0,1,99 is not two, three or four different atom numbers from 0 to 2"),
        ({"measures": ["0,0"]}, "--measure 0,0"),
        ({"measures": ["a,b"]}, "--measure a,b"),
        ({"select": "N"}, "--select 'N' selects no atom"),
        ({"select": "H"}, "no bond inside --select 'H'"),
    ],
)
def test_bad_settings_name_what_is_allowed(write_traj, settings, message):
    path = write_traj(["O", "H", "H"], [[[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]]] * 3, None)
    with pytest.raises(InputError, match=message):
        geometries(path, **settings)
