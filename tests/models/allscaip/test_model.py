"""Parts of AllScAIP: harmonics, attention, presets, settings, memory, heads, training."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from ase.build import molecule
from scipy.special import eval_legendre

from omnicalc.errors import InputError, WeightsError
from omnicalc.models import build_model
from omnicalc.models.allscaip import AllScAIPConfig, limits
from omnicalc.models.allscaip.harmonics import harmonics, legendre
from omnicalc.models.allscaip.layers import attention, fused_attention, sinc_features
from omnicalc.models.allscaip.limits import forecast
from omnicalc.neighbors import neighbors
from omnicalc.potential import Head, Potential
from omnicalc.systems import Systems


def unit_vectors(n: int) -> torch.Tensor:
    vectors = torch.randn(n, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return vectors / vectors.norm(dim=1, keepdim=True)


class TestHarmonics:
    def test_addition_theorem(self):
        """Y_l(u)·Y_l(v) = (2l + 1) P_l(u·v), by scipy's polynomials."""
        u, degrees = unit_vectors(20), 12
        parts = harmonics(u, degrees).split([2 * l + 1 for l in range(degrees)], -1)
        cosine = u @ u.T
        ones = torch.ones_like(cosine)
        for l, (part, mine) in enumerate(zip(parts, legendre(cosine, ones, degrees), strict=True)):
            wanted = eval_legendre(l, cosine.numpy())
            assert np.abs((part @ part.T / (2 * l + 1)).numpy() - wanted).max() < 1e-12
            assert np.abs(mine.numpy() - wanted).max() < 1e-12

    def test_low_degrees_in_the_order_of_e3nn(self):
        u = unit_vectors(9)
        x, y, z = u.T
        wanted = [torch.ones_like(x), *(3**0.5 * c for c in (x, y, z))]
        wanted += [15**0.5 * x * z, 15**0.5 * x * y, 5**0.5 * (y * y - (x * x + z * z) / 2), 15**0.5 * y * z]
        wanted += [15**0.5 / 2 * (z * z - x * x)]
        assert torch.allclose(harmonics(u, 3), torch.stack(wanted, -1))

    def test_the_zero_vector(self):
        zero = torch.zeros(1, 3)
        assert torch.equal(harmonics(zero, 4), torch.eye(16)[:1])
        none = torch.zeros(1, 1)
        assert [float(p) for p in legendre(none, none, 5)] == [1, 0, 0, 0, 0]


class TestAttention:
    @pytest.mark.parametrize("bias", [True, False])
    def test_fused_equals_plain(self, bias):
        torch.manual_seed(0)
        q, k, v = (torch.randn(2, 3, 17, 8, dtype=torch.float64, requires_grad=True) for _ in range(3))
        mask = torch.randn(2, 3, 17, 17, dtype=torch.float64) if bias else None
        plain, fused = attention(q, k, v, mask), fused_attention(q, k, v, mask)
        assert torch.allclose(plain, fused, atol=1e-12)
        for a, b in zip(*(torch.autograd.grad(f.square().sum(), (q, k, v)) for f in (plain, fused)), strict=True):
            assert torch.allclose(a, b, atol=1e-12)

    def test_sinc_is_smooth_where_its_series_takes_over(self):
        r = torch.linspace(0, 2e-4, 41, dtype=torch.float64)[:, None]
        assert float(sinc_features(torch.zeros(1, dtype=torch.float64), 3).min()) == 1
        assert torch.allclose(sinc_features(r, 5), torch.sinc(r.unsqueeze(-1) * frequencies(5) / torch.pi), atol=1e-15)


def frequencies(n: int) -> torch.Tensor:
    return torch.pi / 120 * (120 / 0.25) ** (torch.arange(n, dtype=torch.float64) / (n - 1))


class TestConfig:
    @pytest.mark.parametrize(("preset", "count"), [("small", 34_100_000), ("medium", 86_000_000), ("tiny", 133_000)])
    def test_parameters_of_the_presets(self, preset, count):
        with torch.random.fork_rng():
            model = build_model("allscaip", {"heads": ["a"], "preset": preset})
        assert sum(p.numel() for p in model.parameters()) == pytest.approx(count, rel=2e-3)

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"widht": 3}, "unknown allscaip settings: widht; known: activation"),
            ({"preset": "huge"}, "preset = 'huge' given; choose one of: tiny, small, medium"),
            ({"width": 10, "attention_heads": 3}, "width = 10 must be a multiple of attention_heads = 3"),
            ({"width": 8, "attention_heads": 2, "angular": [1, 2]}, "must share out the 4 channels"),
            ({"smooth": True, "max_slots": 9}, "smooth = true, but with max_slots = 9 the energy jumps"),
            ({"smooth": True, "ranking": "hard", "image_limit": True}, "ranking = 'hard', image_limit = True"),
            ({"cutoff": -1.0}, "cutoff = -1.0 given; a number above 0"),
            ({"layers": 1.5}, "layers = 1.5 given; a whole number of at least 1"),
            ({"activation": "tanh"}, "activation = 'tanh' is not supported; choose one of: gelu"),
            ({"n_radial": 1}, "n_radial = 1 given; a whole number of at least 2"),
        ],
        ids=lambda value: "" if isinstance(value, str) else "-".join(value),
    )
    def test_settings_that_cannot_be(self, settings, message):
        with pytest.raises(WeightsError, match=message):
            build_model("allscaip", {"heads": ["a"], **settings})

    def test_a_card_holds_every_setting(self):
        config = AllScAIPConfig.from_dict({"heads": ["a"], "preset": "tiny", "isolated": {"H": {"0": 2.5}}})
        assert AllScAIPConfig.from_dict(config.to_dict()) == config
        with pytest.raises(WeightsError, match="lack 'heads'"):
            AllScAIPConfig.from_dict({})


