"""``omnicalc md`` as it is typed: output, exit codes, bad input that leaves no trace."""

import json
import os
import re
import signal
import subprocess
import sys
from types import SimpleNamespace

import click
import numpy as np
import pytest
from ase.build import bulk, molecule
from ase.io import read, write
from click.testing import CliRunner

from omnicalc.cli import group
from omnicalc.cli.md_words import _warn
from omnicalc.errors import InputError, OmniCalcError
from omnicalc.md.settings import Settings
from tests.command import omnicalc, refused
from tests.md.toy import Pairs, ToyPotential, argon
from tests.tiny_weights import write_weights

QUICK = ["--steps", "12", "--timestep", "4", "--temperature", "90", "--interval", "4", "--restart-interval", "5"]


@pytest.fixture
def real_weights():
    """Asked for by the tests that load a network."""


@pytest.fixture(autouse=True)
def toy_weights(monkeypatch, request):
    """Every model name gives the toy; returns what was asked for."""
    asked = []

    def load_potential(name="ubio-s3", *, device="auto", dtype="float32", kernel="auto"):
        asked.append((name, device, dtype))
        return ToyPotential(dtype)

    for name in ("draw", "draw_cell"):
        monkeypatch.setattr(f"omnicalc.md.loop.plots.{name}", lambda *arguments, **keywords: None)
    if "real_weights" not in request.fixturenames:
        monkeypatch.setattr("omnicalc.registry.load_potential", load_potential)
    return asked


@pytest.fixture
def argon_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write("argon.xyz", argon(), format="extxyz")
    return "argon.xyz"


def result_of(folder) -> tuple[bytes, bytes]:
    return (folder / "traj.dcd").read_bytes(), (folder / "log.csv").read_bytes()


def test_a_run_says_what_it_does_and_what_comes_next(argon_file, tmp_path):
    said = omnicalc("md", argon_file, *QUICK, "--seed", "3")
    for part in (
        "toy:pairs@1.0, sha256 abababababab",
        "a pair potential for tests",
        "toy (the first that knows all elements)",
        "cpu, float32",
        "32 atoms, Ar32, periodic along abc, charge +0, spin 1",
        "Maxwell-Boltzmann at 90 K",
        "nvt: Langevin dynamics, BAOAB, 90 K, friction 0.01 1/fs; 96 degrees of freedom",
        "12 steps of 4 fs, a frame every 4 steps",
        "omnicalc analyze rdf argon_md/traj.dcd",
        "omnicalc md argon.xyz --resume --steps 120",
    ):
        assert part in said
    assert re.search(r"^seed +3$", said, re.M)
    assert (tmp_path / "argon_md" / "traj.dcd").exists()


def test_a_run_with_a_barostat_says_so(argon_file, tmp_path):
    npt = ["--ensemble", "npt", "--pressure", "1:1000", "--temperature", "90:120", "--barostat-interval", "2"]
    said = omnicalc("md", argon_file, *QUICK, "--thermostat", "bussi", *npt, "--coupling", "anisotropic")
    for part in (
        "npt: stochastic velocity rescaling, 90 to 120 K in 12 steps, time 100 fs; 93 degrees of freedom",
        "stochastic cell rescaling, anisotropic, 1 to 1000 bar in 12 steps, time 1000 fs, every 2 steps",
        "toy:pairs@1.0 was not trained on stresses",
    ):
        assert part in said
    settings = json.loads((tmp_path / "argon_md" / "run.json").read_text())["settings"]
    assert (settings["temperature_K"], settings["temperature_end_K"]) == (90.0, 120.0)
    assert (settings["pressure_bar"], settings["pressure_end_bar"], settings["ramp_steps"]) == (1.0, 1000.0, 12)
    said = omnicalc("md", argon_file, *QUICK, "--ensemble", "npt", "--barostat", "mc", "--out", "mc")
    assert "Monte-Carlo barostat, isotropic, 1 bar, every 20 steps, 32 molecules" in said


