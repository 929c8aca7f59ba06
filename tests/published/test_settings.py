"""Settings and tensors of a wrong kind, given to the readers of published networks."""

import json

import pytest
from safetensors.torch import load_file

from omnicalc.errors import WeightsError
from omnicalc.models import atom, omnimol, scd
from omnicalc.models.scd.published import translate
from tests.conftest import GOLDEN

READERS = {"scd": (scd, "cgt_molecules"), "atom": (atom, "ethanol_tg80_style_rrwp"), "omnimol": (omnimol, "pet_int")}


def case(family: str) -> tuple[dict, dict]:
    """Published settings and tensors; a table of settings within."""
    folder = GOLDEN / family / READERS[family][1]
    config = json.loads((folder / "config.json").read_text())
    return dict(config), load_file(folder / "weights.safetensors")


@pytest.mark.parametrize(
    "family, name, value, message",
    [
        ("scd", "num_before_skip", "x", "residuals_before = 'x' given"),
        ("scd", "num_after_skip", 1.5, "residuals_after = 1.5 given"),
        ("scd", "neighbor_embedding", "no", "neighbor_embedding = 'no' given; true or false"),
        ("atom", "heterogenous_attention_type", ["ghca"], r"heterogenous_attention_type = \['ghca'\]; supported"),
        ("atom", "rope_base", 0.0, "rope_base = 0.0; a number above 0"),
        ("omnimol", "use_int", "false", "use_int = 'false' given; true or false"),
        ("omnimol", "num_heads", 0, "num_heads = 0 given; a whole number above 0"),
        ("omnimol", "base_dim", None, "base_dim = None given; a whole number above 0"),
        ("omnimol", "mlp_ratio", "2", "mlp_ratio = '2' given; a number above 0"),
        ("omnimol", "attn_drop", 1.0, "attn_drop = 1.0 given; a probability below 1"),
        ("omnimol", "mode", ["pretrain"], r"mode = \['pretrain'\] given; a text"),
    ],
)
def test_settings_of_a_wrong_kind_are_refused(family, name, value, message):
    config, tensors = case(family)
    table = "model_kwargs" if "model_kwargs" in config else "model"
    config[table] = {**config[table], name: value}
    with pytest.raises(WeightsError, match=message):
        READERS[family][0].from_published(config, tensors)


@pytest.mark.parametrize("family", READERS)
def test_what_is_no_tensor_is_named(family):
    config, tensors = case(family)
    name = sorted(n for n, t in tensors.items() if t.dim() == 2)[0]
    tensors[name] = [[1.0]]
    with pytest.raises(WeightsError, match="of type list, no tensor"):
        READERS[family][0].from_published(config, tensors)


def test_a_gaussian_basis_needs_two_functions():
    with pytest.raises(WeightsError, match="n_basis = 1 given with basis = 'gauss'"):
        translate({"model": "CET", "rbf_type": "gauss", "num_rbf": 1})


def test_settings_left_out_are_those_of_the_released_networks():
    config = translate({"model": "CET"})
    assert config.trainable_basis and config.vector_prenorm == "component" and config.max_neighbors == 32
    assert translate({"model": "ET"}).max_neighbors is None
    assert translate({"model": "CET", "vec_prenorm": False}).vector_prenorm == "none"
