"""Which parameters decay in SCD training: all but biases, norms, gates, tables of elements, and scalar heads."""

_ENDS = ("bias", "norm", "alpha")
_PARTS = (
    "mask_token", "prior_model", ".embedding.", "neighbor_embedding_module", "_norm", ".norm.", "alpha", "scalar_head",
)  # fmt: skip


def decays_in_scd(name: str) -> bool:
    """Whether the parameter of that name decays."""
    name = name.lower()
    return not name.endswith(_ENDS) and not any(part in name for part in _PARTS)
