"""Which code computes a potential: a kernel made for it (C++ on a CPU, Triton on a GPU) where there is one, else torch.

A model offers them by the methods ``native(numbers)`` and ``on_device(numbers)``, each of which returns one for these
atomic numbers, or raises :class:`omnicalc.errors.KernelError` with the reason. What was made is made again once the
weights are written to.
"""

from __future__ import annotations

import threading
import warnings
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from omnicalc.errors import InputError, KernelError, OmniCalcWarning

if TYPE_CHECKING:
    from omnicalc.neighbor_list import NeighborList
    from omnicalc.potential import Potential, Prediction
    from omnicalc.systems import Systems

_SAMPLED = 4  # numbers of each weight that are looked at again
HALF = {"native-fp16": torch.float16, "native-bf16": torch.bfloat16}  # on a GPU: 16-bit type of the linear maps
KERNELS = ("auto", "native", *HALF, "torch")


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
        self._made_of: WatchedWeights | None = None  # that the two above are of
        self._warned = False
        self._lock = threading.Lock()
        self._last: tuple[WatchedWeights, list[Tensor], NativeBinding | DeviceBinding] | None = None

    def __reduce__(self):  # what is made is made again where a copy needs it, and is not worth carrying
        return KernelChoice, (self.wanted,)

    def native(self, potential: Potential, numbers: Tensor):
        """The native kernel for these atomic numbers, or None for plain torch.

        Warns, once, when it would run here but was never built. Raises :class:`InputError` when one was asked for by
        name and cannot be had.
        """
        if self.wanted == "torch":
            return None
        try:
            return self._made(potential, numbers)
        except KernelError as reason:
            if self.wanted in ("native", *HALF):
                raise InputError(
                    f"kernel '{self.wanted}' cannot run {potential.name_resolved}: {reason}; use kernel 'auto' or "
                    "'torch' (--kernel), which can"
                ) from None
            if reason.not_built and not self._warned:
                self._warned = True
                warnings.warn(str(reason), OmniCalcWarning, stacklevel=4)
            return None

    def describe(self, potential: Potential, numbers: Tensor) -> str:
        """One line for people: "native (avx512)", or "torch" and why it is not native."""
        if self.wanted == "torch":
            return "torch (as asked)"
        try:
            name = self.wanted if self.wanted in HALF else "native"
            return f"{name} ({self._made(potential, numbers).instructions})"
        except KernelError as reason:
            self._warned = True
            return f"torch ({reason})"

    def binding(self, potential: Potential, systems: Systems, head: Tensor, record: bool = False):
        """The kernel on one batch of atoms with head indices ``head`` (S,), or None for plain torch.

        ``record``: for many steps of the same atoms; on a GPU a step is then recorded once and replayed.
        """
        kernel = self.native(potential, systems.numbers)
        if kernel is None:
            return None
        if potential.device.type == "cpu":
            return NativeBinding(potential, kernel, systems, head)
        return DeviceBinding(potential, kernel, systems, head, record)

    def binding_of_call(self, potential: Potential, systems: Systems, head: Tensor):
        """As :meth:`binding`, for calls that do not say whether more of the same atoms will follow: the last one is
        kept, and on a GPU recorded when the same atoms come again.
        """
        if potential.spread:
            return self.binding(potential, systems, head)
        weights, last = Weights.of(potential), self._last
        atoms = [systems.numbers, systems.system, systems.charge, systems.spin, head]
        if last is not None and last[0].are(weights) and all(map(torch.equal, last[1], atoms)):
            last[2].record = True
            return last[2]
        binding = self.binding(potential, systems, head)
        # copies, for the caller may write to its own
        self._last = None if binding is None else (self._made_of, [t.clone() for t in atoms], binding)
        return binding

    def _made(self, potential: Potential, numbers: Tensor):
        with self._lock:  # threads with other elements may share the potential
            return self._grown(potential, numbers)

    def _grown(self, potential: Potential, numbers: Tensor):
        if potential.device.type not in ("cpu", "cuda") or potential.dtype != torch.float32:
            raise KernelError("kernels are for float32 on a CPU or a CUDA device")
        if potential.spread:
            raise KernelError("the spread of a committee needs plain torch")
        weights = Weights.of(potential)
        if weights.in_training:
            raise KernelError("weights in training need plain torch")
        offer = "native" if potential.device.type == "cpu" else "on_device"
        if self.wanted in HALF and offer == "native":
            raise KernelError("half precision is for a GPU")
        if not hasattr(potential.model, offer):
            raise KernelError(f"this family has no kernel for the {potential.device.type}")
        if self._made_of is None or not self._made_of.are(weights):
            self._made_of, self._native, self._refused = WatchedWeights(weights), None, None
        if self._refused is not None:
            raise self._refused.with_traceback(None)  # which would grow with every step
        present = sorted(set(numbers.tolist()))
        if self._native is None or not self._native.knows(present):
            options = {"maps": HALF[self.wanted]} if self.wanted in HALF else {}
            if self._native is not None:  # what is made for elements grows with them
                present = sorted({*present, *self._native.numbers})
            try:
                self._native = getattr(potential.model, offer)(present, **options)
            except KernelError as reason:
                self._refused = reason
                raise
        return self._native


