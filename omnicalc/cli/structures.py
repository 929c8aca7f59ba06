"""How ``relax`` and ``sp`` speak of some of many structures."""

_NAMED = 10
BEYOND = (
    "energies or forces are beyond all bounds, as where atoms are too close or the model does not know such a structure"
)


def these(numbers: list[int]) -> str:
    """Structures by their number in summary.csv, as many as fit into a line."""
    names = ", ".join(map(str, numbers[:_NAMED])) + ", ..." * (len(numbers) > _NAMED)
    return f"{len(numbers)} structure{'s' * (len(numbers) > 1)} ({names} in summary.csv)"
