"""Which parameters decay in SCD training: all but biases, norms, gates, tables of elements, and scalar heads."""

_ENDS = ("bias", "norm", "alpha")
_PARTS = ("mask_token", "prior_model", ".embedding.", "neighbor_embedding_module", "_norm", ".norm.", "alpha")


def decays(name: str, *, heads_too: bool = False) -> bool:
    """Whether the parameter of that name decays; ``heads_too``: scalar heads as well."""
    name = name.lower()
    parts = _PARTS if heads_too else (*_PARTS, "scalar_head")
    return not name.endswith(_ENDS) and not any(part in name for part in parts)


def decay_groups(named_parameters, weight_decay: float, *, heads_too: bool = False) -> list[dict]:
    """Two groups for a torch optimiser, from (name, parameter) pairs; parameters without gradient are left out."""
    groups = [{"params": [], "weight_decay": weight_decay}, {"params": [], "weight_decay": 0.0}]
    for name, parameter in named_parameters:
        if parameter.requires_grad:
            groups[0 if decays(name, heads_too=heads_too) else 1]["params"].append(parameter)
    return groups
