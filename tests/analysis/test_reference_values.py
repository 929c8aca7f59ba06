"""Single numbers that analyses print beside their own."""

import numpy as np
import pytest

from omnicalc.analysis import coordination_numbers, metal_sites, radial_distributions
from omnicalc.analysis.reference_values import known_shells, reference, references
from tests.analysis.conftest import waters

SALT_WATER = {"H": 128, "O": 64, "Na": 2, "Cl": 2}


def test_numbers_of_the_literature():
    na = reference("Na-O peak")
    assert (na.value, na.uncertainty, na.unit) == (2.384, 0.003, "Å")
    assert (reference("Na-O coordination").value, reference("Na-O coordination").uncertainty) == (5.5, 0.3)
    assert (reference("P-O-Mg").value, reference("P-O-Mg").uncertainty) == (148, 10)
    assert reference("Mg-O peak").value == 2.07 and reference("O-Mg-O trans").value == 177
    assert reference("Cl-O coordination", "UBio-MolFM").condition.endswith("within 4.04 Å")
    assert reference("nothing") is None and references("nothing") == []


def test_every_row_names_its_source():
    from omnicalc.analysis.reference_values import _all

    rows = [known for entries in _all().values() for known in entries]
    assert len(rows) > 30 and all(known.note and np.isfinite(known.value) for known in rows)


@pytest.mark.parametrize("pair", [("Na", "O"), ("O", "Na")])
def test_a_pair_in_either_order(pair):
    shells = known_shells(pair, SALT_WATER)
    assert [s.method for s in shells].count("experiment") == 2
    assert {s.around for s in shells} == {"O around Na"}
    assert {s.coordination.value for s in shells} == {5.5, 6.0, 5.7, 4.9, 5.59}


def test_only_in_water_and_only_without_a_curve():
    assert known_shells(("O", "O"), SALT_WATER) == []  # has a measured curve
    assert known_shells(("Na", "O"), {"Na": 4, "O": 4}) == []  # a solid
    separated = [s for s in known_shells(("Na", "Cl"), SALT_WATER) if "separated" in s.label]
    assert [s.peak.value for s in separated] == [4.6]


@pytest.fixture
def brine(write_traj):
    """Waters on a grid with a sodium and a chloride, moving at random."""
    rng = np.random.default_rng(3)
    elements, positions = waters(4, 12.4, rng)
    elements, positions = [*elements, "Na", "Cl"], np.vstack([positions, [[3.1, 3.1, 3.1], [9.3, 9.3, 9.3]]])
    frames = positions + rng.normal(scale=0.15, size=(40, *positions.shape))
    return write_traj(elements, frames, [12.4, 12.4, 12.4, 90, 90, 90])


def test_table_and_figure_of_rdf_show_them(brine):
    rdfs = radial_distributions(brine, ["Na-O", "O-O"])
    lines = rdfs.lines()
    assert any("experiment, X-ray diffraction" in line and "2.3840 ± 0.0030" in line for line in lines)
    assert any("5.50 ± 0.30 O around Na" in line for line in lines)
    panel = rdfs.plot().axes[0]
    drawn = [line.get_xdata()[0] for line in panel.lines if line.get_label() == "peak known from experiment"]
    assert drawn == [2.384, 2.43]


def test_cn_and_metal_print_them(brine):
    result = coordination_numbers(brine, ["Na-O"], cutoff=3.2)
    assert result["experiment, n(O around Na)"].value == 5.5
    assert result.plot().axes
    sites = metal_sites(brine, ion="Na")
    assert sites["experiment, Na-O"].value == 2.384 and sites.plot().axes
