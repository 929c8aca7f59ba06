"""Cards: exact round trip, and every slip in one has an error that names it."""

from dataclasses import replace

import pytest

from omnicalc.card import CARD, Card, CardHead, read_card, write_card
from omnicalc.errors import WeightsError

HEAD = CardHead(
    name="pbe0+ts",
    level_of_theory="PBE0+TS",
    elements=("H", "O"),
    reference_source="least squares",
    data="water",
    reference={"H": -13.587222780835477, "O": 0.1 + 0.2},
)
GOOD = Card(
    name="some-name",
    tag="small",
    version="0.1",
    family="e2former",
    summary="for water",
    conservative=True,
    cutoff=4.5,
    dtype="float32",
    sha256="ab" * 32,
    licence="CC-BY-SA-4.0",
    citation=("A. Author, 2020",),
    charges=(-1, 0),
    spins="ignored",
    config={"channels": 32, "values": ["first-order"], "sub": {"x": 1e-7}},
    heads=(HEAD, replace(HEAD, name="other", data="salt", elements=("Na",), reference={"Na": -1.5})),
    training={"sources": [{"file": "a.xyz", "frames": 3}]},
    accuracy={"pbe0+ts": {"force_mae_meV_per_A": 18.8}},
)


def test_round_trip(tmp_path):
    write_card(tmp_path / CARD, GOOD)
    assert read_card(tmp_path / CARD) == GOOD
    assert [p.name for p in tmp_path.iterdir()] == [CARD]
    first = (tmp_path / CARD).read_bytes()
    write_card(tmp_path / CARD, read_card(tmp_path / CARD))
    assert (tmp_path / CARD).read_bytes() == first
    assert read_card(tmp_path / CARD).full_name == "some-name:small@0.1"


def test_references_by_number():
    assert HEAD.reference_by_number == {1: -13.587222780835477, 8: 0.1 + 0.2}
    assert HEAD.numbers == {1, 8}


def test_spins_may_be_a_list(tmp_path):
    write_card(tmp_path / CARD, replace(GOOD, spins=(1, 2)))
    assert read_card(tmp_path / CARD).spins == (1, 2)


def test_what_a_head_has_seen_of_periodic_structures_may_be_left_out(tmp_path):
    write_card(tmp_path / CARD, GOOD)
    assert "periodic" not in (tmp_path / CARD).read_text() and read_card(tmp_path / CARD).heads[0].periodic == ""
    card = replace(GOOD, heads=(replace(HEAD, periodic="refused"),))
    write_card(tmp_path / CARD, card)
    assert read_card(tmp_path / CARD) == card


def test_lists_do_for_tuples(tmp_path):
    write_card(tmp_path / CARD, replace(GOOD, charges=[-1, 0], citation=list(GOOD.citation)))
    assert read_card(tmp_path / CARD) == GOOD


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('licence = "CC-BY-SA-4.0"\n', "", "missing: licence"),
        ('licence = "CC-BY-SA-4.0"\n', 'license = "MIT"\n', "missing: licence; unknown: license"),
        ('data = "water"\n', "", r"heads\[0\]: keys missing: data"),
        ('data = "water"\n', 'data = "water"\nnote = 1\n', r"heads\[0\]: keys unknown: note"),
        ('data = "water"\n', 'data = "water"\nperiodic = false\n', "= False: one of trained, untrained, refused"),
        ('data = "water"\n', 'data = "water"\nperiodic = "yes"\n', "periodic = 'yes': one of trained"),
        ("cutoff = 4.5", 'cutoff = "4.5"', "cutoff = '4.5': a number in Å"),
        ("cutoff = 4.5", "cutoff = -4.5", "above 0 Å"),
        ("cutoff = 4.5", "cutoff = nan", "a number in Å"),
        ("conservative = true", "conservative = 1", "conservative = 1: true or false"),
        ('sha256 = "abab', 'sha256 = "xyab', "64 hexadecimal digits"),
        ('dtype = "float32"', 'dtype = "float16"', "one of float32, float64"),
        ('version = "0.1"', 'version = "0:1"', "version = '0:1'"),
        ('tag = "small"', 'tag = "a@b"', "tag = 'a@b'"),
        ("charges = [-1, 0]", "charges = []", "at least one total charge"),
        ("charges = [-1, 0]", "charges = [0.5]", "whole numbers"),
        ('spins = "ignored"', 'spins = "any"', "multiplicities"),
        ('spins = "ignored"', "spins = [0]", "multiplicities"),
        ('elements = ["Na"]', 'elements = ["Na", "K"]', "elements are Na, K but .* given for Na;"),
        ('elements = ["Na"]', 'elements = ["Xx"]', "unknown element Xx"),
        ('name = "other"', 'name = "pbe0+ts"', "a name of its own"),
        ("Na = -1.5", 'Na = "-1.5"', "energies in eV"),
        ("[accuracy]", "[accuracy", "not a TOML file"),
    ],
)
def test_slips(tmp_path, old, new, message):
    write_card(tmp_path / CARD, GOOD)
    text = (tmp_path / CARD).read_text()
    if old == "[accuracy]":
        text = text.replace('[accuracy."pbe0+ts"]', new)
    else:
        assert text.count(old) == 1
        text = text.replace(old, new)
    (tmp_path / CARD).write_text(text)
    with pytest.raises(WeightsError, match=message) as caught:
        read_card(tmp_path / CARD)
    assert str(tmp_path / CARD) in str(caught.value)


def test_a_bad_card_is_not_written(tmp_path):
    with pytest.raises(WeightsError, match="sha256"):
        write_card(tmp_path / CARD, replace(GOOD, sha256=""))
    assert list(tmp_path.iterdir()) == []


def test_no_file(tmp_path):
    with pytest.raises(WeightsError, match="no such file"):
        read_card(tmp_path / CARD)
    with pytest.raises(WeightsError, match="cannot be read"):
        read_card(tmp_path)