def test_stress_that_was_trained_needs_no_note(argon_file, monkeypatch):
    card = SimpleNamespace(summary="", training={"stress": True})
    monkeypatch.setattr(ToyPotential, "card", card)
    assert "not trained" not in omnicalc("md", argon_file, *QUICK, "--ensemble", "npt", "--barostat-interval", "2")


def test_special_atoms_are_said(argon_file):
    said = omnicalc("md", argon_file, *QUICK, "--fix", "0-3", "--restrain", "5,7:2.5", "--thermostat", "nhc")
    assert "4 fixed; 2 held by springs" in said and "Nosé-Hoover chain" in said and "84 degrees of freedom" in said


def test_a_ramp_goes_on_where_it_was(argon_file, tmp_path):
    """An extended run keeps its ramp, and what was typed again is the same ramp."""
    ramp = ["--seed", "3", "--temperature", "90:200"]
    omnicalc("md", argon_file, *QUICK, *ramp, "--steps", "7", "--ramp-steps", "12", "--out", "short")
    omnicalc("md", argon_file, *QUICK, *ramp, "--out", "long")
    omnicalc("md", argon_file, "--out", "short", "--resume", "--steps", "12", "--temperature", "90:200")
    assert result_of(tmp_path / "short") == result_of(tmp_path / "long")


def test_a_quantum_bath_says_what_it_is(argon_file):
    said = omnicalc("md", argon_file, *QUICK, "--timestep", "2", "--thermostat", "qtb", "--friction", "0.02")
    assert "nvt: quantum thermal bath, 90 K, friction 0.02 1/fs; 96 degrees of freedom" in said
    assert "leaks from fast vibrations into slow ones" in said


def test_guards_are_configured(argon_file, tmp_path):
    with pytest.raises(OmniCalcError, match=r"temperature is .* above 50 K.*guard temperature"):
        CliRunner().invoke(
            group,
            ["md", argon_file, *QUICK, "--guard", "temperature=stop:50"],
            catch_exceptions=False,
            standalone_mode=False,
        )
    assert not (tmp_path / "argon_md").exists()
    said = omnicalc("md", argon_file, *QUICK, "--guard", "temperature=save:50", "--guard", "drift=off")
    assert "warning: at step 0 the temperature is" in said
    omnicalc("md", argon_file, "--resume", "--steps", "16", "--guard", "temperature=off")


NPT = ["--ensemble", "npt"]


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (["--thermostat", "nose"], "known: langevin, bussi, nhc, qtb"),
        (["--thermostat", "bussi", "--temperature", "0"], "--thermostat langevin"),
        (["--thermostat-time", "0.1"], "--thermostat-time"),
        (["--temperature", "300:"], None),
        (["--temperature", "warm"], None),
        (["--temperature", "300:-5"], "--temperature"),
        (["--temperature", "300:400", "--ensemble", "nve"], "needs a heat bath"),
        (["--ramp-steps", "5"], "--temperature 300:600"),
        (["--pressure", "1:5"], "--ensemble npt"),
        (["--pressure", "1"], "--pressure has no say in nvt; add --ensemble npt"),
        (["--coupling", "anisotropic"], "--coupling has no say in nvt"),
        (["--ensemble", "nve", "--thermostat", "bussi"], "--thermostat has no say in nve; add --ensemble nvt"),
        ([*NPT, "--pressure", "1e9"], "--pressure"),
        ([*NPT, "--barostat", "parrinello"], "known: rescale, mc"),
        ([*NPT, "--coupling", "cubic"], "known: isotropic, semi-isotropic, anisotropic"),
        ([*NPT, "--barostat-time", "10"], "--barostat-time"),
        ([*NPT, "--compressibility", "0"], "--compressibility"),
        ([*NPT, "--barostat-interval", "0"], "--barostat-interval"),
        ([*NPT, "--fix", "0"], "leave out --fix"),
        ([*NPT, "--no-pbc"], "periodic along nowhere"),
        ([*NPT, "--thermostat", "qtb"], "--ensemble nvt"),
        (["--thermostat", "qtb", "--timestep", "3"], "--timestep"),
        (["--fix", "99"], "--fix"),
        (["--fix", "Ar"], "all 32 atoms are fixed"),
        (["--restrain", "0-3"], "--restrain"),
        (["--hmr", "0.5"], "--hmr"),
        (["--hmr", "3"], "no hydrogen bonded to a heavier atom"),
        (["--guard", "drift=perhaps"], "--guard"),
        (
            ["--guard", "drift=warn,box=stop:2"],
            "guard box was asked for, but the cell rests in nvt; add --ensemble npt",
        ),
        (["--guard", "surroundings=stop"], "does not say what surroundings its training data have; leave it out"),
    ],
)
def test_bad_ensembles_leave_no_trace(argon_file, tmp_path, bad, said):
    with pytest.raises((OmniCalcError, click.UsageError)) as caught:
        CliRunner().invoke(group, ["md", argon_file, *bad], catch_exceptions=False, standalone_mode=False)
    message = caught.value.message if isinstance(caught.value, click.UsageError) else str(caught.value)
    assert "\n" not in message and (said or "300:600") in message
    assert [p.name for p in tmp_path.iterdir()] == ["argon.xyz"]


