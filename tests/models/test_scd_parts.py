"""SCD's parts against independent references: truncation, whitening and its derivatives, pools, angles, settings."""

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from scipy.special import sph_harm_y, spherical_jn

from omnicalc import embedding
from omnicalc.errors import InputError, WeightsError
from omnicalc.models import build_model
from omnicalc.models.graph import Graph
from omnicalc.models.scd import SCDConfig
from omnicalc.models.scd.angular import angles_of, bessel, bessel_constants, harmonics
from omnicalc.models.scd.conditioning import VectorPreNorm
from omnicalc.models.scd.edges import edges_of
from omnicalc.models.scd.heads import NoiseNormalizer, pool
from omnicalc.models.scd.published import translate
from omnicalc.models.scd.radial import CosineCutoff
from omnicalc.models.scd.whitening import SquareRoot, Whitening, lyapunov
from omnicalc.neighbors import neighbors
from omnicalc.potential import Head, Potential
from omnicalc.systems import Systems


def graph_of(atoms, cutoff=5.0) -> Graph:
    systems = Systems.from_atoms(atoms)
    found = neighbors(systems, cutoff)
    vectors = found.vectors(systems.positions, systems.cell, systems.system)
    return Graph.build(systems, found, vectors, torch.zeros(systems.n_systems, dtype=torch.int64))


class TestEdges:
    def test_vectors_and_loops(self):
        atoms = molecule("CH3OH")
        edges = edges_of(graph_of(atoms), cutoff=5.0)
        d = atoms.positions[edges.source] - atoms.positions[edges.target]
        assert np.abs(edges.vectors.numpy() - d).max() < 1e-12
        loops = edges.source == edges.target
        assert loops.sum() == len(atoms) and loops[-len(atoms) :].all() and edges.n_pairs == 30

    def test_truncation_keeps_ties_and_warns(self):
        """fcc copper, 12, 6 and 24 within 5 Å: a limit of 14 cuts into the second shell, which stays whole."""
        graph = graph_of(bulk("Cu", a=3.6, cubic=True))
        with pytest.warns(RuntimeWarning, match="more than 14"):
            cut = edges_of(graph, cutoff=5.0, max_neighbors=14)
        assert cut.n_pairs == 4 * 18
        with pytest.warns(RuntimeWarning):
            assert edges_of(graph, cutoff=5.0, max_neighbors=11).n_pairs == 4 * 12
        assert edges_of(graph, cutoff=5.0, max_neighbors=42).n_pairs == edges_of(graph, cutoff=5.0).n_pairs == 4 * 42

    def test_molecular_builder_refuses(self):
        graph = graph_of(molecule("C6H6"))
        with pytest.raises(InputError, match="132 pairs"):
            edges_of(graph, cutoff=5.0, max_neighbors=8, refuse_more_pairs=True)
        kept = edges_of(graph, cutoff=5.0, max_neighbors=11, refuse_more_pairs=True)
        assert kept.n_pairs == 132

    def test_self_images(self):
        """Directions to one's own images are units with our own settings, and keep their length with the release's."""
        graph = graph_of(bulk("Cu", a=3.6))
        ours = edges_of(graph, cutoff=5.0).directions().norm(dim=1)
        theirs = edges_of(graph, cutoff=5.0, normalise_images=False).directions().norm(dim=1)
        assert (ours[:-1] - 1).abs().max() < 1e-6 and ours[-1] == 0
        assert theirs[:-1].min() > 2 and theirs[-1] == 0


