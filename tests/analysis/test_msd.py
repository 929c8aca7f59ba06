import warnings

import numpy as np
import pytest

from omnicalc.analysis.lag_sums import LagSums
from omnicalc.analysis.msd import diffusion, missed_by_blocks, water_viscosity
from omnicalc.analysis.unwrap import Unwrapper
from omnicalc.errors import InputError

from .conftest import waters
from .test_rdf import TRICLINIC, matrix

D_TRUE = 2.0  # 1e-9 m²/s, 0.2 Å²/ps
SQUARE = (90.0, 90.0, 90.0)


def walk(n_frames, n_atoms, rng, d=D_TRUE, dt=0.1):
    """Brownian positions (F, N, 3) Å with coefficient d (1e-9 m²/s) and frames dt ps apart."""
    steps = rng.normal(scale=np.sqrt(2 * d / 10 * dt), size=(n_frames, n_atoms, 3))
    return np.cumsum(steps, axis=0)


def wrapped(positions, box):
    cell = matrix(box)
    fractions = positions @ np.linalg.inv(cell)
    return (fractions - np.floor(fractions)) @ cell


def in_memory(positions, dt=0.1):
    """An MDAnalysis Universe of sodium ions at these positions (F, N, 3)."""
    from MDAnalysis import Universe
    from MDAnalysis.coordinates.memory import MemoryReader

    n = positions.shape[1]
    universe = Universe.empty(n, n_residues=n, atom_resindex=np.arange(n), trajectory=True)
    universe.add_TopologyAttr("elements", ["Na"] * n)
    universe.load_new(positions.astype(np.float32), format=MemoryReader, dt=dt)
    return universe


