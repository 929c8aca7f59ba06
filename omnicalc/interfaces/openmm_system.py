"""Our potentials in an OpenMM System: the implementation behind ``MLPotential("ubio-s3")``."""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import openmm
import torch
from ase import Atoms
from openmm.app import Topology
from openmmml.mlpotential import MLPotentialImpl

from omnicalc.charge_and_spin import charge_and_spin, whole_number
from omnicalc.errors import InputError
from omnicalc.interfaces.openmm import GENERIC
from omnicalc.interfaces.openmm_force import ForceCall, check_version
from omnicalc.neighbor_list import DEFAULT_SKIN, NeighborList
from omnicalc.potential import Potential
from omnicalc.registry import load_potential
from omnicalc.systems import Systems

DEFAULTS = {
    "charge": None,
    "multiplicity": None,
    "head": None,
    "precision": "single",
    "device": "auto",
    "kernel": "auto",
    "skin": DEFAULT_SKIN,
    "periodic": None,
}
_PRECISIONS = {"single": "float32", "float32": "float32", "double": "float64", "float64": "float64"}
_LIGHT = 5.0  # amu; hydrogen, deuterium, and hydrogens made heavier for longer time steps
_OTHER_NAMES = {"spin": "multiplicity", "dtype": "precision"}  # what they are called elsewhere in OmniCalc


class OmniCalcPotentialImpl(MLPotentialImpl):
    """What ``MLPotential`` does for a name of ours.

    >>> potential = MLPotential("ubio-s3")
    >>> system = potential.createSystem(topology, charge=0, multiplicity=1, precision="double")
    >>> system = potential.createMixedSystem(topology, mm_system, ml_atoms)
    >>> MLPotential("omnicalc", modelPath="ubio-s3:small@0.1")  # exact weights, or a weights folder's path

    Options of ``createSystem`` and ``createMixedSystem``, or of ``MLPotential`` for all Systems made by it:

    - ``charge`` (e) and ``multiplicity`` (2S+1) of the atoms that the potential computes. Without ``charge`` the
      topology's formal charges count, where it has any; else 0. Without ``multiplicity``: the lowest.
    - ``head``: level of theory; without it the first one that knows all elements of these atoms.
    - ``precision``: "single" (default) or "double"; "float32" and "float64" mean the same.
    - ``device``: "auto" (default: a CUDA device if there is one), "cpu", "cuda", ...
    - ``kernel``: "auto" (default), "native" or "torch", as for :class:`omnicalc.OmniCalc`.
    - ``skin``: margin of the neighbour list, Å. With 0 a restart from a checkpoint repeats every bit.
    - ``periodic``: False computes without periodic images although the topology has a box. The default is periodic
      where the topology has a box or another force of the System is periodic.

    The System gets a PythonForce, and a HarmonicBondForce of strength zero along the topology's bonds among these
    atoms: it adds no energy, but tells OpenMM what the molecules are, so that barostats scale whole molecules and
    trajectories keep them in one piece.

    In a mixed System the default embedding leaves what is between the potential's atoms and the others to the classical
    force field. Most water models give hydrogens a charge and no Lennard-Jones term, which is enough for rigid waters
    only: from a hydrogen that moves, its own bond alone keeps classical oxygens away. Keep such molecules rigid
    (``removeConstraints=False``) or give their hydrogens a Lennard-Jones term; a warning says when they have none. And
    the potential must know what it sees: ``analysis/openmm/README.md`` has an example of each.
    """

    def __init__(self, name: str, modelPath: str | None = None, **options):  # noqa: N803 (OpenMM-ML's name)
        if name == GENERIC and modelPath is None:
            raise InputError(
                f"MLPotential('{GENERIC}') needs modelPath: the name of a model, as in 'ubio-s3:small', or the path of "
                "a weights folder, as in './weights'"
            )
        if name != GENERIC and modelPath is not None:
            raise InputError(
                f"modelPath is given, but MLPotential('{name}') always means the bundled weights of that name; use "
                f"MLPotential('{GENERIC}', modelPath={str(modelPath)!r})"
            )
        _check_names(options, own_only=True)
        self.model = name if modelPath is None else modelPath
        self._options = options
        self._potentials: dict[tuple[str, ...], Potential] = {}
        self._potential({**DEFAULTS, **options})  # unknown weights are refused here, not when the System is made

    def getMLLongRange(self) -> bool:  # noqa: N802
        """False: every model sees no farther than the neighbours of its neighbour list."""
        return False

    def addForces(  # noqa: N802
        self,
        topology: Topology,
        system: openmm.System,
        atoms: Iterable[int] | None,
        forceGroup: int,
        **options,  # noqa: N803
    ) -> None:
        """Add the potential to ``system``, for ``atoms`` (indices) or all of them.

        Raises:
            InputError: an option that there is not, or a value that cannot be; an element, charge or multiplicity that
                the weights do not know; an OpenMM without PythonForce.
        """
        _check_names(options, own_only=atoms is None)
        options = {**DEFAULTS, **self._options, **{key: options[key] for key in options if key in DEFAULTS}}
        indices = None if atoms is None else [int(k) for k in atoms]
        if indices is not None:
            _warn_of_bare_hydrogens(system, set(indices))
        call = self._call(topology, system, indices, options)
        check_version()
        force = openmm.PythonForce(call)
        force.setName(f"OmniCalc {call.model}, head {call.head}")
        force.setUsesPeriodicBoundaryConditions(call.periodic)
        if indices is not None:
            force.setParticles(indices)
        for each in (force, _molecules(topology, indices)):
            if each is not None:
                each.setForceGroup(forceGroup)
                system.addForce(each)

    def _call(self, topology: Topology, system: openmm.System, atoms: list[int] | None, options: dict) -> ForceCall:
        NeighborList(1.0, options["skin"])  # refuses a skin that cannot be
        potential = self._potential(options)
        numbers, formal = _elements(topology, atoms)
        charge, spin = _charge_and_spin(numbers, formal, options["charge"], options["multiplicity"])
        periodic = _periodic(topology, system, atoms, options["periodic"])
        with _in_openmm():
            head = potential.choose_head(_placeholder(numbers, charge, spin, periodic), options["head"])
        dtype = _dtype(options["precision"])
        if options["kernel"] == "native" and dtype == "float64":
            raise InputError("kernel='native' is single precision; leave out precision='double', or the kernel")
        return ForceCall(
            model=potential.name_resolved,
            sha256=potential.sha256,
            head=head,
            charge=charge,
            spin=spin,
            numbers=tuple(numbers),
            periodic=periodic,
            device=str(options["device"]),
            dtype=dtype,
            kernel=options["kernel"],
            skin=options["skin"],
            potential=potential,
        )

    def _potential(self, options: dict) -> Potential:
        """The weights as asked for, loaded once."""
        key = str(options["device"]), _dtype(options["precision"]), str(options["kernel"])
        if key not in self._potentials:
            potential = load_potential(self.model, device=key[0], dtype=key[1], kernel=key[2])
            if not potential.conservative:
                warnings.warn(
                    f"{potential.name_resolved} predicts forces that are not the gradient of its energy: energy is not "
                    "conserved, and barostats and minimisers, which go by the energy, do not fit them",
                    stacklevel=2,
                )
            self._potentials[key] = potential
        return self._potentials[key]


