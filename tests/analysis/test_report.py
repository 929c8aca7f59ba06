import json

import numpy as np
import pytest

from omnicalc.analysis.report import SHORT_BLOCKS, Quantity, Result, columns_of, series_quantity, with_error
from omnicalc.analysis.sampling import Sampling


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (2.73149, 0.0061, "2.7315 ± 0.0061"),
        (121.63, 1.04, "121.6 ± 1.0"),
        (12345.6, 250.0, "12350 ± 250"),
        (1.0, 0.0, "1 ± 0"),
        (0.12345678, None, "0.1235"),
        (None, None, "-"),
        (float("nan"), None, "-"),
        (3.0e-12, 2.0e-13, "3e-12 ± 2e-13"),
    ],
)
def test_numbers_show_two_digits_of_their_error(value, error, text):
    assert with_error(value, error) == text


def test_a_result_writes_what_it_holds(tmp_path):
    table = {"name": ["a,b", "c"], "value": np.array([1.5, np.nan]), "count": np.array([1, 2])}
    quantities = [Quantity("x", 1.5, None, "Å"), Quantity("y", float("nan"), None, "", "no data")]
    result = Result("toy", [], ["head"], {"setting": 1}, quantities, {"rows": table}, ["careful"], lambda figure: None)
    [path] = result.to_csv(tmp_path / "new")
    assert path.name == "toy_rows.csv" and path.read_text() == 'name,value,count\n"a,b",1.5,1\nc,nan,2\n'
    record = json.loads(result.to_json(tmp_path / "toy.json"))
    assert record["quantities"][1] == {"name": "y", "value": None, "stderr": None, "unit": "", "note": "no data"}
    assert (tmp_path / "toy.json").read_text() == result.to_json()
    assert result["x"].unit == "Å" and str(result["x"]) == "x 1.5 Å"
    with pytest.raises(KeyError, match="there are x, y"):
        result["z"]
    assert result.lines()[:2] == ["head", "note: careful"]


def test_columns_line_up():
    assert columns_of([("a", "bb", "c"), ("aaa", "b", "")]) == ["a    bb  c", "aaa  b"]
    assert columns_of([]) == []


def test_a_number_that_never_changes_is_not_slow():
    """Its error is that of rounding."""
    sampling = Sampling(None, range(30), 10, None)
    constant = np.full(30, 0.99337)
    constant[::3] = np.nextafter(0.99337, 1)
    found = series_quantity("rho", constant, sampling, "g/cm³", "fixed")
    assert 0 < found.stderr < 1e-15 and found.note == "fixed"
    slow = series_quantity("rho", constant + np.linspace(0, 1e-3, 30), sampling, "g/cm³")
    assert slow.note == SHORT_BLOCKS
