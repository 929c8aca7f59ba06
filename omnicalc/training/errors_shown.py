"""What validation errors are called, and in what units they are shown: in reports, tables, curves and on cards."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ase.units import GPa


@dataclass(frozen=True)
class Shown:
    """One error of those that objectives have, which logs hold in eV and Å."""

    title: str
    unit: str = ""
    factor: float = 1.0  # to that unit
    digits: int = 4  # in tables
    on_cards: str = ""  # its name there; empty: as in logs
    in_reports: str = ""  # its text there, which may also say {gpa}; empty: name and four figures


SHOWN = {
    "force_mae": Shown("force MAE", "meV/Å", 1e3, 1, "force_mae_meV_per_A", "force MAE {:.1f} meV/Å"),
    "force_rmse": Shown("force RMSE", "meV/Å", 1e3, 1, "force_rmse_meV_per_A", "RMSE {:.1f}"),  # after the other
    "energy_mae": Shown("energy MAE", "meV/atom", 1e3, 2, "energy_mae_meV_per_atom", "energy MAE {:.3f} meV/atom"),
    "stress_mae": Shown(
        "stress MAE", "meV/Å^3", 1e3, 3, "stress_mae_meV_per_A3", "stress MAE {:.3f} meV/Å^3 ({gpa:.4f} GPa)"
    ),
    "property_mae": Shown("property MAE"),
    "denoising_rmse": Shown("noise RMSE", "normalised"),
    "noise_rmse": Shown("noise RMSE", "normalised"),
}
CURVES = ("force_mae", "energy_mae")
_TABLE = ("force_mae", "energy_mae", "stress_mae", "property_mae", "denoising_rmse", "noise_rmse")


def reported_names(names: Iterable[str]) -> tuple[str, ...]:
    """Names of errors as they are reported: mean squares by their roots, ..._mse -> ..._rmse."""
    return tuple(n.removesuffix("_mse") + "_rmse" if n.endswith("_mse") else n for n in names)


def rooted(errors: dict[str, float]) -> dict[str, float]:
    """Errors by the names as they are reported, mean squares as their roots."""
    values = [v**0.5 if n.endswith("_mse") else v for n, v in errors.items()]
    return dict(zip(reported_names(errors), values, strict=True))


def in_words(errors: dict[str, float]) -> str:
    """One line for a report, without what nothing had a label for."""
    parts = []
    for name, value in errors.items():
        if not math.isnan(value):
            shown = SHOWN.get(name, Shown(name))
            parts.append((shown.in_reports or name + " {:.4g}").format(shown.factor * value, gpa=value / GPa))
    return ", ".join(parts)


def on_cards(errors: dict[str, float]) -> dict[str, float]:
    """Rounded, by names that say the unit where it is not that of the log; without what nothing had a label for."""
    known = {name: SHOWN.get(name, Shown(name)) for name, value in errors.items() if not math.isnan(value)}
    return {shown.on_cards or name: round(shown.factor * errors[name], 3) for name, shown in known.items()}


def before_and_after(rows: Sequence[dict]) -> str:
    """A table of the validation errors at the first and the last line of a run's log, of every source."""
    first, last = min(int(r["step"]) for r in rows), max(int(r["step"]) for r in rows)
    shown = {name: SHOWN[name] for name in _TABLE if name in rows[0]}
    if not any(r.get("stress_mae") for r in rows):
        shown.pop("stress_mae", None)
    titles = (f"{s.title}, {s.unit}" if s.unit else s.title for s in shown.values())
    lines = [f"{'validation':<28}" + "".join(f" {title:>26}" for title in titles)]
    for r in rows:
        if int(r["step"]) != last or r["group"] != "all":
            continue
        old = next(o for o in rows if int(o["step"]) == first and (o["source"], o["group"]) == (r["source"], "all"))
        pairs = [_pair(*(float(row[name] or "nan") for row in (old, r)), s) for name, s in shown.items()]
        lines.append(f"{r['source'][:28]:<28}" + "".join(f" {pair:>26}" for pair in pairs))
    return "\n".join(lines)


def _pair(old: float, new: float, shown: Shown) -> str:
    if math.isnan(old) and math.isnan(new):  # nothing has a label for it
        return "-"
    return f"{shown.factor * old:.{shown.digits}f} -> {shown.factor * new:.{shown.digits}f}"