def test_npt_with_direct_forces_is_refused(argon_file, tmp_path, monkeypatch):
    monkeypatch.setattr(ToyPotential, "conservative", False)
    for barostat in ("rescale", "mc"):
        message = refused("md", argon_file, *QUICK, *NPT, "--barostat", barostat)
        assert "toy:pairs@1.0" in message and "--ensemble nvt" in message
    assert [p.name for p in tmp_path.iterdir()] == ["argon.xyz"]


def test_defaults_and_options_reach_the_model(argon_file, toy_weights):
    omnicalc("md", argon_file, *QUICK)
    omnicalc("md", argon_file, *QUICK, "--model", "some:tag", "--device", "cpu", "--dtype", "float64", "--out", "b")
    assert toy_weights == [("ubio-s3", "auto", "float32"), ("some:tag", "cpu", "float64")]


def test_a_network_from_a_folder_runs_and_resumes(tmp_path, monkeypatch, real_weights):
    """Water with an untrained network: its head and hash in run.json; resumed to the same bytes."""
    monkeypatch.chdir(tmp_path)
    card = write_weights(tmp_path / "tiny")
    waters = molecule("H2O", cell=[6.0] * 3, pbc=True).repeat((2, 1, 1))
    write("water.xyz", waters, format="extxyz")
    quick = ["--interval", "2", "--seed", "1"]
    said = omnicalc("md", "water.xyz", "--model", "./tiny", *quick, "--steps", "9", "--out", "long")
    assert "untrained, for tests" in said and "water-theory (the first that knows" in said
    omnicalc("md", "water.xyz", "--model", "./tiny", *quick, "--steps", "5", "--out", "short")
    omnicalc("md", "water.xyz", "--resume", "--steps", "9", "--out", "short")
    assert result_of(tmp_path / "short") == result_of(tmp_path / "long")
    model = json.loads((tmp_path / "short" / "run.json").read_text())["model"]
    assert model["sha256"] == card.sha256 and model["head"] == "water-theory"
    write_weights(tmp_path / "tiny", seed=1)
    assert "weights (sha256) was" in refused("md", "water.xyz", "--resume", "--steps", "12", "--out", "short")