FEW = {"width": 8, "layers": 2, "attention_heads": 2, "n_radial": 6, "neighbors": 8}


def potential(dtype=torch.float64, head: str = "a", **settings) -> Potential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build_model("allscaip", {"heads": [head], **FEW, **settings})
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    return Potential(model.to(dtype), [Head(head, {1: -13.6, 8: -432.0})])


def water() -> Systems:
    atoms = molecule("H2O")
    atoms.positions += np.random.default_rng(0).normal(scale=0.05, size=(3, 3))
    return Systems.from_atoms(atoms)


class TestLimits:
    def test_a_structure_that_memory_cannot_hold(self, monkeypatch):
        monkeypatch.setattr(limits, "free_memory", lambda device: 2**30)
        water = molecule("H2O", cell=[4, 4, 4], pbc=True)
        systems = Systems.from_atoms(water.repeat((10, 10, 12)))
        message = r"3600 atoms given: .* need about [\d.]+ GiB, and 0.9 GiB may be used; about \d+ atoms"
        with pytest.raises(InputError, match=message):
            potential(sinc=8).eval().choose_head(systems)
        assert potential().requires_grad_(False).eval().choose_head(systems) == "a"  # fused attention has no such limit

    @pytest.mark.parametrize(("settings", "training"), [({"sinc": 16}, False), ({"sinc": 8}, True), ({}, True)])
    def test_forecast_is_about_what_is_held(self, settings, training):
        """The part of what autograd keeps that grows with the square of the atoms."""
        few, many = (held_bytes(n, settings, training) for n in (20, 40))
        config = potential(**settings).model.config
        expected = sum(k * forecast([(1, 3 * n)], config, 4, training) for n, k in ((40, 1), (20, -2)))
        assert 0.6 < (many - 2 * few) / expected < 1.6

    def test_tables(self):
        systems = water()
        for key, value in (("charge", 101), ("charge", -101), ("spin", 101)):
            wrong = replace(systems, **{key: torch.tensor([value])})
            with pytest.raises(InputError, match=f"total {key} {value}, but AllScAIP's table goes from"):
                potential().choose_head(wrong)
        with pytest.raises(InputError, match="atomic number 8 given, but these weights' table ends at 7"):
            potential(max_elements=8).choose_head(systems)


def held_bytes(n_waters: int, settings: dict, training: bool) -> int:
    """Bytes that autograd keeps during an evaluation of waters that are too far apart to be neighbours."""
    atoms, held = molecule("H2O"), {}
    for k in range(1, n_waters):
        one = molecule("H2O")
        one.positions += 9.0 * np.array([k % 4, k // 4 % 4, k // 16])
        atoms += one
    systems = Systems.from_atoms(atoms)
    mine = potential(torch.float32, **settings).train(training).requires_grad_(training)
    kept = []

    def pack(tensor):
        kept.append(tensor)  # so that no storage is used twice
        held[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        mine(systems, neighbors(systems, mine.cutoff), head="a", create_graph=training)
    return sum(held.values())


class TestDirectForces:
    def test_they_are_said_to_be_direct_and_differ_from_the_gradient(self):
        direct, systems = potential(forces="direct").eval(), water()
        result = direct(systems, neighbors(systems, direct.cutoff), head="a")
        assert direct.conservative is False and result.forces.sum(0).abs().max() > 1e-3

    def test_lone_atoms_by_the_table_have_no_force(self):
        lone = potential(head="omol", forces="direct", isolated={"H": {"0": 2.5}}).eval()
        both = Systems.from_atoms([molecule("H2O"), molecule("H")])
        result = lone(both, neighbors(both, lone.cutoff), head="omol")
        assert result.energy[1].item() == -13.6 + 2.5 and result.forces[3].abs().max() == 0
        assert result.forces[:3].abs().max() > 0
        with pytest.raises(InputError, match="a lone O atom of charge .0: .* knows it with no charge at all"):
            oxygen = Systems.from_atoms(molecule("O"))
            lone(oxygen, neighbors(oxygen, lone.cutoff), head="omol")


@pytest.mark.parametrize("settings", [{"smooth": True, "angular": (2, 2)}, {"sinc": 4}], ids=["edges", "positions"])
def test_training_on_forces_has_the_right_gradient(settings):
    """The slope of a force loss along a random direction of all parameters, by central differences."""
    mine, systems = potential(**settings).train(), water()
    found = neighbors(systems, mine.cutoff)
    parameters = [p for p in mine.parameters() if p.requires_grad]

    def loss():
        return mine(systems, found, head="a", create_graph=True).forces.square().sum()

    gradients = torch.autograd.grad(loss(), parameters, allow_unused=True)
    generator = torch.Generator().manual_seed(3)
    direction = [torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in parameters]
    slope = sum((g * d).sum() for g, d in zip(gradients, direction, strict=True) if g is not None).item()
    values = []
    for sign in (1, -2):
        for p, d in zip(parameters, direction, strict=True):
            p.data += sign * 1e-5 * d
        values.append(loss().item())
    assert (values[0] - values[1]) / 2e-5 == pytest.approx(slope, rel=1e-5)
    unused = [name for (name, _), g in zip(mine.named_parameters(), gradients, strict=True) if g is None]
    assert all("blocks.1.edge_ffn" in name or name.endswith("bias") for name in unused)
