import tracemalloc

import numpy as np
import pytest

import omnicalc.analysis as analysis
from omnicalc.analysis.every import VERBS, analyze_all
from omnicalc.analysis.sampling import sample, stream
from omnicalc.analysis.sources import as_trajectory
from omnicalc.analysis.trajectory import Trajectory
from omnicalc.errors import InputError

from .conftest import waters

CUBE = (9.6, 9.6, 9.6, 90.0, 90.0, 90.0)


@pytest.fixture
def salt_water(write_traj):
    """A little brine, moving: 26 waters with Na and 60 frames 2 fs apart."""

    def make(n_frames=60, boxes=CUBE, name="traj.dcd"):
        rng = np.random.default_rng(0)
        elements, positions = waters(3, 9.6, rng)
        elements, positions = ["Na", *elements[3:]], np.concatenate([positions[:1], positions[3:]])
        molecule = np.repeat(np.arange(27), [1] + [3] * 26)
        walk = np.cumsum(0.03 * rng.normal(size=(n_frames, 27, 3)), axis=0)
        return write_traj(elements, positions + walk[:, molecule], boxes, name=name)

    return make


def test_one_pass_gives_what_each_verb_gives_alone(salt_water, monkeypatch):
    path, passes = salt_water(), []
    read = Trajectory.frames
    monkeypatch.setattr(Trajectory, "frames", lambda self, indices: passes.append(len(indices)) or read(self, indices))
    together = analyze_all(path, dt_ps=0.002)
    assert sum(n == 60 for n in passes) == 1 + 1 + 2, "boxes, cutoffs of cn (twice), and one pass for all verbs"
    assert set(together.results) == set(VERBS) - {"drift"} and set(together.left_out) == {"drift"}
    alone = {
        "rdf": analysis.radial_distributions,
        "cn": analysis.coordination_numbers,
        "msd": analysis.diffusion,
        "hbonds": analysis.hydrogen_bonds,
        "metal": analysis.metal_sites,
        "density": analysis.densities,
        "geometry": analysis.geometries,
        "vdos": analysis.vibrational_spectrum,
    }
    for verb, function in alone.items():
        ours, theirs = together.results[verb], function(path, dt_ps=0.002)
        assert ours.quantities == theirs.quantities, verb
        assert [ours.csv_bytes(t) for t in ours.tables] == [theirs.csv_bytes(t) for t in theirs.tables]


def test_threads_change_no_bit(salt_water, monkeypatch):
    path, found = salt_water(), []
    for threads in ("1", "3"):
        monkeypatch.setenv("OMP_NUM_THREADS", threads)
        results = analyze_all(path, dt_ps=0.002).results.values()
        found.append([result.csv_bytes(table) for result in results for table in result.tables])
    assert found[0] == found[1] and len(found[0]) > 5


def test_positions_are_unwrapped_once(salt_water, monkeypatch):
    from omnicalc.analysis.unwrap import _Cell

    cells, made = [], _Cell.__init__
    monkeypatch.setattr(_Cell, "__init__", lambda self, box: cells.append(1) or made(self, box))
    analyze_all(salt_water(), dt_ps=0.002, only=["msd", "vdos"])
    assert len(cells) == 60


def test_what_a_trajectory_does_not_allow_is_left_out_with_the_reason(write_traj):
    positions = np.cumsum(0.1 * np.random.default_rng(1).normal(size=(30, 4, 3)), axis=0) + 3 * np.eye(4, 3)
    together = analyze_all(write_traj(["Ar", "Ar", "O", "O"], positions, None), dt_ps=1.0)
    assert set(together.results) == {"msd"}
    reasons = together.left_out
    assert "no cell" in reasons["rdf"] and "no cell" in reasons["density"] and "--cutoff" in reasons["cn"]
    assert "no hydrogen" in reasons["hbonds"] and "no metal" in reasons["metal"] and "no bond" in reasons["geometry"]
    assert "too far apart" in reasons["vdos"] and "log.csv" in reasons["drift"]
    with pytest.raises(InputError, match="allows none of these analyses: metal: there is no metal"):
        analyze_all(write_traj(["Ar"] * 4, positions, None, name="b.dcd"), only=["metal"])


def test_a_frame_that_suits_one_verb_no_longer_stops_only_that_one(salt_water):
    boxes = np.tile(CUBE, (60, 1))
    boxes[40, :3] = 4.6  # half of it is below the reach of hydrogen bonds and of sodium's shell
    together = analyze_all(salt_water(boxes=boxes), dt_ps=0.002, only=["hbonds", "density"])
    assert "beyond 2.300 Å" in together.left_out["hbonds"] and set(together.results) == {"density"}


@pytest.mark.parametrize("name", ["cn", "hbonds", "geometry", "msd", "vdos"])
def test_memory_does_not_grow_with_the_trajectory(salt_water, name):
    """Peak of what a pass allocates: five times the frames, at most a little more (a number per frame)."""
    from omnicalc.analysis.coordination import plan_cn
    from omnicalc.analysis.geometry import plan_geometry
    from omnicalc.analysis.hbonds import plan_hbonds
    from omnicalc.analysis.msd import plan_msd
    from omnicalc.analysis.vdos import plan_vdos

    lag = {"max_lag_ps": 0.02}
    plans = {
        "cn": (plan_cn, lag | {"cutoff": 3.3}),
        "hbonds": (plan_hbonds, lag),
        "geometry": (plan_geometry, {}),
        "msd": (plan_msd, lag),
        "vdos": (plan_vdos, {"resolution": 2000.0}),
    }
    plan, settings = plans[name]
    peaks = []
    import scipy.fft  # noqa: F401  (what is imported on the way counts for nothing)

    for n_frames in (120, 600):
        sampling = sample(as_trajectory(salt_water(n_frames, name=f"{n_frames}.dcd")), dt_ps=0.002)
        measure = plan(sampling, **settings)
        tracemalloc.start()
        stream(sampling, [measure])
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.35 * peaks[0] + 480 * 60, peaks  # and 60 bytes for each further frame


def test_unknown_verbs_are_named(salt_water):
    with pytest.raises(InputError, match="there is no analysis 'nmr'"):
        analyze_all(salt_water(), only=["nmr"])
    with pytest.raises(InputError, match="--skip leaves nothing"):
        analyze_all(salt_water(), only=["rdf"], skip=["rdf"])


def test_public_functions_are_what_they_say_twice():
    for name in analysis.__all__ * 2:
        assert callable(getattr(analysis, name)) and getattr(analysis, name).__doc__
    with pytest.raises(AttributeError):
        analysis.nothing  # noqa: B018


def test_results_write_themselves(salt_water, tmp_path):
    import json

    results = analyze_all(salt_water(), dt_ps=0.002, only=["rdf", "msd"]).results
    for verb, result in results.items():
        paths = result.to_csv(tmp_path / verb)
        assert paths and all(path.stat().st_size > 0 for path in paths)
        assert json.loads(result.to_json(tmp_path / f"{verb}.json"))["omnicalc"]
        assert json.loads((tmp_path / f"{verb}.json").read_text()) == json.loads(result.to_json())
        figure = result.plot(tmp_path / f"{verb}.png")
        assert figure.axes and (tmp_path / f"{verb}.png").read_bytes()[:4] == b"\x89PNG"
