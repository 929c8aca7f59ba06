import json
import os
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest

from omnicalc.analysis.rdf import default_pairs, parse_pair, radial_distributions
from omnicalc.analysis.trajectory import open_trajectory
from omnicalc.errors import InputError

from .conftest import waters

TRICLINIC = (16.0, 18.0, 15.0, 70.0, 80.0, 65.0)
SHELLS = ((1.0, 6), (np.sqrt(2), 12), (np.sqrt(3), 8))  # simple cubic: distance / a, neighbours


def matrix(box):
    from MDAnalysis.lib.mdamath import triclinic_vectors

    return triclinic_vectors(np.array(box), dtype=np.float64)


def ideal_gas(box, n_atoms, n_frames, rng, scales=None):
    """Fractions drawn evenly, spread over several images; boxes scaled by ``scales`` (F,)."""
    scales = np.ones(n_frames) if scales is None else scales
    boxes = np.array([[*(np.array(box[:3]) * s), *box[3:]] for s in scales])
    positions = [(rng.random((n_atoms, 3)) * 3 - 1) @ matrix(b) for b in boxes]
    return np.array(positions), boxes


def chi2_per_bin(g, stderr, low=20):
    """Mean squared deviation from 1 in standard errors, over bins with enough counts."""
    return float(np.mean(((g[low:] - 1) / stderr[low:]) ** 2))


def test_ideal_gas_is_one_in_a_triclinic_box(write_traj):
    rng = np.random.default_rng(1)
    positions, boxes = ideal_gas(TRICLINIC, 60, 200, rng)
    elements = ["O"] * 20 + ["H"] * 40
    result = radial_distributions(open_trajectory(write_traj(elements, positions, boxes)), bin_width=0.1)
    assert [rdf.name for rdf in result.pairs] == ["O-O", "O-H", "H-H"]
    for rdf in result.pairs:
        assert chi2_per_bin(rdf.g, rdf.g_stderr) < 2.0
        overall = np.average(rdf.g, weights=rdf.r**2)
        assert overall == pytest.approx(1.0, abs=0.01)
        assert rdf.peak is None, "noise is no peak"
    # N instead of N - 1: 20 atoms are 5 per cent off
    oo = result.pairs[0]
    assert oo.pairs == 20 * 19
    assert abs(np.average(oo.g * oo.pairs / 20**2, weights=oo.r**2) - 1.0) > 0.03


def test_volume_of_every_frame_counts(write_traj):
    rng = np.random.default_rng(2)
    scales = 1.0 + 0.15 * rng.random(300)
    scales[0] = 1.0
    positions, boxes = ideal_gas((14.0, 14.0, 14.0, 90.0, 90.0, 90.0), 40, 300, rng, scales)
    path = write_traj(["Ar"] * 40, positions, boxes)
    result = radial_distributions(open_trajectory(path), bin_width=0.1)
    rdf = result.pairs[0]
    assert np.average(rdf.g, weights=rdf.r**2) == pytest.approx(1.0, abs=0.01)
    assert result.limit == pytest.approx(7.0, abs=1e-4), "half the smallest height of all frames"
    volumes = (14.0 * scales) ** 3
    first = np.average(rdf.g, weights=rdf.r**2) * volumes[0] / volumes.mean()
    assert abs(first - 1.0) > 0.1, "the first frame's volume alone gives a gas that is far from 1"


def test_simple_cubic_lattice_has_exact_coordination_numbers(write_traj):
    side, a = 5, 3.05  # in the middle of a bin
    grid = np.array(list(np.ndindex(side, side, side))) * a
    path = write_traj(["Na"] * side**3, [grid + 0.1, grid - 7.3], (side * a,) * 3 + (90.0,) * 3)
    result = radial_distributions(open_trajectory(path), bin_width=0.1)
    rdf = result.pairs[0]
    n = rdf.around["Na around Na"]
    total = 0
    for factor, neighbours in SHELLS:
        total += neighbours
        assert np.interp(factor * a + 0.2, rdf.r, n) == pytest.approx(total, abs=1e-9)
    assert rdf.peak[0].value == pytest.approx(a, abs=0.05)
    assert rdf.coordination["Na around Na"].value == pytest.approx(6, abs=1e-9)
    assert result["n(Na around Na)"].value == rdf.coordination["Na around Na"].value
    assert result["first peak Na-Na"].value == rdf.peak[0].value and result["first peak Na-Na"].unit == "Å"
    shell = 4 * np.pi / 3 * (3.1**3 - 3.0**3)
    assert rdf.g[30] == pytest.approx(6 / (124 / (side * a) ** 3 * shell), rel=1e-4)


