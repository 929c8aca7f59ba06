"""Sizes of the blocks that Triton kernels work on."""


def power_of_two(n: int) -> int:
    """The least power of two that is not below ``n`` >= 1: blocks of Triton have no other sizes."""
    return 1 << (n - 1).bit_length()
