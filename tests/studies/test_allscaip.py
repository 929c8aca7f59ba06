"""The ablation: what each variant leaves out, runs that are kept, means over seeds."""

import csv
from dataclasses import replace

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

from analysis.allscaip.ablation import (
    SINC,
    VARIANTS,
    Case,
    Size,
    case_recipe,
    cases,
    draw,
    finished,
    last_errors,
    main,
    summary,
)
from analysis.allscaip.scaling import draw as draw_scaling
from analysis.allscaip.scaling import fits
from analysis.common.trainings import train
from omnicalc.errors import InputError
from omnicalc.models import build_model
from omnicalc.training.recipe import find_recipe, read_recipe

BASE = read_recipe(find_recipe("allscaip-tiny"))


def test_every_variant_lacks_what_it_is_named_after():
    built = {}
    for case in cases((50, None), seeds=1):
        recipe = case_recipe(BASE, case, Size(600, 4))
        assert recipe.steps == 600 and recipe.batch.structures == 4 and len(recipe.stages) == 1
        limits = [source.limit for source in recipe.data]
        assert limits == ([None, None] if case.frames is None else [22, 28])  # by the weights of the sources
        built[case.variant] = build_model(recipe.family, {**recipe.model, "heads": list(recipe.heads)}).config
    assert set(built) == set(VARIANTS)
    full = built["full"]
    assert full.node_attention and full.sinc == SINC and full.angular
    assert replace(built["no-angles"], angular=full.angular) == full != built["no-angles"]
    assert replace(built["no-distances"], sinc=SINC) == full != built["no-distances"]
    assert replace(built["no-nodes"], sinc=SINC, node_attention=True) == full != built["no-nodes"]


def boxes(folder) -> None:
    """Files of six boxes of two waters, with labels that mean nothing."""
    rng = np.random.default_rng(0)
    for name in ("water", "salt"):
        frames = []
        for k in range(6):
            water = np.array([[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]])
            positions = np.concatenate([water, water + [0, 0, 3]]) + rng.normal(scale=0.05, size=(6, 3))
            atoms = Atoms("OHHOHH", positions, cell=[6, 6, 6], pbc=True)
            atoms.info["split"] = "train" if k < 4 else "valid"
            atoms.calc = SinglePointCalculator(atoms, energy=-900 + rng.normal(), forces=rng.normal(size=(6, 3)))
            frames.append(atoms)
        write(folder / f"{name}.extxyz", frames, format="extxyz")


def test_a_run_is_kept_and_judged_at_its_end(tmp_path):
    boxes(tmp_path)
    files = ("water.extxyz", "salt.extxyz")
    sources = tuple(replace(s, file=f, sha256="") for s, f in zip(BASE.data, files, strict=True))
    size = Size(4, 1, quick=True)
    recipe = case_recipe(replace(BASE, data=sources), Case("full", None, 0), size)
    out = tmp_path / "full-all-seed0"
    assert not finished(out, size.steps)
    train(recipe, tmp_path, out)
    assert finished(out, size.steps) and not finished(out, 5)
    errors = last_errors(out)
    with (out / "log.csv").open() as file:
        rows = [r for r in csv.DictReader(file) if r["step"] == "4" and r["group"] == "all"]
    assert errors == {r["source"]: float(r["force_mae"]) for r in rows} and len(errors) == 2


def test_summary_and_figure(tmp_path):
    errors = {
        case: {"water": 0.1 + 0.01 * case.seed, "salt": 0.2 if case.frames else 0.15} for case in cases((50, None), 3)
    }
    table = summary(errors)
    assert len(table) == len(VARIANTS) * 2 * 2
    row = next(r for r in table if (r["variant"], r["frames"], r["source"]) == ("full", 50, "water"))
    assert row["force_mae_meV_per_A"] == pytest.approx(110) and row["seeds"] == 3
    assert row["stderr"] == pytest.approx(10 / 3**0.5, abs=1e-3)
    draw(tmp_path / "x.png", table)
    assert (tmp_path / "x.png").stat().st_size > 5000


def test_a_part_that_is_none_is_named(tmp_path):
    with pytest.raises(InputError, match="no-atoms-50-seed0; the parts are full-50-seed0"):
        main.main(["--data", str(tmp_path), "--out", str(tmp_path / "x"), "--only", "no-atoms-50-seed0"],
                  standalone_mode=False)  # fmt: skip


def test_scaling_takes_attention_apart_from_the_rest(tmp_path):
    rows = [{"what": "attention", "atoms": n, "seconds": 2e-8 * n**2} for n in (768, 3072)]
    rows += [{"what": "step", "atoms": n, "seconds": 4e-4 * n + 2e-8 * n**2} for n in (192, 768, 3072)]
    assert fits(rows) == pytest.approx((4e-4, 2e-8))
    draw_scaling(rows, "tiny", tmp_path / "x.png")
    assert [file.name for file in tmp_path.iterdir()] == ["x.png"]
