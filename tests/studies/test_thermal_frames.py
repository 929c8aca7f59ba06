"""Which frames of dynamics go to a costlier level of theory."""

import random

import numpy as np
import pytest
from ase import Atoms
from click.testing import CliRunner

from analysis.curriculum.thermal_frames import Share, choose, main
from omnicalc.data.readers import open_frames
from omnicalc.data.subset import write_frames


def frames(split, kind, molecule, atoms, count, origin="md300"):
    made = []
    for k in range(count):
        one = Atoms(f"H{atoms}", np.arange(3 * atoms).reshape(-1, 3) + 0.001 * k)
        one.info = {"split": split, "config_type": kind, "molecule": molecule, "origin": origin}
        made.append(one)
    return made


POOL = [
    *frames("train", "drug", "few", 4, 2),
    *frames("train", "drug", "many", 4, 50),
    *frames("train", "drug", "large", 30, 50),
    *frames("train", "drug", "stretched", 4, 50, origin="stretch"),
    *frames("test", "drug", "unseen", 4, 10),
]
SHARES = (Share("train", "drug", 12, 10), Share("test", "drug", 4, 10))


def test_every_molecule_has_its_turn_and_no_frame_comes_twice():
    chosen = choose(POOL, SHARES, random.Random(0))
    names = [atoms.info["molecule"] for atoms in chosen]
    assert {name: names.count(name) for name in set(names)} == {"few": 2, "many": 10, "unseen": 4}
    assert len({(a.info["molecule"], a.positions.tobytes()) for a in chosen}) == 16


def test_a_labelling_that_is_stopped_leaves_a_fair_part():
    chosen = choose(POOL, SHARES, random.Random(0))
    assert [sum(a.info["split"] == "test" for a in chosen[4 * k : 4 * k + 4]) for k in range(4)] == [1, 1, 1, 1]


def test_a_share_that_the_frames_cannot_fill_takes_what_there_is():
    assert len(choose(POOL, (Share("train", "drug", 99, 10, 5),), random.Random(0))) == 0
    assert len(choose(POOL, (Share("train", "drug", 99, 40, 5),), random.Random(0))) == 50


def test_the_command_writes_frames_without_labels_and_refuses_others(tmp_path):
    write_frames(tmp_path / "in.extxyz", frames("train", "drug", "ethanol", 4, 9))
    done = CliRunner().invoke(main, [str(tmp_path / "in.extxyz"), "--out", str(tmp_path / "out.extxyz")])
    assert done.exit_code == 0 and len(list(open_frames(tmp_path / "out.extxyz"))) == 4
    write_frames(tmp_path / "other.extxyz", frames("train", "drug", "ethanol", 4, 9, origin="rattle"))
    refused = CliRunner().invoke(main, [str(tmp_path / "other.extxyz"), "--out", str(tmp_path / "none.extxyz")])
    assert "md300, md400, md500" in str(refused.exception)
    assert not (tmp_path / "none.extxyz").exists()


def test_structures_that_are_labelled_already_are_left_out(tmp_path):
    every = frames("train", "drug", "ethanol", 4, 4)
    write_frames(tmp_path / "in.extxyz", every)
    write_frames(tmp_path / "known.extxyz", every[:3])
    options = ["--without", str(tmp_path / "known.extxyz"), "--out", str(tmp_path / "out.extxyz")]
    done = CliRunner().invoke(main, [str(tmp_path / "in.extxyz"), *options])
    (left,) = open_frames(tmp_path / "out.extxyz")
    assert done.exit_code == 0 and left.positions == pytest.approx(every[3].positions, abs=1e-8)


@pytest.mark.parametrize("seed", [0, 1])
def test_the_seed_decides(seed):
    names = [[a.positions[0, 0] for a in choose(POOL, SHARES, random.Random(s))] for s in (seed, seed, seed + 7)]
    assert names[0] == names[1] != names[2]