def test_rock_salt_counts_both_directions(write_traj):
    grid = np.array(list(np.ndindex(4, 4, 4)))
    elements = np.where(grid.sum(axis=1) % 2, "Cl", "Na")
    elements[0] = "Mg"  # so that the two directions differ
    path = write_traj(elements, [grid * 2.82], (11.28,) * 3 + (90.0,) * 3)
    rdf = radial_distributions(open_trajectory(path), ["Mg-Cl"]).pairs[0]
    assert np.interp(3.0, rdf.r, rdf.around["Cl around Mg"]) == pytest.approx(6)
    assert np.interp(3.0, rdf.r, rdf.around["Mg around Cl"]) == pytest.approx(6 / 32)


@pytest.mark.parametrize("box", [(13.0, 14.0, 15.0, 90.0, 90.0, 90.0), TRICLINIC])
def test_equals_mdanalysis_frame_by_frame_in_a_fluctuating_box(write_traj, box):
    from MDAnalysis import Universe
    from MDAnalysis.analysis.rdf import InterRDF

    rng = np.random.default_rng(3)
    positions, boxes = ideal_gas(box, 60, 12, rng, 1.0 + 0.03 * rng.random(12))
    elements = ["O"] * 20 + ["H"] * 40
    path = write_traj(elements, positions, boxes)
    result = radial_distributions(open_trajectory(path), ["O-O", "O-H"], bin_width=0.1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        universe = Universe(str(path.with_name("topology.pdb")), str(path))
        groups = universe.atoms[:20], universe.atoms[20:]
        for rdf, (a, b), block in zip(result.pairs, [(groups[0],) * 2, groups], [(1, 1), None], strict=True):
            upper = len(rdf.r) * 0.1
            theirs = [
                InterRDF(a, b, nbins=len(rdf.r), range=(0.0, upper), exclusion_block=block)
                .run(start=k, stop=k + 1)
                .results.rdf
                for k in range(12)
            ]
            # A distance that sits on the edge of a bin may round either way: compare running sums.
            ours, mean = (np.cumsum(g * rdf.r**2) for g in (rdf.g, np.mean(theirs, axis=0)))
            assert np.median(abs(ours / np.maximum(mean, 1e-9) - 1)[30:]) < 1e-5
            assert np.abs(rdf.g - np.mean(theirs, axis=0))[10:].mean() < 1e-3
            wrong = np.mean(theirs, axis=0) * boxes[0][0] ** 3 / np.mean(boxes[:, 0] ** 3)
            assert np.median(abs(np.cumsum(wrong * rdf.r**2) / ours - 1)[30:]) > 1e-3, "first frame's volume"


def test_pairs_inside_molecules_can_be_left_out(write_traj):
    rng = np.random.default_rng(4)
    frames = [waters(4, 12.4, rng) for _ in range(10)]
    path = write_traj(frames[0][0], [f[1] for f in frames], (12.4,) * 3 + (90.0,) * 3)
    every = radial_distributions(open_trajectory(path), ["O-H", "H-H", "O-O"])
    apart = radial_distributions(open_trajectory(path), ["O-H", "H-H", "O-O"], exclude_molecule=True)
    assert apart.molecules == "64 H2O"
    assert every.pairs[0].peak[0].value == pytest.approx(0.957, abs=0.02)
    assert every.pairs[0].coordination["H around O"].value == pytest.approx(2)
    assert not apart.pairs[0].g[apart.pairs[0].r < 1.1].any()
    assert (every.pairs[0].pairs, apart.pairs[0].pairs) == (64 * 128, 64 * 126)
    assert (every.pairs[1].pairs, apart.pairs[1].pairs) == (128 * 127, 128 * 126)
    assert np.array_equal(every.pairs[2].g, apart.pairs[2].g)
    far = every.pairs[0].r > 2.5
    assert np.allclose(every.pairs[0].g[far] * 128, apart.pairs[0].g[far] * 126)


def test_a_lone_molecule_has_no_pairs_left(write_traj):
    water = [[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]]
    path = write_traj(["O", "H", "H"], [water] * 2, (9,) * 3 + (90,) * 3)
    with pytest.raises(InputError, match="inside one molecule"):
        radial_distributions(open_trajectory(path), ["O-H"], exclude_molecule=True)


def test_error_bars_shrink_with_more_frames_and_are_absent_for_few(write_traj):
    rng = np.random.default_rng(5)
    positions, boxes = ideal_gas((12.0,) * 3 + (90.0,) * 3, 50, 400, rng)
    trajectory = open_trajectory(write_traj(["Ar"] * 50, positions, boxes))
    few, more, most = (
        radial_distributions(trajectory, stop=stop, bin_width=0.2, n_blocks=20) for stop in (9, 100, 400)
    )
    assert few.sampling.n_blocks == 0 and few.pairs[0].g_stderr is None
    assert any("too few frames for error bars" in note for note in few.notes)
    ratio = np.median(more.pairs[0].g_stderr[10:]) / np.median(most.pairs[0].g_stderr[10:])
    assert ratio == pytest.approx(2.0, rel=0.3)
    counts = most.pairs[0].g * most.pairs[0].pairs / 2 * 400 * 4 * np.pi * most.pairs[0].r ** 2 * 0.2 / 12**3
    expected = most.pairs[0].g / np.sqrt(counts)  # independent pairs: Poisson
    assert np.median(most.pairs[0].g_stderr[10:] / expected[10:]) == pytest.approx(1.0, abs=0.2)


def test_correlated_frames_get_honest_errors(write_traj):
    """A frame repeated ten times says nothing new; errors from blocks shorter than that would shrink."""
    rng = np.random.default_rng(6)
    positions, boxes = ideal_gas((12.0,) * 3 + (90.0,) * 3, 40, 50, rng)
    path = write_traj(["Ar"] * 40, np.repeat(positions, 10, axis=0), np.repeat(boxes, 10, axis=0))
    trajectory = open_trajectory(path)
    blocks, single = (radial_distributions(trajectory, bin_width=0.3, n_blocks=n) for n in (10, 250))
    error = [np.median(result.pairs[0].g_stderr[5:]) for result in (blocks, single)]
    assert error[0] > 1.5 * error[1]


def test_range_ends_at_half_the_smallest_cell_height(write_traj):
    rng = np.random.default_rng(7)
    positions, boxes = ideal_gas(TRICLINIC, 10, 3, rng, np.array([1.0, 0.9, 1.1]))
    trajectory = open_trajectory(write_traj(["O"] * 10, positions, boxes))
    m = matrix(boxes[1])
    height = min(abs(np.linalg.det(m)) / np.linalg.norm(np.cross(m[i - 1], m[i - 2])) for i in range(3))
    result = radial_distributions(trajectory)
    assert result.limit == pytest.approx(height / 2, abs=1e-4)
    assert height / 2 - 0.02 < result.r_max <= height / 2
    assert height < min(boxes[1][:3]), "half the shortest edge would be too far"
    with pytest.raises(InputError, match=rf"--rmax 8 .*{height / 2:.3f} Å.*frame 1"):
        radial_distributions(trajectory, r_max=8.0)
    assert radial_distributions(trajectory, r_max=3.0).r_max == pytest.approx(3.0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"bin_width": 0.0}, "--bin 0.0"),
        ({"bin_width": float("nan")}, "--bin nan"),
        ({"bin_width": 2.0}, "leaves 3 bins"),
        ({"bin_width": 1e-6}, "makes [0-9]+ bins .* give 0.001 or more"),
        ({"r_max": -1.0}, "--rmax -1.0"),
        ({"n_blocks": 4}, "--blocks 4"),
        ({"pairs": ["O-K"]}, r"no element K.*O \(8\)"),
        ({"pairs": ["OO"]}, "not a pair"),
        ({"pairs": ["O-O-H"]}, "not a pair"),
        ({"pairs": ["Na-Na"]}, "two atoms of Na"),
    ],
)
def test_bad_settings_name_what_is_allowed(write_traj, settings, message):
    rng = np.random.default_rng(8)
    positions, boxes = ideal_gas((14.0,) * 3 + (90.0,) * 3, 9, 2, rng)
    trajectory = open_trajectory(write_traj(["O"] * 8 + ["Na"], positions, boxes))
    with pytest.raises(InputError, match=message):
        radial_distributions(trajectory, **settings)


