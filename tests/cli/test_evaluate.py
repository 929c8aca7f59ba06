"""The verb evaluate: formats, groups, plot, JSON, refusals."""

import json

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read, write

from omnicalc.errors import InputError
from tests.command import omnicalc
from tests.tiny_weights import write_weights


@pytest.fixture
def files(tmp_path):
    write_weights(tmp_path / "weights")
    rng = np.random.default_rng(0)
    frames = []
    for k in range(4):
        atoms = Atoms("OHH", [[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]])
        atoms.positions += rng.normal(scale=0.05, size=(3, 3))
        atoms.info.update(config_type="ab"[k % 2], split="valid" if k else "train")
        atoms.calc = SinglePointCalculator(atoms, energy=-30.0, forces=np.zeros((3, 3)))
        frames.append(atoms)
    write(tmp_path / "data.extxyz.gz", frames, format="extxyz")
    return tmp_path


def test_table_groups_and_plot(files):
    plot = files / "parity.png"  # of labels with another zero, which the text says
    text = omnicalc("evaluate", files / "weights", files / "data.extxyz.gz", "--by", "config_type", "--plot", plot)
    assert "4 frames of" in text and "eV/atom off the head on average" in text and "\na " in text and "\nb " in text
    assert plot.stat().st_size > 10_000
    with pytest.raises(InputError, match="--plot .*: there is no folder '.*nowhere'; make it first"):
        omnicalc("evaluate", files / "weights", files / "data.extxyz.gz", "--plot", files / "nowhere" / "p.png")
    with pytest.raises(InputError, match="is there already"):
        omnicalc("evaluate", files / "weights", files / "data.extxyz.gz", "--plot", plot)


def test_json(files):
    data = files / "data.extxyz.gz"
    words = ("evaluate", files / "weights", data, "--split", "valid", "--by", "config_type", "--json")
    table = json.loads(omnicalc(*words))
    assert table["frames"] == 3 and table["head"] == "water-theory"
    assert {name: g["frames"] for name, g in table["by"].items()} == {"a": 1, "b": 2}
    assert table["by"]["a"]["delta_energy_mae"] is None
    other = json.loads(omnicalc(*words, "--head", "salt-theory"))
    assert other["head"] == "salt-theory" and other["energy_mae"] != table["energy_mae"]


def test_only_frames_of_a_kind(files):
    words = ("evaluate", files / "weights", files / "data.extxyz.gz", "--json")
    of_b = json.loads(omnicalc(*words, "--only", "config_type=b"))
    by = json.loads(omnicalc(*words, "--by", "config_type"))["by"]
    assert of_b["frames"] == 2 and of_b["force_mae"] == pytest.approx(by["b"]["force_mae"])
    assert json.loads(omnicalc(*words, "--only", "config_type=a,b", "--only", "split=train"))["frames"] == 1
    with pytest.raises(InputError, match="values of 'config_type': a, b"):
        omnicalc(*words, "--only", "config_type=c")


def test_outliers_are_counted(files):
    data = files / "data.extxyz.gz"
    assert "left out" not in omnicalc("evaluate", files / "weights", data)
    frames = read(data, ":")
    frames[2].info["quality"] = "outlier"
    write(data, frames, format="extxyz")
    assert "1 frames of " in omnicalc("evaluate", files / "weights", data)


def test_unknown_keys_and_heads(files):
    with pytest.raises(InputError, match="no frame of .* has the key 'kind'; keys: config_type, split"):
        omnicalc("evaluate", files / "weights", files / "data.extxyz.gz", "--by", "kind")
    with pytest.raises(InputError, match="unknown head 'x'"):
        omnicalc("evaluate", files / "weights", files / "data.extxyz.gz", "--head", "x")
