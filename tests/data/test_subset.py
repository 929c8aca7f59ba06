"""omnicalc data subset: spread over classes and molecules, each frame once, the same bytes every time."""

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read, write

from omnicalc.data.subset import Limits, in_turn, subset
from omnicalc.errors import InputError
from tests.command import omnicalc


def frame(kind: str, molecule: str, number: int, atoms: int = 2, force: float = 1.0) -> Atoms:
    made = Atoms("H" * atoms, np.arange(3 * atoms).reshape(-1, 3) + number / 10)
    made.info = {"config_type": kind, "molecule": molecule, "key": f"k{kind}{molecule}{number}"}
    made.calc = SinglePointCalculator(made, energy=-1.0, forces=np.full((atoms, 3), force / 3**0.5))
    return made


@pytest.fixture
def frames():
    many = [frame("many", f"m{k % 3}", k) for k in range(30)]
    return [*many, frame("few", "f", 0), frame("few", "f", 1), many[0], frame("big", "b", 0, atoms=9),
            frame("steep", "s", 0, force=50.0)]  # fmt: skip


def test_every_first_part_is_spread(frames):
    chosen = subset(frames, None, Limits(max_atoms=5, max_force=20.0), seed=1)
    assert len(chosen) == 32  # the copy once, the large and the steep one not at all
    assert {a.info["config_type"] for a in chosen[:2]} == {"few", "many"}
    many = [a.info["molecule"] for a in chosen if a.info["config_type"] == "many"]
    assert all(set(many[k : k + 3]) == {"m0", "m1", "m2"} for k in range(0, 30, 3))
    other = subset(frames, None, Limits(max_atoms=5, max_force=20.0), seed=2)
    assert [a.info["key"] for a in other] != [a.info["key"] for a in chosen]


def test_one_long_molecule_among_many_short_ones_takes_no_square_of_time():
    import sys

    lists = [[k] for k in range(3000)] + [list(range(3000, 6000))]
    lines = 0

    def count(frame, event, argument):
        nonlocal lines
        lines += event == "line"
        return count

    sys.settrace(count)
    try:
        chosen = in_turn(lists)
    finally:
        sys.settrace(None)
    assert chosen == list(range(3000)) + list(range(3000, 6000)) and lines < 100_000


def test_keys_of_ones_own_are_no_copies(frames):
    """A key that others use for something else, here with one value for all, takes no geometry away."""
    for atoms in frames:
        atoms.info["key"] = "mine"
    assert len(subset(frames, None, Limits(), seed=1)) == len({a.positions.tobytes() for a in frames}) > 30


def test_the_charge_may_be_that_of_initial_charges(frames):
    frames[2].set_initial_charges([1.0, 0.0])
    assert subset(frames, None, Limits(charge=1), seed=1) == [frames[2]]


def test_command(frames, tmp_path):
    write(tmp_path / "in.extxyz", frames, format="extxyz")
    one, two = tmp_path / "one.extxyz.gz", tmp_path / "two.extxyz.gz"
    said = omnicalc("data", "subset", tmp_path / "in.extxyz", "--count", 6, "--max-atoms", 5, "--out", one)
    omnicalc("data", "subset", tmp_path / "in.extxyz", "--count", 6, "--max-atoms", 5, "--out", two)
    assert "6 of 35 frames: few 2, many 3, steep 1" in said
    assert one.read_bytes() == two.read_bytes()
    assert len(read(one, ":")) == 6 and read(one, 0).get_potential_energy() == -1.0
    with pytest.raises(InputError, match="there already"):
        omnicalc("data", "subset", tmp_path / "in.extxyz", "--out", one)
    with pytest.raises(InputError, match="none of 35 frames"):
        omnicalc("data", "subset", tmp_path / "in.extxyz", "--max-atoms", 1, "--out", tmp_path / "three.extxyz")


def test_only_frames_of_a_kind(frames, tmp_path):
    write(tmp_path / "in.extxyz", frames, format="extxyz")
    words = ("data", "subset", tmp_path / "in.extxyz", "--out", tmp_path / "out.xyz", "--only")
    with pytest.raises(InputError, match="values of 'config_type': many, few, big, steep"):
        omnicalc(*words, "config_type=x")
    assert "3 of 35 frames: big 1, few 2" in omnicalc(*words, "config_type=few,big")


def test_charge_and_elements(frames, tmp_path):
    frames[0].info["charge"] = 1
    frames[1].symbols[0] = "Na"
    write(tmp_path / "in.extxyz", frames[:4], format="extxyz")
    out = tmp_path / "out.extxyz"
    omnicalc("data", "subset", tmp_path / "in.extxyz", "--charge", 0, "--elements", "H, O", "--out", out)
    assert {a.info["key"] for a in read(out, ":")} == {frames[2].info["key"], frames[3].info["key"]}
    with pytest.raises(InputError, match="Xx.*give symbols"):
        omnicalc("data", "subset", tmp_path / "in.extxyz", "--elements", "H Xx", "--out", tmp_path / "no.extxyz")


def test_a_name_that_readers_take_for_another_format_is_refused(tmp_path):
    write(tmp_path / "a.extxyz", Atoms("H"))
    with pytest.raises(InputError, match="let the name end in .extxyz"):
        omnicalc("data", "subset", tmp_path / "a.extxyz", "--out", tmp_path / "b.json")
