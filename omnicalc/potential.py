"""From per-atom energies to energy, forces and stress: typed heads, reference energies, gradients.

E = sum_i [e_i + ref_head(Z_i)],  F_i = -dE/dr_i,  stress = (1/V) dE/d(strain) at zero strain; how they are
differentiated is told in :mod:`omnicalc.gradients`. Sums and reference energies are float64 whatever the model's dtype.
"""

import pickle
import warnings
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from omnicalc.autocast import without_autocast
from omnicalc.errors import InputError, OmniCalcWarning
from omnicalc.gradients import geometry, per_structure, stress_of
from omnicalc.kernel_choice import KernelChoice
from omnicalc.models import build_model
from omnicalc.neighbor_list import DEFAULT_SKIN, NeighborList
from omnicalc.neighbors import Neighbors
from omnicalc.systems import Systems

if TYPE_CHECKING:
    from omnicalc.card import Card
    from omnicalc.joint_list import JointList
    from omnicalc.known_surroundings import Known


@dataclass(frozen=True)
class Head:
    """One level of theory: its name, the elements it knows, and its reference energies."""

    name: str
    reference: Mapping[int, float]  # atomic number -> eV
    level_of_theory: str = ""
    periodic: str = ""  # what it has seen of periodic structures: a key of omnicalc.card.PERIODIC; empty: not known

    @property
    def elements(self) -> frozenset[int]:
        return frozenset(self.reference)


@dataclass(frozen=True)
class Prediction:
    """Result for a batch of S structures with N atoms; energies and forces in eV and eV/Å, float64."""

    energy: Tensor  # (S,)
    energies: Tensor  # (N,), their sum over a structure is its energy
    forces: Tensor | None = None  # (N, 3)
    stress: Tensor | None = None  # (S, 3, 3), eV/Å^3, positive under tension as in ASE; NaN where a cell has no volume
    energy_std: Tensor | None = None  # (S,), eV, spread over a committee; None: there is none
    forces_std: Tensor | None = None  # (N,), eV/Å, root of the summed variances of an atom's three force components


