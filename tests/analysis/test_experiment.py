import pytest

from omnicalc.analysis.experiment import experiment_for, is_water_like

WATER = {"O": 64, "H": 128}


@pytest.mark.parametrize(
    ("pair", "peak", "height", "minimum", "low"),
    [
        (("O", "O"), 2.81, 2.57, 3.44, 0.844),
        (("O", "H"), 1.86, 1.04, 2.45, 0.21),
        (("H", "H"), 2.43, 1.34, 2.98, 0.69),
    ],
)
def test_features_are_the_published_ones(pair, peak, height, minimum, low):
    curve = experiment_for(pair, WATER)
    assert curve.peak == (pytest.approx(peak, abs=0.02), pytest.approx(height, abs=0.01))
    assert curve.minimum == (pytest.approx(minimum, abs=0.02), pytest.approx(low, abs=0.01))
    assert curve.without_molecule == (pair != ("O", "O"))


def test_coordination_numbers():
    assert experiment_for(("O", "O"), WATER).coordination["O around O"] == pytest.approx(4.88, abs=0.05)
    around = experiment_for(("H", "O"), WATER).coordination
    assert around["H around O"] == pytest.approx(2 * around["O around H"])
    assert 1.7 < around["H around O"] < 2.1, "two hydrogen bonds are accepted"


@pytest.mark.parametrize(
    ("counts", "like"),
    [
        (WATER, True),
        ({"H": 128, "O": 64, "Na": 4, "Cl": 4}, True),
        ({"H": 128, "O": 64, "X": 64}, True),  # sites of four-point water
        ({"H": 20, "O": 10, "Na": 10, "Cl": 10}, False),
        ({"H": 60, "O": 60}, False),
        ({"C": 64, "H": 256, "O": 64}, False),
        ({"Na": 5, "Cl": 5}, False),
        ({"H": 4}, False),
    ],
)
def test_only_water_is_compared_with_water(counts, like):
    assert is_water_like(counts) is like
    assert (experiment_for(("H", "H"), counts) is not None) is like
    assert experiment_for(("Na", "O"), counts) is None
