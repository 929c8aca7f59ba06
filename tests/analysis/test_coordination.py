import warnings

import numpy as np
import pytest

from omnicalc.analysis.coordination import coordination_numbers
from omnicalc.analysis.rdf import radial_distributions
from omnicalc.analysis.report import SHORT_BLOCKS
from omnicalc.analysis.trajectory import open_trajectory
from omnicalc.errors import InputError

from .conftest import waters

SQUARE = (90.0, 90.0, 90.0)


def rock_salt(write_traj, jitter=0.0, frames=2, seed=0):
    grid = np.array(list(np.ndindex(4, 4, 4)))
    elements = np.where(grid.sum(axis=1) % 2, "Cl", "Na")
    rng = np.random.default_rng(seed)
    positions = [grid * 2.82 + jitter * rng.normal(size=grid.shape) for _ in range(frames)]
    return write_traj(elements, positions, (11.28,) * 3 + SQUARE)


def test_lattice_has_exact_numbers(write_traj):
    path = rock_salt(write_traj)
    result = coordination_numbers(path, ["Na-Cl", "Na-Na"], cutoff=4.5)
    assert result["n(Cl around Na)"].value == 6 and result["n(Na around Na)"].value == 12
    assert coordination_numbers(path, ["Na-Cl"], cutoff=5.0)["n(Cl around Na)"].value == 14, "second shell"


def test_the_figure_says_what_was_measured(write_traj):
    """Within 3.3 Å, whatever radius is counted here."""
    elements, positions = waters(4, 12.4, np.random.default_rng(0))
    result = coordination_numbers(write_traj(elements, [positions] * 2, (12.4,) * 3 + SQUARE), cutoff=3.6)
    shown = [text.get_text().strip() for text in result.plot().axes[0].get_legend().get_texts()]
    assert shown == ["O around O, r < 3.60 Å", "measured, within 3.3 Å"]


def test_a_slab_has_neighbours_across_its_periodic_boundaries(tmp_path):
    """Pt(111), three layers: 12 neighbours in the middle, 9 outside."""
    from ase.build import fcc111
    from ase.io import write

    slab = fcc111("Pt", size=(4, 4, 3), vacuum=8.0)
    write(tmp_path / "slab.traj", [slab, slab])
    slab.pbc = False
    write(tmp_path / "cluster.traj", [slab, slab])
    settings = {"cutoff": 3.3, "include_molecule": True}
    found = [coordination_numbers(tmp_path / f"{n}.traj", ["Pt-Pt"], **settings) for n in ("slab", "cluster")]
    assert found[0]["n(Pt around Pt)"].value == pytest.approx(10.0)
    assert found[1]["n(Pt around Pt)"].value < 7.5, "as if it ended there"
    with pytest.raises(InputError, match=r"no cell that is periodic along all three axes.*give --cutoff"):
        coordination_numbers(tmp_path / "slab.traj", ["Pt-Pt"], include_molecule=True)


def test_minimum_of_the_rdf_is_the_cutoff(write_traj):
    path = rock_salt(write_traj, jitter=0.12, frames=20)
    result = coordination_numbers(path, ["na-cl"])
    rdf = radial_distributions(open_trajectory(path), ["Na-Cl"]).pairs[0]
    cutoff = result.settings["pairs"]["Cl around Na"]["cutoff_angstrom"]
    assert cutoff == pytest.approx(rdf.minimum[0].value, abs=0.02)
    assert result["n(Cl around Na)"].value == pytest.approx(rdf.coordination["Cl around Na"].value, abs=1e-3)
    assert result.tables["distribution"]["fraction_Cl_around_Na"][6] == 1.0


def test_residence_in_a_shell_that_swaps(write_traj):
    """One chloride leaves sodium at frame 10 and another takes its place; a jump of one frame is no leaving."""
    positions = np.zeros((30, 3, 3))
    positions[:, 0] = 5.0
    positions[:, 1] = 5.0, 5.0, 7.5
    positions[:, 2] = 5.0, 11.0, 5.0
    positions[10:, 1], positions[10:, 2] = (5.0, 5.0, 11.0), (5.0, 7.5, 5.0)
    positions[5, 1] = 5.0, 5.0, 11.0
    path = write_traj(["Na", "Cl", "Cl"], positions, (20.0,) * 3 + SQUARE)
    settings = {"pairs": ["Na-Cl"], "cutoff": 3.0, "dt_ps": 0.1}
    strict = coordination_numbers(path, tolerance_ps=0.0, **settings)
    lenient = coordination_numbers(path, tolerance_ps=0.1, **settings)
    name = "residence time (Cl around Na), counted"
    assert strict[name].value == pytest.approx(29 * 0.1 / 2)
    assert lenient[name].value == pytest.approx(30 * 0.1 / 1)
    assert strict["n(Cl around Na)"].value == pytest.approx(29 / 30)
    assert strict.tables["series"]["n_Cl_around_Na"][5] == 0