class Weights(NamedTuple):
    """A model's weights at one time: equal to those of another time as long as nothing was written to them."""

    model: nn.Module
    device: torch.device
    dtype: torch.dtype
    in_training: bool
    writes: int  # that torch counted, over all weights
    places: tuple[int, ...]  # of all weights in memory

    @classmethod
    def of(cls, potential: Potential) -> Weights:
        in_training, writes, places, modules = False, 0, [], [potential.model]
        while modules:  # as model.parameters(), which takes three times as long, at every step
            module = modules.pop()
            modules += filter(None, module._modules.values())
            for weight in filter(lambda w: w is not None, module._parameters.values()):
                in_training |= weight.requires_grad
                writes += 0 if weight.is_inference() else weight._version  # those of inference mode are not counted
                places.append(weight.data_ptr())
        return cls(potential.model, potential.device, potential.dtype, in_training, writes, tuple(places))


class WatchedWeights:
    """Weights that something was made of. Writes that torch does not count, such as ``weight.data.copy_(...)`` of an
    average of weights, show in a sample of their numbers.
    """

    def __init__(self, weights: Weights):
        self._weights = weights
        self._sample = [  # views, which also keep the memory from being given to other weights
            w.detach().as_strided((min(_SAMPLED, w.numel()),), (1,)) for w in weights.model.parameters()
        ]
        self._values = self._now()

    def are(self, weights: Weights) -> bool:
        """Whether ``weights`` are these, and nothing was written to them."""
        return self._weights == weights and torch.equal(self._now(), self._values)

    def _now(self) -> Tensor:
        return torch.cat(self._sample) if self._sample else torch.empty(0)


class NativeBinding:
    """A native kernel with one fixed batch of atoms: what the potential adds to it, and the neighbour list's pairs."""

    asynchronous = False
    record = False  # as for :class:`DeviceBinding`, without effect

    def __init__(self, potential: Potential, native, systems: Systems, head: Tensor):
        self._run = native.prepare(systems, head)
        self._reference = potential.reference_energies(systems, head)

    def __call__(self, systems: Systems, neighbor_list: NeighborList, *, forces: bool, stress: bool) -> Prediction:
        """As :meth:`Potential.forward`, for other positions and cells of the same atoms."""
        pairs = neighbor_list.pairs_with_skin(systems)
        energies, found, virial = self._run(systems.positions.detach(), pairs, forces=forces or stress, virial=stress)
        return _prediction(systems, energies + self._reference, found if forces else None, virial if stress else None)


class DeviceBinding:
    """Kernels of a GPU with one fixed batch of atoms."""

    asynchronous = True

    def __init__(self, potential: Potential, kernel, systems: Systems, head: Tensor, record: bool):
        self._step = kernel.prepare(systems, head)
        self.record = record
        self._recorded = None
        self._reference = potential.reference_energies(systems, head)

    def __call__(self, systems: Systems, neighbor_list: NeighborList, *, forces: bool, stress: bool) -> Prediction:
        """As :meth:`NativeBinding.__call__`."""
        rows, positions = neighbor_list.rows_with_skin(systems), systems.positions.detach()
        if self.record:
            if self._recorded is None or not self._recorded.takes(rows):
                from omnicalc.kernels.recorded import Recorded

                self._recorded = None  # its memory first
                self._recorded = Recorded(self._step, positions, rows)
            energies, found, virial = self._recorded(positions, rows)
        else:
            energies, found, virial = self._step(positions, rows, forces=forces or stress)
        return _prediction(systems, energies + self._reference, found if forces else None, virial if stress else None)


def _prediction(systems: Systems, energies: Tensor, forces: Tensor | None, virial: Tensor | None) -> Prediction:
    """What atoms' energies (N,), forces (N, 3) and virials (N, 3, 3) make of a batch; what is None is left out."""
    from omnicalc.gradients import per_structure, stress_of
    from omnicalc.potential import Prediction

    energy = per_structure(energies, systems)
    tension = None if virial is None else stress_of(per_structure(virial, systems), systems)
    return Prediction(energy, energies, forces, tension)
