"""Which gradients a backward pass is after; custom functions are not told, and would compute them all."""

import torch


def wanted(ctx) -> list[bool]:
    """For each tensor that a function was given. Leaves count as wanted always, since the engine does not tell of them:
    give their views.
    """
    return [node is not None and _will_run(node) for node, _ in ctx.next_functions]


def _will_run(node) -> bool:
    try:
        return torch._C._will_engine_execute_node(node)
    except (AttributeError, RuntimeError):  # a leaf, or a version of torch without it
        return True
