"""Structures computed together: as many neighbours in a list as a number of atoms allows."""

from collections.abc import Sequence


def batches(counts: Sequence[int], budget: int) -> list[range]:
    """Runs of neighbouring structures with up to ``budget`` atoms together; a larger one stands alone."""
    found, first, atoms = [], 0, 0
    for k, count in enumerate(counts):
        if k > first and atoms + count > budget:
            found.append(range(first, k))
            first, atoms = k, 0
        atoms += count
    return [*found, range(first, len(counts))] if len(counts) else []
