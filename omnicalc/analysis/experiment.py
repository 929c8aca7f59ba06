"""Measured pair distributions of liquid water, drawn beside computed ones (reference/water/README.md)."""

from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import numpy as np

from omnicalc.analysis.peaks import first_shell
from omnicalc.analysis.topology import UNKNOWN

MOLECULES_PER_A3 = 0.033328  # 0.99705 g/cm^3, 298 K
_MIN_WATER = 0.90  # of all atoms: 7 mol/L NaCl has 0.92
_H_PER_O = (1.8, 2.2)
_UP_TO = 10.0  # Å
_SPACING = 0.01  # Å


@dataclass(frozen=True)
class Experiment:
    """A measured g(r), on bins of 0.01 Å up to 10 Å, with the features found by the code that finds ours."""

    pair: tuple[str, str]
    label: str
    citation: str
    temperature: float  # K
    without_molecule: bool  # pairs inside one molecule are not part of the curve
    r: np.ndarray  # (n,) Å
    g: np.ndarray  # (n,)
    std: np.ndarray  # (n,)
    peak: tuple[float, float]  # r in Å, g
    minimum: tuple[float, float]  # r in Å, g
    coordination: dict[str, float]  # to the minimum, from the density of water at 298 K


@dataclass(frozen=True)
class _Source:
    file: str
    without_molecule: bool
    temperature: float  # K
    label: str
    citation: str


_SOPER = "A. K. Soper, ISRN Phys. Chem. 2013, 279463 (2013)"
_SKINNER = "L. B. Skinner, C. J. Benmore, J. C. Neuefeind, J. B. Parise, J. Chem. Phys. 141, 214507 (2014)"
_EPSR = "experiment: water, neutrons + X-rays, 298 K (Soper 2013), without pairs inside molecules"
_SOURCES = {
    ("O", "O"): _Source(
        "gOO_skinner2014_xray_295.1K.csv",
        False,
        295.1,
        "experiment: water, X-rays, 295.1 K (Skinner 2014)",
        _SKINNER,
    ),
    ("O", "H"): _Source("gOH_soper2013_298K.csv", True, 298.0, _EPSR, _SOPER),
    ("H", "H"): _Source("gHH_soper2013_298K.csv", True, 298.0, _EPSR, _SOPER),
}


def is_water_like(counts: dict[str, int]) -> bool:
    """Whether nearly all atoms are oxygen and hydrogen, two hydrogens for one oxygen (salt water counts)."""
    h, o, atoms = counts.get("H", 0), counts.get("O", 0), sum(n for e, n in counts.items() if e != UNKNOWN)
    return o > 0 and (h + o) >= _MIN_WATER * atoms and _H_PER_O[0] <= h / o <= _H_PER_O[1]


def experiment_for(pair: tuple[str, str], counts: dict[str, int]) -> Experiment | None:
    """The measured curve of liquid water for a pair of a water-like system, in either order, or None."""
    if not is_water_like(counts):
        return None
    known = pair if pair in _SOURCES else pair[::-1]
    return _load(known) if known in _SOURCES else None


@cache
def _load(pair: tuple[str, str]) -> Experiment:
    source = _SOURCES[pair]
    text = (files("omnicalc.analysis") / "reference" / "water" / source.file).read_text(encoding="ascii")
    rows = np.array([line.split(",") for line in text.split()[1:]], dtype=float)
    r = np.arange(_SPACING / 2, _UP_TO, _SPACING)
    g, std = (np.interp(r, rows[:, 0], rows[:, column]) for column in (1, 2))
    shell = first_shell(r, g)
    within = np.cumsum(4 * np.pi * MOLECULES_PER_A3 * r**2 * g) * _SPACING  # up to r + spacing / 2
    integral = float(np.interp(shell.minimum.r, r + _SPACING / 2, within))
    per_molecule = {"O": 1, "H": 2}
    coordination = {f"{b} around {a}": integral * per_molecule[b] for a, b in dict.fromkeys((pair, pair[::-1]))}
    return Experiment(
        pair,
        source.label,
        source.citation,
        source.temperature,
        source.without_molecule,
        r,
        g,
        std,
        (shell.peak.r, shell.peak.g),
        (shell.minimum.r, shell.minimum.g),
        coordination,
    )
