"""The ASE calculator: ``atoms.calc = OmniCalc("ubio-s3")``."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import Calculator, PropertyNotImplementedError, all_changes, all_properties
from ase.io import extxyz
from ase.outputs import ArrayProperty, ScalarProperty, all_outputs
from ase.stress import full_3x3_to_voigt_6_stress

from omnicalc.charge_and_spin import charge_and_spin, whole_number
from omnicalc.errors import InputError, RunError
from omnicalc.kernel_choice import KernelChoice
from omnicalc.models.torch_defaults import own_defaults
from omnicalc.neighbor_list import DEFAULT_SKIN, NeighborList
from omnicalc.potential import Potential, Prediction
from omnicalc.registry import load_potential
from omnicalc.systems import Systems
from omnicalc.unlike_training import Watch

_AUTO = {"device": "auto", "dtype": "float32"}
_SPREAD = (ScalarProperty("energy_std", float), ArrayProperty("forces_std", float, ("natoms",)))
_WITH_FORCES = ("forces", "stress", "forces_std")  # what takes a backward pass
_IN_XYZ = (extxyz.per_config_properties, extxyz.per_atom_properties)  # lists made when ASE's module was imported
for _property, _listed in zip(_SPREAD, _IN_XYZ, strict=True):
    # what ASE has not heard of trips its own tools, such as SinglePointCalculator, or is left out of files
    all_outputs.setdefault(_property.name, _property)
    for _names in (all_properties, _listed):
        if _property.name not in _names:
            _names.append(_property.name)


class StressUndefinedError(InputError, PropertyNotImplementedError):
    """Stress asked of a structure that is not periodic along all three axes, or of direct forces."""


class OmniCalc(Calculator):
    """Energy, forces and stress of a machine-learned potential.

    Results, in ASE's units and signs: ``energy`` and ``free_energy`` (the same number), ``energies`` (per
    atom; their sum is the energy, how it is shared out has no physical meaning), ``forces``, and ``stress``
    (Voigt xx, yy, zz, yz, xz, xy; positive under tension; only for structures periodic along all three axes, and where
    forces are the gradient of the energy).

    Charge and spin are those of ``atoms.info["charge"]`` and ``atoms.info["spin"]`` (multiplicity 2S+1); ``charge`` and
    ``spin`` here are for structures that carry none, and an error where they differ from what a structure carries. The
    one place that decides is :func:`omnicalc.charge_and_spin.charge_and_spin`.

    The head, that is the level of theory, is ``head`` if given, else the first of the weights' heads that
    knows all elements of the first structure. It then stays: energies of different heads have nothing to do
    with each other, so a later structure with an element that this head does not know is an error.
    """

    implemented_properties = ["energy", "free_energy", "energies", "forces", "stress"]
    family: str | None = None  # subclasses: the only model family they take

    def __init__(
        self,
        model: str | Path | Potential = "ubio-s3",
        *,
        head: str | None = None,
        device: str | torch.device = "auto",
        dtype: str | torch.dtype = "float32",
        charge: int | None = None,
        spin: int | None = None,
        skin: float = DEFAULT_SKIN,
        kernel: str | None = None,
        uncertainty: bool = False,
    ):
        """
        Args:
            model: name, name:tag, name:tag@version, path of a weights folder, or a loaded :class:`Potential`, whose
                weights are shared and whose settings stay as they are.
            head: name of the level of theory to use.
            device: "auto" (a CUDA device if there is one), "cpu", "cuda", "cuda:1", ...
            dtype: "float32" or "float64", of the network; positions, sums and results are float64 always.
            charge: total charge (e) of structures that do not carry their own.
            spin: multiplicity (2S+1) of structures that do not carry their own.
            skin: margin of the neighbour list kept between calls, Å. It changes the speed, never a result.
            kernel: "auto" (a native kernel, of the CPU or an NVIDIA GPU, where it can run, else plain torch), "native",
                "torch", or on a GPU "native-fp16" and "native-bf16"; None leaves what a loaded potential has and means
                "auto" otherwise.
            uncertainty: results also hold ``energy_std`` (eV) and ``forces_std`` (N,), eV/Å per atom, the spread over
                the committee of the head; several times slower, in plain torch.

        Raises:
            WeightsError: unknown name, weights that are not on this machine or are damaged.
            InputError: unknown head, device, dtype or kernel; a charge or spin that is not whole; a skin that cannot
                be; uncertainty of weights or of a head without a committee.
        """
        super().__init__()
        self.potential = _potential(model, device, dtype)
        if kernel is not None or uncertainty:
            self.potential = copy.copy(self.potential)  # the same weights, other settings
        if kernel is not None:
            self.potential.kernel = KernelChoice(kernel)
        self._check_family()
        if uncertainty:
            self.potential.spread = True
            self.implemented_properties = [*self.implemented_properties, *(p.name for p in _SPREAD)]
        self.head = head if head is None else self.potential.named_head(head).name
        self._charge = None if charge is None else whole_number(charge, "charge")
        self._spin = None if spin is None else whole_number(spin, "spin")
        self._neighbor_list = NeighborList(self.potential.cutoff, skin)
        self._watch = Watch()
        self._forces_asked = False  # of the last structure
        self.parameters.update(  # what ase.db and trajectories store beside results
            model=self.name_resolved,
            sha256=self.potential.sha256,
            head=head,
            dtype=str(self.potential.dtype).removeprefix("torch."),
            charge=self._charge,
            spin=self._spin,
        )

    def set(self, **settings) -> dict:
        """ASE's way to change settings, which are fixed here. Raises :class:`InputError` for any."""
        if settings:
            raise InputError(
                f"{', '.join(settings)} cannot be set afterwards; make a new calculator, as in "
                f"OmniCalc('{self.name_resolved}', {', '.join(f'{k}={v!r}' for k, v in settings.items())})"
            )
        return {}

    @property
    def name_resolved(self) -> str:
        """The exact weights in use, as in ``ubio-s3:small@0.1``."""
        return self.potential.name_resolved

    def charge_and_spin(self, atoms: Atoms) -> tuple[int, int]:
        """Total charge (e) and multiplicity that ``atoms`` are computed with."""
        return charge_and_spin(atoms, self._charge, self._spin)

    def check_state(self, atoms: Atoms, tol: float = 1e-15) -> list[str]:
        """What changed since the last calculation; charge and spin in ``atoms.info`` count too."""
        changes = list(super().check_state(atoms, tol))
        if self.atoms is not None:
            changes += [key for key in ("charge", "spin") if _info(self.atoms, key) != _info(atoms, key)]
        return changes

    def get_property(self, name: str, atoms: Atoms | None = None, allow_calculation: bool = True) -> object:
        """One of ``implemented_properties``, computed if it has to be."""
        value = super().get_property(name, atoms, allow_calculation)
        if allow_calculation and name in _WITH_FORCES:
            self._forces_asked = True
        return value

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = tuple(all_changes),
    ) -> None:
        """Compute ``properties`` into ``results``; nothing of an earlier structure stays there.

        Where there is a stress it comes with the forces: it costs little, and is often asked for after them. And the
        forces come with the energy where those of the structure before were asked for: ASE's sockets (i-PI) and PLUMED
        ask for the energy first, then for the forces, which would cost a second pass.
        """
        if not isinstance(properties, Iterable):
            raise InputError(f"properties={properties!r} given; a list of names is needed, as in ['energy', 'forces']")
        if atoms is not None and not hasattr(atoms, "get_positions"):
            raise InputError(f"{atoms!r} given; ase.Atoms are needed (ase.io.read('file.xyz') makes them of a file)")
        if system_changes:
            self.results = {}
        if atoms is not None:
            self.atoms = atoms.copy()
        if self.atoms is None:
            raise InputError("no structure was given: set atoms.calc to this calculator, or pass atoms")
        stress = "stress" in properties
        if stress:
            self.check_stress(self.atoms)
        forces = self._forces_asked or any(name in properties for name in _WITH_FORCES)
        self._forces_asked = False
        self.results = {**self.results, **self._compute(forces, stress)}

    def check_stress(self, atoms: Atoms) -> None:
        """Raise :class:`StressUndefinedError` where ``atoms`` have no stress, or this potential none that fits its
        forces.
        """
        if not self.potential.conservative:
            raise StressUndefinedError(
                f"stress is the derivative of an energy, which the forces of {self.name_resolved} are not; ask for "
                "energy and forces only, or use a conservative model (omnicalc models)"
            )
        if not atoms.pbc.all():
            raise StressUndefinedError(
                "stress needs a structure periodic along all three axes, but this one has pbc = "
                f"{atoms.pbc.tolist()}; set atoms.cell and atoms.pbc = True, or ask for energy and "
                "forces only"
            )

    @torch.inference_mode(False)  # forces are gradients, and the neighbour list is kept for later calls
    @own_defaults()
    def _compute(self, forces: bool, stress: bool) -> dict:
        systems = Systems.from_atoms(self.atoms, charge=self._charge, spin=self._spin)
        self.choose_head(systems)
        self._watch.look(self.potential, self.head, systems)
        systems = systems.to(self.potential.device)
        both = forces and self.potential.conservative and bool(self.atoms.pbc.all())
        found = self.potential.predict(systems, self._neighbor_list, head=self.head, forces=forces, stress=both)
        if both and not stress and not found.stress.isfinite().all():  # nobody asked for it
            found = replace(found, stress=None)
        return _results(found)

    @property
    def default_charge(self) -> int | None:
        """Total charge of structures that do not carry their own, as it was given."""
        return self._charge

    @property
    def default_spin(self) -> int | None:
        """Multiplicity of structures that do not carry their own, as it was given."""
        return self._spin

    def choose_head(self, systems: Systems) -> None:
        """Fix the head at the first structure; refuse later ones that it does not know."""
        self.head = self.potential.choose_head(systems, self.head)
        self.parameters["head"] = self.head

    def _set_options(self, **options) -> None:
        """Options of the model, of this calculator alone."""
        self.potential = copy.deepcopy(self.potential)
        self.potential.model.set_options(**options)
        self.parameters.update(options)

    def _check_family(self) -> None:
        if self.family is None:
            return
        card = self.potential.card
        found = card.family if card is not None else "unknown"
        if found != self.family:
            raise InputError(
                f"{type(self).__name__} takes weights of the family '{self.family}', but "
                f"{self.name_resolved} is of the family '{found}'; use OmniCalc, which takes all families"
            )


