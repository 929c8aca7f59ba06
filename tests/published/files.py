"""Files in the published container format, written from a golden case: torch.save container and flat YAML."""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file

CASES = Path(__file__).parents[1] / "golden" / "cases" / "e2former_v2"


def published_config(case: Path) -> dict:
    return json.loads((case / "config.json").read_text())


def published_tensors(case: Path) -> dict[str, torch.Tensor]:
    """As in a release: learned tensors in float32, and the constants that the golden files leave out."""
    tensors = load_file(case / published_config(case)["weights"])
    tensors = {k: v.float() if v.is_floating_point() else v for k, v in tensors.items()}
    return tensors | {f"decoder.decoder.Jd_list.{l}": torch.eye(2 * l + 1) for l in range(12)}


def write_published(folder: Path, case: Path, *, config: dict | None = None, tensors: dict | None = None) -> Path:
    """``model.pt`` and ``config.yaml`` in ``folder``; the path of the first. The config also holds trainer settings."""
    import yaml

    folder.mkdir(parents=True, exist_ok=True)
    container = {
        "model": published_tensors(case) if tensors is None else tensors,
        "optimizer": {"state": {0: {"step": torch.tensor(7.0), "exp_avg": torch.zeros(3)}}, "param_groups": [{}]},
        "lr_scheduler": {"last_epoch": 7},
        "state": {"global_step": 7, "best_loss": 0.5},
    }
    torch.save(container, folder / "model.pt")
    settings = {
        k: v for k, v in (config or published_config(case)).items() if k not in ("head_name", "note", "weights")
    }
    trainer = {"loss_unit": "ev", "lr": 2e-4, "train_val_test_split": [0.95, 0.05, 0.0], "early_stopping": False}
    (folder / "config.yaml").write_text(yaml.safe_dump({**trainer, **settings}))
    return folder / "model.pt"
