"""Self-conditioned denoising of several backbones: gradients, determinism, conditions, crystals, pockets."""

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule

from omnicalc.errors import InputError
from omnicalc.models import build_model
from omnicalc.systems import Systems
from omnicalc.training.cell_tiling import random_repeats
from omnicalc.training.denoising import NoiseSettings, denoise, denoise_pairs, denoise_systems, noise_of, tiled_systems
from omnicalc.training.objectives import build_objective
from omnicalc.training.objectives.energy_forces_denoising import drop_path_at
from omnicalc.training.pockets import mixed_neighbourhood, pocket_and_ligand

NETWORKS = {
    "ct": ("scd", {"channels": 16, "layers": 2, "n_basis": 8, "attention_heads": 4}),
    "cgt": ("scd", {"backbone": "cgt", "channels": 16, "layers": 1, "n_basis": 8, "attention_heads": 4}),
    "e2former": (
        "denoiser",
        {"backbone": "e2former", "settings": {"elements": [1, 6, 8], "channels": 16, "l_max": 1, "n_basis": 6}},
    ),
    "allscaip": (
        "denoiser",
        {
            "backbone": "allscaip",
            "settings": {
                "width": 16, "layers": 2, "attention_heads": 2, "cutoff": 4.0, "neighbors": 8, "n_radial": 8,
                "direction_degrees": 3, "order_degrees": 3, "max_elements": 20,
            },
        },
    ),
}  # fmt: skip


@pytest.fixture(params=list(NETWORKS))
def network(request):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build_model(*NETWORKS[request.param]).float()


def molecules() -> Systems:
    return Systems.from_atoms([molecule("CH3CH2OH"), molecule("H2O"), molecule("CH4")])


def step(network, systems=None, seed=0, **settings):
    generator = torch.Generator().manual_seed(seed)
    return denoise_systems(network, systems or molecules(), NoiseSettings(**settings), generator)


@pytest.mark.parametrize("widest_noise", [None, 0.1])
def test_training_lowers_the_loss_of_every_backbone(network, widest_noise):
    """Twenty-five steps of Adam on the same draws; the gradient reaches the embedding head through the condition."""
    for parameter in network.frozen_in_pretraining():
        parameter.requires_grad_(False)
    network.train()
    with torch.no_grad():
        step(network, widest_noise=widest_noise)  # the normaliser has seen noise
    trained = [p for p in network.parameters() if p.requires_grad]
    optimiser = torch.optim.Adam(trained, lr=1e-2)
    losses = []
    for _ in range(25):
        found = step(network, widest_noise=widest_noise)
        optimiser.zero_grad()
        found.loss.backward()
        optimiser.step()
        losses.append(found.loss.item())
    assert np.mean(losses[-3:]) < 0.9 * losses[0]
    reached = [n for n, p in network.embedding_head.named_parameters() if p.grad is not None and p.grad.abs().max() > 0]
    assert reached
    assert all(p.grad is None for p in network.frozen_in_pretraining())


def test_the_same_generator_gives_the_same_step(network):
    """Draws inside the network (dropped conditions and paths) included, whatever the global generator is at."""
    network.train()
    state = {k: v.clone() for k, v in network.state_dict().items()}
    before = torch.get_rng_state()
    first = step(network).loss
    assert torch.equal(torch.get_rng_state(), before)
    network.load_state_dict(state)
    torch.rand(3)
    assert torch.equal(step(network).loss, first)
    network.load_state_dict(state)
    assert not torch.equal(step(network, seed=1).loss, first)
    torch.set_rng_state(before)


def test_conditions_matter_and_their_absence_is_the_plain_pass(network):
    network.eval()
    with torch.no_grad():
        conditioned, plain = step(network), step(network, self_conditioned=False)
        assert conditioned.condition.shape[0] == 3 and plain.condition is None
        # the corrupted view is the first draw of both
        assert torch.equal(conditioned.target, plain.target)
        assert (conditioned.prediction - plain.prediction).abs().max() > 1e-6


