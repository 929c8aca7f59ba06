"""Figures of studies: made without pyplot, written whole, small enough to keep beside the code."""

import io
from pathlib import Path

from omnicalc.analysis.quiet import quietly
from omnicalc.files import write_atomically


def new_figure(width: float, height: float):
    """A matplotlib Figure without pyplot; sides in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def save_figure(figure, path: Path, dpi: int = 150) -> None:
    """A PNG with a palette of 128 colours."""
    from PIL import Image

    drawn = io.BytesIO()
    with quietly():
        figure.savefig(drawn, dpi=dpi, format="png", facecolor="white")
    small = Image.open(drawn).convert("RGB").quantize(128, dither=Image.Dither.NONE)
    write_atomically(path, lambda part: small.save(part, format="PNG", optimize=True))


def legend_below(axis, columns: int = 1) -> None:
    """The legend under a panel, where it hides nothing."""
    axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=columns, fontsize=7.5, frameon=False)
