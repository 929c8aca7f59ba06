"""Settings of E2Former are checked before a network is built."""

import pytest

from omnicalc.errors import WeightsError
from omnicalc.models.e2former.config import E2FormerConfig

GOOD = {"heads": ["a"], "elements": [1, 8]}


def test_round_trip_through_a_card():
    config = E2FormerConfig.from_dict({**GOOD, "l_max": 1, "values": ["both", "zero-order"]})
    assert E2FormerConfig.from_dict(config.to_dict()) == config


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_values_follow_the_layers_where_none_are_given(layers):
    config = E2FormerConfig.from_dict({**GOOD, "layers": layers})
    assert config.to_dict()["values"] == ["first-order"] * layers


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"channels": 0}, "channels = 0 given; a whole number of at least 1"),
        ({"channels": "a"}, "channels = 'a' given"),
        ({"channels": 12}, "channels = 12 must be a multiple of attention_heads = 8"),
        ({"cutoff": -1.0}, "cutoff = -1.0 given"),
        ({"l_max": 3}, "l_max = 3 is not supported; choose one of: 1, 2"),
        ({"gate": "tanh"}, "gate = 'tanh' is not supported; choose one of: qk"),
        ({"values": ["first-order"]}, "values lists 1 layers, but layers = 2"),
        ({"chanels": 32}, "unknown e2former settings: chanels; known: .*channels"),
        ({"elements": None}, "needs an element list"),
        ({"elements": "HO"}, "elements = 'HO' given; a list, each a whole number is needed"),
        ({"type_embedding": "false"}, "type_embedding = 'false' given; true or false is needed"),
        ({"mirror_symmetric": 0}, "mirror_symmetric = 0 given; true or false is needed"),
        ({"max_neighbors": -1}, "max_neighbors = -1 given; a whole number of at least 1"),
        ({"max_neighbors": "all"}, "max_neighbors = 'all' given; a whole number of at least 1"),
        ({"cores": [[1, 8, "x"]]}, r"cores = \[\[1, 8, 'x'\]\] given"),
        ({"long_layers": -1}, "long_layers = -1"),
        ({"long_layers": "two"}, "long_layers = 'two' given; a whole number is needed"),
        ({"long_lower": 13.0}, "long_lower = 13.0 and long_upper = 12.0"),
        ({"long_envelope": "hat"}, "long_envelope = 'hat' is not supported; choose one of: poly7, poly5, bell"),
    ],
)
def test_what_is_wrong_is_named(wrong, message):
    with pytest.raises(WeightsError, match=message):
        E2FormerConfig.from_dict({**GOOD, **wrong})
