"""The ladder of self-consistent-field attempts: cheap first, sturdier where that fails; nothing unconverged leaves."""

from __future__ import annotations

from collections.abc import Callable

from omnicalc.data.labels.label import LabelError
from omnicalc.data.labels.method import Method

_COARSE_GRID = 0  # the first cycles, far from the solution, need no fine grid
_COARSE_CONVERGENCE = 1e-5
_MOST_CYCLES = 80  # of the last, plain run
_RUNGS = (
    {},
    {"level_shift": 0.3, "damp": 0.3, "max_cycle": 150},
    {"level_shift": 0.5, "damp": 0.6, "max_cycle": 200, "init_guess": "huckel"},
)


def converge(field_with_grid: Callable[[int], object], method: Method) -> tuple[object, int]:
    """A converged mean field, and the rung of the ladder that it took: 0 plain DIIS, 1 and 2 shifted and damped,
    3 second order (Newton) from the last density.

    Whatever helped on the way, the last cycles are plain, to the method's convergence on its own grid.

    Raises:
        LabelError: no rung converged.
    """
    density = None
    for rung, help_ in enumerate(_RUNGS):
        first = field_with_grid(min(_COARSE_GRID, method.grid))
        first.conv_tol = _COARSE_CONVERGENCE
        for key, value in help_.items():
            setattr(first, key, value)
        first.kernel()
        density = first.make_rdm1()
        if not first.converged:
            continue
        last = _last(field_with_grid, method)
        last.kernel(dm0=density)
        if last.converged:
            return last, rung
        density = last.make_rdm1()
    newton = _last(field_with_grid, method).newton()
    newton.verbose = 0
    newton.kernel(dm0=density)
    if newton.converged:
        plain = _last(field_with_grid, method)
        plain.kernel(dm0=newton.make_rdm1())
        if plain.converged and plain.e_tot <= newton.e_tot + method.convergence * 10:
            return plain, len(_RUNGS)
    raise LabelError(f"the self-consistent field of {method.name} did not converge on any of {len(_RUNGS) + 1} rungs")


def _last(field_with_grid: Callable[[int], object], method: Method):
    field = field_with_grid(method.grid)
    field.conv_tol = method.convergence
    field.max_cycle = _MOST_CYCLES
    return field
