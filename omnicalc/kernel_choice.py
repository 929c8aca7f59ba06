"""Which code computes a potential: the native CPU kernel where it can, else plain torch.

A model offers a native kernel by a method ``native(numbers)`` that returns one for these atomic numbers, or raises
:class:`omnicalc.errors.KernelError` with the reason.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from omnicalc.errors import InputError, KernelError

if TYPE_CHECKING:
    from omnicalc.neighbors import NeighborList
    from omnicalc.potential import Potential, Prediction
    from omnicalc.systems import Systems

KERNELS = ("auto", "native", "torch")


def check_kernel(name: str) -> str:
    """The name itself. Raises :class:`InputError` for anything that is no kernel."""
    if name not in KERNELS:
        raise InputError(f"unknown kernel '{name}'; use one of: {', '.join(KERNELS)}")
    return name


class KernelChoice:
    """The kernel of one potential, made when it is first needed and kept for the elements it was made for."""

    def __init__(self, wanted: str = "auto"):
        self.wanted = check_kernel(wanted)
        self._native = None
        self._refused: KernelError | None = None  # by the model, once and for all: it is not asked at every step
        self._warned = False

    def native(self, potential: Potential, numbers: Tensor):
        """The native kernel for these atomic numbers, or None for plain torch.

        Warns, once, when it would run here but was never built. Raises :class:`InputError` when "native" was asked for
        and cannot be had.
        """
        if self.wanted == "torch":
            return None
        try:
            return self._made(potential, numbers)
        except KernelError as reason:
            if self.wanted == "native":
                raise InputError(f"kernel 'native' cannot run {potential.name_resolved}: {reason}") from None
            if reason.not_built and not self._warned:
                self._warned = True
                warnings.warn(str(reason), stacklevel=4)
            return None

    def describe(self, potential: Potential, numbers: Tensor) -> str:
        """One line for people: "native (avx512)", or "torch" and why it is not native."""
        if self.wanted == "torch":
            return "torch (as asked)"
        try:
            return f"native ({self._made(potential, numbers).instructions})"
        except KernelError as reason:
            self._warned = True
            return f"torch ({reason})"

    def _made(self, potential: Potential, numbers: Tensor):
        if potential.device.type != "cpu" or potential.dtype != torch.float32:
            raise KernelError("the native kernel is for float32 on the CPU")
        if any(p.requires_grad for p in potential.model.parameters()):
            raise KernelError("weights in training need plain torch")
        if not hasattr(potential.model, "native"):
            raise KernelError("this family has no native kernel")
        if self._refused is not None:
            raise self._refused.with_traceback(None)  # which would grow with every step
        present = sorted(set(numbers.tolist()))
        if self._native is None or not self._native.knows(present):
            try:
                self._native = potential.model.native(present)
            except KernelError as reason:
                self._refused = reason
                raise
        return self._native


class NativeBinding:
    """A native kernel with one fixed batch of atoms: what the potential adds to it, and the neighbour list's pairs."""

    def __init__(self, potential: Potential, native, systems: Systems, head: Tensor):
        self._run = native.prepare(systems, head)
        self._reference = potential.reference_energies(systems, head)
        self._systems = systems.system

    def __call__(self, systems: Systems, neighbor_list: NeighborList, *, forces: bool, stress: bool) -> Prediction:
        """As :meth:`Potential.forward`, for other positions and cells of the same atoms."""
        from omnicalc.gradients import per_structure, stress_of
        from omnicalc.potential import Prediction

        pairs = neighbor_list.pairs_with_skin(systems)
        energies, found, virial = self._run(systems.positions.detach(), pairs, forces=forces or stress, virial=stress)
        energies += self._reference
        energy = energies.new_zeros(systems.n_systems).index_add_(0, self._systems, energies)
        tension = stress_of(per_structure(virial, systems), systems) if stress else None
        return Prediction(energy, energies, found if forces else None, tension)