def _check_names(options: dict, *, own_only: bool) -> None:
    """Refuse options that there are not.

    In a mixed System the embedding has options of its own, which OpenMM-ML hands to us as well: there only those are
    refused that look like ours misspelled.
    """
    for name in options:
        if name in DEFAULTS:
            continue
        meant = _OTHER_NAMES.get(name) or next(iter(difflib.get_close_matches(name, DEFAULTS, cutoff=0.8)), None)
        if own_only or meant:
            hint = f" (is {meant} meant?)" if meant else ""
            raise InputError(f"unknown option '{name}'{hint}; OmniCalc takes: {', '.join(DEFAULTS)}")


def _dtype(precision: object) -> str:
    name = str(precision).removeprefix("torch.")
    if name not in _PRECISIONS:
        raise InputError(f"precision {precision!r} given; 'single' or 'double' is needed (float32 and float64 also do)")
    return _PRECISIONS[name]


def _elements(topology: Topology, atoms: list[int] | None) -> tuple[list[int], int | None]:
    """Atomic numbers, and the sum of the formal charges; None where no atom has one."""
    every = list(topology.atoms())
    indices = list(range(len(every))) if atoms is None else atoms
    _check_indices(indices, len(every))
    chosen = [every[k] for k in indices]
    nameless = [atom for atom in chosen if atom.element is None]
    if nameless:
        atom = nameless[0]
        raise InputError(
            f"atom {atom.index} ({atom.name} of {atom.residue.name} {atom.residue.id}) has no element, as virtual "
            "sites have none; leave such particles out of the atoms that the potential computes"
        )
    given = [charge for charge in (getattr(atom, "formalCharge", None) for atom in chosen) if charge is not None]
    return [atom.element.atomic_number for atom in chosen], sum(given) if any(given) else None


