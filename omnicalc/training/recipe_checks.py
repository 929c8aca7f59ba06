"""What the values of a recipe must be: their types as annotated, their ranges as listed here."""

import math
import re
from dataclasses import fields
from pathlib import PurePosixPath
from types import NoneType, UnionType
from typing import get_args, get_origin

from omnicalc.card import NAME_PART
from omnicalc.errors import InputError

_IN_WORDS = {str: "text", int: "a whole number", float: "a number", dict: "a table", bool: "true or false"}


def check_values(table, where: str) -> None:
    """Raise :class:`InputError` naming the key for a value of ``table`` (a recipe's dataclass) that cannot be."""
    for field in fields(table):
        value = getattr(table, field.name)
        if not _fits(value, field.type):
            raise InputError(f"{field.name} = {value!r} in {where}: {_in_words(field.type)} is needed")
        good, needed = _range(type(table), field.name)
        if good is not None and value is not None and not good(value):
            raise InputError(f"{field.name} = {value!r} in {where}: {needed} is needed")


def _range(kind: type, key: str) -> tuple:
    """What values a key may have, as a test and in words; that of the class it is inherited from, if need be."""
    return next((_RANGES[c.__name__, key] for c in kind.__mro__ if (c.__name__, key) in _RANGES), (None, ""))


def _fits(value: object, kind: object) -> bool:
    """Whether a value read from TOML (lists as tuples) is of the annotated type; numbers must be finite."""
    origin, parts = get_origin(kind), get_args(kind)
    if origin is UnionType:
        return any(_fits(value, part) for part in parts)
    if origin is tuple:
        if not isinstance(value, tuple) or (parts[-1] is not Ellipsis and len(value) != len(parts)):
            return False
        return all(_fits(item, parts[0]) for item in value)
    if origin is dict:
        return isinstance(value, dict) and all(_fits(k, parts[0]) and _fits(v, parts[1]) for k, v in value.items())
    if kind is float:
        return type(value) in (int, float) and math.isfinite(value)
    if kind is int:
        return type(value) is int
    return isinstance(value, kind)


def _in_words(kind: object) -> str:
    origin, parts = get_origin(kind), get_args(kind)
    if origin is UnionType:
        return " or ".join(_in_words(part) for part in parts if part is not NoneType)
    if origin is tuple:
        number = "a list" if parts[-1] is Ellipsis else f"a list of {len(parts)}"
        return f"{number}, each {_in_words(parts[0])},"
    if origin is dict:
        return f"a table of values, each {_in_words(parts[1])},"
    return _IN_WORDS.get(kind, "a table")


def known_elements(prior: dict) -> bool:
    """Whether all keys are symbols of elements."""
    from ase.data import atomic_numbers

    return all(atomic_numbers.get(symbol, 0) > 0 for symbol in prior)


def _plain_name(file: str) -> bool:
    """A name below the data folder: no pattern, no way out of it."""
    path = PurePosixPath(file)
    return path.name != "" and not path.is_absolute() and ".." not in path.parts and not set(file) & set("*?[]\\")


_PART = (NAME_PART.fullmatch, "a name of letters, digits, '.', '_' and single '-'")
_AT_LEAST_1 = (lambda x: x >= 1, "a number of at least 1")
_ABOVE_0 = (lambda x: x > 0, "a number above 0")
_LENGTH = (lambda x: x > 0, "a length above 0 Å")
_NOT_NEGATIVE = (lambda x: x >= 0, "a number of 0 or more")
_FRACTION = (lambda x: 0 <= x <= 1, "a number from 0 to 1")
_BELOW_1 = (lambda x: 0 <= x < 1, "a number from 0 to below 1")
_SEED = (lambda x: 0 <= x < 2**63, "a whole number from 0 to 2**63 - 1")
_SOME = (bool, "a list of at least one molecule")


def _one_of(*allowed: str) -> tuple:
    return (lambda x: x in allowed), f"one of {', '.join(allowed)}"