def test_dropped_conditions_are_absent_ones():
    """With a dropout of (almost) one, the denoising pass does not depend on the clean one."""
    family, config = NETWORKS["e2former"]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = build_model(family, {**config, "condition_dropout": 0.999999}).float().train()
    with torch.no_grad():
        dropped, plain = step(network), step(network, self_conditioned=False)
    assert torch.equal(dropped.prediction, plain.prediction)


def test_noise_of_molecules_is_centred_and_that_of_crystals_is_not():
    crystal = bulk("NaCl", "rocksalt", a=5.64, cubic=True)
    systems = Systems.from_atoms([molecule("CH3CH2OH"), crystal])
    noise = noise_of(systems, 0.04, torch.Generator().manual_seed(0))
    assert noise[:9].mean(0).abs().max() < 1e-15
    assert noise[9:].mean(0).abs().max() > 1e-4
    many = noise_of(Systems.from_atoms([crystal * (4, 4, 4)]), 0.04, torch.Generator().manual_seed(0))
    assert float(many.std()) == pytest.approx(0.04, rel=0.05)


def test_small_cells_are_tiled_and_batches_cut():
    rng, copper = np.random.default_rng(0), bulk("Cu")
    sizes = {len(copper) * int(np.prod(random_repeats(1, (True,) * 3, rng))) for _ in range(60)}
    assert min(sizes) >= 4 and max(sizes) == 8
    assert random_repeats(1, (True, False, False), rng)[1:] == (1, 1)
    assert random_repeats(1, (False,) * 3, rng) == (1, 1, 1)
    systems = Systems.from_atoms([copper, bulk("Si"), molecule("H2O")])
    made = tiled_systems(systems, NoiseSettings(), np.random.default_rng(1))
    assert made.n_systems == 3 and made.counts[2] == 3 and made.counts[0] >= 4
    cut = tiled_systems(systems, NoiseSettings(most_atoms=9), np.random.default_rng(1))
    assert cut.n_atoms <= 9 and cut.n_systems >= 1
    density = made.counts[0] / torch.linalg.det(made.cell[0]).abs()
    assert float(density) == pytest.approx(1 / copper.get_volume())