class E2FormerCalculator(OmniCalc):
    """:class:`OmniCalc` for E2Former-V2 weights only; others are refused with an InputError."""

    family = "e2former"


class SCDCalculator(OmniCalc):
    """:class:`OmniCalc` for SCD weights only; others are refused with an InputError."""

    family = "scd"

    def __init__(self, model: str | Path | Potential = "scd", **settings):
        """``settings``: those of :class:`OmniCalc`."""
        super().__init__(model, **settings)


class AllScAIPCalculator(OmniCalc):
    """:class:`OmniCalc` for AllScAIP weights only, with its average over orientations; others are refused.

    The energy depends on the orientation, as far as training left that in; `omnicalc evaluate --rotations 24` measures
    it. Weights with direct forces conserve no energy.
    """

    family = "allscaip"

    def __init__(self, model: str | Path | Potential = "allscaip", *, rotations: int | None = None, **settings):
        """
        Args:
            rotations: average over 1, 4, 12 or 24 rotations of a cube, which costs as many evaluations; None: as the
                weights say.
            settings: those of :class:`OmniCalc`.
        """
        super().__init__(model, **settings)
        if rotations is not None:
            self._set_options(rotations=rotations)


class OmnimolCalculator(OmniCalc):
    """:class:`OmniCalc` for OMNIMOL weights only, with the options of its direct forces; others are refused.

    Molecules only: periodic structures are refused with an InputError. Direct forces are no gradient of the energy,
    so they conserve no energy, and they and the energy depend on the orientation.
    """

    family = "omnimol"

    def __init__(
        self,
        model: str | Path | Potential = "omnimol",
        *,
        remove_net_force: bool | None = None,
        remove_torque: bool | None = None,
        rotations: int | None = None,
        **settings,
    ):
        """
        Args:
            remove_net_force: take the mean off direct forces; None: as the weights say.
            remove_torque: take the torque off direct forces.
            rotations: average over 1, 4, 12 or 24 rotations of a cube, which costs as many evaluations.
            settings: those of :class:`OmniCalc`.

        Raises:
            InputError: weights of another family, or options of direct forces for weights that have none.
        """
        super().__init__(model, **settings)
        options = {"remove_net_force": remove_net_force, "remove_torque": remove_torque, "rotations": rotations}
        options = {key: value for key, value in options.items() if value is not None}
        if options:
            self._set_options(**options)


