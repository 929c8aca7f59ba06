import itertools
from time import process_time

import numpy as np
import pytest

from omnicalc.analysis.metal import metal_sites, plan_metal
from omnicalc.analysis.sampling import sample
from omnicalc.analysis.trajectory import open_trajectory
from omnicalc.errors import InputError

from .test_rdf import matrix

BOX = (20.0, 20.0, 20.0, 90.0, 90.0, 90.0)
MILD = (18.0, 19.0, 17.0, 75.0, 85.0, 70.0)
AXES = np.array([[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]], dtype=float)
BEND = 148.0


def site(length=2.07, oxygen_p=1.5):
    """Mg with five waters and a phosphate oxygen on the axes; P-O-Mg is 148 degrees. Elements and positions."""
    elements, positions = ["Mg"], [np.zeros(3)]
    for axis in AXES[:5]:
        side = np.roll(axis, 1)
        oxygen = length * axis
        elements += ["O", "H", "H"]
        positions += [oxygen, oxygen + 0.59 * axis + 0.76 * side, oxygen + 0.59 * axis - 0.76 * side]
    oxygen = length * AXES[5]
    turn = np.radians(180.0 - BEND)
    p = oxygen + oxygen_p * (np.cos(turn) * AXES[5] + np.sin(turn) * AXES[0])
    elements += ["O", "P", "O", "O", "O"]
    positions += [oxygen, p, p + [1.1, 1.0, -0.4], p + [1.1, -1.0, -0.4], p + [0.1, 0.1, -1.5]]
    return elements, np.array(positions)


@pytest.mark.parametrize("box", [BOX, MILD, None])
def test_hand_built_octahedron_has_its_distances_and_angles(write_traj, box):
    elements, positions = site()
    if box is not None:  # spread over images
        whole = np.random.default_rng(0).integers(-1, 2, size=(len(elements), 3)) @ matrix(box)
        positions = positions + whole
    result = metal_sites(write_traj(elements, [positions] * 10, box), dt_ps=1.0)
    values = {q.name: q.value for q in result.quantities}
    assert values["Mg-O(water)"] == pytest.approx(2.07, abs=1e-4)
    assert values["Mg-O(phosphate)"] == pytest.approx(2.07, abs=1e-4)
    assert values["angle L-M-L, cis"] == pytest.approx(90.0, abs=1e-2)
    assert values["angle L-M-L, trans"] == pytest.approx(180.0, abs=0.05)
    assert values["angle Mg-O-P"] == pytest.approx(BEND, abs=1e-2)
    expected = np.sqrt(2.07**2 + 1.5**2 - 2 * 2.07 * 1.5 * np.cos(np.radians(BEND)))
    assert values["Mg-P, inner sphere"] == pytest.approx(expected, abs=1e-4)
    assert values["six-fold"] == 1.0 and values["bond-angle variance"] == pytest.approx(0.0, abs=1e-3)
    assert values["ligands of Mg, water"] == 5 and values["ligands of Mg, phosphate"] == 1
    assert values["inner-sphere phosphates"] == 1 and values["outer-sphere phosphates"] == 0
    assert result["Mg-O(water)"].stderr == pytest.approx(0.0, abs=1e-6)
    lml = result.tables["angles"]
    assert np.sum(lml["density_L-M-L"] * 2.0) == pytest.approx(1.0)
    assert lml["angle_degrees"][np.argmax(lml["density_M-O-P"])] == pytest.approx(BEND, abs=1.01)


def test_wider_cutoff_or_bent_site_is_no_octahedron(write_traj):
    elements, positions = site()
    wide = metal_sites(write_traj(elements, [positions] * 2, BOX), cutoff=4.6, dt_ps=1.0)
    assert wide["six-fold"].value == 0.0, "other oxygens of the phosphate are within 4.6 Å"
    positions[1:4] += [0.0, 0.4, 0.0]
    angle = np.degrees(np.arctan2(0.4, 2.07))
    bent = metal_sites(write_traj(elements, [positions] * 2, BOX), dt_ps=1.0)
    # one ligand bends in a plane: one cis angle gets smaller, one larger by as much
    assert bent["bond-angle variance"].value == pytest.approx(2 * angle**2 / 11, rel=1e-3)
    assert bent["angle L-M-L, trans"].value == pytest.approx((180 - angle + 360) / 3, abs=0.05)