@pytest.mark.parametrize(("words", "origin"), [([], "lowest"), (["--spin", "2"], "option")])
def test_a_spin_that_nobody_gave_is_told_as_such(tmp_path, monkeypatch, real_weights, words, origin):
    monkeypatch.chdir(tmp_path)
    write_weights(tmp_path / "tiny")
    write("radical.xyz", molecule("OH"))
    said = omnicalc("md", "radical.xyz", "--model", "./tiny", "--no-pbc", "--steps", "1", "--save", "extxyz", *words)
    assert ("spin 2 (the lowest possible, none was given)" in said) == (origin == "lowest") and "spin 2" in said
    structure = json.loads((tmp_path / "radical_md" / "run.json").read_text())["structure"]
    assert (structure["spin"], structure["spin_from"], structure["charge_from"]) == (2, origin, "zero")
    assert {key: read("radical_md/frames.xyz").info[key] for key in ("charge", "spin")} == {"charge": 0, "spin": 2}


def test_an_element_that_no_head_knows_leaves_no_trace(tmp_path, monkeypatch, real_weights, argon_file):
    write_weights(tmp_path / "tiny")
    assert "does not know element Ar" in refused("md", argon_file, "--model", "./tiny", *QUICK)
    assert not (tmp_path / "argon_md").exists()


def test_a_drawn_seed_is_printed_and_stored(argon_file, tmp_path):
    said = omnicalc("md", argon_file, *QUICK)
    seed = int(re.search(r"^seed +(\d+) \(drawn\)$", said, re.M).group(1))
    assert json.loads((tmp_path / "argon_md" / "run.json").read_text())["settings"]["seed"] == seed
    omnicalc("md", argon_file, *QUICK, "--seed", seed, "--out", "again")
    assert result_of(tmp_path / "again") == result_of(tmp_path / "argon_md")


def test_resume_needs_no_option_twice_and_equals_a_long_run(argon_file, tmp_path, toy_weights):
    choices = ["--seed", "0", "--dtype", "float64", "--skin", "0.7", "--charge", "0", "--friction", "0.02"]
    omnicalc("md", argon_file, *QUICK, *choices, "--out", "long")
    omnicalc("md", argon_file, *QUICK, *choices, "--out", "short", "--steps", "7")
    said = omnicalc("md", argon_file, "--out", "short", "--resume", "--steps", "12")
    assert "resuming short at step 7" in said and "omnicalc md argon.xyz --out short --resume --steps 120" in said
    assert result_of(tmp_path / "short") == result_of(tmp_path / "long")
    assert toy_weights[-1] == ("toy:pairs@1.0", "cpu", "float64")


def test_a_frame_of_the_file_is_chosen_and_remembered(argon_file, tmp_path):
    frames = [argon(), argon()]
    frames[1].positions += 0.25
    write("two.xyz", frames)
    omnicalc("md", "two.xyz", *QUICK, "--seed", "0", "--index", "0")
    omnicalc("md", argon_file, *QUICK, "--seed", "0")
    one, same = (read(f"{name}_md/topology.pdb").positions for name in ("two", "argon"))
    assert np.array_equal(one, same)
    omnicalc("md", "two.xyz", "--resume", "--steps", "16")  # of the frame it was started with
    assert json.loads((tmp_path / "two_md" / "run.json").read_text())["structure"]["read_options"]["index"] == 0
    assert "structure was" in refused("md", "two.xyz", "--resume", "--steps", "20", "--index", "1")
    assert "index 2 is not among them" in refused("md", "two.xyz", *QUICK, "--index", "2", "--out", "other")


