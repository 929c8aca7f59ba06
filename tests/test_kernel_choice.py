"""Which kernel runs, and how long what it made is kept."""

import pickle
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from ase import Atoms

from omnicalc.errors import InputError
from omnicalc.kernel_choice import KernelChoice, WatchedWeights
from omnicalc.models import build_model
from omnicalc.neighbor_list import NeighborList
from omnicalc.potential import Head, Potential
from omnicalc.systems import Systems, cat


class Kernel:
    """Knows the elements it was made for, and counts."""

    made = 0

    def __init__(self, numbers):
        Kernel.made += 1
        self.numbers = list(numbers)

    def knows(self, numbers):
        return set(numbers) <= set(self.numbers)

    def prepare(self, systems, head):
        return SimpleNamespace(systems=systems)


def on_gpu() -> SimpleNamespace:
    """What the choice asks of a potential on a GPU."""
    model = torch.nn.Module()
    model.on_device = Kernel
    return SimpleNamespace(
        device=torch.device("cuda"), dtype=torch.float32, model=model, name_resolved="made up", spread=False,
        reference_energies=lambda systems, head: None,
    )  # fmt: skip


HEAD = torch.zeros(1, dtype=torch.int64)


def test_the_same_atoms_again_are_recorded():
    choice, potential = KernelChoice(), on_gpu()
    water = Systems.from_atoms(Atoms("OH2", positions=[[0, 0, 0], [1, 0, 0], [0, 1, 0]]))
    first = choice.binding_of_call(potential, water, HEAD)
    assert not first.record
    again = choice.binding_of_call(potential, water.with_positions(water.positions + 1), HEAD)
    assert again is first and again.record
    for other, head in ((Systems.from_atoms(Atoms("H2", positions=[[0, 0, 0], [1, 0, 0]])), HEAD), (water, HEAD + 1)):
        found = choice.binding_of_call(potential, other, head)
        assert found is not first and not found.record


def small(kernel: str) -> Potential:
    """Float32; its energies depend on charge, spin and head."""
    config = {"elements": [1, 8], "channels": 8, "attention_heads": 4, "layers": 1, "values": ["both"]}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build_model("e2former", {"heads": ["a", "b"], "system_input": "head-charge-spin", **config})
    for head in model.energy_heads.values():
        head[-1].weight.data *= 100
    references = {1: -13.0, 8: -400.0}
    potential = Potential(model.float().requires_grad_(False), [Head(name, references) for name in ("a", "b")])
    potential.kernel = KernelChoice(kernel)
    return potential


@torch.no_grad()
def in_place(model, name):
    model.get_parameter(name).mul_(1.5)


def in_data(model, name):  # as averages of weights are put in place, which torch does not count as a write
    model.get_parameter(name).data.mul_(1.5)


def other_data(model, name):
    model.get_parameter(name).data = 1.5 * model.get_parameter(name).data


def assigned(model, name):
    for _ in range(2):  # what is there after the first has no writes, as what comes then
        state = {key: value.clone() for key, value in model.state_dict().items()}
        model.load_state_dict({**state, name: 1.5 * state[name]}, assign=True)


