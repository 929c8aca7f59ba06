"""Positive numbers out of the small languages of options."""

from __future__ import annotations

import math


def positive(text: str) -> float | None:
    """The number that ``text`` is; None for anything but a finite one above zero."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if 0 < value < math.inf else None
