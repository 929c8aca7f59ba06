"""``bf16 = true``: matrix products in bfloat16, near the gradients of float32, in every family that allows it."""

from dataclasses import replace

import pytest
import torch

from omnicalc.training.objectives import StepInfo
from omnicalc.training.trainer import Trainer
from tests.training.test_start import ALLSCAIP, OMNIMOL, SCD
from tests.training.toy import recipe_in, write_frames

FAMILIES = {
    "allscaip": {**ALLSCAIP, "forces": "gradient"},
    "allscaip direct": ALLSCAIP,
    "omnimol": OMNIMOL,
    "omnimol direct": {**OMNIMOL, "forces": "direct"},
    "scd": SCD,
}


def gradients(folder, kind, bf16):
    made = recipe_in(folder, optimiser=f"bf16 = {str(bf16).lower()}")
    made = replace(made, family=kind.split()[0], model=FAMILIES[kind])
    work = Trainer(made, folder, folder / "run", report=lambda line: None)
    stage, _ = made.stage_at(0)
    packs = work.typical_packs(stage, 4)
    found, _ = work.plain_gradients(dict(enumerate(packs)), StepInfo(stage, 1.0, work.totals_of(packs), None))
    return torch.cat([g.flatten() for g in found])


@pytest.mark.parametrize("kind", FAMILIES)
def test_gradients_are_near_those_of_float32(tmp_path, kind):
    write_frames(tmp_path, 12)
    exact, rough = gradients(tmp_path, kind, False), gradients(tmp_path, kind, True)
    off = float((rough - exact).norm() / exact.norm())
    assert 1e-5 < off < 0.05