_RANGES = {
    ("DataSource", "file"): (lambda x: not x or _plain_name(x), "the name of a file below the data folder"),
    ("DataSource", "sha256"): (re.compile("([0-9a-f]{64})?").fullmatch, "64 hexadecimal digits (sha256sum FILE)"),
    ("DataSource", "split_by"): (lambda x: x in ("key", "molecule", "frame"), "'key', 'molecule' or 'frame'"),
    ("DataSource", "valid_fraction"): (lambda x: 0 < x < 1, "a number between 0 and 1"),
    ("DataSource", "limit"): _AT_LEAST_1,
    ("DataSource", "max_force"): _ABOVE_0,
    ("DataSource", "replay"): _NOT_NEGATIVE,
    ("DataSource", "min_cosine"): (lambda x: -1 <= x < 1, "a number from -1 to below 1"),
    ("DataSource", "head"): (bool, "a name"),
    ("DataSource", "weight"): _NOT_NEGATIVE,
    ("Stage", "steps"): _AT_LEAST_1,
    ("Stage", "learning_rate"): _ABOVE_0,
    ("Stage", "final_rate"): _FRACTION,
    ("Stage", "warmup"): _AT_LEAST_1,
    ("Stage", "energy_weight"): _NOT_NEGATIVE,
    ("Stage", "energy_weight_late"): _NOT_NEGATIVE,
    ("Stage", "late_fraction"): _FRACTION,
    ("Stage", "force_weight"): _NOT_NEGATIVE,
    ("Stage", "stress_weight"): _NOT_NEGATIVE,
    ("Stage", "schedule"): (lambda x: x in ("cosine", "onecycle", "constant"), "'cosine', 'onecycle' or 'constant'"),
    ("Stage", "mixture"): (
        lambda shares: bool(shares) and min(shares) >= 0 and sum(shares) > 0,
        "a list of numbers of 0 or more, not all 0,",
    ),
    ("Optimiser", "seed"): _SEED,
    ("Optimiser", "matrices"): (lambda x: x in ("adam", "muon"), '"adam" or "muon"'),
    ("Optimiser", "betas"): (lambda x: all(0 <= b < 1 for b in x), "two numbers from 0 to below 1"),
    ("Batching", "atoms"): _AT_LEAST_1,
    ("Batching", "edges"): _AT_LEAST_1,
    ("Batching", "structures"): _AT_LEAST_1,
    ("Batching", "packs"): _AT_LEAST_1,
    ("Optimiser", "weight_decay"): _NOT_NEGATIVE,
    ("Optimiser", "clip"): _ABOVE_0,
    ("Optimiser", "clip_norm"): _ABOVE_0,
    ("Optimiser", "skip_at_most"): _NOT_NEGATIVE,
    ("Optimiser", "validate_frames"): _AT_LEAST_1,
    ("Optimiser", "ema"): _BELOW_1,
    ("Optimiser", "validate_every"): _AT_LEAST_1,
    ("Optimiser", "checkpoint_every"): _AT_LEAST_1,
    ("Recipe", "name"): _PART,
    ("Recipe", "tag"): _PART,
    ("Recipe", "version"): _PART,
    ("Recipe", "reference_prior"): (known_elements, "a table from element symbols such as H to energies in eV"),
    ("Recipe", "trains"): (lambda x: x in ("all", "heads", "lora"), "'all', 'heads' or 'lora'"),
    ("Recipe", "lora_rank"): _AT_LEAST_1,
    ("Recipe", "periodic"): (lambda x: x in ("", "refused"), "'refused', or no such key,"),
    ("Recipe", "charges"): (bool, "a list of at least one whole number"),
    ("DecoderRecipe", "name"): _PART,
    ("DecoderRecipe", "tag"): _PART,
    ("DecoderRecipe", "version"): _PART,
    ("DecoderRecipe", "molecules"): _SOME,
    ("DecoderRecipe", "validation"): _SOME,
    ("DecoderRecipe", "objective"): _one_of("s2t", "s2s"),
    ("DecoderRecipe", "optimiser"): _one_of("muon", "adamw"),
    ("DecoderRecipe", "learning_rate"): _ABOVE_0,
    ("DecoderRecipe", "weight_decay"): _NOT_NEGATIVE,
    ("DecoderRecipe", "warmup"): _AT_LEAST_1,
    ("DecoderRecipe", "steps"): _AT_LEAST_1,
    ("DecoderRecipe", "batch"): _AT_LEAST_1,
    ("DecoderRecipe", "frames"): _AT_LEAST_1,
    ("DecoderRecipe", "shortest"): _ABOVE_0,
    ("DecoderRecipe", "longest"): _ABOVE_0,
    ("DecoderRecipe", "clip"): _ABOVE_0,
    ("DecoderRecipe", "ema"): _BELOW_1,
    ("DecoderRecipe", "seed"): _SEED,
    ("DecoderRecipe", "spacing_fs"): _NOT_NEGATIVE,
    ("DecoderRecipe", "train_part"): (lambda x: 0 < x <= 1, "a number above 0 and at most 1"),
    ("DecoderRecipe", "validate_every"): _AT_LEAST_1,
    ("DecoderRecipe", "save_every"): _AT_LEAST_1,
    ("EnergyForcesSettings", "loss"): _one_of("atoml2mae", "l2mae", "mae", "total-mae", "huber", "mse"),
    ("EnergyForcesSettings", "huber_delta"): _ABOVE_0,
    ("EnergyForcesDenoisingSettings", "noise"): _NOT_NEGATIVE,
    ("EnergyForcesDenoisingSettings", "denoising_weight"): _NOT_NEGATIVE,
    ("EnergyForcesDenoisingSettings", "first_drop_path"): _BELOW_1,
    ("EnergyForcesDenoisingSettings", "last_drop_path"): _BELOW_1,
    ("ForceDenoisingSettings", "noise"): _LENGTH,
    ("PropertySettings", "loss"): _one_of("mse", "mae"),
    ("PropertySettings", "scale"): _ABOVE_0,
    ("PropertySettings", "noise"): _LENGTH,
    ("PropertySettings", "denoising_weight"): _NOT_NEGATIVE,
    ("NoiseSettings", "clean_noise"): (lambda x: x >= 0, "a length of 0 Å or more"),
    ("NoiseSettings", "corrupt_noise"): (lambda x: x >= 1e-6, "a length of at least 1e-06 Å"),
    ("NoiseSettings", "most_atoms"): _AT_LEAST_1,
    ("PretrainingSettings", "pockets"): _one_of("none", "pocket", "ligand", "mixed"),
    ("PretrainingSettings", "residues"): _AT_LEAST_1,
    ("PretrainingSettings", "shift"): (lambda x: x >= 0, "a length of 0 Å or more"),
}
