"""What the tasks of a published AllScAIP checkpoint say: the scale of its energies, and reference energies.

Tasks are a list of tables, or a table of them by name. What is there is understood or refused, never passed over.
"""

from collections.abc import Mapping
from math import isfinite
from pathlib import Path

from torch import Tensor

from omnicalc.errors import WeightsError

HIGHEST = 83  # elements beyond have references that are not of one kind


def recorded_scale(tasks: object, file: Path) -> float | None:
    """What the network's energies and forces are multiplied by: the one ``rmsd`` of the tasks; None without any.

    Raises:
        WeightsError: a normalizer that is not understood, whose mean is not 0, or another task's that differs.
    """
    scales = set()
    for name, normalizer in _parts(tasks, "normalizer", file):
        if not isinstance(normalizer, Mapping) or normalizer.get("rmsd") is None:
            raise WeightsError(f"{file}: task {name}: normalizer {normalizer!r} is not understood; 'rmsd' is needed")
        scale, mean = _number(normalizer["rmsd"]), normalizer.get("mean")
        if scale is None or scale <= 0:
            raise WeightsError(f"{file}: task {name}: rmsd = {normalizer['rmsd']!r}; a number above zero is needed")
        if mean is not None and _number(mean) != 0:
            raise WeightsError(f"{file}: task {name}: mean = {mean!r} is not supported; 0 is")
        scales.add(scale)
    if len(scales) > 1:
        raise WeightsError(f"{file}: tasks with different scales {sorted(scales)} are not supported")
    return scales.pop() if scales else None


def recorded_references(tasks: object, file: Path) -> list[float] | None:
    """Reference energies, eV, by atomic number from 0 to ``HIGHEST`` at least; None where no task has any.

    Raises:
        WeightsError: references that are not understood, too short or not finite, or another task's that differ.
    """
    found = None
    for name, given in _parts(tasks, "element_references", file):
        values = _numbers(given)
        if fault := _fault(values):
            raise WeightsError(
                f"{file}: task {name}: its element references are {fault}; {HIGHEST + 1} finite numbers or more, in eV "
                "by atomic number from 0, are needed. With --zero-references every element gets 0 eV"
            )
        if found is not None and values != found:
            raise WeightsError(f"{file}: tasks with different element references are not supported")
        found = values
    return found


def _fault(references: list[float] | None) -> str | None:
    if references is None:
        return "no list of numbers"
    if len(references) <= HIGHEST:
        return f"{len(references)} numbers"
    return None if all(map(isfinite, references)) else "not all finite"


def _parts(tasks: object, key: str, file: Path) -> list[tuple[str, object]]:
    """What the tasks hold under ``key``, each with its task's name."""
    if tasks is None:
        return []
    named = tasks if isinstance(tasks, Mapping) else dict(enumerate(tasks if isinstance(tasks, list) else [tasks]))
    found = []
    for name, task in named.items():
        if not isinstance(task, Mapping):
            raise WeightsError(f"{file}: 'tasks_config' is not understood: {task!r:.80}; tables of tasks are needed")
        if task.get(key) is not None:
            found.append((str(task.get("name", name)), task[key]))
    return found


def _number(value: object) -> float | None:
    """A number, or the one in a tensor; None for anything else."""
    if isinstance(value, Tensor) and value.numel() == 1:
        value = value.item()
    return float(value) if type(value) in (int, float) and isfinite(value) else None


def _numbers(value: object) -> list[float] | None:
    """The first list of numbers somewhere in ``value``."""
    if isinstance(value, Tensor):
        return value.double().flatten().tolist()
    if isinstance(value, list) and value and all(type(x) in (int, float) for x in value):
        return value
    inside = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
    return next((found for item in inside if (found := _numbers(item))), None)