def test_pairs_by_default_and_by_name():
    assert default_pairs({"O": 64, "H": 128})[0] == [("O", "O"), ("O", "H"), ("H", "H")]
    salt, note = default_pairs({"H": 100, "O": 50, "Na": 4, "Cl": 4})
    assert salt[:3] == [("O", "O"), ("O", "H"), ("H", "H")] and note is None
    assert ("Na", "Cl") in salt and ("Na", "O") in salt and len(salt) == 10
    assert default_pairs({"H": 2, "O": 1})[0] == [("O", "H"), ("H", "H")]
    many, note = default_pairs({"H": 9, "C": 5, "N": 2, "O": 2, "S": 1})
    assert many == [("O", "O")] and "--pair" in note
    assert parse_pair("na-CL", {"Na": 1, "Cl": 1}) == ("Na", "Cl")
    with pytest.raises(InputError, match="no two atoms"):
        default_pairs({"O": 1})


def test_the_same_pair_named_twice_is_done_once(write_traj):
    rng = np.random.default_rng(9)
    positions, boxes = ideal_gas((14.0,) * 3 + (90.0,) * 3, 9, 2, rng)
    trajectory = open_trajectory(write_traj(["O"] * 3 + ["H"] * 6, positions, boxes))
    assert [r.name for r in radial_distributions(trajectory, ["H-O", "o-h", "O-O"]).pairs] == ["H-O", "O-O"]


