"""Which parameters decay in SCD training: all but biases, norms, gates, tables of elements, and scalar heads."""

_ENDS = ("bias", "norm", "alpha")
_PARTS = ("mask_token", "prior_model", ".embedding.", "neighbor_embedding_module", "_norm", ".norm.", "alpha")


def decays(name: str, *, heads_too: bool = False) -> bool:
    """Whether the parameter of that name decays; ``heads_too``: scalar heads as well."""
    name = name.lower()
    parts = _PARTS if heads_too else (*_PARTS, "scalar_head")
    return not name.endswith(_ENDS) and not any(part in name for part in parts)
