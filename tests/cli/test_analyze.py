import csv
import json
import subprocess
import sys
import warnings

import numpy as np
import pytest
from ase import Atoms
from ase.io import write
from click.testing import CliRunner

from omnicalc.cli import group, main

BOX = 9.8


def water_like(n_frames=12, seed=0, box=BOX):
    """Frames of O with two H each on a jittered grid: shaped like water, made in no time."""
    rng = np.random.default_rng(seed)
    grid = (np.array(list(np.ndindex(3, 3, 3))) + 0.5) * box / 3
    frames = []
    for _ in range(n_frames):
        oxygen = grid + 0.25 * rng.normal(size=grid.shape)
        turns = np.linalg.qr(rng.normal(size=(27, 3, 3)))[0]
        hydrogens = (oxygen[:, None] + np.array([[0.957, 0, 0], [-0.24, 0.927, 0]]) @ turns).reshape(-1, 3)
        positions = np.concatenate([oxygen, hydrogens])
        frames.append(Atoms("O27H54", positions=positions, cell=[box] * 3, pbc=True))
    return frames


def run(*arguments):
    """Exit code, stdout and stderr of the command, errors reported as the entry point does."""
    result = CliRunner().invoke(group, [str(a) for a in arguments])
    return result


@pytest.fixture
def run_folder(tmp_path):
    """A folder as `omnicalc md` leaves it: traj.dcd and topology.pdb."""
    import MDAnalysis

    frames = water_like()
    folder = tmp_path / "run"
    folder.mkdir()
    write(folder / "topology.pdb", frames[0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        universe = MDAnalysis.Universe.empty(81, trajectory=True)
        with MDAnalysis.Writer(str(folder / "traj.dcd"), 81) as writer:
            for atoms in frames:
                universe.atoms.positions, universe.dimensions = atoms.positions, [BOX] * 3 + [90.0] * 3
                writer.write(universe.atoms)
    return folder


def test_rdf_writes_table_record_and_figure(run_folder):
    result = run("analyze", "rdf", run_folder / "traj.dcd")
    assert result.exit_code == 0, result.output
    for text in ("O-O", "O-H", "H-H", "12 of 12 frames", "experiment: water, X-rays, 295.1 K", "6 blocks", "rdf.png"):
        assert text in result.output
    record = json.loads((run_folder / "rdf.json").read_text())
    assert record["made_by"] == "omnicalc analyze rdf" and record["source"] == "traj.dcd"
    assert record["settings"] | {"step": 1, "blocks": 6, "bin_angstrom": 0.02} == record["settings"]
    assert list(record["pairs"]) == ["O-O", "O-H", "H-H"] and record["frames_used"] == 12
    assert record["pairs"]["O-O"]["experiment"]["first_peak"]["r_angstrom"] == pytest.approx(2.81, abs=0.01)
    assert record["pairs"]["O-H"]["experiment"]["first_peaks_comparable"] is False
    assert record["pairs"]["O-H"]["coordination_to_minimum"]["H around O"]["value"] == pytest.approx(2, abs=0.02)
    rows = list(csv.DictReader((run_folder / "rdf_O-O.csv").open()))
    assert list(rows[0]) == ["r_angstrom", "g", "g_stderr", "n"]
    assert list(csv.DictReader((run_folder / "rdf_O-H.csv").open()))[0].keys() >= {
        "n_H_around_O",
        "n_O_around_H",
    }
    assert float(rows[-1]["r_angstrom"]) == pytest.approx(4.89), "the last bin ends at half the box"
    assert (run_folder / "rdf.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_running_again_replaces_its_own_files_only(run_folder):
    assert run("analyze", "rdf", run_folder / "traj.dcd", "--pair", "O-O").exit_code == 0
    first = (run_folder / "rdf_O-O.csv").read_bytes()
    assert run("analyze", "rdf", run_folder / "traj.dcd", "--pair", "O-O").exit_code == 0
    assert (run_folder / "rdf_O-O.csv").read_bytes() == first, "the same input gives the same bytes"
    assert run("analyze", "rdf", run_folder / "traj.dcd", "--step", "2").exit_code == 0
    assert (run_folder / "rdf_O-O.csv").read_bytes() != first
    other = run_folder / "rdf_Na-O.csv"
    other.write_text("mine")
    (run_folder / "rdf.json").unlink()
    result = run("analyze", "rdf", run_folder / "traj.dcd")
    assert "is there already" in str(result.exception) and other.read_text() == "mine"


def test_compare_draws_and_tabulates_the_other(run_folder, tmp_path):
    write(tmp_path / "reference.extxyz", water_like(seed=1, box=10.0))
    reference = tmp_path / "reference"
    made = run("analyze", "rdf", tmp_path / "reference.extxyz", "--out", reference, "--label", "the theory")
    assert made.exit_code == 0, made.output
    for other in (reference, reference / "rdf.json", reference / "rdf_O-O.csv"):
        result = run("analyze", "rdf", run_folder / "traj.dcd", "--pair", "O-O", "--compare", other)
        assert result.exit_code == 0, result.output
        assert "the theory" in result.output and "difference" in result.output
        theirs = json.loads((reference / "rdf.json").read_text())["pairs"]["O-O"]
        ours = json.loads((run_folder / "rdf.json").read_text())["pairs"]["O-O"]
        compared = ours["compared_with"][0]
        assert compared["first_peak"] == theirs["first_peak"]
        difference = compared["this_minus_that_first_peak"]
        assert difference["g"] == pytest.approx(ours["first_peak"]["g"] - theirs["first_peak"]["g"])
        errors = ours["first_peak"]["g_stderr"], theirs["first_peak"]["g_stderr"]
        assert difference["g_stderr"] == pytest.approx(np.hypot(*errors))
    lone = tmp_path / "rdf_O-O.csv"
    lone.write_bytes((reference / "rdf_O-O.csv").read_bytes())
    assert run("analyze", "rdf", run_folder / "traj.dcd", "--pair", "O-O", "--compare", lone).exit_code == 0


def test_compare_refuses_what_it_cannot_compare(run_folder, tmp_path):
    traj = run_folder / "traj.dcd"
    other = tmp_path / "other"
    assert run("analyze", "rdf", traj, "--out", other, "--pair", "O-H", "--exclude-molecule").exit_code == 0
    unlike = run("analyze", "rdf", traj, "--pair", "O-H", "--compare", other)
    assert "--exclude-molecule" in str(unlike.exception)
    assert "holds O-H, and this analysis O-O" in str(
        run("analyze", "rdf", traj, "--pair", "O-O", "--compare", other).exception
    )
    (other / "rdf_O-H.csv").write_text("r_angstrom,g\n1,1\n")
    assert "is not the file that" in str(run("analyze", "rdf", traj, "--compare", other).exception)
    (other / "rdf.json").write_text("{}")
    assert "is not a result of" in str(run("analyze", "rdf", traj, "--compare", other).exception)
    assert "does not exist" in str(run("analyze", "rdf", traj, "--compare", tmp_path / "none.json").exception)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.dcd"], "none.dcd does not exist"),
        (["run.dcd"], "run.dcd does not exist"),
        (["run/traj.dcd", "--pair", "O-K"], "no element K"),
        (["run/traj.dcd", "--rmax", "5"], "beyond 4.900 Å"),
        (["run/traj.dcd", "--start", "12"], "selects no frame"),
        (["run/traj.dcd", "--step", "0"], "--step 0"),
        (["run/traj.dcd", "--top", "none.pdb"], "no topology file none.pdb"),
        (
            ["run/traj.dcd", "--top", "small.pdb"],
            "holds 81 atoms per frame but the topology small.pdb names 2",
        ),
        (["run/traj.dcd", "--out", "small.pdb"], "small.pdb is a file; give another folder with --out"),
        (["broken.dcd"], "no topology"),
        (["broken.dcd", "--top", "run/topology.pdb"], "cannot be read as a trajectory"),
    ],
)
def test_bad_input_is_one_message_and_exit_code_2(run_folder, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(run_folder.parent)
    write("small.pdb", Atoms("O2", positions=[[0, 0, 0], [3, 0, 0]]))
    with open("broken.dcd", "wb") as file:
        file.write((run_folder / "traj.dcd").read_bytes()[:50])
    before = {path: path.stat().st_mtime_ns for path in run_folder.parent.rglob("*")}
    monkeypatch.setattr(sys, "argv", ["omnicalc", "analyze", "rdf", *arguments])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ") and message in captured.err
    assert "Traceback" not in captured.err and captured.out == ""
    assert {path: path.stat().st_mtime_ns for path in run_folder.parent.rglob("*")} == before


def test_few_frames_have_no_error_bars(run_folder):
    result = run("analyze", "rdf", run_folder / "traj.dcd", "--start", "-3")
    assert result.exit_code == 0 and "too few frames for error bars" in result.output and "±" not in result.output
    record = json.loads((run_folder / "rdf.json").read_text())
    assert record["pairs"]["O-H"]["first_peak"]["g_stderr"] is None
    assert "nan" in (run_folder / "rdf_O-O.csv").read_text()


def test_help_loads_nothing_heavy():
    code = (
        "import sys; from click.testing import CliRunner; from omnicalc.cli import group\n"
        "for a in (['analyze', '--help'], ['analyze', 'rdf', '--help']):\n"
        "    assert CliRunner().invoke(group, a).exit_code == 0\n"
        "print([m for m in ('torch', 'numpy', 'MDAnalysis', 'matplotlib', 'ase') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_analysis_stands_apart_from_torch_and_pyplot(run_folder):
    code = (
        "import sys; from click.testing import CliRunner; from omnicalc.cli import group\n"
        "from matplotlib import rcParams\n"
        "raw = lambda: {k: dict.__getitem__(rcParams, k) for k in dict.__iter__(rcParams)}\n"
        "before = raw()\n"  # rcParams['backend'] itself would load pyplot
        f"r = CliRunner().invoke(group, ['analyze', 'rdf', {str(run_folder / 'traj.dcd')!r}])\n"
        "assert r.exit_code == 0 and raw() == before\n"
        "print([m for m in ('torch', 'matplotlib.pyplot') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.strip() == "[]" and result.stderr == ""
