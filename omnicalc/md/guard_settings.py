"""What watches over a run: names, usual limits and actions of the guards, and how they are given.

``--guard NAME=ACTION`` or ``NAME=ACTION:LIMIT``, several with commas: ``--guard drift=stop:0.005,distance=warn``.

Why a bond may stretch by half: at 600 K an O-H bond moves by 0.03 Å (root mean square), and a stretch by half costs
2.2 eV (Morse, 5.1 eV deep, 2.2 per Å), 42 times k_B T; a proton that has gone to a neighbouring water is beyond it
within a vibration or two. In the quantum bath that stretch is only ten times the energy of the vibration; a factor of 2
is seventeen times.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from omnicalc.errors import InputError
from omnicalc.md.positive import positive

ACTIONS = {
    "stop": "save the last good state and stop",
    "save": "go on, and keep the structure in guard_NAME_STEP.xyz",
    "warn": "go on, and say so",
    "off": "do not look",
}


class Rule(NamedTuple):
    action: str  # a key of ACTIONS
    limit: float | None  # None: the usual one


class Guard(NamedTuple):
    """A guard as it is without being asked."""

    action: str
    limit: float
    meaning: str  # of the limit


GUARDS: Mapping[str, Guard] = {
    "force": Guard("stop", 1000.0, "eV/Å, largest force component on an atom; a hundred times those in hot water"),
    "temperature": Guard("stop", 10_000.0, "K, or twenty times the bath where that is more"),
    "jump": Guard("stop", 1.0, "times (10 + sqrt(atoms)) eV, more above 300 K, change of potential energy in a step"),
    "distance": Guard("stop", 0.5, "times the sum of covalent radii, shortest distance of two atoms, at every frame"),
    "bond": Guard(
        "stop",
        1.5,
        "times its length at the start or the sum of covalent radii, whichever is more, that a bond of "
        "the start may stretch to; with --beads between centres of rings; 2 with the quantum bath",
    ),
    "drift": Guard("warn", 0.02, "eV per atom, change of the conserved energy since the start"),
    "box": Guard("stop", 3.0, "factor by which volume or a height of the cell may grow or shrink since the start"),
    "uncertainty": Guard(
        "stop", 1.0, "eV/Å, spread of the force on an atom over a committee; the weights' card may say less or more"
    ),
    "surroundings": Guard(
        "warn",
        1.0,
        "atoms, at least so many in surroundings that the training data do not have, at every tenth frame until it was "
        "told once; by weights that know these",
    ),
    "disk": Guard("stop", 100.0, "MB, free space below which the run stops while everything still fits"),
}


def guard_rules(text: str) -> dict[str, Rule]:
    """What ``text`` asks for, every guard by name; :class:`InputError` when it cannot be read."""
    rules = {name: Rule(guard.action, None) for name, guard in GUARDS.items()}
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        name, _, rest = part.partition("=")
        action, _, limit = rest.partition(":")
        if name not in GUARDS:
            raise InputError(f"unknown guard '{name}'; known: {', '.join(GUARDS)} (--guard NAME=ACTION)")
        if action not in ACTIONS:
            raise InputError(
                f"unknown action '{action}' of guard {name}; known: {', '.join(ACTIONS)} (--guard {name}=stop)"
            )
        rules[name] = Rule(action, _limit(name, limit) if limit else None)
    return rules


def _limit(name: str, text: str) -> float:
    value = positive(text)
    if value is None:
        raise InputError(
            f"guard {name} has the limit '{text}'; a positive number is needed ({GUARDS[name].meaning}), "
            f"as in --guard {name}=stop:{GUARDS[name].limit:g}"
        )
    return value