def test_no_box_is_an_error(write_traj):
    trajectory = open_trajectory(write_traj(["O"] * 4, np.random.default_rng(0).random((3, 4, 3)), None))
    with pytest.raises(InputError, match="frame 0 has no cell"):
        radial_distributions(trajectory)


def test_a_slab_has_no_density_to_compare_with(tmp_path):
    from ase.build import fcc111
    from ase.io import write

    from omnicalc.analysis import densities

    write(tmp_path / "slab.traj", fcc111("Pt", size=(4, 4, 3), vacuum=8.0))
    for function in (radial_distributions, densities):
        with pytest.raises(
            InputError, match=r"frame 0 has no cell that is periodic along all three axes.*write \.extxyz with it"
        ):
            function(tmp_path / "slab.traj")


def test_progress_is_reported(write_traj):
    positions, boxes = ideal_gas((14.0,) * 3 + (90.0,) * 3, 9, 4, np.random.default_rng(9))
    trajectory = open_trajectory(write_traj(["O"] * 9, positions, boxes))
    seen = []
    radial_distributions(trajectory, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_against_gromacs_on_tip3p_water(tmp_path):
    """258 TIP3P waters at constant pressure against `gmx rdf` 5.0.4; data of MDTraj's tests, not shipped.

    Its bins are centred on multiples of 0.05 Å, so ours of half that width add up to the same ones; and it
    divides like pairs by N^2, so its O-O is (N - 1) / N times ours.
    """
    folder = os.environ.get("OMNICALC_CROSSCHECK_DATA")
    if not folder:
        pytest.skip("OMNICALC_CROSSCHECK_DATA names no folder with tip3p_300K_1ATM.{pdb,xtc} and its .xvg files")
    data = Path(folder)
    xtc = shutil.copy(data / "tip3p_300K_1ATM.xtc", tmp_path)  # MDAnalysis writes an index beside it
    trajectory = open_trajectory(xtc, data / "tip3p_300K_1ATM.pdb")
    result = radial_distributions(trajectory, ["O-O", "O-H"], bin_width=0.025)
    for rdf, convention in zip(result.pairs, (257 / 258, 1.0), strict=True):
        lines = (data / f"tip3p_300K_1ATM_{rdf.name}_rdf.xvg").read_text().splitlines()
        theirs = np.array([line.split() for line in lines if line[0] not in "#@"], dtype=float)[1:, 1]
        n = (len(rdf.r) - 1) // 2
        shells = np.diff((0.025 * np.arange(len(rdf.r) + 1)) ** 3)
        counts = (rdf.g * shells)[1 : 2 * n + 1].reshape(n, 2).sum(axis=1)
        ours = counts / shells[1 : 2 * n + 1].reshape(n, 2).sum(axis=1)
        far = 0.05 * np.arange(1, n + 1) > 2.0
        assert np.abs(ours - theirs[:n])[far].max() < 0.02
        assert np.abs(ours * convention - theirs[:n])[far].max() < 0.002


def test_selections_make_pairs_too(write_traj):
    rng = np.random.default_rng(9)
    elements, positions = waters(3, 9.6, rng)
    path = write_traj(elements, positions + 0.1 * rng.normal(size=(12, *positions.shape)), (9.6,) * 3 + (90.0,) * 3)
    by_element = radial_distributions(path, ["O-O", "O-H"])
    by_selection = radial_distributions(path, selections=[("element O", "O"), ("element O", "element H")])
    assert [p.pair for p in by_selection.pairs] == [("element O", "O"), ("element O", "element H")]
    for a, b in zip(by_element.pairs, by_selection.pairs, strict=True):
        assert np.array_equal(a.g, b.g) and a.pairs == b.pairs
        assert all(np.array_equal(x, y) for x, y in zip(a.around.values(), list(b.around.values()), strict=False))
    one = radial_distributions(path, ["H-H"], selections=[("index 0", "element H")])
    assert [p.name for p in one.pairs] == ["H-H", "index 0-element H"] and one.pairs[1].pairs == 54
    inside = one.pairs[1].around["element H around index 0"]
    assert inside[np.searchsorted(one.pairs[1].r, 1.6)] == pytest.approx(2.0)
    assert sorted(p.name for p in one.to_csv(path.parent)) == ["rdf_H-H.csv", "rdf_index_0-element_H.csv"]
    for selections, message in (
        ([("element O", "index 0 1")], "share 1 atoms"),
        ([("index 0", "index 0")], "selects one atom"),
        ([("element O", "resname FOO")], "selects no atom"),
    ):
        with pytest.raises(InputError, match=message):
            radial_distributions(path, selections=selections)


def test_selections_that_differ_in_signs_only_are_kept_apart(write_traj, tmp_path):
    """Also very long ones; files are numbered, and a later run finds each by its text."""
    from omnicalc.analysis.rdf import plan_rdf
    from omnicalc.analysis.verbs import run_verb

    rng = np.random.default_rng(10)
    positions = rng.random((10, 30, 3)) * [4.5, 9.0, 9.0] + np.where(np.arange(30) < 10, 0.0, 4.5)[:, None] * [1, 0, 0]
    path = write_traj(["O"] * 30, positions, (9.0,) * 3 + (90.0,) * 3)
    low, high = "prop x < 4.5", "prop x > 4.5"
    long = "index " + " ".join(["0"] * 200 + [str(k) for k in range(1, 30)])
    given = [(low, low), (high, high), (low, high), (long, long)]
    report = run_verb(plan_rdf, path, selections=given, bin_width=0.1, out=tmp_path / "a")
    assert [rdf.pair for rdf in report.result.pairs] == given
    assert [rdf.pairs for rdf in report.result.pairs[:3]] == [90, 380, 200]
    names = sorted(file.name for file in report.files if file.suffix == ".csv")
    assert len(names) == 4 and names[1:] == [f"rdf_prop_x_4_5-prop_x_4_5{n}.csv" for n in ("", "_2", "_3")]
    assert low in "".join(report.lines) and high in "".join(report.lines)
    record = json.loads((tmp_path / "a" / "rdf.json").read_text())
    assert [tuple(entry["of"]) for entry in record["pairs"].values()] == given
    other_way = run_verb(
        plan_rdf, path, selections=given[1::-1], bin_width=0.1, out=tmp_path / "b", compare=[tmp_path / "a"]
    )
    compared = json.loads((tmp_path / "b" / "rdf.json").read_text())["pairs"].values()
    for rdf, entry in zip(other_way.result.pairs, compared, strict=True):
        assert rdf.peak is None or entry["compared_with"][0]["this_minus_that_first_peak"]["g"] == 0.0
    header = (tmp_path / "a" / "rdf_prop_x_4_5-prop_x_4_5_3.csv").read_text().splitlines()[0].split(",")
    assert len(set(header)) == 5, "both directions have a column"