@pytest.mark.parametrize(
    ("option", "value", "name"),
    [
        ("--timestep", "2", "timestep_fs"),
        ("--temperature", "100", "temperature_K"),
        ("--ensemble", "nve", "ensemble"),
        ("--friction", "0.5", "friction_per_fs"),
        ("--interval", "3", "interval"),
        ("--seed", "4", "seed"),
        ("--dtype", "float64", "dtype"),
        ("--skin", "0.1", "skin"),
        ("--head", "other", "head"),
        ("--charge", "2", "structure"),
        ("--no-pbc", None, "structure"),
    ],
)
def test_resume_refuses_what_differs(argon_file, tmp_path, option, value, name):
    omnicalc("md", argon_file, *QUICK, "--seed", "3")
    before = {p.name: p.read_bytes() for p in (tmp_path / "argon_md").iterdir()}
    more = [option] if value is None else [option, value]
    message = refused("md", argon_file, "--resume", "--steps", "40", *more)
    assert message.startswith("cannot resume argon_md") and f"{name} was" in message
    assert {p.name: p.read_bytes() for p in (tmp_path / "argon_md").iterdir()} == before


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda record: record["settings"].update(foo=1), "'foo', which this version does not know"),
        (lambda record: record.pop("resumed"), "'resumed' is missing"),
        (lambda record: record["model"].pop("skin"), "lacks 'skin' in 'model'"),
        (lambda record: record["structure"].pop("read_options"), "lacks 'read_options' in 'structure'"),
    ],
)
def test_a_damaged_record_is_told(argon_file, tmp_path, damage, said):
    omnicalc("md", argon_file, *QUICK)
    path = tmp_path / "argon_md" / "run.json"
    record = json.loads(path.read_text())
    damage(record)
    path.write_text(json.dumps(record))
    message = refused("md", argon_file, "--resume", "--steps", "40")
    assert said in message and "run.json" in message and "--out" in message


def test_resume_without_a_run_says_that_it_starts_one(argon_file):
    said = omnicalc("md", argon_file, "--out", "mistyped", "--resume", "--steps", "2", "--interval", "2")
    assert "mistyped holds no run to go on with: a new one starts" in said


def test_resume_of_a_finished_run_suggests_steps(argon_file, monkeypatch):
    monkeypatch.setattr("omnicalc.md.run.lacks_plots", lambda folder, settings: False)
    omnicalc("md", argon_file, *QUICK)
    assert "finished at step 12; to extend it, add --steps N" in refused("md", argon_file, "--resume")


def test_a_taken_folder_is_refused(argon_file, toy_weights):
    omnicalc("md", argon_file, *QUICK)
    assert re.search("already holds a run.*--resume.*--out", refused("md", argon_file, *QUICK))
    assert len(toy_weights) == 1  # refused before the weights are loaded


