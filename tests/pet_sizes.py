"""The sizes of OmniLearned's published networks."""

from omnicalc.models.omnimol.pet import PETConfig

_SIZES = {  # width, layers, layers of local block and heads, attention heads
    "small": (128, 8, 2, 8),
    "medium": (512, 12, 2, 16),
    "large": (1024, 28, 4, 32),
}


def pet_size(size: str, **settings) -> PETConfig:
    """The published network of a size, "small", "medium" or "large", for pretraining unless ``settings`` say else."""
    width, layers, short, heads = _SIZES[size]
    given = {
        "input_dim": 4, "mode": "pretrain", "pid": True, "add_info": True, "num_classes": 210, "K": 10,
        "base_dim": width, "num_transformers": layers, "num_transformers_head": short, "num_heads": heads,
    }  # fmt: skip
    return PETConfig(**{**given, **settings})