def complex_with_ligand() -> tuple[Atoms, np.ndarray, np.ndarray]:
    """Forty 'residues' of five atoms on a line, and a ligand near the tenth."""
    rng = np.random.default_rng(0)
    positions = np.repeat(np.c_[4.0 * np.arange(40), np.zeros((40, 2))], 5, axis=0) + rng.normal(size=(200, 3))
    ligand = np.array([40.0, 6.0, 0.0]) + 1.5 * rng.normal(size=(7, 3))
    atoms = Atoms("C" * 207, np.concatenate([positions, ligand]))
    marks = np.arange(207) >= 200
    return atoms, marks, np.where(marks, -1, np.arange(207) // 5)


def test_pockets_are_whole_residues_around_the_ligand():
    atoms, marks, residue = complex_with_ligand()
    pocket, ligand = pocket_and_ligand(atoms, marks, residue, np.random.default_rng(1), residues=8, shift=0.0)
    assert len(ligand) == 7 and len(pocket) == 40
    assert np.abs(pocket.positions[:, 0].mean() - 40) < 6
    moved, _ = pocket_and_ligand(atoms, marks, residue, np.random.default_rng(1), residues=8, shift=20.0)
    assert np.abs(moved.positions.mean(0) - pocket.positions.mean(0)).max() > 3
    kinds = {len(mixed_neighbourhood(atoms, marks, residue, np.random.default_rng(k), residues=8)) for k in range(12)}
    assert kinds == {40, 47}
    with pytest.raises(InputError, match="ligand"):
        pocket_and_ligand(atoms, np.zeros(207, dtype=bool), residue, np.random.default_rng(0))


def test_ligands_are_denoised_on_their_pockets_alone():
    """The condition changes the prediction; the pocket's atoms are no part of the denoised graph."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = build_model(*NETWORKS["ct"]).eval()
    ligands = molecules()
    pockets = Systems.from_atoms([molecule("C6H6"), molecule("CH3OH"), molecule("NH3")])
    others = Systems.from_atoms([molecule("CH3OH"), molecule("NH3"), molecule("C6H6")])
    results = []
    with torch.no_grad():
        for condition in (pockets, others):
            generator = torch.Generator().manual_seed(0)
            results.append(denoise_pairs(network, condition, ligands, NoiseSettings(), generator))
    assert len(results[0].prediction) == ligands.n_atoms
    assert (results[0].prediction - results[1].prediction).abs().max() > 1e-6
    with pytest.raises(InputError, match="conditions"):
        denoise_pairs(network, pockets, Systems.from_atoms(molecule("H2O")), NoiseSettings(), torch.Generator())


def test_backbones_refuse_energies():
    network = build_model(*NETWORKS["e2former"])
    with pytest.raises(InputError, match="denoiser"):
        network.check(molecules())


def spreads(noise, systems) -> np.ndarray:
    """Root mean square of the noise of each structure, Å."""
    return np.array([noise[systems.system == k].square().mean().sqrt().item() for k in range(systems.n_systems)])


def test_noise_of_many_widths_is_drawn_log_uniformly():
    systems = Systems.from_atoms([bulk("Si", cubic=True).repeat(2)] * 400)  # crystals: their mean is not taken off
    found = spreads(noise_of(systems, 0.04, torch.Generator().manual_seed(1), 0.5), systems)
    assert 0.035 < found.min() < 0.045 and 0.43 < found.max() < 0.57
    places = np.log(found / 0.04) / np.log(0.5 / 0.04)
    assert np.histogram(places, bins=4, range=(0, 1))[0] == pytest.approx(100, abs=35)
    alike = spreads(noise_of(systems, 0.04, torch.Generator().manual_seed(1)), systems)
    assert alike == pytest.approx(0.04, rel=0.25)


@pytest.mark.parametrize("noisier", [1.0, 10.0])
def test_noisier_structures_count_by_the_root_of_their_square(noisier):
    """Errors are half of the noise in both structures: the second's share is ``noisier``, else its square."""

    class Halves(torch.nn.Module):  # half of the noise is found
        noise_normalizer = type("N", (), {"normalised": staticmethod(lambda noise: noise)})
        training = False

        def node_features(self, graph, condition):
            return None, graph

        def noise_head(self, x, graph):
            return None, 0.5 * noise

    noise = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]).repeat(2, 1)
    noise[2:] *= noisier
    graph = type("Graph", (), {"system": torch.tensor([0, 0, 1, 1])})
    network = Halves().eval()
    assert denoise(network, graph, noise).loss.item() == pytest.approx((1 + noisier**2) / 24)
    assert denoise(network, graph, noise, even=True).loss.item() == pytest.approx((1 + noisier) / 24 * 3**0.5)
    noise[2:] = 0.0  # as of an atom alone
    assert denoise(network, graph, noise, even=True).loss.item() == pytest.approx(1 / 24 * 3**0.5)


@pytest.mark.parametrize(
    "key, value",
    [("clean_noise", -0.1), ("corrupt_noise", 0.0), ("tile_cells", 1), ("widest_noise", 0.04), ("widest_noise", True)],
)
def test_settings_that_cannot_be(key, value):
    with pytest.raises(InputError, match=key):
        build_objective({"name": "self-conditioned-denoising", key: value})


def test_drop_path_ends_after_the_warm_up():
    assert drop_path_at(0, first=0.15, last=0.0, warmup=500) == 0.15
    assert drop_path_at(1250, first=0.15, last=0.0, warmup=500) == pytest.approx(0.075)
    assert drop_path_at(9999, first=0.15, last=0.0, warmup=500) == 0.0
