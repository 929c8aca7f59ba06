"""What is written is read back the same, floats to the last bit."""

import math
import tomllib

import numpy as np
import pytest

from omnicalc.toml_writer import to_toml


def round_trip(table: dict) -> dict:
    return tomllib.loads(to_toml(table))


def test_every_kind_of_value():
    table = {
        "text": 'quotes " and \\ and \n, \t, \x00, \x7f, Å, 水',
        "yes": True,
        "no": False,
        "whole": -12,
        "big": 10**18,
        "list": [1, 2, 3],
        "nested": [[1.5, 2.5], ["a", "b"]],
        "mixed": [1, {"a": 1, "b c": [True]}],
        "empty": [],
        "table": {"key with spaces": 1, "Å": 2, "deeper": {"x": 0.1}, "none": {}},
        "tables": [{"a": 1, "more": [{"b": 2}, {"b": 3}]}, {"a": 4, "sub": {"c": 5}}],
    }
    assert round_trip(table) == table


def test_floats_are_exact():
    rng = np.random.default_rng(0)
    values = [*(rng.normal(size=50) * 10.0 ** rng.integers(-300, 300, 50)).tolist(), 0.1, -0.0, 1e16, 5e-324]
    assert [x.hex() for x in round_trip({"x": values})["x"]] == [x.hex() for x in values]
    assert math.isnan(round_trip({"x": math.nan})["x"]) and round_trip({"x": -math.inf})["x"] == -math.inf


def test_floats_stay_floats_and_numpy_numbers_are_numbers():
    numbers = {"b": np.float64(0.1), "c": np.int64(3), "d": np.bool_(True), "e": np.float32(0.5)}
    back = round_trip({"a": 2.0, **numbers})
    assert back == {"a": 2.0, "b": 0.1, "c": 3, "d": True, "e": 0.5}
    assert [type(v) for v in back.values()] == [float, float, int, bool, float]


def test_plain_values_come_before_tables():
    assert to_toml({"t": {"x": 1}, "a": 2}) == "a = 2\n\n[t]\nx = 1\n"


@pytest.mark.parametrize("value", [None, object(), {1, 2}, b"bytes"])
def test_what_toml_cannot_hold(value):
    with pytest.raises(TypeError, match="outer.inner: TOML cannot hold"):
        to_toml({"outer": {"inner": value}})