class TestWhitening:
    def test_covariance_of_the_result_is_one(self):
        v = torch.randn(4, 3, 500, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        w = Whitening(500).double()(v * torch.tensor([1.0, 5.0, 0.3]).view(1, 3, 1))
        covariance = w @ w.transpose(1, 2) / 500
        assert (covariance - torch.eye(3)).abs().max() < 1e-3

    def test_first_and_second_derivatives_exist_for_equal_eigenvalues(self):
        a = torch.eye(3, dtype=torch.float64).repeat(2, 1, 1) * 2
        a[1] = torch.diag(torch.tensor([1.0, 1.0, 3.0]))

        def root(x):
            return SquareRoot.apply(0.5 * (x + x.transpose(1, 2)))

        assert torch.autograd.gradcheck(root, a.requires_grad_(True))
        assert torch.autograd.gradgradcheck(root, a)
        assert (root(a) @ root(a) - a).abs().max() < 1e-12

    def test_lyapunov(self):
        g = torch.Generator().manual_seed(1)
        m, b = (torch.randn(3, 3, 3, dtype=torch.float64, generator=g) for _ in range(2))
        u = m @ m.transpose(1, 2) + torch.eye(3)
        x = lyapunov(u, b)
        assert (u @ x + x @ u - b).abs().max() < 1e-12

    def test_a_vector_field_of_zero_has_gradients(self):
        v = torch.zeros(1, 3, 8, dtype=torch.float64, requires_grad=True)
        Whitening(8).double()(v).square().sum().backward()
        assert torch.isfinite(v.grad).all()


def test_equivariant_prenorm_turns_with_the_vectors_and_has_a_gradient_at_zero():
    v = torch.randn(5, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    q, _ = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1)))
    for equivariant in (True, False):
        norm = VectorPreNorm(4, equivariant).double()
        turned = torch.einsum("ab,nbc->nac", q, norm(v))
        assert ((norm(torch.einsum("ab,nbc->nac", q, v)) - turned).abs().max() < 1e-12) == equivariant
    zero = torch.zeros(1, 3, 4, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(VectorPreNorm(4, True).double()(zero).sum(), zero)
    assert (gradient - 1).abs().max() < 1e-9


def test_cutoff_powers():
    r = torch.tensor([0.0, 2.5, 4.999, 5.0, 6.0], dtype=torch.float64)
    one, two = CosineCutoff(5.0, 1)(r), CosineCutoff(5.0, 2)(r)
    assert one.tolist() == pytest.approx([1, 0.5, 9.8696e-8, 0, 0], abs=1e-10)
    assert torch.equal(two, one**2)


def test_pools():
    x, system = torch.tensor([1.0, 2.0, 6.0, -4.0]), torch.tensor([0, 0, 0, 1])
    wanted = {
        "sum": [9, -4], "mean": [3, -4], "mean-plus-one": [9 / 4, -2], "max": [6, 0], "min": [0, -4],
    }  # fmt: skip
    for kind, values in wanted.items():
        assert pool(x, system, 2, kind).tolist() == pytest.approx(values), kind


def test_noise_normaliser():
    noise = torch.randn(400, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([0.1, 0.2, 0.3]) + 0.05
    normalizer = NoiseNormalizer()
    for part in noise.split(100):
        normalizer.update(part)
    assert (normalizer.mean - noise.mean(0)).abs().max() < 1e-6
    assert (normalizer.std - noise.std(0, unbiased=False)).abs().max() < 1e-5
    assert (normalizer.displacement(normalizer.normalised(noise)) - noise).abs().max() < 1e-6


def test_bessel_functions_and_harmonics_are_those_of_scipy():
    x = np.linspace(0.05, 1.0, 30)
    zeros, scales = bessel_constants()
    found = bessel(torch.from_numpy(x)).numpy()
    for l in range(3):
        assert np.abs(spherical_jn(l, np.array(zeros[l]))).max() < 1e-6
        for n in range(6):
            assert np.abs(found[:, l, n] - spherical_jn(l, zeros[l][n] * x) * scales[l][n]).max() < 1e-11
    theta, phi = np.linspace(0.1, 3.0, 9), np.linspace(0.2, 6.0, 9)
    mine = harmonics(torch.from_numpy(theta), torch.from_numpy(phi)).numpy()
    for k, (l, m) in enumerate([(0, 0), (1, 0), (1, 1), (1, -1), (2, 0), (2, 1), (2, 2), (2, -2), (2, -1)]):
        y = sph_harm_y(l, abs(m), theta, phi)  # scipy's has the Condon-Shortley sign
        wanted = y.real if m == 0 else 2**0.5 * (y.real if m > 0 else y.imag)
        assert np.abs(mine[:, k] - wanted).max() < 1e-12, (l, m)


def test_angles_and_torsions_about_a_nitrogen():
    """Angles against ASE; the one torsion of each pair of N-H edges against vectors projected onto the plane."""
    atoms = molecule("NH3")
    atoms.rattle(0.1, seed=2)
    edges = edges_of(graph_of(atoms, 1.4), cutoff=1.4)
    found = angles_of(edges)
    assert len(found.angle) == 6  # at N: every H with the two others; at an H there is N alone
    ends = torch.stack([edges.source, edges.target], 1)
    r = atoms.positions - atoms.positions[0]
    for kj, ji, angle, torsion in zip(found.edge_kj, found.edge_ji, found.angle, found.torsion, strict=True):
        (k, j), i = ends[kj].tolist(), ends[ji][1].item()
        (n,) = {1, 2, 3} - {k, i}
        assert j == 0 and float(angle) == pytest.approx(np.radians(atoms.get_angle(k, 0, i)))
        axis = r[i] / np.linalg.norm(r[i])
        flat = [r[m] - (r[m] @ axis) * axis for m in (k, n)]
        turn = np.arctan2(np.cross(*flat) @ axis, flat[0] @ flat[1]) % (2 * np.pi)
        assert float(torsion) == pytest.approx(turn)
    pair = angles_of(edges_of(graph_of(molecule("H2O"), 1.4), cutoff=1.4))
    assert pair.torsion.tolist() == pytest.approx([2 * np.pi] * 2)  # no third neighbour, no torsion


@pytest.mark.parametrize("crystal", ["Cu", "NaCl", "Si, bent"])
def test_angles_do_not_depend_on_the_cell(crystal):
    """Images of one atom are atoms of their own, in line and in plane as they lie; told by the index they are lost."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        settings = {"backbone": "cgt", "channels": 16, "attention_heads": 4, "layers": 1, "gives": "embeddings"}
        network = build_model("scd", settings).double().eval()
    small = {"Cu": bulk("Cu", a=3.6), "NaCl": bulk("NaCl", "rocksalt", a=5.64)}.get(crystal) or bulk("Si", a=5.43)
    if crystal == "Si, bent":
        small.set_cell(small.cell + [[0.2, 0.0, 0.1], [0.0, 0.3, 0.0], [0.1, 0.0, -0.2]], scale_atoms=True)
        small.positions[1] += [0.1, 0.05, -0.1]
    small.rotate(33, (1, 2, 3), rotate_cell=True)
    with torch.no_grad():
        one, many = (network.embed(graph_of(atoms, network.cutoff)) for atoms in (small, small.repeat((2, 1, 1))))
    assert (one - many).abs().max() < 1e-12


class TestSettings:
    @pytest.mark.parametrize(
        "change, message",
        [
            ({"backbone": "gt"}, "ct, et, cgt"),
            ({"channels": 30}, "multiple of attention_heads"),
            ({"drop_path": 1.0}, "probability"),
            ({"cutoff": 0.0}, "above 0"),
            ({"heads": ["a", "a"]}, "name of its own"),
            ({"layers": 0}, "layers = 0"),
            ({"widht": 3}, "unknown scd settings: widht"),
            ({"detach_modulation": "false"}, "detach_modulation = 'false' given; true or false is needed"),
            ({"softening": -0.1}, "softening = -0.1 given; 0 or more is needed"),
            ({"softening": "x"}, "softening = 'x' given; a number is needed"),
            ({"clamp": -1.0}, "clamp = -1.0 given; a number above 0"),
            ({"residuals_after": -1}, "residuals_after = -1 given; a whole number of at least 0"),
            ({"reference_rows": 0}, "reference_rows = 0 given; a whole number of at least 1"),
            ({"mean": "x"}, "mean = 'x' given; a number is needed"),
            ({"gives": "forces"}, "energies, properties, embeddings"),
            ({"self_conditioned": True}, "an energy would depend on molecules however far away"),
            ({"self_conditioned": True, "gives": "properties", "backbone": "et"}, "a backbone with a condition"),
        ],
    )
    def test_what_cannot_be(self, change, message):
        with pytest.raises(WeightsError, match=message):
            SCDConfig.from_dict(change)

    def test_a_card_s_table_makes_the_same_settings(self):
        config = SCDConfig(heads=("a", "b"), backbone="cgt", max_neighbors=32)
        assert SCDConfig.from_dict(config.to_dict()) == config

    @pytest.mark.parametrize(
        "setting", [{"model": "GET"}, {"activation": "relu"}, {"num_spherical": 4}, {"head_agg": "median"}]
    )
    def test_published_settings_that_are_not_supported(self, setting):
        with pytest.raises(WeightsError, match="support"):
            translate({"model": "CET", **setting})

    def test_elements_without_a_row(self):
        model = build_model("scd", {"channels": 16, "rows": 9, "n_basis": 4})
        with pytest.raises(InputError, match="atomic number 17"):
            model.edges(graph_of(Atoms("HCl", [[0, 0, 0], [0, 0, 1.3]])))

    @pytest.mark.parametrize(
        "flags",
        [
            {"inv_post_norm": False, "layernorm_on_vec": True},
            {"vec_post_norm": True, "vector_cutoff": False},
            {"rbf_type": "gauss", "neighbor_embedding": False, "distance_influence": "keys"},
            {"vec_prenorm": False, "distance_influence": "none", "head_agg": "max", "add_head_to_pred": True},
            {"model": "ET", "layernorm_on_vec": False, "head_agg": "min"},
            {"model": "CFrad", "derivative": True, "layernorm_on_vec": False},
        ],
    )
    def test_every_published_flag_runs_and_sums_to_its_value(self, flags):
        """Shares of atoms add up to the value that pooling makes; gradients are finite."""
        sizes = {"emb_dim": 16, "num_layers": 2, "num_heads": 4, "num_rbf": 6, "trainable_rbf": True}
        config = translate({"model": "CET", "vec_prenorm": True, "inv_post_norm": True, **sizes, **flags})
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = build_model("scd", config.to_dict()).double().eval()
        model.mean.fill_(-0.4)
        graph = graph_of([molecule("CH3OH"), molecule("H2O")])
        edges = model.edges(graph)
        x, v = model.features(edges)
        outputs = model.atom_outputs(x, v, graph.head[graph.system])
        wanted = pool(outputs, graph.system, 2, config.energy_pool) + model.mean
        if config.embedding_adds_to_energy:
            wanted = wanted + model.embedding_head(x, graph.system, 2).mean(-1) + model.mean
        assert (model.values(graph) - wanted).abs().max() < 1e-12
        model.values(graph).sum().backward()
        assert all(p.grad is None or torch.isfinite(p.grad).all() for p in model.parameters())


def test_properties_under_their_own_embedding():
    """Two passes, the second with what the first one pools; every structure sees its own and no other."""
    sizes = {"channels": 16, "layers": 1, "n_basis": 4, "gives": "properties", "energy_pool": "mean"}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = build_model("scd", {**sizes, "self_conditioned": True}).double().eval()
    plain = build_model("scd", sizes).double().eval()
    plain.load_state_dict(model.state_dict())
    both = graph_of([molecule("CH3OH"), molecule("H2O")])
    values = model.values(both)
    assert (values - plain.values(both, plain.embed(both))).abs().max() < 1e-12
    assert (values - plain.values(both)).abs().min() > 1e-4
    alone = torch.cat([model.values(graph_of(molecule(name))) for name in ("CH3OH", "H2O")])
    assert (values - alone).abs().max() < 1e-12
    sums = torch.zeros_like(values).index_add(0, both.system, model(both).energies)
    assert (sums - values).abs().max() < 1e-12


def test_embedding_of_many_structures_tells_how_far_it_is(monkeypatch):
    monkeypatch.setattr(embedding, "BATCH_ATOMS", 7)
    sizes = {"channels": 16, "attention_heads": 4, "layers": 1, "n_basis": 4, "gives": "embeddings"}
    potential = Potential(build_model("scd", sizes).eval(), [Head("a", {1: 0.0, 8: 0.0})])
    told = []
    embedding.embed([molecule("H2O")] * 5, potential, progress=lambda *given: told.append(given))
    assert told == [(2, 5), (4, 5), (5, 5)]