def _potential(model: str | Path | Potential, device: str | torch.device, dtype: str | torch.dtype) -> Potential:
    if not isinstance(model, Potential):
        return load_potential(model, device=device, dtype=dtype)
    if {"device": device, "dtype": dtype} != _AUTO:
        raise InputError(
            "device and dtype are given together with a loaded potential, which has its own; "
            "give them to load_potential instead"
        )
    return model


def _info(atoms: Atoms, key: str) -> str:
    """A value in ``atoms.info`` in a form that always compares, whatever it is."""
    return repr(atoms.info.get(key))


def _results(prediction: Prediction) -> dict:
    """ASE's results. Raises :class:`RunError` when a number among them is not finite."""
    energy = float(prediction.energy[0])
    out = {"energy": energy, "free_energy": energy, "energies": _array(prediction.energies)}
    if prediction.forces is not None:
        out["forces"] = _array(prediction.forces)
    if prediction.stress is not None:
        out["stress"] = full_3x3_to_voigt_6_stress(_array(prediction.stress[0]))
    if prediction.energy_std is not None:
        out["energy_std"] = float(prediction.energy_std[0])
    if prediction.forces_std is not None:
        out["forces_std"] = _array(prediction.forces_std)
    for name, value in out.items():
        if not np.isfinite(value).all():
            raise RunError(
                f"the model gave {name} that are not finite for this structure; look for atoms that are far "
                "too close to each other, or use dtype float64"
            )
    return out


def _array(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().cpu().numpy()