def test_outer_sphere_and_exchange_of_a_water(write_traj):
    """The phosphate moves out at frame 20 of 40; a jump of one frame before that is no exchange."""
    elements, positions = site()
    far = positions.copy()
    far[16:] += 2.0 * AXES[5]
    frames = [positions] * 40
    frames = [far if k >= 20 or k == 10 else x for k, x in enumerate(frames)]
    result = metal_sites(write_traj(elements, frames, BOX), dt_ps=0.5)
    assert result["inner-sphere phosphates"].value == pytest.approx(19 / 40)
    assert result["outer-sphere phosphates"].value == pytest.approx(21 / 40)
    events = result.tables["exchanges"]
    assert (events["frame"], events["event"]) == ([20], ["leaves"]) and events["ligand"][0].endswith("#16")
    strict = metal_sites(write_traj(elements, frames, BOX, name="b.dcd"), dt_ps=0.5, tolerance_ps=0.0)
    assert strict.tables["exchanges"]["event"] == ["leaves", "enters", "leaves"]
    assert result.tables["sites"]["exchanges"].tolist() == [1]
    name = "residence time (ligand of Mg), counted"
    assert result[name].value == pytest.approx((5 * 40 + 20) * 0.5 / 1)


def test_averages_have_errors(write_traj):
    elements, positions = site()
    rng = np.random.default_rng(1)
    frames = [positions + 0.05 * rng.normal(size=positions.shape) for _ in range(200)]
    result = metal_sites(write_traj(elements, frames, BOX), dt_ps=1.0)
    found = result["Mg-O(water)"]
    truth = np.mean([np.linalg.norm(f[[1, 4, 7, 10, 13]] - f[0], axis=1).mean() for f in frames])
    assert found.value == pytest.approx(truth, abs=1e-4)
    expected = np.std([np.linalg.norm(f[[1, 4, 7, 10, 13]] - f[0], axis=1).mean() for f in frames]) / np.sqrt(200)
    assert found.stderr == pytest.approx(expected, rel=0.6)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"ion": "Zn"}, "--ion 'Zn' selects no atom; there are the elements Mg"),
        ({"ion": "Mg,P"}, "selects Mg, P; analyse one element"),
        ({"ion": "P"}, "no usual cutoff for the first shell of P"),
        ({"ligands": "S"}, "--ligands 'S' selects no atom"),
        ({"ligands": "Mg"}, "are the ions themselves"),
        ({"cutoff": -2.0}, "--cutoff -2.0"),
        ({"cutoff": 12.0}, "beyond 10.000 Å"),
        ({"stop": 1}, "needs 2 frames"),
    ],
)
def test_bad_settings_name_what_is_allowed(write_traj, settings, message):
    elements, positions = site()
    with pytest.raises(InputError, match=message):
        metal_sites(write_traj(elements, [positions] * 3, BOX), **settings)


def test_no_metal_is_an_error(write_traj):
    with pytest.raises(InputError, match="there is no metal ion"):
        metal_sites(write_traj(["O", "H", "H"], [np.eye(3)] * 3, BOX))


def test_angles_of_many_ions_take_little_longer_than_those_of_few(write_traj):
    """Salt water has hundreds of ions, each with a shell of its own."""

    def spent(sites: int) -> float:
        elements, positions = site()
        grid = 15.0 * np.array(list(itertools.product(range(7), repeat=3)))
        every = np.concatenate([positions + place for place in grid[:sites]])
        trajectory = open_trajectory(write_traj(elements * sites, [every] * 3, None))
        measure = plan_metal(sample(trajectory, dt_ps=1.0))
        frame = next(trajectory.frames(range(1)))
        i, j, _ = measure.near(frame)
        vectors = frame.positions[measure.ligands[j]] - frame.positions[measure.ions[i]]
        start = process_time()
        for _ in range(10):
            measure._add_shells(0, i, vectors)
        return process_time() - start

    assert spent(300) < 20 * spent(3)
