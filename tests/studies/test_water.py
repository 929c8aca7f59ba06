"""The study in analysis/water: its verbs on tiny runs, and the numbers that have known answers."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms, units
from ase.io import write

from omnicalc.analysis.rdf_curves import Value
from omnicalc.registry import load_potential
from tests.analysis.conftest import waters
from tests.md.toy import Harmonic
from tests.tiny_weights import write_weights

STUDY = Path(__file__).parents[2] / "analysis" / "water"
SETTINGS = {"temperature_K": 100.0, "friction_per_fs": 0.1, "seed": 1}


@pytest.fixture(scope="module")
def study():
    """The modules of the study, as the script itself imports them."""
    sys.path.insert(0, str(STUDY))
    try:
        import kinetic_bias
        import report
        import runs
        import sampled
        import validate

        names = (kinetic_bias, report, runs, sampled, validate)
        yield {module.__name__: module for module in names}
    finally:
        sys.path.remove(str(STUDY))
        for name in ("figures", "kinetic_bias", "report", "runs", "sampled", "validate"):
            sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def place(tmp_path_factory, study):
    """A folder with tiny weights, a box of waters, frames of it, and runs nvt/ and nve/."""
    from omnicalc.md.folder import RunFolder
    from omnicalc.md.job import build_job
    from omnicalc.md.run import run
    from omnicalc.md.settings import Settings

    folder = tmp_path_factory.mktemp("water")
    write_weights(folder / "weights")
    rng = np.random.default_rng(1)
    elements, positions = waters(3, 9.3, rng)
    atoms = Atoms(elements, positions=positions, cell=[9.3] * 3, pbc=True)
    write(folder / "water.extxyz", atoms)
    frames = []
    for _ in range(12):
        frames.append(atoms.copy())
        frames[-1].positions += rng.normal(scale=0.08, size=positions.shape)
    write(folder / "frames.extxyz", frames)
    potential = load_potential(folder / "weights", device="cpu")
    for ensemble in ("nvt", "nve"):
        job = build_job(atoms, potential, file="water.extxyz", read_options={})
        settings = Settings(steps=24, interval=2, timestep_fs=0.2, ensemble=ensemble, **SETTINGS)
        run(job, settings, RunFolder(folder / ensemble))
    return folder


@pytest.fixture
def call(study, place, monkeypatch):
    """call(verb, ...) -> output, typed in the folder of the runs."""
    from click.testing import CliRunner

    def call(*arguments) -> str:
        monkeypatch.chdir(place)
        words = [str(a) for a in arguments]
        found = CliRunner().invoke(study["validate"].group, words, catch_exceptions=False)
        assert found.exit_code == 0, found.output
        return found.output

    return call


def test_nve(call, place):
    told = call("nve", "nve", "--skip-ps", 0, "--blocks", 5)
    assert "drift of the total energy" in told and "<= 0.02 meV/atom/ps" in told
    result = json.loads((place / "nve" / "validate_nve.json").read_text())
    assert result["drift_meV_per_atom_ps"]["stderr"] > 0 and result["model"]["sha256"]
    assert (place / "nve" / "validate_nve.png").read_bytes().startswith(b"\x89PNG")
    call("nve", "nve", "--skip-ps", 0, "--blocks", 6)  # its own results are replaced


def test_temperature(call, place):
    told = call("temperature", "nvt", "--skip-ps", 0, "--blocks", 5, "--frames", 10, "--out", "t")
    assert "target 100 K" in told and "configurational" in told
    result = json.loads((place / "t" / "validate_temperature.json").read_text())
    assert result["configurational_K"]["stderr"] > 0 and result["frames"] == 7
    assert result["expected_kinetic_bias_K"] < 0


def test_timestep(call, place, monkeypatch):
    from omnicalc.md.guard_settings import GUARDS

    for name in ("distance", "bond"):  # untrained weights let hydrogens come too close, and leave
        monkeypatch.setitem(GUARDS, name, GUARDS[name]._replace(action="off"))
    short = ("--timesteps", "0.5,1.0", "--ps", 0.06, "--skip-ps", 0, "--blocks", 5)
    words = ("timestep", "water.extxyz", "--model", "./weights", "--out", "steps", *short)
    told = call(*words)
    assert "fit a h²" in told and "O-H stretch" in told
    before = (place / "steps" / "timestep_0.5fs" / "log.csv").read_bytes()
    assert "is there already" in call(*words)
    assert (place / "steps" / "timestep_0.5fs" / "log.csv").read_bytes() == before
    result = json.loads((place / "steps" / "validate_timestep.json").read_text())
    assert [run["timestep_fs"] for run in result["runs"]] == [0.5, 1.0]


def test_rdf(call, place):
    told = call("rdf", "nvt", "frames.extxyz", "--skip-ps", 0, "--blocks", 5)
    assert "classical nuclei; the frames were sampled with classical ones" in told
    assert "|dr| <= 0.03 Å" in told and "experiment" in told and "not among the training data" in told
    out = place / "nvt" / "rdf_vs_frames"
    assert {"rdf.png", "rdf.json", "validate_rdf.json"} <= {p.name for p in out.iterdir()}
    result = json.loads((out / "validate_rdf.json").read_text())
    peaks = result["first_peak"]
    r = [peaks[name]["r_angstrom"]["value"] for name in ("run", "frames", "run_less_frames")]
    assert r[0] - r[1] == pytest.approx(r[2])


def test_frames(call, place):
    from ase.calculators.singlepoint import SinglePointCalculator
    from ase.io import read

    labelled = read(place / "frames.extxyz", ":")
    for k, atoms in enumerate(labelled):
        forces = np.random.default_rng(k).normal(size=(len(atoms), 3))
        atoms.calc = SinglePointCalculator(atoms, energy=0.0, forces=forces)
    write(place / "labelled.extxyz", labelled)
    told = call("frames", "labelled.extxyz", "--out", "f")  # trained weights: a Laplacian above zero
    assert "12 frames" in told and "classical nuclei" in told
    result = json.loads((place / "f" / "validate_frames.json").read_text())
    assert set(result["sampled_K"]) == {"O", "H", "all"}
    assert not set(result) & set(result["sampled_K"])  # every number stands there once


@pytest.mark.parametrize("quantum", [False, True])
def test_quantum_nuclei_are_told_from_classical_ones(study, quantum):
    """A classical well gives its temperature for both elements; a quantum one ħω/2 coth(ħω/2kT), more for hydrogen."""
    import torch
    from ase.calculators.singlepoint import SinglePointCalculator

    kelvin, stiffness, n, rng = 300.0, 40.0, 30, np.random.default_rng(5)
    symbols = ["O"] * n + ["H"] * (2 * n)
    well = Harmonic(torch.zeros(3 * n, 3, dtype=torch.float64), stiffness)
    masses = Atoms(symbols).get_masses()
    hbar = units._hbar * units.J * units.s  # eV, ase's time
    energy = hbar * np.sqrt(stiffness / masses) / 2
    expected = energy / np.tanh(energy / (units.kB * kelvin)) / units.kB if quantum else np.full(3 * n, kelvin)
    width = np.sqrt(units.kB * expected / stiffness)
    frames = []
    for _ in range(60):
        atoms = Atoms(symbols, positions=width[:, None] * rng.normal(size=(3 * n, 3)))
        forces = well(torch.from_numpy(atoms.positions)).forces.numpy()
        atoms.calc = SinglePointCalculator(atoms, energy=0.0, forces=forces)
        frames.append(atoms)
    found = study["sampled"].sampled_temperatures(frames, well)
    for element, value in (("O", expected[0]), ("H", expected[-1])):
        assert abs(found[element].value - value) < 4 * found[element].stderr
    apart = found["H"].value - found["O"].value
    error = np.hypot(found["H"].stderr, found["O"].stderr)
    assert (apart > 20 * error) if quantum else (abs(apart) < 4 * error)


@pytest.mark.parametrize(
    "words, told",
    [
        (("frames", "frames.extxyz", "--out", "g"), "lacks energy and forces"),
        (("nve", "nvt"), "give one made with --ensemble nve"),
        (("temperature", "nve"), "give one made with --ensemble nvt"),
        (("nve", "nothing"), "holds no run"),
        (("nve", "nve", "--skip-ps", "9"), "skip less"),
        (("temperature", "nvt", "--frames", "3"), "give 20 or more"),
        (("timestep", "water.extxyz", "--out", "s", "--timesteps", "0.5"), "two or more"),
        (("timestep", "water.extxyz", "--out", "s", "--ps", "1"), "give a longer --ps"),
    ],
)
def test_refusals(call, words, told):
    from omnicalc.errors import InputError

    with pytest.raises(InputError, match=told):
        call(*words)


def test_other_weights_are_refused(call, place):
    from omnicalc.errors import WeightsError

    write_weights(place / "others", seed=1)
    words = ("temperature", "nvt", "--skip-ps", 0, "--frames", 10, "--blocks", 5, "--out", "w")
    with pytest.raises(WeightsError, match="made with"):
        call(*words, "--model", "./others")
    assert not (place / "w").exists()


def test_as_a_program(place):
    words = [sys.executable, str(STUDY / "validate.py"), "nve", "nothing"]
    done = subprocess.run(words, cwd=place, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.startswith("error: ") and "Traceback" not in done.stderr


def test_the_expected_bias_is_that_of_baoab(study):
    """A harmonic well: the formula, the forces, and an actual BAOAB run agree; another stiffness does not."""
    import torch

    from omnicalc.md.integrators import Integration, baoab
    from omnicalc.md.observables import kinetic_energy, temperature
    from tests.md.toy import state_of

    kelvin, h, stiffness, n = 300.0, 1.5, 40.0, 400  # O-H-like: about 3300 1/cm on a hydrogen
    centre = torch.zeros(n, 3, dtype=torch.float64)
    well = Harmonic(centre, stiffness)
    well.systems = type("Systems", (), {"device": "cpu"})
    elements, mass = np.array(["H"] * n), 1.008
    rng = np.random.default_rng(2)
    frames = rng.normal(scale=np.sqrt(units.kB * kelvin / stiffness), size=(20, n, 3))
    found = study["kinetic_bias"].bias_from_forces(frames, elements, well, kelvin)
    exact = -kelvin * stiffness / mass * units.fs**2 / 4
    assert found == pytest.approx(exact, rel=0.03)

    masses = torch.full((n,), mass, dtype=torch.float64)
    velocities = torch.tensor(rng.normal(scale=np.sqrt(units.kB * kelvin / mass), size=(n, 3)))
    state = state_of(torch.tensor(frames[0]), velocities, masses, well)
    settings = Integration.from_fs(h, kelvin, 0.1)
    read = []
    for _ in range(1500):
        state = baoab(state, lambda x: (lambda p: (p.energy, p.forces))(well(x)), settings)
        read.append(temperature(kinetic_energy(state), 3 * n))
    mean = study["validate"].mean_with_error(np.array(read[100:]))
    assert abs(mean.value - kelvin - exact * h**2) < 4 * mean.stderr
    assert abs(mean.value - kelvin) > 8 * mean.stderr, "no bias"
    assert abs(mean.value - kelvin - 1.5 * exact * h**2) > 4 * mean.stderr, "a bias of another stiffness"


def test_fit_of_a_square(study):
    fit_square, h, rng = (
        study["kinetic_bias"].fit_square,
        np.array([0.25, 0.5, 1.0]),
        np.random.default_rng(3),
    )
    errors, pulls, chi2 = np.array([0.5, 1.0, 2.0]), [], []
    for _ in range(2000):
        noisy = -8.0 * h**2 + errors * rng.normal(size=3)
        fit, chi = fit_square(h, [Value(*pair) for pair in zip(noisy, errors, strict=True)])
        pulls.append((fit.value + 8.0) / fit.stderr)
        chi2.append(chi)
    assert abs(np.mean(pulls)) < 0.1 and np.std(pulls) == pytest.approx(1, abs=0.06)
    assert np.mean(chi2) == pytest.approx(2, abs=0.2)
    linear = [Value(-8.0 * x, 0.2) for x in h]
    assert fit_square(h, linear)[1] > 20, "a bias that shrinks as h is no bias that shrinks as h²"


def test_whether_a_bias_is_resolved(study):
    resolution = study["kinetic_bias"].resolution
    assert resolution(Value(-8.0, 1.0), -8.0, 10.0)[0]
    seen, told = resolution(Value(-8.0, 8.0), -8.0, 10.0)
    assert not seen and "TOO SHORT" in told and "90 ps" in told  # nine times as long for a third of the error


def test_a_check_says_when_it_is_close(study):
    check = study["report"].Check
    assert check("dr", -0.01, 0.005, 0.03, "Å").line == "|dr| <= 0.03 Å: yes"
    assert "nearer to the limit" in check("dr", 0.025, 0.005, 0.03, "Å").line
    assert check("dr", -0.05, 0.005, 0.03, "Å").line == "|dr| <= 0.03 Å: NO"