@pytest.mark.parametrize(("n", "blocks", "lag"), [(40, 1, 8), (40, 5, 8), (41, 4, 20), (23, 10, 7), (30, 5, 29)])
def test_sums_are_their_definition(n, blocks, lag):
    rng = np.random.default_rng(n)
    x = 50.0 + walk(n, 5, rng)
    groups = np.array([0, 0, 1, 1, 2])
    ends = np.array([-(-(k + 1) * n // blocks) for k in range(blocks)])
    ours = LagSums(ends, groups, lag)
    for frame in x:
        ours.add(frame)
    ours.finish()
    expected, counts = np.zeros_like(ours.sums), np.zeros_like(ours.origins)
    for start in range(n):
        block = int(start * blocks / n + 1e-9)
        for k in range(min(lag, n - 1 - start) + 1):
            expected[block, :, k] += np.bincount(groups, weights=((x[start + k] - x[start]) ** 2).sum(axis=1))
            counts[block, k] += 1
    assert np.array_equal(ours.origins, counts)
    assert np.allclose(ours.sums, expected, atol=1e-8)


def test_equals_mdanalysis(write_traj):
    from MDAnalysis import Universe
    from MDAnalysis.analysis.msd import EinsteinMSD

    positions = walk(60, 8, np.random.default_rng(0))
    path = write_traj(["Ar"] * 8, positions, None)
    ours = diffusion(path, keep_com=True, dt_ps=0.1, max_lag_ps=5.9)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        universe = Universe(str(path.with_name("topology.pdb")), str(path))
        theirs = EinsteinMSD(universe, select="all", msd_type="xyz", fft=False).run().results.timeseries
    assert np.allclose(ours.tables["curves"]["msd_Ar_angstrom2"], theirs, atol=1e-4)


@pytest.mark.parametrize("box", [(9.0, 9.0, 9.0, *SQUARE), tuple(0.6 * x for x in TRICLINIC[:3]) + TRICLINIC[3:]])
def test_brownian_walk_across_boundaries_has_its_coefficient(write_traj, box):
    positions = walk(1500, 60, np.random.default_rng(1))
    path = write_traj(["Ar"] * 60, [wrapped(x, box) for x in positions], box)
    result = diffusion(path, dt_ps=0.1, keep_com=True, max_lag_ps=5.0)
    found = result["D(Ar) in this box"]
    assert abs(found.value - D_TRUE) < 3 * found.stderr < 0.3
    free = write_traj(["Ar"] * 60, positions, None, name="free.dcd")
    free = diffusion(free, dt_ps=0.1, keep_com=True, max_lag_ps=5.0)
    assert found.value == pytest.approx(free["D(Ar) in this box"].value, rel=1e-4)
    stuck = diffusion(
        write_traj(["Ar"] * 60, [wrapped(x, box) for x in positions], None, name="stuck.dcd"),
        dt_ps=0.1,
        keep_com=True,
        max_lag_ps=5.0,
    )
    assert abs(stuck["D(Ar) in this box"].value - D_TRUE) > 1.0, "wrapped positions taken as they are"


@pytest.mark.parametrize("stored", ["wrapped", "unwrapped"])
def test_breathing_box_does_not_add_to_diffusion(write_traj, stored):
    """A barostat scales positions; whole boxes taken off or put on scale as well and say nothing of diffusion."""
    rng = np.random.default_rng(2)
    n, atoms, edge = 1200, 50, 9.0
    edges = edge * (1 + 0.02 * rng.normal(size=n))
    fractions = rng.random((atoms, 3))
    images = np.zeros((atoms, 3))
    frames, naive = [], []
    for k in range(n):
        fractions = fractions + rng.normal(scale=np.sqrt(2 * D_TRUE / 10 * 0.1), size=(atoms, 3)) / edges[k]
        images += np.floor(fractions)
        fractions -= np.floor(fractions)
        frames.append((fractions + (images if stored == "unwrapped" else 0)) * edges[k])
        naive.append((fractions + images) * edges[k])
    boxes = np.stack([edges, edges, edges, *np.full((3, n), 90.0)], axis=1)
    found = diffusion(write_traj(["Ar"] * atoms, frames, boxes), dt_ps=0.1, keep_com=True, max_lag_ps=10.0)
    value = found["D(Ar) in this box"]
    assert abs(value.value - D_TRUE) < 3.5 * value.stderr < 0.35
    free = write_traj(["Ar"] * atoms, naive, None, name="naive.dcd")
    free = diffusion(free, dt_ps=0.1, keep_com=True, max_lag_ps=10.0)
    msd = [r.tables["curves"]["msd_Ar_angstrom2"][1] for r in (found, free)]
    assert msd[1] > 1.2 * msd[0], "whole boxes at the edge of the moment: steps too long"


def test_error_covers_the_truth():
    """20 walkers, 300 frames, 25 times: the true coefficient within 2.26 errors (t, 9 degrees) most of the time."""
    import MDAnalysis
    from MDAnalysis.coordinates.memory import MemoryReader

    inside = []
    for seed in range(25):
        positions = walk(300, 20, np.random.default_rng(seed)).astype(np.float32)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            universe = MDAnalysis.Universe.empty(20, trajectory=True)
            universe.add_TopologyAttr("elements", ["Ar"] * 20)
            universe.load_new(positions, format=MemoryReader, dt=0.1)
        found = diffusion(universe, keep_com=True)["D(Ar) in this box"]
        inside.append(abs(found.value - D_TRUE) < 2.26 * found.stderr)
    assert np.mean(inside) > 0.85


def test_error_of_one_ion():
    """Lags are twice as long as blocks: the blocks alone see two thirds of the error."""
    found = []
    for seed in range(80):
        trajectory = in_memory(walk(100, 1, np.random.default_rng(seed)))
        quantity = diffusion(trajectory, keep_com=True, dt_ps=0.1).quantities[0]
        found.append((quantity.value, quantity.stderr))
    value, error = np.array(found).T
    assert np.sqrt((error**2).mean()) == pytest.approx(value.std(), rel=0.2)


def test_what_blocks_miss_is_that_of_its_sums():
    n, lag, blocks = 120, 30, 6
    between = np.maximum(1 - np.abs(np.subtract.outer(*[np.arange(n - lag)] * 2)) / lag, 0) ** 2
    label = np.arange(n - lag) * blocks // n
    left_out = np.array([(label != b) / (label != b).sum() for b in range(blocks)])
    parts = left_out - left_out.mean(axis=0)
    seen = (blocks - 1) / blocks * np.trace(parts @ between @ parts.T)
    assert missed_by_blocks(n, lag, blocks) == pytest.approx(np.sqrt(between.mean() / seen), rel=2e-3)
    assert missed_by_blocks(n, 0, blocks) == 1.0 and np.isnan(missed_by_blocks(n, 100, blocks))


def test_lags_that_leave_one_block_have_no_error():
    quantity = diffusion(in_memory(walk(100, 1, np.random.default_rng(0))), keep_com=True, max_lag_ps=9.5).quantities[0]
    assert quantity.stderr is None


def test_motion_of_the_whole_system_is_taken_off(write_traj):
    rng = np.random.default_rng(4)
    positions = walk(400, 40, rng) + np.cumsum(rng.normal(scale=0.4, size=(400, 1, 3)), axis=0)
    path = write_traj(["Ar"] * 40, positions, None)
    relative, absolute = (
        diffusion(path, dt_ps=0.1, keep_com=keep)["D(Ar) in this box"].value for keep in (False, True)
    )
    assert relative == pytest.approx(D_TRUE, rel=0.15) and absolute > 2 * D_TRUE


def test_a_walk_across_the_boundaries_of_a_slab(tmp_path):
    """Wrapped along two axes, free along the third; the volume of its cell corrects nothing."""
    from ase import Atoms
    from ase.io import write

    box = (9.0, 9.0, 30.0, *SQUARE)
    free = walk(300, 20, np.random.default_rng(8))
    folded = free.copy()
    folded[..., :2] %= 9.0
    for name, x in (("free", free), ("slab", folded)):
        frames = [Atoms("Ar20", positions=p, cell=box, pbc=(1, 1, 0) if name == "slab" else False) for p in x]
        write(tmp_path / f"{name}.traj", frames)
    settings = {"dt_ps": 0.1, "temperature": 90.0, "viscosity": 0.3}
    free, slab = (diffusion(tmp_path / f"{name}.traj", **settings) for name in ("free", "slab"))
    assert slab["D(Ar) in this box"].value == pytest.approx(free["D(Ar) in this box"].value, rel=1e-4)
    assert slab["D(Ar), infinite box"].value is None and "no full cell" in slab["D(Ar), infinite box"].note
    assert not slab.notes, "no step is far"


def test_a_lone_molecule_does_not_move_against_itself(write_traj):
    path = write_traj(["O", "H"], walk(40, 1, np.random.default_rng(9)) + [[0, 0, 0], [0.97, 0, 0]], None)
    with pytest.raises(InputError, match="one molecule, which does not move against.*--keep-com"):
        diffusion(path, dt_ps=0.1)
    assert diffusion(path, dt_ps=0.1, keep_com=True)["D(HO) in this box"].value > 0.01
    assert diffusion(path, dt_ps=0.1, atoms=True)["D(H) in this box"].value is not None
    with pytest.raises(InputError, match="one atom, which"):
        diffusion(write_traj(["Ar"], walk(40, 1, np.random.default_rng(9)), None, name="b.dcd"), dt_ps=0.1, atoms=True)


def test_molecules_are_followed_by_their_centres_of_mass(write_traj):
    rng = np.random.default_rng(5)
    elements, _ = waters(3, 12.0, rng)
    centres = walk(300, 27, rng)
    frames = []
    for k in range(300):  # every molecule turns about its own centre of mass
        turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
        one = np.array([[0.0, 0, 0], [0.957, 0, 0], [-0.240, 0.927, 0]])
        one = (one - np.array([15.999, 1.008, 1.008]) @ one / 18.015) @ turn
        frames.append((centres[k][:, None] + one).reshape(-1, 3))
    frames = [f + np.repeat(20.0 * np.arange(27), 3)[:, None] for f in frames]  # molecules far from each other
    path = write_traj(elements, frames, None)
    whole = diffusion(path, dt_ps=0.1, keep_com=True)
    assert [q.name for q in whole.quantities] == ["D(H2O) in this box", "D(H2O), infinite box"]
    curve = whole.tables["curves"]["msd_H2O_angstrom2"]
    assert curve[1] == pytest.approx(6 * D_TRUE / 10 * 0.1, rel=0.1)
    atoms = diffusion(path, dt_ps=0.1, keep_com=True, atoms=True)
    assert atoms.tables["curves"]["msd_H_angstrom2"][1] > curve[1] + 0.5, "turning moves hydrogens"


def test_size_correction(write_traj):
    assert water_viscosity(298.15) == pytest.approx(0.8900, abs=2e-4)  # IAPWS R12-08, table 3
    assert water_viscosity(373.15) == pytest.approx(0.2817, abs=2e-4)
    path = write_traj(["Ar"] * 10, walk(60, 10, np.random.default_rng(6)), (20.0,) * 3 + SQUARE)
    result = diffusion(path, dt_ps=0.1, viscosity=0.85, temperature=300.0)
    expected = 2.837297 * 1.380649e-23 * 300 / (6 * np.pi * 0.85e-3 * 20e-10) * 1e9
    difference = result["D(Ar), infinite box"].value - result["D(Ar) in this box"].value
    assert difference == pytest.approx(expected, rel=1e-6)
    assert diffusion(path, dt_ps=0.1, viscosity=0.85)["D(Ar), infinite box"].value is None
    unknown = diffusion(path, dt_ps=0.1, temperature=300.0)["D(Ar), infinite box"]
    assert unknown.value is None and "--viscosity" in unknown.note


@pytest.mark.parametrize("name", ["centroid.dcd", "frames.xyz", "other.dcd"])
def test_the_temperature_is_that_of_the_run(write_traj, name):
    """Beside whichever of its files run.json lies."""
    from ase import Atoms
    from ase.io import write

    path = write_traj(["Ar"] * 10, positions := walk(60, 10, np.random.default_rng(6)), (20.0,) * 3 + SQUARE)
    path.rename(path.with_name(name))
    if name == "frames.xyz":
        write(path.with_name(name), [Atoms("Ar10", x, cell=[20.0] * 3, pbc=True) for x in positions], format="extxyz")
    path.with_name("run.json").write_text('{"settings": {"ensemble": "nvt", "temperature_K": 321.0}}')
    result = diffusion(path.with_name(name), dt_ps=0.1)
    assert result.settings["temperature_K"] == (None if name == "other.dcd" else 321.0)


def test_far_steps_are_noted(write_traj):
    positions = walk(40, 10, np.random.default_rng(7), d=200.0)
    path = write_traj(["Ar"] * 10, positions, (9.0,) * 3 + SQUARE)
    assert any("between two frames" in note for note in diffusion(path, dt_ps=0.1).notes)


def test_unwrapper_adds_nearest_steps():
    from omnicalc.analysis.trajectory import Frame

    box = np.array([10.0, 10.0, 10.0, 90.0, 90.0, 90.0])
    unwrap = Unwrapper()
    frames = [Frame(k, np.array([[x, 0, 0]], dtype=np.float32), box) for k, x in enumerate((9.5, 0.2, 1.0, 9.0))]
    for _ in range(2):  # the first frame, seen again, starts anew; asking twice for one frame moves nothing
        for frame in frames:
            assert np.array_equal(unwrap(frame), unwrap(frame))
        assert unwrap(frame)[0, 0] == pytest.approx(-0.5, abs=1e-5)
    assert 0 < unwrap.longest == pytest.approx(0.2, abs=1e-5)


def test_unwrapping_of_upright_and_tilted_boxes_is_one():
    """The edge-by-edge way equals that of any box, for the same box seen as tilted by next to nothing."""
    from omnicalc.analysis.trajectory import Frame

    rng, upright = np.random.default_rng(3), np.array([10.0, 12.0, 14.0, 90.0, 90.0, 90.0])
    ways = [(Unwrapper(), upright), (Unwrapper(), upright + [0, 0, 0, 0, 0, 1e-7])]
    for k in range(20):
        x = rng.uniform(-20, 30, (50, 3)).astype(np.float32)
        found = [unwrap(Frame(k, x, box)) for unwrap, box in ways]
    assert np.allclose(*found, atol=1e-5) and np.abs(found[0]).max() > 5


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"stop": 5}, "needs 20 frames or more, and 5"),
        ({"viscosity": 0.0}, "--viscosity 0.0"),
        ({"temperature": -1.0}, "--temperature -1.0"),
        ({"max_lag_ps": 100.0}, "--max-lag 100 ps"),
        ({"fit_ps": (2.0, 1.0)}, "--fit 2 1"),
        ({"fit_ps": (0.1, 99.0)}, "--fit 0.1 99"),
        ({"fit_ps": (np.nan, 0.1)}, "--fit nan 0.1"),
        ({"fit_ps": (0.1, np.nan)}, "--fit 0.1 nan"),
        ({"fit_ps": (0.1, np.inf)}, "--fit 0.1 inf"),
        ({"fit_ps": (-np.inf, 0.1)}, "--fit -inf 0.1"),
        ({"select": "Na"}, "--select 'Na' selects no atom"),
    ],
)
def test_bad_settings_name_what_is_allowed(write_traj, settings, message):
    path = write_traj(["Ar"] * 3, walk(40, 3, np.random.default_rng(8)), None)
    with pytest.raises(InputError, match=message):
        diffusion(path, dt_ps=0.1, **settings)


def test_without_times_there_is_no_coefficient(tmp_path):
    from ase import Atoms
    from ase.io import write

    write(tmp_path / "a.extxyz", [Atoms("Ar2", positions=[[0, 0, k], [5, 0, 0]]) for k in range(30)])
    with pytest.raises(InputError, match="--dt"):
        diffusion(tmp_path / "a.extxyz")
