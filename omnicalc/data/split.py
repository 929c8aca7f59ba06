"""Splits by molecule: every frame of one molecule falls into the same part, whatever else is in the data."""

import hashlib
from collections.abc import Collection

SHARES = {"train": 80, "valid": 10, "test": 10}  # per cent
_ORDER = ("test", "valid", "train")


def split_of(molecules: Collection[str], salt: str = "", always_train: Collection[str] = ()) -> str:
    """``train``, ``valid`` or ``test`` by the hash of a molecule's name, ``salt`` before it.

    A structure of several molecules goes where the strictest of them goes: to test if any is there, else to valid
    if any is there, so that no molecule of a test structure was trained on, alone or in company. Names in
    ``always_train`` are left out of this.
    """
    parts = {_part(salt + name) for name in molecules if name not in always_train}
    return next((part for part in _ORDER if part in parts), "train")


def _part(text: str) -> str:
    place = int(hashlib.sha256(text.encode()).hexdigest()[:8], 16) % 100
    for part, share in SHARES.items():
        if place < share:
            return part
        place -= share
    raise AssertionError("shares do not add up to 100")
