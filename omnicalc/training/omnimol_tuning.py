"""Two ways from OmniLearned weights to an OMNIMOL network: all of it trained on, or low-rank updates of its body.

model = build_model("omnimol", {"heads": ["my-theory"], "preset": "paper", "forces": "direct", "adapter": True})
print(low_rank_start(model, read_checkpoint("best_model_pretrain_s.pt"), rank=16))
...  # train what requires a gradient
merge_low_rank(model)
"""

from collections.abc import Mapping

from torch import Tensor, nn

from omnicalc.models.omnimol.published import Transfer, transfer
from omnicalc.training.lora import add_low_rank, unfreeze

GLOBAL_BLOCKS = (  # W_Q, W_K, W_V, W_O and the MLPs of the global blocks
    r"body\.in_blocks\.\d+\.attn\.(in_proj_weight|out_proj\.weight)",
    r"body\.in_blocks\.\d+\.mlp\.fc[12]\.weight",
)
MOLECULAR_PARTS = (  # what PET does not know: encoders with the local block, pair bias, adapter, heads
    r"body\.(embed|pid_embed|add_embed|charge_embed|spin_embed|pair_scalar|local_pair_scalar)\..*",
    r"body\.(local_physics|angle_bias|interaction|adapter)\..*",
    r"(energy|force)_head\..*",
)


def full_start(model: nn.Module, tensors: Mapping[str, Tensor]) -> Transfer:
    """Copy what fits of a PET checkpoint into an OMNIMOL ``model``, all of which is then trained."""
    report = transfer(model, tensors)
    model.requires_grad_(True)
    return report


def low_rank_start(
    model: nn.Module, tensors: Mapping[str, Tensor], *, rank: int = 96, alpha: float | None = None
) -> Transfer:
    """Copy what fits, freeze the body (its norms and tokens too), and leave trainable: low-rank updates of the global
    blocks' matrices (the paper's rank is 96, which is more than useful for size S: a warning says so) and all that is
    molecular. ``alpha`` None: equal to the rank.
    """
    report = transfer(model, tensors)
    add_low_rank(model, GLOBAL_BLOCKS, rank=rank, alpha=alpha)
    unfreeze(model, MOLECULAR_PARTS)
    return report