def test_velocities_of_the_file_are_used_and_said(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    atoms = argon()
    atoms.set_velocities(0.01 * np.random.default_rng(0).normal(size=(32, 3)))
    write("hot.xyz", atoms, format="extxyz")
    assert "those in the structure file" in omnicalc("md", "hot.xyz", *QUICK)
    beads = omnicalc("md", "hot.xyz", *QUICK, "--beads", "2", "--out", "beads")
    assert "those in the structure file" not in beads and "Maxwell-Boltzmann at 90 K" in beads
    nve = ["--ensemble", "nve", "--replicas", "2", "--out", "copies"]
    assert "would be one trajectory" in refused("md", "hot.xyz", *QUICK, *nve)
    assert "would be one trajectory" in refused("md", "hot.xyz", *QUICK, *nve, "--plan")
    assert "--temperature has no say in nve from the velocities" in refused("md", "hot.xyz", *QUICK, *nve[:2], *nve[4:])
    assert not (tmp_path / "copies").exists()


@pytest.mark.parametrize("words", [[], ["--fix", "0"], ["--restrain", "0:1"]])
def test_only_a_centre_of_mass_that_is_set_at_rest_is_said_to_be(argon_file, words):
    said = omnicalc("md", argon_file, *QUICK, "--ensemble", "nve", *words)
    assert ("centre of mass at rest" in said) == (not words) and "nve: velocity Verlet" in said


def test_equal_replicas_have_no_error(tmp_path, capsys):
    from omnicalc.cli.md_words import _first_replica
    from omnicalc.md.folder import RunFolder

    line = "{},1,10,5,-2080.14935123,301.7017"
    (tmp_path / "replicas.csv").write_text(
        "\n".join(["replica,seed,last_step,lines,potential_eV,temperature_K", *map(line.format, range(3)), ""])
    )
    _first_replica(RunFolder(tmp_path), 3)
    said = capsys.readouterr().out
    assert "-2080.15 +- 0.00 eV" in said and "301.70 +- 0.00 K" in said


def test_no_cell_needs_a_word(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    atoms = argon()
    atoms.pbc, atoms.cell = False, None
    write("cluster.xyz", atoms, format="xyz")
    message = refused("md", "cluster.xyz", *QUICK)
    assert "--cell" in message and "--no-pbc" in message and not (tmp_path / "cluster_md").exists()
    assert "periodic along nowhere" in omnicalc("md", "cluster.xyz", *QUICK, "--no-pbc", "--out", "a")
    assert "periodic along abc" in omnicalc("md", "cluster.xyz", *QUICK, "--cell", "12.4", "--out", "b")
    omnicalc("md", "cluster.xyz", "--resume", "--steps", "20", "--out", "b")  # the cell is remembered


def test_direct_forces_are_warned_about(argon_file, monkeypatch):
    assert "warning" not in omnicalc("md", argon_file, *QUICK, "--ensemble", "nve", "--out", "a")
    monkeypatch.setattr(ToyPotential, "conservative", False)
    assert "warning: the forces of toy:pairs@1.0" in omnicalc(
        "md", argon_file, *QUICK, "--ensemble", "nve", "--out", "b"
    )
    for thermostat, stronger in (("langevin", "a larger --friction"), ("bussi", "a shorter --thermostat-time")):
        said = omnicalc("md", argon_file, *QUICK, "--thermostat", thermostat, "--out", thermostat)
        assert f"watch the temperature, give {stronger}, or use a conservative model" in said


def test_threads_are_set_for_the_run_only(argon_file):
    import torch

    before = torch.get_num_threads()
    assert "2 threads" in omnicalc("md", argon_file, *QUICK, "--threads", "2")
    assert torch.get_num_threads() == before


def test_a_signal_ends_with_the_command_to_go_on(argon_file, tmp_path, monkeypatch):
    omnicalc("md", argon_file, *QUICK, "--seed", "3", "--out", "whole")
    calls, evaluate = [], Pairs.__call__

    def signalling(self, positions, **keywords):
        calls.append(1)
        if len(calls) == 7:
            os.kill(os.getpid(), signal.SIGINT)
        return evaluate(self, positions, **keywords)

    monkeypatch.setattr(Pairs, "__call__", signalling)
    result = CliRunner().invoke(group, ["md", argon_file, *QUICK, "--seed", "3"])
    assert result.exit_code == 128 + signal.SIGINT
    assert "step 6 of 12; the state is saved. Go on with:\n  omnicalc md argon.xyz --resume\n" in result.output
    omnicalc("md", argon_file, "--resume")
    assert result_of(tmp_path / "argon_md") == result_of(tmp_path / "whole")


@pytest.mark.parametrize(
    "bad",
    [
        ["--steps", "0"],
        ["--steps", "-5"],
        ["--timestep", "0"],
        ["--timestep", "-1"],
        ["--timestep", "nan"],
        ["--temperature", "-1"],
        ["--ensemble", "npv"],
        ["--friction", "0"],
        ["--interval", "0"],
        ["--restart-interval", "0"],
        ["--seed", "-1"],
        ["--skin", "-1"],
        ["--charge", "100000"],
        ["--spin", "2"],
    ],
)
def test_bad_settings_leave_no_trace(argon_file, tmp_path, bad):
    message = refused("md", argon_file, *bad)
    assert "\n" not in message and bad[0].strip("-").split("-")[0][:4] in message
    assert [p.name for p in tmp_path.iterdir()] == ["argon.xyz"]


@pytest.mark.parametrize("kind", ["missing", "rubbish", "empty", "nan", "overlap", "zero cell"])
def test_bad_structures_leave_no_trace(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    atoms = argon()
    if kind == "nan":
        atoms.positions[3, 2] = np.nan
    elif kind == "overlap":
        atoms.positions[3] = atoms.positions[4]
    elif kind == "zero cell":
        atoms.cell[2] = 0
    if kind == "rubbish":
        (tmp_path / "bad.xyz").write_text("this is not\na structure\n")
    elif kind == "empty":
        (tmp_path / "bad.xyz").write_text("0\n\n")
    elif kind != "missing":
        write("bad.xyz", atoms, format="extxyz")
    before = sorted(p.name for p in tmp_path.iterdir())
    assert "\n" not in refused("md", "bad.xyz", *QUICK)
    assert sorted(p.name for p in tmp_path.iterdir()) == before


def test_errors_are_one_line_and_exit_code_2(tmp_path):
    process = subprocess.run(
        [sys.executable, "-c", "from omnicalc.cli import main; main()", "md", "nowhere.xyz", "--steps", "-1"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert process.returncode == 2 and process.stdout == ""
    assert process.stderr.startswith("error: ") and process.stderr.count("\n") == 1


def test_help_loads_nothing_heavy():
    code = "import sys; from omnicalc.cli import group\ntry: group(['md', '--help'])\nexcept SystemExit: pass\n"
    code += "print({'torch', 'numpy', 'ase', 'MDAnalysis', 'matplotlib'} & set(sys.modules))"
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert process.stdout.splitlines()[-1] == "set()" and "--temperature" in process.stdout


@pytest.mark.parametrize("coupling", ["isotropic", "semi-isotropic", "anisotropic"])
def test_molecules_in_a_cell_that_may_change_its_shape_are_noted(capsys, coupling):
    """Not so single atoms, as of a crystal, or a network."""
    diamond = bulk("C", cubic=True)
    for atoms, molecular in ((molecule("H2O", cell=[6.5] * 3, pbc=True), True), (argon(), False), (diamond, False)):
        model = {"name": "toy", "stress_trained": True, "conservative": True}
        _warn(Settings(ensemble="npt", coupling=coupling), model, atoms)
        said = capsys.readouterr().err
        assert (f"no change of shape: under {coupling} coupling" in said) == (molecular and coupling != "isotropic")


def test_a_plan_starts_nothing(argon_file, tmp_path, monkeypatch):
    before = sorted(path.name for path in tmp_path.iterdir())
    said = omnicalc("md", argon_file, *QUICK, "--plan", "--seed", "1")
    assert "ms per step" in said and "MB for 4 frames" in said and "nothing was started" in said
    assert said.index("timing     the first steps") < said.index("plan       ")  # before what may take minutes
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    omnicalc("md", argon_file, *QUICK, "--seed", "1")
    assert "for what is left of 24 steps" in omnicalc("md", argon_file, "--resume", "--steps", "24", "--plan")
    for words, message in (
        (("--resume",), "is finished at step 12"),
        (("--out", argon_file), "is a file; give another folder"),
        (("--out", f"{argon_file}/x"), "is not a folder; give another folder"),
    ):
        with pytest.raises(InputError, match=message):  # as of the run itself
            omnicalc("md", argon_file, *words, "--plan")
    monkeypatch.setattr("os.access", lambda path, mode: not mode & os.W_OK)  # a folder that only others may write into
    assert "for what is left of 24 steps" in omnicalc("md", argon_file, "--resume", "--steps", "24", "--plan")
    assert "nothing was started" in omnicalc("md", argon_file, *QUICK, "--plan", "--out", "new")


@pytest.mark.parametrize(
    "mean, error, text",
    [(295.458, 11.2, "295 +- 11"), (-29942.51234, 0.151, "-29942.51 +- 0.15"), (300.0, 0.0, "300.00 +- 0.00")],
)
def test_means_of_replicas_show_no_more_digits_than_their_errors(mean, error, text):
    from omnicalc.cli.md_words import _with_error

    assert _with_error(mean, error) == text
