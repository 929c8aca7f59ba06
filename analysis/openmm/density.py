"""Density and temperature of water at constant pressure: our barostats against OpenMM's, on the same weights.

    python analysis/openmm/density.py [--kelvin 330] [--bar 1000] [--ps 40] [--discard 5] [--model ubio-s3:small]
                                      [--barostats rescale mc] [--seed 1] [--out water_density]

Runs of examples/water.xyz (64 waters), Langevin dynamics, hydrogens of 3 amu, steps of 1 fs:

- `omnicalc md --ensemble npt` with stochastic cell rescaling, which goes by the analytic stress,
- the same with the Monte-Carlo barostat, which goes by the energy,
- OpenMM's LangevinMiddleIntegrator and MonteCarloBarostat, with the potential from OpenMM-ML.

The first `--discard` ps of each are left out. Errors are those of six block means, which have to be longer than the
density's memory, two picoseconds at 330 K. The pressure keeps the water as dense as that of the training
frames: weights that were not trained on stresses swell at 1 bar, and where they know nothing molecules come apart,
which is looked for.

LangevinMiddle is BAOAB seen half a step earlier, where vibrations are not too cold for their time step; so OpenMM's
velocities are taken half a kick further, to the instant at which ours are logged. The temperature that OpenMM itself
reports stands beside it.

Heavier hydrogens change neither density nor temperature, only the pace. Every run can be interrupted; the same command
goes on with it. Exits with 1 where a run differs from OpenMM's by more than 3 standard errors, or a water came apart.
"""

import argparse
import io
import subprocess
import sys
from pathlib import Path

import MDAnalysis
import numpy as np
import openmm
from ase import units
from ase.io import read
from openmm import unit
from openmmml import MLPotential
from overhead import topology_of

from omnicalc.analysis.blocks import block_mean
from omnicalc.files import write_atomically
from omnicalc.md.masses import masses_of
from omnicalc.registry import resolve

BOX = Path(__file__).parents[2] / "examples" / "water.xyz"
STEP_FS, EVERY, HYDROGEN = 1.0, 20, 3.0
FRICTION_PER_FS, MOVE_EVERY, RELAX_FS, BLOCKS, SAVE_EVERY = 0.01, 10, 400.0, 6, 100
BROKEN = 1.4  # Å
OURS = {"rescale": {"--barostat": "rescale", "--barostat-time": RELAX_FS}, "mc": {"--barostat": "mc"}}


