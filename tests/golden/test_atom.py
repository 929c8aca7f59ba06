"""ATOM against the release: every case of ``<golden-dir>/atom``, in float64 and float32, and the steps of Muon."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from omnicalc.errors import WeightsError
from omnicalc.models.atom import from_published
from omnicalc.models.atom.losses import s2s, s2t
from omnicalc.models.atom.model import Atom
from omnicalc.models.atom.samples import cut, random_split
from omnicalc.training import muon
from omnicalc.training.muon import Muon
from tests.golden.folders import each_case

FAMILY = "atom"


def pytest_generate_tests(metafunc):
    each_case(metafunc, FAMILY)
    if "muon_file" in metafunc.fixturenames:
        folder = metafunc.config.getoption("--golden-dir") / FAMILY
        files = sorted(folder.glob("*/muon_steps.npz"))
        metafunc.parametrize("muon_file", files, ids=[f.parent.name for f in files])


class Case:
    """One golden folder: published config and tensors, inputs of one batch, and what the release computes for it."""

    def __init__(self, folder: Path):
        self.config = json.loads((folder / "config.json").read_text())
        self.tensors = load_file(folder / "weights.safetensors")
        self.given, self.wanted = np.load(folder / "input.npz"), np.load(folder / "output.npz")
        self.mask = None
        if "padded_nodes_mask" in self.given:
            self.mask = torch.from_numpy(self.given["padded_nodes_mask"][..., 0])

    def model(self, dtype=torch.float64) -> Atom:
        return from_published(self.config, self.tensors).to(dtype)

    def inputs(self, dtype=torch.float64) -> list[torch.Tensor]:
        return [torch.from_numpy(self.given[k]).to(dtype) for k in ("x_0", "v_0", "concatenated_features")]

    def predict(self, model: Atom, dtype=torch.float64) -> torch.Tensor:
        with torch.no_grad():
            return model(*self.inputs(dtype), self.mask)

    def error(self, found: torch.Tensor, name: str = "predicted_frames_f64") -> float:
        """Largest over the atoms that are there."""
        return float(self.there(np.abs(found.double().numpy() - self.wanted[name])).max())

    def there(self, values: np.ndarray) -> np.ndarray:
        """Values (B, T, N, ...) of the atoms that are there; fewer samples are the first ones."""
        if self.mask is None:
            return values
        return values[self.mask[: len(values), None].expand(values.shape[:3]).numpy()]


def test_frames_in_float64(case):
    golden = Case(case)
    assert golden.error(golden.predict(golden.model())) < 1e-9


def test_frames_in_float32(case):
    golden = Case(case)
    found = golden.predict(golden.model(torch.float32), torch.float32)
    scale = max(1.0, float(np.abs(golden.there(golden.wanted["predicted_frames_f64"])).max()))
    assert golden.error(found) < 2e-5 * scale


def test_what_stands_at_padding_does_not_matter(case):
    """The release multiplies its inputs by the mask; gates of several output heads average over padding too."""
    golden = Case(case)
    if golden.mask is None:
        pytest.skip("no padding")
    inputs = [torch.where(golden.mask[..., None], t, torch.nan) for t in golden.inputs()]
    with torch.no_grad():
        assert golden.error(golden.model()(*inputs, golden.mask)) < 1e-9


def test_losses(case):
    golden = Case(case)
    found, wanted = golden.predict(golden.model()), torch.from_numpy(golden.given["x_t"]).double()
    assert s2t(found, wanted, golden.mask).item() == pytest.approx(float(golden.wanted["s2t_mse_f64"]), rel=1e-9)
    assert s2s(found, wanted, golden.mask).item() == pytest.approx(float(golden.wanted["s2s_mse_f64"]), rel=1e-9)


def test_intermediate_channels(case):
    golden = Case(case)
    model, seen = golden.model(), {}

    def keep(*names):
        def hook(module, inputs, output):
            seen.update(zip(names, output if isinstance(output, tuple) else (output,), strict=True))

        return hook

    model.lifting.register_forward_hook(keep("mid_lift_x_0", "mid_lift_v_0", "mid_lift_concatenated_features"))
    if hasattr(model.lifting, "moving"):
        model.lifting.moving.register_forward_hook(keep("mid_lift_vz_0"))
    for k, block in enumerate(model.blocks):
        block.attention.register_forward_hook(keep(f"mid_block{k}_attention_out"))
        block.register_forward_hook(keep(f"mid_block{k}_out"))
    if model.gate is not None:
        model.gate.register_forward_hook(lambda *call: seen.__setitem__("mid_head_gates", call[-1].softmax(-1)))
    golden.predict(model)
    names = [n for n in golden.wanted if n.startswith("mid_")]
    assert set(names) <= set(seen)
    for name in names:
        wanted = golden.wanted[name].astype(float)
        found = seen[name][: len(wanted)].numpy()
        if name == "mid_head_gates":
            assert np.abs(found - wanted).max() < 1e-12
            continue
        error, size = golden.there(np.abs(found - wanted)), golden.there(np.abs(wanted))
        assert error.max() < 1e-6 * max(1.0, size.max()), name


def test_a_wrong_constant_is_noticed(case):
    """The float64 check is sharp: logits over the root of the width, or another epsilon of the norm, fail it."""
    golden = Case(case)
    model = golden.model()
    with torch.no_grad():
        for block in model.blocks:
            wrong = block.attention.denominator * 1.0001
            block.attention.denominator = wrong if isinstance(wrong, float) else torch.nn.Parameter(wrong)
    assert golden.error(golden.predict(model)) > 1e-9
    model = golden.model()
    for block in model.blocks:
        block.norm.eps = 1e-6
    assert golden.error(golden.predict(model)) > 1e-9


def test_padding_does_not_reach_real_atoms(case):
    golden = Case(case)
    if golden.mask is None:
        pytest.skip("case without padding")
    model, (x, v, features) = golden.model(), golden.inputs()
    padding = ~golden.mask[..., None]
    x, v = (t + 0.3 * padding for t in (x, v))  # not the features: the gates' mean sees those, as published
    with torch.no_grad():
        found = model(x, v, features, golden.mask)
        unmasked = model(x, v, features)
    assert golden.error(found) < 1e-9
    assert golden.error(unmasked) > 1e-6


def test_any_number_of_frames(case):
    golden = Case(case)
    model = golden.model()
    with torch.no_grad():
        fewer = model(*golden.inputs(), golden.mask, frames=2)
        again = golden.model()
        again.config = replace(again.config, frames=2)
        assert fewer.shape[1] == 2 and torch.equal(fewer, again(*golden.inputs(), golden.mask))


def test_samples(case):
    """Indices, inputs and targets from the trajectory that the case was cut from."""
    golden = Case(case)
    given = golden.given
    if "trajectory" not in given:
        pytest.skip("case without its trajectory")
    trajectory, delta = given["trajectory"], int(given["delta_frame"])
    settings = {"margin": 500, "fractions": (0.2, 0.1, 0.1)}
    parts = random_split(len(trajectory), delta, seed=int(given["split_seed"]), **settings)
    for part, name in zip(parts, ("train", "val", "test"), strict=True):
        assert np.array_equal(part, given[f"split_{name}"]), name
    frames, rrwp = given["x_t"].shape[1], given["concatenated_features"].shape[-1] - 9
    hydrogens = given["Z"].shape[1] == len(given["trajectory_numbers"])
    samples = cut(
        trajectory, given["trajectory_numbers"], given["sample_times"], delta, frames, rrwp=rrwp, hydrogens=hydrogens
    )
    for found, name in (
        (samples.x, "x_0"),
        (samples.v, "v_0"),
        (samples.features, "concatenated_features"),
        (samples.x_later, "x_t"),
        (samples.v_later, "v_t"),
    ):
        assert found.dtype == np.float32 and np.abs(found - given[name]).max() < 1e-6, name
    wrong = random_split(len(trajectory), delta, seed=int(given["split_seed"]) + 1, **settings)
    assert not np.array_equal(wrong[0], given["split_train"])


def test_mismatched_tensors_are_named(case):
    golden = Case(case)
    key = "transformer_blocks.0.attention.query.weight"
    tensors = {f"_orig_mod.{k}": t for k, t in golden.tensors.items()}
    tensors[f"_orig_mod.{key}"] = golden.tensors[key][:, :-1]
    tensors["surprise"] = tensors.pop("_orig_mod.transformer_blocks.0.pre_norm.weight")
    with pytest.raises(WeightsError) as caught:
        from_published(golden.config, tensors)
    for part in (f"{key} has shape", "unexpected surprise", "missing blocks.0.norm.weight"):
        assert part in str(caught.value)
    with pytest.raises(WeightsError, match="value_residual_type"):
        from_published({**golden.config["model"], "value_residual_type": "fluent"}, golden.tensors)
    with pytest.raises(WeightsError, match="missing: norm"):
        from_published({k: v for k, v in golden.config["model"].items() if k != "norm"}, golden.tensors)


def muon_error(file: Path) -> dict[bool, float]:
    """Largest error over all steps, of vectors and scalars (False) and of matrices (True), in one optimiser."""
    golden = np.load(file)
    count = sum(name.endswith("_step0") for name in golden)
    steps = max(int(name.split("step")[1]) for name in golden)
    parameters = [torch.nn.Parameter(torch.from_numpy(golden[f"p{i}_step0"])) for i in range(count)]
    optimiser, error = Muon(parameters, lr=1e-3, weight_decay=1e-5), {True: 0.0, False: 0.0}
    for step in range(1, steps + 1):
        for i, p in enumerate(parameters):
            p.grad = torch.from_numpy(golden[f"g{i}_step{step}"])
        optimiser.step()
        for i, p in enumerate(parameters):
            found = float(np.abs(p.detach().numpy() - golden[f"p{i}_step{step}"]).max())
            error[p.ndim >= 2] = max(error[p.ndim >= 2], found)
    return error


def test_muon(muon_file):
    error = muon_error(muon_file)
    assert error[True] < 2e-5 and error[False] < 1e-7


def test_a_wrong_muon_is_noticed(muon_file, monkeypatch):
    """Another momentum, or vectors at the rate of matrices, fails."""
    for name, value, matrices, least in (("MOMENTUM", 0.8, True, 2e-5), ("ADAM_RATIO", 1.0, False, 1e-7)):
        with monkeypatch.context() as wrong:
            wrong.setattr(muon, name, value)
            assert muon_error(muon_file)[matrices] > least
