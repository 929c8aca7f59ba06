"""Frames by the values of their keys."""

import pytest
from ase import Atoms

from omnicalc.data.only import only
from omnicalc.errors import InputError

FRAMES = [
    Atoms("H", info={"origin": origin, "split": split, "charge": k % 2})
    for k, (origin, split) in enumerate([("md300", "train"), ("md400", "test"), ("relax", "test"), ("md300", "test")])
]
FRAMES[2].info["system"] = "na, cl"


@pytest.mark.parametrize(
    ("conditions", "left"),
    [
        ([], [0, 1, 2, 3]),
        (["origin=md300"], [0, 3]),
        (["origin=md300,md400"], [0, 1, 3]),
        (["origin=md300, md400", "split=test"], [1, 3]),
        (["charge=1"], [1, 3]),
        (["system=na, cl"], [2]),  # a value with a comma of its own
    ],
)
def test_every_condition_counts(conditions, left):
    assert only(FRAMES, conditions, "x") == [FRAMES[k] for k in left]


@pytest.mark.parametrize("condition", ["origin", "origin=", "=md300", "origin=,"])
def test_other_forms_are_refused(condition):
    with pytest.raises(InputError, match="KEY=VALUE"):
        only(FRAMES, [condition], "x")


def test_what_there_is_is_named():
    with pytest.raises(InputError, match="no frame of 'x' is left; values of 'origin': md300, md400, relax"):
        only(FRAMES, ["origin=md500"], "x")
    with pytest.raises(InputError, match="values of 'origin': md300$"):
        only(FRAMES, ["split=train", "origin=relax"], "x")
    with pytest.raises(InputError, match="none has the key 'kind'; keys: charge, origin, split, system"):
        only(FRAMES, ["kind=a"], "x")
