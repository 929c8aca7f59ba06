"""Every verb of `omnicalc analyze` on a small run: files, tables, and one message with exit code 2 for bad input."""

import json
import shlex
import signal
import subprocess
import sys
import warnings

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

from omnicalc.analysis import coordination
from omnicalc.analysis.quiet import quietly
from omnicalc.cli import main
from omnicalc.cli.analyze import ANALYSES

BOX = 9.6
SHAPE = np.array([[0, 0, 0], [0.957, 0, 0], [-0.24, 0.927, 0]])


def dcd(path, frames, box=BOX, dt=0.002):
    import MDAnalysis

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        universe = MDAnalysis.Universe.empty(len(frames[0]), trajectory=True)
        with MDAnalysis.Writer(str(path), len(frames[0]), dt=dt) as writer:
            for positions in frames:
                universe.atoms.positions = positions
                universe.dimensions = None if box is None else [box] * 3 + [90.0] * 3
                writer.write(universe.atoms)


def run_folder(folder, atoms, frames, box=BOX, dt=0.002):
    """As `omnicalc md` leaves it: traj.dcd, topology.pdb, log.csv and run.json."""
    folder.mkdir()
    write(folder / "topology.pdb", atoms)
    dcd(folder / "traj.dcd", frames, box, dt)
    rows = [f"{k},{1000 * dt * k},{-10.0 * len(atoms) + 0.01 * (k % 7)},1.0,-9.0,300.0" for k in range(len(frames))]
    text = "\n".join(["step,time_fs,potential_eV,kinetic_eV,total_eV,temperature_K", *rows, ""])
    (folder / "log.csv").write_text(text)
    record = {"structure": {"atoms": len(atoms), "pbc": [box is not None] * 3}}
    record["settings"] = {"ensemble": "nvt", "temperature_K": 300.0}
    (folder / "run.json").write_text(json.dumps(record))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder of good and bad files; returned as it is, so tests must not write into it but by --out."""
    folder = tmp_path_factory.mktemp("analyze")
    rng = np.random.default_rng(0)
    grid = (np.array(list(np.ndindex(3, 3, 3))) + 0.5) * BOX / 3
    turns = np.linalg.qr(rng.normal(size=(27, 3, 3)))[0]
    start = (grid[:, None] + SHAPE @ turns)[1:].reshape(-1, 3)
    molecule = np.repeat(np.arange(26), 3)
    walk = np.cumsum(0.03 * rng.normal(size=(80, 27, 3)), axis=0)
    frames = [np.concatenate([grid[:1] + w[:1], start + w[1:][molecule]]) for w in walk]
    brine = Atoms("Na" + 26 * "OHH", positions=frames[0], cell=[BOX] * 3, pbc=True)
    run_folder(folder / "run", brine, frames)
    run_folder(folder / "vacuum", Atoms("OHH", positions=SHAPE), [SHAPE] * 30, box=None)
    water = Atoms(27 * "OHH", positions=(grid[:, None] + SHAPE @ turns).reshape(-1, 3), cell=[BOX] * 3, pbc=True)
    run_folder(folder / "liquid", water, [water.positions] * 30)
    argon = Atoms("Ar27", positions=grid, cell=[BOX] * 3, pbc=True)
    run_folder(folder / "argon", argon, [grid + w for w in walk])
    run_folder(folder / "short", brine, frames[:1])
    shuffled = Atoms(sorted(brine.get_chemical_symbols()), positions=frames[0], cell=[BOX] * 3, pbc=True)
    write(folder / "shuffled.pdb", shuffled)
    write(folder / "small.pdb", argon[:5])
    write(folder / "timeless.extxyz", [Atoms("ArAr", positions=[[0, 0, 0], [4, 0, k]]) for k in range(30)])
    for name, shift in (("a", 0.0), ("b", 0.1)):
        labelled = []
        for k, positions in enumerate(frames[:12]):
            atoms = Atoms(brine.numbers, positions=positions)
            force = np.full((len(atoms), 3), shift)
            atoms.calc = SinglePointCalculator(atoms, energy=np.sin(k) + shift * k, forces=force)
            labelled.append(atoms)
        write(folder / f"{name}.extxyz", labelled)
    return folder


@pytest.fixture
def call(place, monkeypatch, capsys):
    def run(words):
        monkeypatch.chdir(place)
        monkeypatch.setattr(sys, "argv", ["omnicalc", *shlex.split(words)])
        with pytest.raises(SystemExit) as stopped:
            main()
        return stopped.value.code or 0, *capsys.readouterr()

    return run


GOOD = [
    ("cn run", ("n(O around Na)", "residence time")),
    ("msd run", ("D(H2O) in this box", "Yeh-Hummer", "D(Na)")),
    ("hbonds run --site 'index 1->index 4'", ("bonds H2O to H2O", "occupancy index 1->index 4")),
    ("metal run", ("Na-O(water)", "angle L-M-L, cis", "six-fold")),
    ("density run", ("density", "g/cm³")),
    ("drift run", ("drift of the total energy", "meV/atom/ps")),
    ("geometry run --measure 0,1", ("bond H-O", "angle H-O-H", "distance")),
    ("vdos run", ("share of H",)),
    ("pes a.extxyz b.extxyz", ("relative energy, MAE per 100 atoms", "forces, MAE")),
    ("hvap liquid vacuum", ("heat of vaporisation", "experiment, water")),
]


@pytest.mark.parametrize(("words", "said"), GOOD, ids=[words.split()[0] for words, _ in GOOD])
def test_verb_prints_a_table_and_writes_its_files(call, tmp_path, words, said):
    verb = words.split()[0]
    code, out, err = call(f"analyze {words} --out {tmp_path / 'out'}")
    assert code == 0, err
    for text in said:
        assert text in out
    record = json.loads((tmp_path / "out" / f"{verb}.json").read_text())
    assert record["made_by"] == f"omnicalc analyze {verb}" and record["quantities"]
    assert set(record["files"]) == {p.name for p in (tmp_path / "out").iterdir()} - {f"{verb}.json"}
    assert f"{verb}.png" in record["files"]
    if verb == "cn":
        again, *_ = call(f"analyze {words} --out {tmp_path / 'out'}")
        assert again == 0, "its own files may be replaced"
        assert json.loads((tmp_path / "out" / f"{verb}.json").read_text())["quantities"] == record["quantities"]


def test_all_does_what_the_run_allows(call, tmp_path):
    code, out, err = call(f"analyze all run --out {tmp_path}")
    assert code == 0, err
    for verb in ("rdf", "cn", "msd", "hbonds", "metal", "density", "geometry", "vdos", "drift"):
        assert f"== {verb} ==" in out and (tmp_path / f"{verb}.png").is_file()
    code, out, _ = call(f"analyze all argon --skip rdf --out {tmp_path / 'argon'}")
    assert code == 0 and "left out: hbonds (there is no hydrogen" in out and "== msd ==" in out


def test_a_topology_in_another_order_is_pointed_out(call, tmp_path):
    code, out, _ = call(f"analyze msd run/traj.dcd --top shuffled.pdb --out {tmp_path}")
    assert code == 0 and "hydrogens have no bonded neighbour in the first frame" in out
    code, out, _ = call(f"analyze msd run --out {tmp_path / 'right'}")
    assert code == 0 and "no bonded neighbour" not in out


def test_another_file_of_that_name_is_left_alone(call, tmp_path):
    (tmp_path / "cn.png").write_text("mine")
    code, _, err = call(f"analyze cn run --out {tmp_path}")
    assert code == 2 and "is there already" in err and (tmp_path / "cn.png").read_text() == "mine"
    code, _, err = call(f"analyze all run --out {tmp_path}")
    assert code == 2 and [p.name for p in tmp_path.iterdir()] == ["cn.png"], "refused before any work"


BAD = [
    ("cn none.dcd", "none.dcd does not exist"),
    ("cn argon", "no ion and no two oxygens"),
    ("cn run --pair Na-K", "'K' selects no atom; there are the elements Na (1), O (26), H (52)"),
    ("cn run --cutoff 9", "beyond 4.800 Å"),
    ("cn run --cutoff nan", "--cutoff nan"),
    ("cn run --start 99", "selects no frame"),
    ("cn run --blocks 2", "--blocks 2"),
    ("cn run --top small.pdb", "holds 79 atoms per frame but the topology small.pdb names 5"),
    ("cn vacuum --pair O-H", "has no cell"),
    ("cn short", "needs 2 frames or more, and 1 of"),
    ("cn run --centre Na", "--centre and --around go together"),
    ("msd short", "needs 20 frames or more, and 1 of"),
    ("msd timeless.extxyz", "--dt"),
    ("msd run --select P", "'P' selects no atom"),
    ("msd run --viscosity -1", "--viscosity -1"),
    ("hbonds argon", "there is no hydrogen"),
    ("hbonds run/traj.dcd --top shuffled.pdb", "not one hydrogen lies within bonding distance"),
    ("hbonds run --site VAL9-NH", "is no site"),
    ("hbonds run --site 'VAL9-NH->SAR7-CO'", "selects no atom"),
    ("hbonds run --distance 20", "beyond 4.800 Å"),
    ("hbonds run --donors Zz", "neither an element nor a selection"),
    ("metal argon", "there is no metal ion"),
    ("metal run --ion Mg", "--ion 'Mg' selects no atom"),
    ("metal short", "needs 2 frames"),
    ("density vacuum", "has no cell"),
    ("drift argon/traj.dcd --skip-ps 99", "--skip-ps"),
    ("drift none", "does not exist"),
    ("geometry argon", "there is no bond"),
    ("geometry run --measure 0,999", "--measure 0,999"),
    ("vdos short", "needs 50 frames"),
    ("vdos run --resolution 0.1", "--resolution 0.1"),
    ("pes a.extxyz", "--predicted-keys"),
    ("pes a.extxyz none.xyz", "none.xyz does not exist"),
    ("pes a.extxyz b.extxyz --keys energy", "is not two names"),
    ("pes a.extxyz b.extxyz --keys e,f", "has no e; there are energy, forces"),
    ("pes a.extxyz run/topology.pdb", "has no energy"),
    ("hvap vacuum liquid", "name the liquid first"),
    ("hvap run vacuum", "holds H2O, Na"),
    ("all none", "none does not exist"),
    ("all run --only nmr", "there is no analysis 'nmr'"),
    ("all argon --only hbonds", "allows none of these analyses: hbonds: there is no hydrogen"),
    ("cn run --out small.pdb", "small.pdb is a file"),
]


@pytest.mark.parametrize(("words", "message"), BAD, ids=[words for words, _ in BAD])
def test_bad_input_is_one_message_exit_code_2_and_nothing_written(call, place, words, message):
    before = {path: path.stat().st_mtime_ns for path in place.rglob("*")}
    code, out, err = call(f"analyze {words}")
    assert code == 2 and message in err and out == "", err
    assert "Traceback" not in err
    assert {path: path.stat().st_mtime_ns for path in place.rglob("*")} == before


def test_ctrl_c_that_python_drops_still_ends_it(call, tmp_path, monkeypatch):
    """Inside a destructor, as of readers while modules are imported, the exception is lost."""
    planned = coordination.plan_cn

    class Reader:
        def __del__(self):
            signal.raise_signal(signal.SIGINT)

    def plan(*args, **settings):
        with quietly():
            Reader()
        return planned(*args, **settings)

    monkeypatch.setattr(coordination, "plan_cn", plan)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        code, out, err = call(f"analyze cn run --out {tmp_path / 'out'}")
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert (code, out, err.strip()) == (130, "", "stopped") and not (tmp_path / "out").exists()


def test_help_of_every_verb_loads_nothing_heavy_and_no_verb_loads_torch(place, tmp_path):
    verbs = list(ANALYSES)
    assert len(verbs) == 13
    code = (
        "import sys; from click.testing import CliRunner; from omnicalc.cli import group\n"
        f"for verb in {verbs!r}:\n"
        "    assert CliRunner().invoke(group, ['analyze', verb, '--help']).exit_code == 0\n"
        "heavy = ('torch', 'numpy', 'scipy', 'MDAnalysis', 'matplotlib', 'ase')\n"
        "print([m for m in heavy if m in sys.modules])\n"
        f"calls = [['all', 'run'], ['pes', 'a.extxyz', 'b.extxyz'], ['hvap', 'liquid', 'vacuum']]\n"
        "for call in calls:\n"
        f"    result = CliRunner().invoke(group, ['analyze', *call, '--out', {str(tmp_path)!r} + '/' + call[0]])\n"
        "    assert result.exit_code == 0, result.output\n"
        "print([m for m in ('torch', 'matplotlib.pyplot') if m in sys.modules])\n"
    )
    made = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=place)
    assert made.stdout.split("\n")[:2] == ["[]", "[]"] and made.stderr == "", made.stderr