def _check_indices(atoms: list[int], n: int) -> None:
    """Raise InputError unless ``atoms`` are one or more of 0 .. n - 1, each once."""
    wrong = [k for k in atoms if not 0 <= k < n]
    if wrong or not atoms or len(set(atoms)) < len(atoms):
        given = f"atom {wrong[0]} is" if wrong else "one of them twice is" if atoms else "none is"
        raise InputError(f"{given} among the atoms to compute, of {n} in the topology; give each index once, from 0 on")


def _charge_and_spin(numbers: list[int], formal: int | None, charge: object, multiplicity: object) -> tuple[int, int]:
    """By the rules of every other path, the formal charges taking the place of ASE's initial charges."""
    charge = None if charge is None else whole_number(charge, "charge")
    multiplicity = None if multiplicity is None else whole_number(multiplicity, "multiplicity")
    if formal is not None and charge not in (None, formal):
        raise InputError(
            f"charge {charge} contradicts the formal charges in the topology, which add up to {formal} over these "
            "atoms; make them agree, or take them off: for atom in topology.atoms(): atom.formalCharge = None"
        )
    charge = formal if charge is None else charge
    with _in_openmm():
        return charge_and_spin(Atoms(numbers), charge, multiplicity)


@contextmanager
def _in_openmm() -> Iterator[None]:
    """Errors name options of ASE and of the command line; say what these are called here."""
    try:
        yield
    except InputError as error:
        raise InputError(
            f"{error} (in OpenMM: createSystem(topology, charge=..., multiplicity=..., head=..., periodic=False), "
            "MLPotential('omnicalc', modelPath='NAME:TAG'))"
        ) from None


def _placeholder(numbers: list[int], charge: int, spin: int, periodic: bool) -> Systems:
    """These atoms without positions, which a topology does not have: enough to choose a head."""
    n = len(numbers)
    return Systems(
        positions=torch.zeros(n, 3, dtype=torch.float64),
        numbers=torch.tensor(numbers),
        cell=torch.zeros(1, 3, 3, dtype=torch.float64),
        pbc=torch.full((1, 3), periodic),
        charge=torch.tensor([charge]),
        spin=torch.tensor([spin]),
        system=torch.zeros(n, dtype=torch.int64),
    )


def _periodic(topology: Topology, system: openmm.System, atoms: list[int] | None, wanted: bool | None) -> bool:
    if wanted not in (None, True, False):
        raise InputError(f"periodic={wanted!r} given; True, False or None is needed")
    boxed = topology.getPeriodicBoxVectors() is not None
    if wanted is None:
        return boxed or system.usesPeriodicBoundaryConditions()
    if wanted and not boxed and atoms is None:
        raise InputError(
            "periodic=True, but the topology has no box; set one: topology.setPeriodicBoxVectors(vectors * nanometer)"
        )
    return bool(wanted)


def _warn_of_bare_hydrogens(system: openmm.System, atoms: set[int]) -> None:
    """Warn of light charged particles without a Lennard-Jones term among ``atoms`` of a classical System."""
    for force in system.getForces():
        if not isinstance(force, openmm.NonbondedForce):
            continue
        bare = [k for k in sorted(atoms) if k < force.getNumParticles() and _is_bare_hydrogen(system, force, k)]
        if bare and len(atoms) < force.getNumParticles():
            warnings.warn(
                f"{len(bare)} hydrogens that the potential moves (the first is atom {bare[0]}) have a charge but no "
                "Lennard-Jones term in the classical force field, as in TIP3P: unless they stay rigid "
                "(removeConstraints=False), only their own bonds keep them from falling onto classical oxygens. Give "
                "each of them one before createMixedSystem, for instance CHARMM's: "
                "nonbonded.setParticleParameters(atom, charge, 0.04, 0.1925)",
                stacklevel=4,
            )


def _is_bare_hydrogen(system: openmm.System, force: openmm.NonbondedForce, k: int) -> bool:
    charge, _, epsilon = (value._value for value in force.getParticleParameters(k))
    return 0 < system.getParticleMass(k)._value < _LIGHT and charge > 0 and epsilon == 0


def _molecules(topology: Topology, atoms: list[int] | None) -> openmm.Force | None:
    """Bonds of strength zero among ``atoms``; None where there is no bond."""
    inside = None if atoms is None else set(atoms)
    pairs = [(bond.atom1.index, bond.atom2.index) for bond in topology.bonds()]
    pairs = [pair for pair in pairs if inside is None or inside.issuperset(pair)]
    if not pairs:
        return None
    force = openmm.HarmonicBondForce()
    force.setName("OmniCalc molecules (no energy)")
    for i, j in pairs:
        force.addBond(i, j, 0.0, 0.0)
    return force
