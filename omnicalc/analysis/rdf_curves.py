"""What is known of one pair: its g(r), first shell and coordination numbers, ours or from elsewhere."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

Pair = tuple[str, str]  # elements, or selections as they were given
_LONGEST = 60  # letters of a selection in a file name


@dataclass(frozen=True)
class Value:
    """A number with its standard error, None where there were too few frames for one."""

    value: float
    stderr: float | None


Point = tuple[Value, Value]  # r in Å, g


@dataclass(frozen=True)
class PairRDF:
    """g(r) of one pair of elements or selections, on bins of equal width."""

    pair: Pair
    pairs: int  # ordered pairs that were counted in each frame
    left_out: int  # ordered pairs inside molecules that were not
    r: np.ndarray  # (n,) bin centres, Å
    g: np.ndarray  # (n,)
    g_stderr: np.ndarray | None  # (n,)
    around: dict[str, np.ndarray]  # "O around O" -> (n,) running coordination number at r
    peak: Point | None  # first peak
    minimum: Point | None  # first minimum behind it
    coordination: dict[str, Value]  # running coordination number at the first minimum

    @property
    def name(self) -> str:
        return "-".join(self.pair)

    def columns(self) -> dict[str, np.ndarray]:
        """r_angstrom, g, g_stderr (``nan`` without error bars) and the running coordination number, each (n,).

        That is ``n`` for like pairs; for unlike ones ``n_H_around_O`` and ``n_O_around_H``. r is the centre of a
        bin, and half of the bin's own pairs count as within r.
        """
        stderr = np.full_like(self.g, np.nan) if self.g_stderr is None else self.g_stderr
        names = ["n"] if len(self.around) == 1 else ["n_" + name.replace(" ", "_") for name in self.around]
        running = dict(zip(names, self.around.values(), strict=True))
        return {"r_angstrom": self.r, "g": self.g, "g_stderr": stderr, **running}


@dataclass(frozen=True)
class Curve:
    """g(r) of one pair from elsewhere, to draw and tabulate beside ours."""

    label: str
    r: np.ndarray  # (n,) Å
    g: np.ndarray  # (n,)
    g_stderr: np.ndarray | None  # (n,)
    peak: Point | None
    minimum: Point | None
    coordination: dict[str, Value]
    without_molecule: bool | None  # pairs inside molecules were left out; None where that is not known


def names_of(pairs: Iterable[Pair]) -> dict[Pair, str]:
    """A name of each pair that is fit for files: ``O-H``, ``resname_MG-name_OP1``; repeated ones are numbered."""
    names: dict[Pair, str] = {}
    for pair in pairs:
        parts = (re.sub(r"[^A-Za-z0-9]+", "_", text).strip("_")[:_LONGEST] for text in pair)
        name = first = "-".join(parts)
        number = 1
        while name in names.values():
            number += 1
            name = f"{first}_{number}"
        names[pair] = name
    return names


def peak_difference(rdf: PairRDF, curve: Curve) -> Point | None:
    """Ours minus theirs: first-peak position (Å) and height, errors added in quadrature."""
    if rdf.peak is None or curve.peak is None:
        return None
    return tuple(_minus(a, b) for a, b in zip(rdf.peak, curve.peak, strict=True))


def _minus(a: Value, b: Value) -> Value:
    known = a.stderr is not None and b.stderr is not None
    return Value(a.value - b.value, float(np.hypot(a.stderr, b.stderr)) if known else None)
