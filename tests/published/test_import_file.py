"""Which family a published file is of."""

import pytest
import torch

from omnicalc.errors import InputError, WeightsError
from omnicalc.published.import_file import import_file
from omnicalc.weights_home import weights_home


def test_omnilearned_is_no_potential(tmp_path):
    part = {"weight": torch.zeros(2)}
    torch.save({"body": part, "classifier_head": part, "generator_head": part, "epoch": 3}, tmp_path / "best_model.pt")
    with pytest.raises(WeightsError, match="OmniLearned checkpoint.*no energies of molecules.*transfer"):
        import_file(tmp_path / "best_model.pt", None, "omnimol:s")
    assert not weights_home().exists()


def test_other_files(tmp_path):
    (tmp_path / "model.pt").write_text("no checkpoint")
    with pytest.raises(InputError, match="config.yaml"):
        import_file(tmp_path / "model.pt", None, "mine:1")
    (tmp_path / "config.yaml").write_text("a: 1")
    with pytest.raises(WeightsError, match="not a checkpoint that torch.save wrote"):
        import_file(tmp_path / "model.pt", None, "mine:1")
    for name in ("last.ckpt", "other.pt"):
        with pytest.raises(InputError, match=f"{name}: no such file"):
            import_file(tmp_path / name, None, "scd:1")
    (tmp_path / "last.ckpt").write_text("no checkpoint")
    with pytest.raises(InputError, match="SCD ones have no energy"):
        import_file(tmp_path / "last.ckpt", None, "scd:1", smooth=True)