class Potential(nn.Module):
    """A model with its heads. ``model`` maps a :class:`Graph` to per-atom energies without reference energies."""

    def __init__(
        self,
        model: nn.Module,
        heads: Sequence[Head],
        *,
        charges: Sequence[int] | None = None,
        spins: Sequence[int] | None = None,
    ):
        """``heads`` in order of preference and in the order of the model's own.

        ``charges`` and ``spins`` are the total charges and multiplicities that the weights were trained for; None: any
        (for spins also: the model does not look at them).
        """
        super().__init__()
        self.model = model
        self.heads = {head.name: head for head in heads}
        self.charges = None if charges is None else tuple(charges)
        self.spins = None if spins is None else tuple(spins)
        table = torch.full((len(self.heads), 119), torch.nan, dtype=torch.float64)  # of elements that a head knows
        for row, head in enumerate(self.heads.values()):
            for number, energy in head.reference.items():
                table[row, number] = energy
        self._reference = table  # not a buffer: it stays float64 when the model is cast
        self.name_resolved = "unnamed"
        self.sha256: str | None = None
        self.card: Card | None = None
        self.kernel = KernelChoice()
        self.folder: Path | None = None  # of the weights
        self.any_box = False  # whether periodic structures are taken whatever the heads were trained on
        self._spread = False
        self._warned: set[str] = set()  # heads

    @classmethod
    def from_card(cls, card: "Card", tensors: dict[str, Tensor]) -> "Potential":
        """The potential that a card describes, with ``tensors`` loaded strictly."""
        model = build_model(card.family, card.config)
        model.load_state_dict(tensors, strict=True)
        heads = [Head(h.name, h.reference_by_number, h.level_of_theory, h.periodic) for h in card.heads]
        spins = None if card.spins == "ignored" else card.spins
        potential = cls(model, heads, charges=card.charges, spins=spins)
        potential.card = card
        return potential

    @cached_property
    def known_surroundings(self) -> "dict[str, Known]":
        """By head, within what bounds the surroundings of atoms lie in the training data; for those that say it."""
        from omnicalc.known_surroundings import FILE, read_known

        return {} if self.folder is None else read_known(self.folder / FILE)

    @property
    def cutoff(self) -> float:
        """Radius of the neighbour list that the model needs, Å."""
        return self.model.cutoff

    @property
    def conservative(self) -> bool:
        """Whether forces are the gradient of the energy."""
        return self.model.conservative

    @property
    def dtype(self) -> torch.dtype:
        return next(self.model.parameters()).dtype

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    def choose_head(self, systems: Systems, head: str | None = None) -> str:
        """The named head, or else the first in order of preference that knows all elements present.

        Raises:
            InputError: unknown head name; an element that the head (or every head) does not know; a total charge or
                spin that the weights were not trained for; structures that the model itself refuses (``model.check``);
                periodic ones at a head that knows single molecules only; a head without a committee whose spread is
                asked for.

        Warns once, by :class:`OmniCalcWarning`, of periodic structures at a head that was trained on none.
        """
        from ase.data import chemical_symbols

        if hasattr(self.model, "check"):
            self.model.check(systems)
        present = set(systems.numbers.unique().tolist())
        candidates = list(self.heads.values()) if head is None else [self.named_head(head)]
        chosen = next((h for h in candidates if present <= h.elements), None)
        if chosen is None:
            known = frozenset().union(*(h.elements for h in candidates))
            missing = present - known or present - max(candidates, key=lambda h: len(h.elements)).elements
            names = ", ".join(chemical_symbols[z] for z in sorted(missing))
            lists = "; ".join(
                f"head '{h.name}' knows {', '.join(chemical_symbols[z] for z in sorted(h.elements))}"
                for h in candidates
            )
            raise InputError(f"{self.name_resolved} does not know element {names}: {lists}; {self._who_knows(present)}")
        self._check_trained_for("charge", systems.charge, self.charges)
        self._check_shells(systems)
        self._check_trained_for("spin", systems.spin, self.spins)
        if bool(systems.pbc.any()) and not self.any_box:
            self._check_box(chosen, present)
        return self.named_head(chosen.name).name

    def _check_box(self, head: Head, present: set[int]) -> None:
        """What the training data say of periodic structures."""
        if head.periodic == "refused":
            raise InputError(
                f"head '{head.name}' of {self.name_resolved} was trained on single molecules in vacuum: it knows "
                "nothing of what surrounds one in a periodic box; take the periodicity off (--no-pbc, or atoms.pbc = "
                f"False) if an isolated molecule is meant. {self._who_knows_boxes(present)}"
            )
        if head.periodic == "untrained" and head.name not in self._warned:
            self._warned.add(head.name)
            warnings.warn(
                f"head '{head.name}' of {self.name_resolved} was trained on molecules and clusters in vacuum, on no "
                "periodic structure: density, pressure and all that a bulk has are not to be relied on. "
                f"{self._who_knows_boxes(present)}",
                OmniCalcWarning,
                stacklevel=3,
            )

    def _who_knows_boxes(self, present: set[int]) -> str:
        from omnicalc.registry import list_models

        names: dict[str, str] = {}  # name and tag -> head to name, where another one would be taken
        for m in list_models():
            head = next((h for h in m.heads if h in m.periodic and present <= m.numbers_of(h)), None)
            if head is not None:
                names.setdefault(f"{m.name}:{m.tag}", "" if head == m.head_for(present) else f" --head {head}")
        if not names:
            return "No model here was trained on periodic structures of these elements"
        listed = ", ".join(name + head for name, head in names.items())
        return f"Trained on periodic structures of these elements: {listed}"

    def _check_shells(self, systems: Systems) -> None:
        """Refuse a number of electrons that fits none of the spins that the weights were trained for."""
        protons = torch.zeros_like(systems.charge).index_add_(0, systems.system, systems.numbers)
        for n, charge in zip((protons - systems.charge).tolist(), systems.charge.tolist(), strict=True):
            if self.spins is not None and not any((n + spin) % 2 for spin in self.spins):
                raise InputError(
                    f"{n} electrons (charge {charge:+d}) have no spin that {self.name_resolved} was trained for "
                    f"(2S+1 = {_listed(self.spins)}); give the charge with atoms.info['charge'] (or --charge), or "
                    "choose another model with `omnicalc models`"
                )

    def _who_knows(self, present: set[int]) -> str:
        """What to type instead: another head of these weights, or other models in the registry."""
        head = next((h.name for h in self.heads.values() if present <= h.elements), None)
        if head is not None:
            return (
                f"head '{head}' knows all of them: use it with --head {head}, or head='{head}' in Python, for all "
                "structures (energies of two heads do not compare)"
            )
        from omnicalc.registry import potentials_for

        names = potentials_for(present)
        if names:
            return f"models that know all of them: {', '.join(names)}; use one with --model"
        return "no model here knows all of them (`omnicalc models` lists what there is)"

    def _check_trained_for(self, key: str, values: Tensor, allowed: tuple[int, ...] | None) -> None:
        wrong = [] if allowed is None else [x for x in values.tolist() if x not in allowed]
        if wrong:
            raise InputError(
                f"total {key} {wrong[0]}, but {self.name_resolved} was trained for "
                f"{_listed(allowed)} only; "
                f"set atoms.info['{key}'] (or --{key}) accordingly, or choose another model with `omnicalc models`"
            )

    def forward(
        self,
        systems: Systems,
        neighbors: Neighbors,
        *,
        head: str | Tensor,
        forces: bool = True,
        stress: bool = False,
        create_graph: bool = False,
    ) -> Prediction:
        """Energies of a batch, and forces and stress on request.

        Args:
            head: name of one head for the whole batch, or an (S,) int64 tensor of head indices.
            create_graph: results can be differentiated, by parameters (training), positions and cells (Hessians) that
                require gradients; otherwise they are detached.

        Raises:
            InputError: a head that there is not, that does not know an element, or without the spread that is asked
                for; neighbours within less than the cutoff; forces of structures that were made inside
                ``torch.inference_mode()``. All else that weights were not made for is for :meth:`choose_head` to find.
        """
        self._check_reach(neighbors.cutoff)
        need_gradient = stress or (forces and self.conservative)
        if need_gradient and systems.positions.is_inference():
            raise InputError(
                "these structures were made inside torch.inference_mode(), where no force can be had: make them "
                "outside of it, use torch.no_grad() in its place, or OmniCalc, which works inside"
            )
        found, virial = None, None
        mixed = getattr(self.model, "mixed_precision", True)
        with (
            torch.inference_mode(False),
            torch.set_grad_enabled(need_gradient or create_graph),
            nullcontext() if mixed else without_autocast(self.device),  # here, for it reaches gradients too
            sdpa_kernel(SDPBackend.MATH) if create_graph else nullcontext(),  # others have no second derivatives
        ):
            index = self.head_index(head, systems)
            at = geometry(self.model, systems, neighbors, self.dtype, need_gradient)
            output = self.model(at.graph(index), spread=True) if self.spread else self.model(at.graph(index))
            energies = output.energies.double() + self.reference_energies(systems, index)
            energy = per_structure(energies, systems)
            energy_std, forces_std = self._spread_of(output, at, systems, forces)
            if need_gradient:
                found, virial = at.derivatives(energy, virial=stress, create_graph=create_graph)
        if not forces:
            found = None
        elif not self.conservative:
            found = output.forces.double()
        tension = stress_of(virial, systems) if stress else None
        result = Prediction(energy, energies, found, tension, energy_std, forces_std)
        return result if create_graph else _detached(result)

    @property
    def committee_heads(self) -> tuple[str, ...]:
        """Names of the heads that the weights hold a committee for, whose spread can be asked for."""
        members = getattr(self.model, "committee", None)  # (heads, M, C + 1), zero where there is none
        if members is None:
            return ()
        return tuple(name for name, made in zip(self.heads, members.flatten(1).any(1).tolist(), strict=True) if made)

    @property
    def spread(self) -> bool:
        """Whether predictions carry ``energy_std`` and ``forces_std``; each member costs another backward pass, in
        plain torch. Setting it raises :class:`InputError` for weights without a committee.
        """
        return self._spread

    @spread.setter
    def spread(self, wanted: bool) -> None:
        if wanted and not self.committee_heads:
            can = hasattr(self.model, "last_features") and self.conservative
            remedy = "make one with `omnicalc committee MODEL DATA --out FOLDER`"
            raise InputError(
                f"{self.name_resolved} holds no committee, so it knows no spread; "
                + (remedy if can else "only weights of the family e2former with forces by gradients can have one")
            )
        self._spread = bool(wanted)

    def named_head(self, head: str) -> Head:
        """Raises :class:`InputError` for one that there is not, or has no committee but is to tell its spread."""
        if head not in self.heads:
            raise InputError(f"unknown head '{head}'; {self.name_resolved} has: {', '.join(self.heads)}")
        if self.spread and head not in self.committee_heads:
            known = self.committee_heads
            raise InputError(
                f"head '{head}' of {self.name_resolved} has no committee, so it knows no spread; heads with one: "
                f"{', '.join(known)}; take one of them (--head {known[0]}, or head='{known[0]}' in Python), or make "
                f"one with `omnicalc committee MODEL DATA --head {head} --out FOLDER`"
            )
        return self.heads[head]

    def _spread_of(self, output, at, systems: Systems, forces: bool) -> tuple[Tensor | None, Tensor | None]:
        """Spread of energies (S,) and forces (N,) over the committee: root mean squares of its deviations."""
        if output.deviations is None:
            return None, None
        members = output.deviations.double()
        energy = members.new_zeros(len(members), systems.n_systems).index_add(1, systems.system, members)
        energy_std = energy.square().mean(0).sqrt()
        if not (forces and self.conservative):
            return energy_std, None
        apart = [at.derivatives(e, virial=False, again=True)[0].square().sum(-1) for e in energy]
        return energy_std, torch.stack(apart).mean(0).sqrt()

    def reference_energies(self, systems: Systems, head: Tensor) -> Tensor:
        """(N,) float64, eV: energies of free atoms at the level of theory of each structure's head, (S,) indices."""
        return self.reference_values(systems.numbers, head[systems.system])

    def reference_values(self, numbers: Tensor, head: Tensor) -> Tensor:
        """(N,) float64: what each atom (N,) adds at its structure's head (N,), in the head's unit."""
        return self._reference.to(self.device)[head, numbers]

    def predict(
        self, systems: Systems, neighbor_list: NeighborList, *, head: str, forces: bool = True, stress: bool = False
    ) -> Prediction:
        """As :meth:`forward`, by the fastest kernel there is, with a neighbour list that is kept between calls.

        An autocast around it is meant for other networks, and changes nothing.
        """
        self._check_reach(neighbor_list.cutoff)
        with without_autocast(self.device):
            index = self.head_index(head, systems)
            binding = self.kernel.binding_of_call(self, systems, index)
            if binding is None:
                return self(systems, neighbor_list.update(systems), head=head, forces=forces, stress=stress)
            return binding(systems, neighbor_list, forces=forces, stress=stress)

    def _check_reach(self, cutoff: float) -> None:
        """Refuse a neighbour list that leaves out some of what the model sees, for energies would be others."""
        if cutoff < self.cutoff:
            raise InputError(
                f"neighbours within {cutoff:g} Å given; {self.name_resolved} needs those within {self.cutoff:g} Å "
                "(potential.cutoff)"
            )

    def head_index(self, head: str | Tensor, systems: Systems) -> Tensor:
        """(S,) int64: the row of the named head, for every structure; a tensor as it is.

        Raises :class:`InputError` for a name or a row that there is not, for elements that a head does not know, or
        without the spread that is asked for.
        """
        index = self._rows(head, systems)
        unknown = self.reference_energies(systems, index).isnan()
        if bool(unknown.any()):
            from ase.data import chemical_symbols

            atom = int(unknown.nonzero()[0])
            name, symbol = list(self.heads)[index[systems.system[atom]]], chemical_symbols[systems.numbers[atom]]
            raise InputError(f"head '{name}' of {self.name_resolved} does not know element {symbol} (atom {atom})")
        return index

    def _rows(self, head: str | Tensor, systems: Systems) -> Tensor:
        if isinstance(head, Tensor):
            if head.shape != (systems.n_systems,) or not all(0 <= row < len(self.heads) for row in head.tolist()):
                raise InputError(
                    f"heads {head.tolist()} given; the name of one, or a row from 0 to {len(self.heads) - 1} for each "
                    f"of {systems.n_systems} structures is needed: {', '.join(self.heads)}"
                )
            return head
        row = list(self.heads).index(self.named_head(head).name)
        return torch.full((systems.n_systems,), row, device=systems.numbers.device)

    def bind(self, systems: Systems, *, head: str | None = None, skin: float = DEFAULT_SKIN) -> "BoundPotential":
        """This potential on one fixed set of atoms, with a neighbour list of its own."""
        return BoundPotential(self, systems, self.choose_head(systems, head), NeighborList(self.cutoff, skin))