class TestAKeptBinding:
    """Never shows but in speed: whatever changes, results are those of plain torch."""

    @staticmethod
    def apart(fast: Potential, slow: Potential, kept: NeighborList, systems: Systems, head="a") -> float:
        found, expected = (
            p.predict(systems, n, head=head, stress=True) for p, n in ((fast, kept), (slow, NeighborList(slow.cutoff)))
        )
        return max(
            float((getattr(found, x) - getattr(expected, x)).abs().max()) for x in ("energy", "forces", "stress")
        )

    def test_changes_of_the_structure(self):
        fast, slow, kept = small("native"), small("torch"), NeighborList(4.5)
        water = Systems.from_atoms(Atoms("OH2", positions=[[0, 0, 0], [1, 0, 0], [0, 1, 0]], cell=[4, 5, 6], pbc=True))
        states = [(water, "a"), (water.with_positions(water.positions * 1.01), "a"), (water, "b")]
        states += [(replace(water, cell=water.cell * 1.1), "a"), (replace(water, pbc=~water.pbc), "a")]
        states += [(replace(water, charge=water.charge + 1, spin=water.spin + 1), "a")]
        states += [(replace(water, spin=water.spin + 2), "a"), (replace(water, numbers=water.numbers.flip(0)), "a")]
        states += [(cat([water, water]), "a"), (water, "a")]
        energies = [fast.predict(systems, kept, head=head).energy[0].item() for systems, head in states]
        assert len({round(e, 4) for e in energies}) >= len(states) - 2
        for systems, head in states:
            assert self.apart(fast, slow, kept, systems, head) < 1e-4
        water.numbers[2] = 8  # in place, in what was given before
        assert self.apart(fast, slow, kept, water) < 1e-4

    def test_it_is_kept(self):
        potential, systems = small("native"), Systems.from_atoms(Atoms("OH2", positions=np.eye(3)))
        first, again = (potential.kernel.binding_of_call(potential, systems, HEAD) for _ in range(2))
        assert again is first is not None
        assert potential.kernel.binding_of_call(small("native"), systems, HEAD) is not first  # other weights

    @pytest.mark.parametrize("write", [in_place, in_data, other_data, assigned])
    def test_weights_that_are_trained(self, monkeypatch, write):
        def after_training() -> float:
            fast, slow, kept = small("native"), small("torch"), NeighborList(4.5)
            systems = Systems.from_atoms(Atoms("OH2", positions=np.eye(3), cell=[4, 5, 6], pbc=True))
            assert self.apart(fast, slow, kept, systems) < 1e-4
            for potential in (fast, slow):
                potential.requires_grad_(True)
                write(potential.model, "energy_heads.a.0.weight")
                potential.requires_grad_(False)
            return self.apart(fast, slow, kept, systems)

        assert after_training() < 1e-4
        monkeypatch.setattr(WatchedWeights, "are", lambda self, weights: True)
        assert after_training() > 1e-2  # the wrong variant: the kernel made before


def test_elements_are_added_to_those_it_was_made_for():
    choice, potential, Kernel.made = KernelChoice(), on_gpu(), 0
    for numbers, known in (([1, 8], [1, 8]), ([1], [1, 8]), ([6], [1, 6, 8]), ([8, 6], [1, 6, 8])):
        assert choice.native(potential, torch.tensor(numbers)).numbers == known
    assert Kernel.made == 2


@pytest.mark.parametrize("name", ["native-fp16", "native-bf16"])
def test_half_precision_is_for_a_gpu(name):
    config = {"heads": ["a"], "elements": [1, 8], "channels": 8, "attention_heads": 4, "layers": 1, "values": ["both"]}
    potential = Potential(build_model("e2former", config).float().requires_grad_(False), [Head("a", {1: 0.0, 8: 0.0})])
    potential.kernel = KernelChoice(name)
    with pytest.raises(InputError, match=f"{name}.*is for a GPU"):
        potential.kernel.native(potential, torch.tensor([1, 8]))


@pytest.mark.parametrize("name, maps", [("native-fp16", torch.float16), ("native-bf16", torch.bfloat16)])
def test_a_model_is_asked_for_maps_in_half_precision(name, maps):
    potential, asked = on_gpu(), []
    potential.model.on_device = lambda numbers, maps: asked.append(maps) or Kernel(numbers)
    KernelChoice(name).native(potential, torch.tensor([1, 8]))
    assert asked == [maps]


def test_threads_with_other_elements_get_a_kernel_that_knows_theirs(monkeypatch):
    """One thread grows the kernel while another is about to take it."""
    import threading
    import time

    choice, potential, given = KernelChoice(), on_gpu(), []

    class Slow(Kernel):
        def __init__(self, numbers, **more):
            time.sleep(0.05)
            super().__init__(numbers)

    potential.model.on_device = Slow

    def work(numbers):
        given.append((numbers, choice.native(potential, torch.tensor(numbers))))

    threads = [threading.Thread(target=work, args=([z],)) for z in (1, 6, 7, 8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(kernel.knows(numbers) for numbers, kernel in given)
    # each took over what those before had, so that nothing is made twice
    assert sorted(len(kernel.numbers) for _, kernel in given) == [1, 2, 3, 4]
    assert len(pickle.loads(pickle.dumps(choice)).wanted) > 0  # a lock is not carried along


def test_a_potential_that_moves_gets_another_kernel():
    choice, potential, Kernel.made = KernelChoice(), on_gpu(), 0
    potential.device = torch.device("cuda:0")
    first = choice.native(potential, torch.tensor([1, 8]))
    assert choice.native(potential, torch.tensor([1, 8])) is first
    potential.device = torch.device("cuda:1")
    assert choice.native(potential, torch.tensor([1, 8])) is not first and Kernel.made == 2
    potential.device = torch.device("cpu")  # where it has none
    assert choice.native(potential, torch.tensor([1, 8])) is None
