import json

import numpy as np
import pytest

from omnicalc.analysis.density import densities
from omnicalc.errors import InputError

from .conftest import waters


def test_density_of_every_frame_is_its_mass_over_its_volume(write_traj, tmp_path):
    rng = np.random.default_rng(0)
    elements, positions = waters(4, 12.4, rng)
    scales = 1.0 + 0.02 * rng.normal(size=40)
    boxes = [(12.4 * s, 13.0 * s, 12.4 * s, 90.0, 90.0, 70.0) for s in scales]
    result = densities(write_traj(elements, [positions] * 40, boxes))
    volumes = 12.4 * 13.0 * 12.4 * np.sin(np.radians(70.0)) * scales**3
    rho = 64 * 18.015 / 6.02214076e23 / (volumes * 1e-24)
    assert np.allclose(result.tables["series"]["density_g_cm3"], rho, rtol=1e-5)
    found = result["density"]
    assert found.value == pytest.approx(rho.mean(), rel=1e-5)
    assert found.value != pytest.approx(64 * 18.015 / 0.602214076 / volumes.mean(), rel=1e-4), "not mass / mean volume"
    assert found.stderr == pytest.approx(rho.std() / np.sqrt(40), rel=0.6)
    late = densities(tmp_path / "traj.dcd", start=10, step=3, dt_ps=0.5).tables["series"]
    assert late["time_ps"].tolist() == pytest.approx((np.arange(10, 40, 3) * 0.5).tolist())
    assert result["experiment, density of water"].value == 0.99705


def test_heavy_water_weighs_more_and_is_not_compared_with_light(write_traj, tmp_path):
    """Masses of the run count; those that are only repartitioned change nothing."""
    elements, positions = waters(4, 12.4, np.random.default_rng(0))
    path = write_traj(elements, [positions] * 20, (12.4, 12.4, 12.4, 90.0, 90.0, 90.0))
    name = "experiment, density of water"

    def found(masses):
        (tmp_path / "run.json").write_text(json.dumps({"masses": masses}))
        result = densities(path, profile="a")
        return result["density"].value, any(q.name == name for q in result.quantities), result.head[0]

    light, compared, head = found({})
    assert compared and "O64 H128" in head
    heavy, compared, head = found({"H": 2.014})
    assert heavy == pytest.approx(light * (15.999 + 2 * 2.014) / 18.015, rel=1e-9) and not compared
    assert "O64 D128" in head
    moved, compared, head = found({"H": 3.0, "O": 18.015 - 6.0})
    assert moved == pytest.approx(light, rel=1e-9) and compared and "O64 H128" in head
    with pytest.raises(InputError, match=r"run\.json tells the masses of other atoms.*--top"):
        found({"H": "2.014*5 1.008*2"})


def test_no_cell_and_no_elements_are_errors(write_traj, tmp_path):
    with pytest.raises(InputError, match="has no cell.*a density needs one"):
        densities(write_traj(["O"] * 2, np.zeros((3, 2, 3)), None))
    path = write_traj(["O"] * 2, np.zeros((3, 2, 3)), (9.0,) * 3 + (90.0,) * 3, name="b.dcd")
    text = path.with_name("topology.pdb").read_text().replace(" O ", " Q ").replace("  O", "   ")
    (tmp_path / "unknown.pdb").write_text(text)
    with pytest.raises(InputError, match="no element is known"):
        densities(path, top=tmp_path / "unknown.pdb")


def test_profile_of_a_slab(write_traj):
    """Atoms fill the middle half of a tilted cell evenly: twice the mean density there, nothing outside."""
    from MDAnalysis.lib.mdamath import triclinic_vectors

    rng = np.random.default_rng(2)
    box = (10.0, 11.0, 12.0, 80.0, 95.0, 100.0)
    parts = rng.uniform(0, 1, (40, 400, 3))
    parts[:, :, 2] = 0.25 + 0.5 * parts[:, :, 2]
    frames = (parts + rng.integers(-2, 3, parts.shape)) @ triclinic_vectors(np.array(box), dtype=np.float64)
    result = densities(write_traj(["Ar"] * 400, frames, box), profile="c", slice_width=1.5)
    profile = result.tables["profile"]
    mean, found = result["density"].value, profile["density_g_cm3"]
    assert len(found) == result.settings["slices"] == 8
    assert found[:2] == pytest.approx(0, abs=1e-9) and found[6:] == pytest.approx(0, abs=1e-9)
    assert np.abs(found[2:6] - 2 * mean).max() < 5 * profile["density_stderr"][2:6].max()
    assert found.mean() == pytest.approx(mean, rel=1e-6)
    assert profile["density_Ar"] == pytest.approx(found)
    across = densities(result.sources[0], profile="a").tables["profile"]["density_g_cm3"]
    assert across == pytest.approx(mean, rel=0.1)
    assert len(result.plot().axes) == 2


def test_profiles_that_cannot_be(write_traj):
    path = write_traj(["Ar"] * 8, np.random.default_rng(1).uniform(0, 9, (12, 8, 3)), (9.0, 9.0, 9.0, 90, 90, 90))
    for settings, words in (({"profile": "z"}, "give a, b or c"), ({"profile": "c", "slice_width": 0}, "--slice 0")):
        with pytest.raises(InputError, match=words):
            densities(path, **settings)