def ours(barostat: str, options: argparse.Namespace, steps: int) -> np.ndarray:
    """(samples, 3): volume, Å^3, temperature, K, and longest O-H, Å, from the files of ``omnicalc md``."""
    out = options.out / barostat
    given = {
        "--model": options.model,
        "--ensemble": "npt",
        "--temperature": options.kelvin,
        "--pressure": options.bar,
        "--timestep": STEP_FS,
        "--friction": FRICTION_PER_FS,
        "--hmr": HYDROGEN,
        "--interval": EVERY,
        "--barostat-interval": MOVE_EVERY,
        **OURS[barostat],
        "--guard": "bond=warn",  # waters that come apart are told of in the report
        "--seed": options.seed,
        "--steps": steps,
        "--out": out,
    }
    log = out / "log.csv"
    if not log.exists() or _steps(log) < steps:
        words = ["md", str(BOX), *(str(word) for pair in given.items() for word in pair), *["--resume"] * out.exists()]
        print("omnicalc", *words, flush=True)
        subprocess.run([sys.executable, "-c", "from omnicalc.cli import main; main()", *words], check=True)
    table = np.genfromtxt(log, delimiter=",", names=True)
    universe = MDAnalysis.Universe(out / "topology.pdb", out / "traj.dcd")
    bonds = [longest_bond(frame.positions) for frame in universe.trajectory]
    return np.stack([table["volume_A3"], table["temperature_K"], bonds], 1)[1 : steps // EVERY + 1]


def longest_bond(positions: np.ndarray) -> float:
    """Longest O-H, Å, of waters O, H, H, each of them in one piece."""
    waters = positions.reshape(-1, 3, 3)
    return float(np.linalg.norm(waters[:, 1:] - waters[:, :1], axis=2).max())


def _steps(log: Path) -> int:
    return int(log.read_text().splitlines()[-1].split(",")[0])


def context_of(options: argparse.Namespace) -> openmm.Context:
    """OpenMM at constant pressure, at the start."""
    atoms = read(BOX)
    topology = topology_of(atoms)
    folder, _ = resolve(options.model)
    system = MLPotential("omnicalc", modelPath=str(folder)).createSystem(topology)
    for k, mass in enumerate(masses_of(atoms, HYDROGEN)):
        system.setParticleMass(k, mass)
    barostat = openmm.MonteCarloBarostat(options.bar, options.kelvin, MOVE_EVERY)
    barostat.setRandomNumberSeed(options.seed)
    system.addForce(barostat)
    integrator = openmm.LangevinMiddleIntegrator(options.kelvin, 1e3 * FRICTION_PER_FS, 1e-3 * STEP_FS)
    integrator.setRandomNumberSeed(options.seed)
    context = openmm.Context(system, integrator, openmm.Platform.getPlatformByName("CPU"), {"Threads": "1"})
    context.setPositions(atoms.positions / units.nm)
    context.setVelocitiesToTemperature(options.kelvin, options.seed)
    return context


def openmms(options: argparse.Namespace, steps: int) -> np.ndarray:
    """(samples, 4): as :func:`ours`, and the temperature as OpenMM reports it."""
    context, found, out = context_of(options), [], options.out / "openmm.npz"
    if out.exists():
        with np.load(out) as saved:
            found = saved["found"].tolist()
            context.loadCheckpoint(saved["checkpoint"].tobytes())
    while len(found) < steps // EVERY:
        context.getIntegrator().step(EVERY)
        found.append(measured(context))
        if len(found) % SAVE_EVERY == 0 or len(found) == steps // EVERY:
            _save(out, found, context.createCheckpoint())
            print(f"OpenMM: step {len(found) * EVERY}/{steps}, {found[-1][0]:.0f} Å^3", flush=True)
    return np.array(found[: steps // EVERY])


def measured(context: openmm.Context) -> tuple[float, float, float, float]:
    """Volume, Å^3, temperature at the whole step, K, longest O-H, Å, and temperature of OpenMM's velocities, K."""
    state, system = context.getState(positions=True, velocities=True, forces=True), context.getSystem()
    velocities = state.getVelocities(asNumpy=True).value_in_unit(unit.nanometer / unit.picosecond)
    forces = state.getForces(asNumpy=True).value_in_unit(unit.kilojoule_per_mole / unit.nanometer)
    count = system.getNumParticles()
    mass = np.array([system.getParticleMass(k)._value for k in range(count)])[:, None]
    freedom = 3 * count - 3  # OpenMM-ML's systems stop the drift
    per_kelvin = freedom * unit.MOLAR_GAS_CONSTANT_R.value_in_unit(unit.kilojoule_per_mole / unit.kelvin)
    whole = velocities + 0.5e-3 * STEP_FS * forces / mass
    volume = state.getPeriodicBoxVolume().value_in_unit(unit.angstrom**3)
    bond = longest_bond(state.getPositions(asNumpy=True).value_in_unit(unit.angstrom))
    at_step, reported = (float((mass * v**2).sum()) / per_kelvin for v in (whole, velocities))
    return volume, at_step, bond, reported


def _save(file: Path, found: list, checkpoint: bytes) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, found=np.array(found), checkpoint=np.frombuffer(checkpoint, np.uint8))
    write_atomically(file, lambda path: path.write_bytes(buffer.getvalue()))


def density(volume: np.ndarray) -> np.ndarray:
    """g/cm^3."""
    return read(BOX).get_masses().sum() / units.kg * 1e3 / (volume * 1e-24)


def report(runs: dict[str, np.ndarray], first: int) -> bool:
    """Print means and errors; whether all waters stayed whole and all runs agree with OpenMM's."""
    print(f"{'':8} {'density, g/cm^3':>18} {'volume, Å^3':>17} {'temperature, K':>16} {'longest O-H, Å':>15}")
    means, well = {}, True
    for name, series in runs.items():
        kept = series[first:]
        columns = density(kept[:, 0]), kept[:, 0], kept[:, 1]
        means[name] = [block_mean(column, BLOCKS) for column in columns]
        (d, d_error), (v, v_error), (t, t_error) = means[name]
        longest, text = series[:, 2].max(), f"{name:8} {d:9.4f} ± {d_error:.4f}  {v:9.1f} ± {v_error:5.1f}"
        print(f"{text} {t:9.2f} ± {t_error:.2f} {longest:15.2f}")
        if longest > BROKEN:
            print(f"{name}: a water came apart, so this is no state of equilibrium; take other weights, or more --bar")
            well = False
    reported, error = block_mean(runs["OpenMM"][first:, 3], BLOCKS)
    print(f"OpenMM's own temperature, half a step earlier: {reported:.2f} ± {error:.2f} K")
    for name in runs.keys() - {"OpenMM"}:
        apart = [(a - b) / np.hypot(x, y) for (a, x), (b, y) in zip(means[name], means["OpenMM"], strict=True)]
        print(f"{name} less OpenMM, in standard errors: density {apart[0]:+.1f}, temperature {apart[2]:+.1f}")
        well &= max(map(abs, apart)) < 3
    return well


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kelvin", type=float, default=330.0)
    parser.add_argument("--bar", type=float, default=1000.0)
    parser.add_argument("--ps", type=float, default=40.0)
    parser.add_argument("--discard", type=float, default=5.0)
    parser.add_argument("--model", default="ubio-s3:small")
    parser.add_argument("--barostats", nargs="+", choices=OURS, default=list(OURS), metavar="B", help="rescale, mc")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("water_density"))
    options = parser.parse_args()
    steps, first = round(1000 * options.ps / STEP_FS), round(1000 * options.discard / STEP_FS / EVERY)
    if steps // EVERY - first < 2 * BLOCKS:
        parser.error(f"{options.ps} ps less the first {options.discard} are too short for {BLOCKS} blocks")
    options.out.mkdir(parents=True, exist_ok=True)
    runs = {name: ours(name, options, steps) for name in options.barostats}
    runs["OpenMM"] = openmms(options, steps)
    return 0 if report(runs, first) else 1


if __name__ == "__main__":
    sys.exit(main())
