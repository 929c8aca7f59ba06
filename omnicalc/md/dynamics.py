"""The dynamics that settings ask for, on the atoms of a job: thermostat, barostat, ramps, fixed atoms, springs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from ase import units
from torch import Tensor

from omnicalc.errors import InputError, RunError
from omnicalc.md.bussi import bussi
from omnicalc.md.cell_rescaling import CellRescaling
from omnicalc.md.constraint_list import Bonds, constrained
from omnicalc.md.constraints import Constraints
from omnicalc.md.forces import Forces
from omnicalc.md.integrators import Integration, baoab, velocity_verlet
from omnicalc.md.masses import masses_of
from omnicalc.md.molecules import Molecules, molecules_of
from omnicalc.md.monte_carlo import MonteCarlo, centres_of_mass, start_widths, trial_volume
from omnicalc.md.nose_hoover import chain_energy, nose_hoover, start_chain
from omnicalc.md.observables import kinetic_energy, temperature
from omnicalc.md.quantum import QuantumBath, quantum
from omnicalc.md.restraints import Springs, restraints
from omnicalc.md.selection import select
from omnicalc.md.state import degrees_of_freedom

if TYPE_CHECKING:
    from ase import Atoms

    from omnicalc.md.job import Job
    from omnicalc.md.settings import Settings
    from omnicalc.md.state import State

_FARTHEST = 0.5  # Å, that an atom may have to move for its constraints
INTEGRATORS = {"nve": velocity_verlet, "langevin": baoab, "bussi": bussi, "nhc": nose_hoover, "qtb": quantum}


class Dynamics:
    """Takes states of a run one step further, and knows what its thermostat and barostat are about.

    Raises :class:`InputError` for what the structure or the model cannot do.
    """

    def __init__(self, job: Job, settings: Settings):
        self.job, self.settings = job, settings
        atoms, device = job.atoms, job.device
        self.fixed = fixed_atoms(atoms, settings.fix)
        self.masses = torch.tensor(masses_of(atoms, settings.hydrogen_mass), device=device)
        springs = restraints(atoms, settings.restraints, device)
        self._check_springs(springs)
        self.com_removed = settings.keeps_momentum and not springs and not len(self.fixed)
        self.constraints = self._prepared_constraints()
        self.taken = 3 * len(self.fixed) + len(self.constraints or ())
        self._check_freedom()
        index = torch.tensor(self.fixed, device=device) if len(self.fixed) else None
        direct = not job.model.get("conservative", True)
        self.forces = Forces(job.bound, springs, index, balanced=direct and self.com_removed)
        self.uncertainty: Tensor | None = None  # (N,), eV/Å, of the forces of the last step or start
        self.molecules: Molecules | None = None
        if settings.ensemble == "npt":
            self._check_npt()
            if settings.barostat == "mc":
                self.molecules = molecules_of(atoms)
                if self.constraints is not None:
                    self._check_within_molecules()
        self._integrator = INTEGRATORS[settings.bath or "nve"]
        self._integration = self._prepared(index)
        self._monte_carlo = self._prepared_monte_carlo()

    columns: tuple[str, ...] = ()  # of the log, beside the usual ones

    @property
    def degrees_of_freedom(self) -> int:
        return degrees_of_freedom(len(self.job.atoms), self.com_removed) - self.taken

    @property
    def asynchronous(self) -> bool:
        """Whether a step asks nothing of the numbers it computes: no temperature, no constraint, no volume."""
        settings = self.settings
        free = settings.ensemble != "npt" and self.constraints is None and not settings.beads
        return free and self._integrator in (velocity_verlet, baoab)

    @property
    def has_conserved(self) -> bool:
        """Whether there is a conserved energy; stochastic cell rescaling would need a force call more to know its
        own, and a chain has none while its temperature is ramped.
        """
        settings = self.settings
        if settings.ensemble == "npt" and settings.barostat == "rescale":
            return False
        return not (settings.bath == "nhc" and settings.temperature_end_K is not None)

    def step(self, state: State) -> State:
        """One step further; a trial move of the volume may follow."""
        integration, monte_carlo = self._integration, self._monte_carlo
        if self.settings.is_ramp:
            integration, monte_carlo = self._at(state.step + 1)
        state = self._integrator(state, self.forces, integration)
        self.uncertainty = self.forces.uncertainty  # before a trial volume that may be refused
        if self.forces.unbiased is not None:
            state = replace(state, unbiased=self.forces.unbiased)
        if monte_carlo is not None and state.step % monte_carlo.interval == 0:
            state = trial_volume(
                state, self.forces, monte_carlo, integration.temperature_K, integration.stress_at(state.step)
            )
        return state

    def start(self, positions: Tensor, cell: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Energy, forces and stress of the first state, and the variables of thermostat and barostat; advances
        ``generator`` where those are random.
        """
        settings, npt = self.settings, self.settings.ensemble == "npt"
        energy, forces, stress = self.forces(positions, cell, True) if npt else self.forces(positions)
        found = {"energy": energy, "forces": forces, "stress": stress, "unbiased": self.forces.unbiased}
        self.uncertainty = self.forces.uncertainty
        if settings.bath == "nhc":
            found["bath"] = start_chain(positions)
        if self._integration.quantum is not None:
            found["bath"] = self._integration.quantum.start(len(positions), generator)
        if self._monte_carlo is not None:
            found["barostat"] = start_widths(abs(float(torch.linalg.det(cell))), settings.coupling, positions)
        return found

    def spread(self, positions: Tensor) -> Tensor:
        """Positions of all that a state holds, from those of the structure (N, 3)."""
        return positions

    def view(self, state: State, number: int = 0) -> State:
        """One of the structures in a state, as guards and frames see it; the first is that of the trajectory."""
        return state

    def views(self, state: State) -> Sequence[State]:
        """All structures in a state."""
        return [self.view(state, k) for k in range(max(self.settings.beads, 1))]

    def centroid(self, state: State) -> Tensor:
        """Positions (N, 3), Å, of the structure: where a nucleus is more than a point, its centre."""
        return state.positions

    def measured(self, state: State) -> tuple[float, float, float]:
        """Potential and kinetic energy, eV, and temperature, K, for the log."""
        kinetic = kinetic_energy(state)
        return float(state.energy.sum()), kinetic, temperature(kinetic, state.degrees_of_freedom)

    def extra(self, state: State) -> tuple[float, ...]:
        """Values of ``columns``."""
        return ()

    def conserved(self, state: State, energy_eV: float) -> float:
        """Conserved energy, eV, from potential + kinetic ``energy_eV``."""
        settings = self.settings
        energy_eV -= float(state.heat)
        if settings.bath == "nhc":
            energy_eV += chain_energy(state.bath, state.degrees_of_freedom, self._integration)
        return energy_eV

    def pressure_bar(self, state: State) -> float:
        """N k_B T/V, T of the bath, less a third of the trace of the stress.

        With the bath's temperature in place of the kinetic one its mean is the same but for the error that the
        time step leaves in velocities, and it scatters less. With constraints, whose forces no potential knows, that of
        the molecules: M k_B T/V for their number M, and of the virial what pulls on their centres.
        """
        kelvin, _ = self.settings.at(state.step)
        if self.constraints is not None:
            return self._molecular_pressure_bar(state, kelvin)
        ideal = state.n_atoms * units.kB * kelvin / state.volume
        return (ideal - float(state.stress.trace()) / 3.0) / units.bar

    def _molecular_pressure_bar(self, state: State, kelvin: float) -> float:
        found = self._monte_carlo
        whole, centres = centres_of_mass(state, found)
        from_centre = whole - centres.index_select(0, found.molecule)
        virial = -state.volume * float(state.stress.trace()) - float((from_centre * state.forces).sum())
        return (found.count * units.kB * kelvin + virial / 3.0) / state.volume / units.bar

    def _prepared_constraints(self) -> Constraints | None:
        settings, atoms = self.settings, self.job.atoms
        found = constrained(atoms, settings.constraints)
        if found is None:
            return None
        still = np.isin(found.i, self.fixed) & np.isin(found.j, self.fixed)
        if still.all():
            raise InputError("every constrained pair is of fixed atoms; leave --constrain or --fix out")
        found = Bonds(*(column[~still] for column in found))
        constraints = Constraints(found, self.masses, self.fixed, settings.constraint_tolerance)
        positions, cell = (torch.tensor(x, device=self.job.device) for x in (atoms.positions, atoms.cell.array))
        held = self.held(positions, cell, constraints)
        if dependent := constraints.dependent(held, cell):
            pairs = ", ".join(f"{i}-{j}" for i, j in dependent[:6])
            raise InputError(
                f"among the constraints {pairs} one follows from the others, as in a linear molecule; leave it out "
                "(--constrain)"
            )
        return constraints

    def held(self, positions: Tensor, cell: Tensor, constraints: Constraints | None = None) -> Tensor:
        """Positions (N, 3) of the structure moved until constrained lengths are right.

        Raises :class:`InputError` when they cannot be, or only far away.
        """
        constraints = constraints or self.constraints
        if constraints is None:
            return positions
        remedy = "give lengths that the structure can have (--constrain), or a structure that has them"
        try:
            held = constraints.onto(positions, positions, cell)
        except RunError:
            now = constraints.directions(positions, cell).norm(dim=1)
            k = int((now - constraints.length).abs().argmax())
            raise InputError(
                f"the constraints cannot be met together: atoms {int(constraints.i[k])} and "
                f"{int(constraints.j[k])} are {float(now[k]):.4g} Å apart and are to be at "
                f"{float(constraints.length[k]):.4g} Å; {remedy}"
            ) from None
        moved = (held - positions).norm(dim=1)
        atom = int(moved.argmax())
        if not float(moved[atom]) <= _FARTHEST:
            raise InputError(
                f"to meet the constraints atom {atom} ({self.job.atoms[atom].symbol}) would have to move by "
                f"{float(moved[atom]):.3g} Å; {remedy}"
            )
        return held

    def _check_within_molecules(self) -> None:
        molecule, images = self.molecules.molecule, self.molecules.images
        i, j = (x.cpu().numpy() for x in (self.constraints.i, self.constraints.j))
        across = (molecule[i] != molecule[j]) | (images[j] - images[i] != self.constraints.images.cpu().numpy()).any(1)
        if across.any():
            k = int(across.argmax())
            raise InputError(
                f"the Monte-Carlo barostat moves molecules apart, and atoms {i[k]} and {j[k]} are constrained but of "
                "different ones; leave the pair out, or use --ensemble nvt"
            )

    def _prepared(self, fixed: Tensor | None) -> Integration:
        settings = self.settings
        npt, log_interval = settings.ensemble == "npt", settings.interval
        rescale = settings.barostat_interval if npt and settings.barostat == "rescale" else 0

        def stress_at(step: int) -> bool:
            return step % log_interval == 0 or (rescale > 0 and (step + 1) % rescale == 0)

        mobile = None
        if fixed is not None:
            mobile = self.masses.new_ones(len(self.masses), 1).index_fill(0, fixed, 0.0)
        rescaling = CellRescaling(
            pressure=settings.pressure_bar * units.bar,
            time=settings.barostat_time_fs * units.fs,
            compressibility=settings.compressibility_per_bar / units.bar,
            interval=settings.barostat_interval,
            coupling=settings.coupling,
        )
        return Integration.from_fs(
            settings.timestep_fs,
            settings.temperature_K,
            settings.friction_per_fs,
            time=settings.thermostat_time_fs * units.fs,
            mobile=mobile,
            rescaling=rescaling if rescale else None,
            moving_cell=npt,
            quantum=self._quantum_bath(),
            constraints=self.constraints,
            stress_at=stress_at if npt else lambda step: False,
        )

    def _quantum_bath(self) -> QuantumBath | None:
        settings = self.settings
        if settings.bath != "qtb":
            return None
        friction = settings.friction_per_fs / units.fs
        return QuantumBath.prepare(settings.temperature_K, friction, settings.timestep_fs * units.fs, self.masses)

    def _prepared_monte_carlo(self) -> MonteCarlo | None:
        if self.molecules is None:
            return None
        molecules, settings, device = self.molecules, self.settings, self.job.device
        return MonteCarlo(
            pressure=settings.pressure_bar * units.bar,
            interval=settings.barostat_interval,
            coupling=settings.coupling,
            molecule=torch.tensor(molecules.molecule, device=device),
            images=torch.tensor(molecules.images, device=device),
            count=molecules.count,
        )

    def _at(self, step: int) -> tuple[Integration, MonteCarlo | None]:
        """Integration and barostat of the step that leads to ``step`` on a ramp."""
        kelvin, bar = self.settings.at(step)
        pressure = bar * units.bar
        rescaling, monte_carlo = self._integration.rescaling, self._monte_carlo
        if rescaling is not None:
            rescaling = replace(rescaling, pressure=pressure)
        if monte_carlo is not None:
            monte_carlo = replace(monte_carlo, pressure=pressure)
        return replace(self._integration, temperature_K=kelvin, rescaling=rescaling), monte_carlo

    def _check_springs(self, springs: Sequence[Springs]) -> None:
        """A spring of angular frequency ω is stable up to ωh = 2 for a time step h, and followed well far below."""
        for spring in springs:
            masses = self.masses.index_select(0, spring.atoms)
            atom = int(spring.atoms[masses.argmin()])
            named = f"atom {atom} ({self.job.atoms[atom].symbol})"
            period_fs = 2.0 * math.pi * math.sqrt(float(masses.min()) / spring.stiffness) / units.fs
            if period_fs < 2.0 * math.pi * self.settings.timestep_fs:
                raise InputError(
                    f"a spring of {spring.stiffness:g} eV/Å^2 lets {named} swing in {period_fs:.3g} fs, too fast for "
                    f"a time step of {self.settings.timestep_fs:g} fs; a weaker one (--restrain) is needed, or --fix"
                )

    def _check_freedom(self) -> None:
        if self.degrees_of_freedom > 0:
            return
        if len(self.fixed):
            raise InputError(f"all {len(self.job.atoms)} atoms are fixed, so nothing can move; fix fewer (--fix)")
        if self.settings.has_bath:
            raise InputError(
                f"one atom whose centre of mass is at rest has no velocity for {self.settings.thermostat} to scale; "
                "use --thermostat langevin"
            )

    def _check_npt(self) -> None:
        atoms, model, settings = self.job.atoms, self.job.model, self.settings
        if not atoms.pbc.all():
            periodic = "".join(a for a, p in zip("abc", atoms.pbc, strict=True) if p) or "nowhere"
            raise InputError(
                f"npt needs a cell that is periodic along all three axes; this one is periodic along {periodic}. "
                "Give one in Å with --cell, or use --ensemble nvt"
            )
        if not model.get("conservative", True):
            raise InputError(
                f"npt needs forces that are the gradient of an energy, for the stress or the energy of a trial "
                f"volume; those of {model.get('name')} are not. Use --ensemble nvt, or a conservative model "
                "(omnicalc models)"
            )
        if len(self.fixed) or settings.restraints:
            raise InputError(
                "npt moves every atom with the cell, so none can be fixed or held where it started; "
                "leave out --fix, --restrain and fixed atoms of the file, or use --ensemble nvt"
            )
        a, b, c = np.asarray(atoms.cell.array)
        if settings.coupling == "semi-isotropic" and settings.barostat == "rescale":
            edges = max(abs(a[2]), abs(b[2]), abs(c[0]), abs(c[1]))
            if edges > 1e-6 * math.cbrt(abs(atoms.get_volume())):
                raise InputError(
                    "semi-isotropic coupling needs a and b in the xy plane and c along z; turn the cell so, or use "
                    "--coupling anisotropic"
                )


def fixed_atoms(atoms: Atoms, fix: str) -> np.ndarray:
    """Indices (M,) of atoms that stay where they are: those of ``fix`` (--fix) and those that the file has fixed.

    Raises :class:`InputError` for other constraints of the structure, which would not be kept.
    """
    from ase.constraints import FixCartesian

    own = [c for c in atoms.constraints if not (isinstance(c, FixCartesian) and not c.mask.any())]
    others = sorted({type(c).__name__ for c in own if not _holds_atoms(c)})
    if others:
        raise InputError(
            f"the structure has constraints ({', '.join(others)}), which would not be kept: only whole atoms can be "
            "held; in the file hold an atom along all three axes (F F F in a POSCAR) or along none, and name others "
            "with --fix (in Python remove them: atoms.set_constraint())"
        )
    indices = [np.asarray(c.get_indices()) for c in own]
    return np.unique(np.concatenate([select(atoms, fix, "--fix"), *indices])).astype(np.int64)


def _holds_atoms(constraint: object) -> bool:
    from ase.constraints import FixAtoms, FixCartesian

    return isinstance(constraint, FixAtoms) or (isinstance(constraint, FixCartesian) and constraint.mask.all())
