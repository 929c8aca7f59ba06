"""Mean squared errors of decoded positions, Å^2: over all frames (S2T) or the last one only (S2S)."""

from torch import Tensor


def s2t(predicted: Tensor, wanted: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean over all frames, atoms and axes of (B, T, N, 3); ``mask`` (B, N) bool leaves padding out."""
    squares = (predicted - wanted).square()
    if mask is None:
        return squares.mean()
    there = mask[:, None, :, None].expand_as(squares)
    return squares.where(there, 0).sum() / there.sum()


def s2s(predicted: Tensor, wanted: Tensor, mask: Tensor | None = None) -> Tensor:
    """The same over the last frame only."""
    return s2t(predicted[:, -1:], wanted[:, -1:], mask)
