"""What AllScAIP refuses: charges, spins and elements outside its tables, and structures that memory cannot hold."""

from torch import Tensor

from omnicalc.errors import InputError
from omnicalc.models.allscaip.config import CHARGES, SPINS, AllScAIPConfig
from omnicalc.models.free_memory import free_memory

_PER_FREQUENCY = {False: 4.5, True: 13.5}  # arrays of pairs x frequencies held in evaluation and in training
_PER_HEAD = 4.0  # arrays of pairs x heads held in every layer
_SHARE = 0.9  # of the free memory that may be used
_SMALL = 2**28  # bytes that are not worth asking the system for


def check_tables(charge: Tensor, spin: Tensor, numbers: Tensor, config: AllScAIPConfig) -> None:
    """Raises :class:`InputError` for a charge (S,), spin (S,) or element (N,) without a row in the tables."""
    for key, given, allowed in (("charge", charge, CHARGES), ("spin", spin, SPINS)):
        wrong = given[(given < allowed[0]) | (given > allowed[-1])]
        if len(wrong):
            raise InputError(
                f"total {key} {int(wrong[0])}, but AllScAIP's table goes from {allowed[0]} to {allowed[-1]}; "
                f"set atoms.info['{key}'] (or --{key}) accordingly"
            )
    highest = int(numbers.max())
    if highest >= config.max_elements:
        raise InputError(f"atomic number {highest} given, but these weights' table ends at {config.max_elements - 1}")


def forecast(sizes: list[tuple[int, int]], config: AllScAIPConfig, itemsize: int, training: bool) -> int:
    """Bytes that attention between all atoms takes, for s structures of n atoms each, ``sizes`` [(s, n), ...].

    Without distance encoding, and not in training, torch's fused attention needs nothing per pair of atoms.
    """
    if not config.sinc and not training:
        return 0
    pairs = sum(s * n * n for s, n in sizes)
    per_pair = _PER_FREQUENCY[training] * config.sinc + _PER_HEAD * config.attention_heads * config.layers
    return int(itemsize * pairs * per_pair)


def check_memory(sizes: list[tuple[int, int]], config: AllScAIPConfig, like: Tensor, training: bool) -> None:
    """Refuse s structures of n atoms each, ``sizes``, between whose atoms attention would not fit into memory.

    ``like``: a tensor of the dtype and on the device of the model.

    Raises:
        InputError: with the forecast, what is free, and about how many atoms one structure may have.
    """
    needed = forecast(sizes, config, like.element_size(), training)
    if needed < _SMALL:
        return
    free = _SHARE * free_memory(like.device)
    if needed <= free:
        return
    n_structures, largest = sum(s for s, _ in sizes), max(n for _, n in sizes)
    what = f"{n_structures} structures of up to {largest} atoms" if n_structures > 1 else f"{largest} atoms"
    fits = int((free / forecast([(1, 1)], config, like.element_size(), training)) ** 0.5)
    raise InputError(
        f"{what} given: attention between all atoms would need about {needed / 2**30:.1f} GiB, and {free / 2**30:.1f} "
        f"GiB may be used; about {fits} atoms in one structure fit. Take a smaller structure or batch, float32, or a "
        "model with a cutoff (omnicalc models)"
    )
