"""What watches over a run, so that it stops before it writes nonsense. Which, and how: see ``guard_settings``."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from ase.data import chemical_symbols, covalent_radii

from omnicalc.errors import GuardError, InputError
from omnicalc.md.bond_watch import BondWatch, Opened
from omnicalc.md.box import heights
from omnicalc.md.files import free_MB, replace_file
from omnicalc.md.guard_settings import GUARDS, guard_rules
from omnicalc.md.snapshot import blank, fill
from omnicalc.pair_search import search_pairs

if TYPE_CHECKING:
    from ase import Atoms
    from torch import Tensor

    from omnicalc.md.settings import Settings
    from omnicalc.md.state import State

_REMEDY = "start another run (--out) with a smaller --timestep, or from a relaxed structure"
_BOND_STEPS = 4  # bonds are looked at every so many steps: one opens in tens of them, and a look costs 15 µs or more
_SURROUNDINGS_FRAMES = 10  # a look, at every so many frames, costs about as much as forces
_QUANTUM_BOND = 2.0  # usual limit where atoms have zero-point energy as kinetic energy, see guard_settings
_NEAR = 4.0  # Å, how far the neighbour named beside an atom may be


class Seen(NamedTuple):
    """What guards ask about every state."""

    force: float  # eV/Å, largest component; not finite when any is not
    energy: float  # eV
    jump: float  # eV, of the energy since the state before
    excess: float  # Å, by how much the bond most open is longer than it may be; -inf where bonds are not looked at


class Guards:
    """All guards of a run. ``tell`` gets what is only warned about, once until it is over."""

    def __init__(self, settings: Settings, atoms: Atoms, folder: Path, tell: Callable[[str], None]):
        self.settings, self.folder, self.tell = settings, folder, tell
        self.rules = guard_rules(settings.guards)
        self.atoms, self.numbers, self.pbc = atoms, atoms.numbers, np.asarray(atoms.pbc)
        self.volume = abs(float(np.linalg.det(atoms.cell.array)))
        heat = max(1.0, settings.hottest_K / 300.0)
        self.jump_eV = (10.0 + math.sqrt(len(atoms))) * heat * self._limit("jump")
        self.force = self._limit("force")
        self.card_uncertainty: float | None = None  # eV/Å, the usual limit of these weights, where their card has one
        self.unlike: Callable | None = None  # tells atoms in surroundings that the training data do not have
        self.bonds = None if self.rules["bond"].action == "off" else BondWatch(atoms, self._bond_limit())
        self._over: set[str] = set()
        self._to_save: dict[Path, State] = {}
        self._places: list[str] = []  # of the last structure, and of others of its kind

    @property
    def tripped(self) -> frozenset[str]:
        """Guards that have warned, or saved a structure, of what is not over yet."""
        return frozenset(self._over)

    def go_on(self, tripped: frozenset[str]) -> None:
        """Be silent, as before a restart, of what was ``tripped`` then, until it is over."""
        self._over |= tripped
        if tripped:
            self.tell(f"warning: beyond the limit since before this restart: guard {', '.join(sorted(tripped))}")

    def look(self, state: State, before: State, centroid: Callable[[], Tensor] | None = None) -> Tensor:
        """(4,) float64 on the state's device, the numbers of :class:`Seen`; nothing waits for them. ``centroid`` as for
        :meth:`check_bonds`; without it bonds are not looked at.
        """
        excess = torch.full_like(state.heat, -math.inf)
        if centroid is not None and self._bonds_due(state) and len(self.bonds):
            excess = self.bonds.excess(centroid(), state.cell).max()
        energy = state.energy.sum()
        largest = torch.linalg.vector_norm(state.forces, math.inf)
        return torch.stack([largest, energy, energy - before.energy.sum(), excess])

    def check_step(self, state: State, before: State | None = None, seen: Seen | None = None) -> None:
        """Forces, energy and cell of a new state; costs one reduction, or none where it was ``seen`` before. Raises
        :class:`GuardError` where to stop.

        Values that are not finite stop a run whatever is configured: there is no going on from them.
        """
        seen = seen or Seen(*self.look(state, before or state).tolist())
        if not math.isfinite(seen.force) or not math.isfinite(seen.energy):
            raise GuardError(self._not_finite(state))
        self._judge("force", seen.force > self.force, state, lambda: self._large_force(state))
        if before is None:
            return
        self._judge("jump", abs(seen.jump) > self.jump_eV, state, lambda: self._jump(state, before, seen.jump))
        if state.cell is not before.cell:
            self._check_box(state)

    def check_beads(self, state: State, before: State) -> bool:
        """Whether nothing that :meth:`check_step` judges is the matter with any of several beads, by one look at all of
        them, energies (P,); else each is to be checked.
        """
        jump = (state.energy - before.energy).abs().max()  # not finite where an energy is not
        largest, jump = torch.stack([torch.linalg.vector_norm(state.forces, math.inf), jump]).tolist()
        calm = largest <= self.force and jump <= self.jump_eV
        if calm:
            self._over -= {"force", "jump"}
        return calm

    def check_bonds(self, state: State, centroid: Callable[[], Tensor], seen: Seen | None = None) -> None:
        """Bonds of the start, every few steps and with every frame; ``centroid`` gives positions (N, 3), Å: the centres
        of rings where nuclei are rings of beads, of which single ones may well leave.
        """
        if not self._bonds_due(state):
            return
        closed = seen is not None and seen.excess <= 0
        opened = None if closed else self.bonds.opened(centroid(), state.cell)
        self._judge("bond", opened is not None, state, lambda: self._opened(opened))

    def _bonds_due(self, state: State) -> bool:
        return self.bonds is not None and not (state.step % _BOND_STEPS and state.step % self.settings.interval)

    def check_frame(self, state: State, temperature_K: float, drift_eV: float | None = None) -> None:
        """What is looked at with every frame: temperature, distances, drift, disk."""
        usual = max(GUARDS["temperature"].limit, 20.0 * self.settings.hottest_K)
        hottest = self.rules["temperature"].limit or usual
        self._judge(
            "temperature",
            not temperature_K <= hottest,
            state,
            lambda: (
                f"the temperature is {temperature_K:.4g} K, above {hottest:g} K; "
                f"the fastest atom is {self._named(self._fastest(state))}; {_REMEDY}"
            ),
        )
        if self.rules["distance"].action != "off":
            close = self._too_close(state)
            self._judge("distance", close is not None, state, lambda: f"{close}; {_REMEDY}")
        if drift_eV is not None:
            limit = self._limit("drift") * state.n_atoms
            self._judge(
                "drift",
                not abs(drift_eV) <= limit,
                state,
                lambda: (
                    f"the conserved energy has drifted by {drift_eV:.4g} eV since the start, more than {limit:.4g} eV; "
                    "use a smaller --timestep, or a model whose forces are the gradient of its energy"
                ),
            )
        self.check_disk(state)

    def check_uncertainty(self, state: State, spread: Tensor | None) -> None:
        """``spread`` (N,), eV/Å, of the forces on each atom over a committee; None: the potential knows none.

        Raises :class:`InputError` at step 0 when the guard was asked for but there is nothing to look at.
        """
        rule = self.rules["uncertainty"]
        if spread is None:
            if state.step == 0 and "uncertainty" in self.settings.guards and rule.action != "off":
                raise InputError(
                    "guard uncertainty was asked for, but this model gives no spread of its forces, as it is no "
                    "committee; leave it out, or use --guard uncertainty=off"
                )
            return
        if rule.action == "off":
            return
        limit = rule.limit or self.card_uncertainty or GUARDS["uncertainty"].limit
        largest, atom = float(spread.max()), int(spread.argmax()) % len(self.numbers)  # of several beads, any one
        self._judge(
            "uncertainty",
            not largest <= limit,
            state,
            lambda: (
                f"the committee disagrees on the force on {self._named(atom)} by {largest:.3g} eV/Å, more than "
                f"{limit:g}{self._neighbour(state, atom)}; the structure is unlike the training data"
            ),
        )

    def check_surroundings(self, state: State) -> None:
        """Whether atoms are where the training data have none; told once, and then never looked at again."""
        if self.unlike is None or "surroundings" in self._over or self.rules["surroundings"].action == "off":
            return
        if state.step % (_SURROUNDINGS_FRAMES * self.settings.interval):
            return
        found = self.unlike(state.positions, state.cell)
        count = 0 if found is None else len(found.atoms)
        if count and count >= self._limit("surroundings"):
            self._judge("surroundings", True, state, lambda: f"{self._named(found.atom)} {found.words}")

    def check_disk(self, state: State) -> None:
        """Free space where the run writes."""
        if self.rules["disk"].action == "off":
            return
        free, least = free_MB(self.folder), self._limit("disk")
        self._judge(
            "disk",
            free < least,
            state,
            lambda: f"the disk of {self.folder} has {free:.0f} MB left, less than {least:g} MB; make room",
        )

    def _judge(self, name: str, tripped: bool, state: State, message: Callable[[], str]) -> None:
        if not tripped:
            self._over.discard(name)
            return
        action = self.rules[name].action
        if action == "off" or (name in self._over and action != "stop"):
            return
        text = f"at step {state.step} {message()}"
        if action == "stop":
            raise GuardError(f"{text} (guard {name}; --guard {name}=warn goes on)")
        self._over.add(name)
        if action == "save":
            path = self._place(name, state.step)
            self._to_save[path] = state
            self.save()
            text += f"; {'to be ' * (path in self._to_save)}saved as {path}"
        self.tell(f"warning: {text}")

    def _place(self, name: str, step: int) -> Path:
        """A file for a structure; several beads of one step are numbered."""
        kind = f"guard_{name}_{step}"
        self._places = [*self._places, kind] if kind in self._places else [kind]
        count = len(self._places)
        return self.folder / f"{kind}{f'_{count}' * (count > 1)}.xyz"

    def save(self) -> None:
        """Write the structures that are to be saved; those of the start wait until the run has its folder."""
        if not self.folder.is_dir():
            return
        for path, state in self._to_save.items():
            _save_structure(path, self.atoms, state, self.settings)
        self._to_save.clear()

    def _limit(self, name: str) -> float:
        return self.rules[name].limit or GUARDS[name].limit

    def _bond_limit(self) -> float:
        usual = _QUANTUM_BOND if self.settings.bath == "qtb" else GUARDS["bond"].limit
        return self.rules["bond"].limit or usual

    def _opened(self, bond: Opened) -> str:
        others = f" ({bond.others} more such bond{'s' * (bond.others > 1)})" if bond.others else ""
        return (
            f"{self._named(bond.i)} and {self._named(bond.j)}, bonded at the start, are {bond.length:.3f} Å apart, "
            f"more than {bond.allowed:.3f} Å{others}: a molecule has come apart, as it does where a model was not "
            "trained for such structures or the --timestep is too large; where reactions are wanted, --guard bond=off"
        )

    def _not_finite(self, state: State) -> str:
        bad = (~state.forces.isfinite()).any(dim=1)
        if not bool(bad.any()):
            return f"at step {state.step} the energy is not finite: {state.energy.tolist()} eV; {_REMEDY}"
        atom = int(bad.nonzero()[0, 0])
        return (
            f"at step {state.step} the force on {self._named(atom)} is not finite: {_vector(state, atom)} eV/Å"
            f"{self._neighbour(state, atom)}; {_REMEDY}"
        )

    def _large_force(self, state: State) -> str:
        atom = int(state.forces.abs().amax(dim=1).argmax())
        return (
            f"the force on {self._named(atom)} exceeds {self.force:g} eV/Å: {_vector(state, atom)} eV/Å"
            f"{self._neighbour(state, atom)}; {_REMEDY}"
        )

    def _jump(self, state: State, before: State, jump: float) -> str:
        atom = int((state.forces - before.forces).square().sum(dim=1).argmax())
        return (
            f"the potential energy has changed by {jump:.4g} eV in one step, more than {self.jump_eV:.4g} eV; the "
            f"force changed most on {self._named(atom)}{self._neighbour(state, atom)}; {_REMEDY}"
        )

    def _check_box(self, state: State) -> None:
        wrong = self._box(state.cell.cpu().numpy(), self._limit("box"))
        self._judge("box", wrong is not None, state, lambda: wrong)

    @cached_property
    def _heights(self) -> np.ndarray:
        return heights(self.atoms.cell.array)

    def _box(self, cell: np.ndarray, factor: float) -> str | None:
        """What is too large or too small of ``cell``, against the start."""
        expected, volume = f"no more than a factor {factor:g} is expected", abs(float(np.linalg.det(cell)))
        if not self.volume / factor <= volume <= self.volume * factor:
            return (
                f"the volume is {volume:.5g} Å^3, {volume / self.volume:.3g} times that of the start; {expected}. "
                "Check --pressure, and that the model knows this density"
            )
        now, start = heights(cell), self._heights
        worst = int(np.abs(np.log(now / start)).argmax())
        if not start[worst] / factor <= now[worst] <= start[worst] * factor:
            return (
                f"the cell is {now[worst]:.5g} Å high along {'abc'[worst]}, {now[worst] / start[worst]:.3g} times as "
                f"at the start; {expected}. A fluid resists no change of shape: --coupling isotropic keeps it"
            )
        return None

    def _too_close(self, state: State) -> str | None:
        """The closest pair, in words, when it is nearer than the limit times the sum of covalent radii."""
        radii = self._limit("distance") * covalent_radii[self.numbers]
        i, j, distance = _pairs(state, self.pbc, 2.0 * float(radii.max()))
        near = np.flatnonzero(distance < radii[i] + radii[j])
        if not near.size:
            return None
        k = near[distance[near].argmin()]
        a, b = sorted((int(i[k]), int(j[k])))
        return f"{self._named(a)} and {self._named(b)} are {distance[k]:.3f} Å apart, too close"

    def _neighbour(self, state: State, atom: int) -> str:
        """The neighbour nearest to ``atom``, in words; empty when there is none near."""
        try:
            i, j, distance = _pairs(state, self.pbc, _NEAR)
        except InputError:  # positions that are not finite
            return ""
        mine = np.flatnonzero(i == atom)
        if not mine.size:
            return ""
        k = mine[distance[mine].argmin()]
        return f", nearest to it {self._named(int(j[k]))} at {distance[k]:.3f} Å"

    def _fastest(self, state: State) -> int:
        return int((state.masses * state.velocities.square().sum(dim=1)).argmax())

    def _named(self, atom: int) -> str:
        return f"atom {atom} ({chemical_symbols[int(self.numbers[atom])]})"


def _pairs(state: State, pbc: np.ndarray, cutoff: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Target (E,), source (E,) and distance (E,), Å, of all pairs within ``cutoff``."""
    positions, cell = state.positions.cpu().numpy(), state.cell.cpu().numpy()
    i, j, shift = search_pairs(positions, cell, pbc, cutoff)
    return i, j, np.linalg.norm(positions[i] - positions[j] - shift @ cell, axis=1)


def _vector(state: State, atom: int) -> str:
    return "(" + ", ".join(f"{x:.4g}" for x in state.forces[atom].tolist()) + ")"


def _save_structure(path: Path, atoms: Atoms, state: State, settings: Settings) -> None:
    """Extended XYZ with positions, momenta and forces."""
    from ase.io import write

    buffer = io.StringIO()
    write(buffer, fill(blank(atoms, settings.fix), state, settings.timestep_fs), format="extxyz")
    replace_file(path, buffer.getvalue().encode())