@pytest.mark.parametrize(("rate", "short"), [(0.05, True), (0.4, False)])
def test_blocks_are_short_beside_a_residence_or_long(write_traj, rate, short):
    """Ten blocks of 40 frames: ten residences must fit into one for the error to be honest."""
    rng = np.random.default_rng(1)
    inside = np.zeros((400, 12), dtype=bool)
    for k in range(1, 400):
        draw = rng.random(12)
        inside[k] = np.where(inside[k - 1], draw > rate, draw < rate)
    turn = np.linspace(0, 2 * np.pi, 12, endpoint=False)
    around = np.stack([np.cos(turn), np.sin(turn), 0 * turn], 1)
    positions = np.full((400, 13, 3), 20.0)
    positions[:, 1:] += np.where(inside, 2.5, 8.0)[:, :, None] * around
    path = write_traj(["Na"] + ["Cl"] * 12, positions, (40.0,) * 3 + SQUARE)
    result = coordination_numbers(path, ["Na-Cl"], cutoff=3.0, tolerance_ps=0.0)
    for how in ("counted", "integral of S(t)"):
        found = result[f"residence time (Cl around Na), {how}"]
        assert found.stderr > 0 and (SHORT_BLOCKS in found.note) is short


def test_pairs_inside_a_molecule_do_not_count_unless_asked_for(write_traj):
    elements, positions = waters(3, 10.0, np.random.default_rng(0))
    path = write_traj(elements, [positions] * 2, (10.0,) * 3 + SQUARE)
    apart = coordination_numbers(path, ["O-H"], cutoff=1.3)["n(H around O)"]
    every = coordination_numbers(path, ["O-H"], cutoff=1.3, include_molecule=True)["n(H around O)"]
    assert (apart.value, every.value) == (0, 2)


def test_selections_and_a_universe_give_the_same(write_traj):
    import MDAnalysis

    path = rock_salt(write_traj, jitter=0.3, frames=12)
    by_element = coordination_numbers(path, ["Na-Cl"], cutoff=3.3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        universe = MDAnalysis.Universe(str(path.with_name("topology.pdb")), str(path))
    selected = coordination_numbers(universe, centre="element Na", around="element Cl", cutoff=3.3)
    assert selected["n(element Cl around element Na)"].value == by_element["n(Cl around Na)"].value
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        na, cl = (universe.select_atoms(f"element {e}") for e in ("Na", "Cl"))
        from MDAnalysis.lib.distances import distance_array

        theirs = [
            (distance_array(na.positions, cl.positions, box=ts.dimensions) < 3.3).sum() / len(na)
            for ts in universe.trajectory
        ]
    assert np.allclose(by_element.tables["series"]["n_Cl_around_Na"], theirs)
    assert np.std(theirs) > 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"pairs": ["Na-K"]}, r"--pair Na-K: 'K' selects no atom; there are the elements Na \(32\), Cl \(32\)"),
        ({"pairs": ["NaCl"]}, "not a pair"),
        ({"cutoff": -1.0}, "--cutoff -1.0"),
        ({"pairs": ["Na-Cl"], "cutoff": 6.0}, "beyond 5.640 Å"),
        ({"centre": "name NA"}, "--centre and --around go together"),
        ({"centre": "resname NONE", "around": "Cl"}, "selects no atom"),
        ({"centre": "what is this", "around": "Cl"}, "neither an element nor a selection"),
        ({}, "no ion and no two oxygens"),
        ({"pairs": ["Na-Cl"], "cutoff": 3.0, "stop": 1}, "needs 2 frames or more, and 1"),
        ({"pairs": ["Na-Cl"], "cutoff": 3.0, "tolerance_ps": -1.0}, "--tolerance -1.0"),
        ({"pairs": ["Na-Cl"], "cutoff": 3.0, "max_lag_ps": 1e9}, "--max-lag 1e"),
        ({"pairs": ["Na-Cl"], "cutoff": 3.0, "dt_ps": 0.0}, "--dt 0.0"),
    ],
)
def test_bad_settings_name_what_is_allowed(write_traj, settings, message):
    with pytest.raises(InputError, match=message):
        coordination_numbers(rock_salt(write_traj), **settings)


def test_no_cell_needs_a_cutoff(write_traj):
    positions = np.array([[[0, 0, 0], [2.4, 0, 0], [0, 2.4, 0]]] * 3, dtype=float)
    path = write_traj(["Na", "O", "O"], positions, None)
    with pytest.raises(InputError, match="give --cutoff"):
        coordination_numbers(path)
    assert coordination_numbers(path, cutoff=3.0)["n(O around Na)"].value == 2