def _in_one_piece(potential: Potential):
    """How a potential goes to another process: as bytes.

    Torch would move every tensor to shared memory instead, each with a file descriptor that stays open here.
    """
    return pickle.loads, (pickle.dumps(potential),)


ForkingPickler.register(Potential, _in_one_piece)


class BoundPotential:
    """Forces as a function of positions alone, for molecular dynamics and relaxation."""

    def __init__(self, potential: Potential, systems: Systems, head: str, neighbor_list: "NeighborList | JointList"):
        self.potential = potential
        self.systems = systems.to(potential.device)
        self.head = head
        self.neighbor_list = neighbor_list
        index = potential.head_index(head, self.systems)
        self._native = potential.kernel.binding(potential, self.systems, index, record=True)

    @property
    def asynchronous(self) -> bool:
        """Whether a call returns before its results are there, and waits for none but those of the neighbour list."""
        return self._native is not None and self._native.asynchronous

    def __call__(self, positions: Tensor, *, stress: bool = False) -> Prediction:
        """Energy, forces and, on request, stress at ``positions`` (N, 3) float64, Å."""
        systems = self.systems.with_positions(positions)
        if self._native is not None:
            return self._native(systems, self.neighbor_list, forces=True, stress=stress)
        return self.potential(systems, self.neighbor_list.update(systems), head=self.head, stress=stress)


def _listed(numbers: tuple[int, ...]) -> str:
    """Whole numbers for people: "-10 to 10" where they are many and none between is left out."""
    if len(numbers) > 5 and list(numbers) == list(range(numbers[0], numbers[-1] + 1)):
        return f"{numbers[0]} to {numbers[-1]}"
    return ", ".join(map(str, numbers))


def _detached(result: Prediction) -> Prediction:
    return Prediction(*(None if t is None else t.detach() for t in vars(result).values()))
