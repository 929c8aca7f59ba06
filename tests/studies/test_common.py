"""What the four studies share: boxes, tables, parts of a classical run."""

import click
import numpy as np
import pytest
from ase import Atoms
from ase.geometry import get_distances

from analysis.common.amber import run_amber, topology_of
from analysis.common.boxes import APART, GAP, add_ions, label, pairs_for, solvate, water_box
from analysis.common.study import Settings, study
from analysis.common.table import Row, markdown, write_table
from omnicalc.analysis.report import Quantity
from omnicalc.errors import InputError


def test_a_repeated_box_has_no_seams():
    box = water_box((2, 1, 1))
    assert len(box) == 384 and box.cell.lengths() == pytest.approx([24.8894, 12.4447, 12.4447])
    oxygens = box.positions[::3]
    distances = get_distances(oxygens, cell=box.cell, pbc=True)[1] + 10 * np.eye(len(oxygens))
    assert distances.min() > 2.4


def test_ions_take_the_place_of_waters_and_keep_apart():
    box = water_box((2, 2, 2))
    assert pairs_for(1.0, box) == 9 and pairs_for(0.15, box) == 1
    atoms = add_ions(box, {"Na": 9, "Cl": 9}, np.random.default_rng(1))
    assert atoms.symbols.formula.count() == {"Na": 9, "Cl": 9, "O": 494, "H": 988}
    ions = np.flatnonzero(np.isin(atoms.arrays["residuenames"], ("NA", "CL")))
    distances = get_distances(atoms.positions[ions], cell=atoms.cell, pbc=True)[1] + 10 * np.eye(len(ions))
    assert distances.min() > APART
    assert len(np.unique(atoms.arrays["residuenumbers"])) == 18 + 494
    again = add_ions(box, {"Na": 9, "Cl": 9}, np.random.default_rng(1))
    assert np.array_equal(again.positions, atoms.positions)


def test_more_ions_than_there_is_room_for():
    with pytest.raises(InputError, match="no water is left"):
        add_ions(water_box((1, 1, 1)), {"Na": 40}, np.random.default_rng(1))


def test_water_makes_room_for_a_solute():
    solute = label(Atoms("C2", [[0, 0, 0], [0, 0, 1.5]]), ["C1", "C2"], "MOL", 1, 1)
    atoms = solvate(solute, 5.0)
    assert atoms.arrays["residuenames"][0] == "MOL" and (atoms.numbers == 6).sum() == 2
    oxygens = atoms.positions[atoms.numbers == 8]
    near = get_distances(atoms.positions[:2], oxygens, atoms.cell, True)[1]
    assert near.min() > GAP and 55 < len(oxygens) < 64
    assert solvate(solute, 7.0).cell.lengths()[0] > 24  # padding decides how many tiles


def test_a_table_shows_who_says_what(tmp_path):
    rows = [Row("O around Na", Quantity("n", 5.61, 0.04, ""), "Na-O coordination", "ours within 3.2 Å"),
            Row("Na-Cl contact pair", "never seen", "Na-Cl peak")]  # fmt: skip
    text = markdown(rows)
    assert "| O around Na | 5.59 (stage 3) | 5.50 ± 0.30 (X-ray diffraction) | 5.7 (revPBE) | 5.610 ± 0.040 |" in text
    assert "| never seen |" in text
    write_table(tmp_path, rows, ["a title"])
    assert (tmp_path / "table.md").read_text().startswith("a title\n\n| quantity | report | experiment | DFT | ours |")
    assert "5.610 ± 0.040" in (tmp_path / "table.csv").read_text()


def test_a_value_that_is_not_there_has_no_unit():
    assert "| not found |" in markdown([Row("stay at Na", Quantity("t", None, None, "ps"))])


@pytest.mark.parametrize(
    ("engine", "ps", "between"), [("amber", 0.5, 0.004), ("model", 0.4, 0.004), ("amber", 0.05, 0.002)]
)
def test_a_quick_look_has_whole_steps_between_frames(engine, ps, between):
    assert Settings(engine, "", None, ps, True, 1, 1, None).frame_ps == pytest.approx(between)


def test_runs_too_short_for_a_table_are_refused(tmp_path):
    command = study(lambda settings: pytest.fail("ran"), "water")
    words = ["--engine", "amber", "--out", str(tmp_path)]
    for more, least in (([], "2.3"), (["--quick"], "0.046")):
        with pytest.raises(InputError, match=f"--ps 0.03 is too short to say anything; give at least {least}"):
            command.main([*words, "--ps", "0.03", *more], standalone_mode=False)


def test_commands_in_help_stay_on_lines_of_their_own():
    from analysis.nacl.study import command

    lines = [line.strip() for line in command.get_help(click.Context(command)).splitlines()]
    assert "python -m analysis.nacl.study --quick" in lines


def test_topology_of_water_and_ions():
    atoms = add_ions(water_box((1, 1, 1)), {"Na": 1, "Cl": 1}, np.random.default_rng(1))
    topology = topology_of(atoms)
    assert topology.getNumAtoms() == len(atoms) and topology.getNumBonds() == 2 * 62
    assert [a.element.symbol for a in topology.atoms()] == list(atoms.symbols)


def test_a_classical_run_goes_on_where_it_stopped(tmp_path, monkeypatch):
    import analysis.common.amber as amber
    from omnicalc.analysis import as_trajectory

    monkeypatch.setattr(amber, "PART_PS", 0.04)
    atoms = water_box((1, 1, 1))
    settings = {"frame_ps": 0.01, "temperature": 300.0, "seed": 1, "threads": 1}
    run_amber(atoms, tmp_path, ps=0.08, **settings)
    first = (tmp_path / "parts" / "0000.dcd").stat().st_mtime_ns
    run_amber(atoms, tmp_path, ps=0.12, **settings)
    assert (tmp_path / "parts" / "0000.dcd").stat().st_mtime_ns == first
    trajectory = as_trajectory(tmp_path / "traj.dcd")
    assert trajectory.n_frames == 12 and trajectory.dt_ps == pytest.approx(0.01)
    frames = [f.positions.copy() for f in trajectory.frames(range(12))]
    steps = [np.abs(b - a).max() for a, b in zip(frames, frames[1:], strict=False)]
    assert max(steps) < 0.8 and min(steps) > 0.02  # no jump where parts meet, no frame twice
    # a length that no parts fill, one that is longer by less than a part, and a shorter one
    for ps, count in ((0.15, 15), (0.17, 17), (0.05, 5)):
        run_amber(atoms, tmp_path, ps=ps, **settings)
        again = as_trajectory(tmp_path / "traj.dcd")
        assert again.n_frames == count
        there = [f.positions.copy() for f in again.frames(range(min(count, 12)))]
        assert np.array_equal(there, frames[: len(there)])
    with pytest.raises(InputError, match="another run"):
        run_amber(atoms, tmp_path, ps=0.08, **(settings | {"seed": 2}))
