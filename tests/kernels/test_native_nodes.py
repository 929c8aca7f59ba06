"""Networks of single atoms in native loops: equal to the modules they are made from, in all that training takes."""

import copy
import pickle
import threading

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck
from torch.nn import functional as F

from omnicalc.kernels.native import attention, build, library, nodes
from omnicalc.models import build_model
from omnicalc.models.e2former.node_networks import after_attention

BUILT = [name for name in library._supported() if build.library(name, build.NODES).exists()]
ATOMS = 11  # more than one tile, the last one not full


def block(l_max=2, value="first-order", channels=20, dtype=torch.float64):
    settings = {"channels": channels, "attention_heads": 4, "query_width": 4, "value_multiplicity": 3, "n_basis": 4}
    settings |= {"heads": ["a"], "elements": [1], "l_max": l_max, "values": [value], "layers": 1}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build_model("e2former", settings)
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.4)
    return model.to(dtype).blocks[0]


def before(block):
    """The network and the modules it stands for, with inputs."""

    def plain(x, s):
        y = block.norm_attention(x)
        y = y + F.pad(s.unsqueeze(1), (0, 0, 0, x.shape[1] - 1))
        return block.attention.query(y), block.attention.key(y), block.attention.value(y)

    rows, channels = len(block.norm_attention.degree), block.norm_attention.gamma.shape[1]
    return block._native(True)[0], plain, inputs(block, (rows, channels), (channels,))


def after(block):
    def plain(x, moments):
        x = x + block.attention.aggregate.combine(moments)
        return (x + block.ffn(block.norm_ffn(x)),)

    rows, channels = len(block.norm_attention.degree), block.norm_attention.gamma.shape[1]
    width = block.attention.aggregate.order.width
    return block._native(True)[1], plain, inputs(block, (rows, channels), (width, rows, channels))


def inputs(block, *shapes):
    generator = torch.Generator().manual_seed(1)
    dtype = block.norm_attention.gamma.dtype
    return [torch.randn(ATOMS, *s, dtype=torch.float64, generator=generator).to(dtype).requires_grad_() for s in shapes]


def trained(function, given, parameters):
    """Values, gradients by the inputs, and gradients of a function of both by inputs and weights."""
    generator = torch.Generator().manual_seed(2)
    out = function(*given)

    def mixed(tensors):
        weights = [torch.randn(t.shape, dtype=torch.float64, generator=generator).to(t.dtype) for t in tensors]
        return sum((w * t).sum() for w, t in zip(weights, tensors, strict=True))

    first = torch.autograd.grad(mixed([o.square() for o in out]), given, create_graph=True)
    second = torch.autograd.grad(mixed(first) + mixed([o.sin() for o in out]), [*given, *parameters], allow_unused=True)
    return out, first, [s for s in second if s is not None]


def differences(found, expected) -> list[float]:
    return [
        max(float(((a - b).abs().max() / b.abs().max()).detach()) for a, b in zip(x, y, strict=True))
        for x, y in zip(found, expected, strict=True)
    ]


def compared(part, block):
    network, plain, given = part(block)
    parameters = list(block.parameters())
    return differences(trained(network, given, parameters), trained(plain, given, parameters))


@pytest.mark.parametrize("name", BUILT)
@pytest.mark.parametrize("part", [before, after])
@pytest.mark.parametrize("l_max, value, channels", [(2, "first-order", 20), (1, "both", 16), (2, "zero-order", 4)])
def test_equals_the_modules(instructions, name, part, l_max, value, channels):
    instructions(name)
    assert max(compared(part, block(l_max, value, channels))) < 1e-12
    assert max(compared(part, block(l_max, value, channels, torch.float32))) < 1e-5


@pytest.mark.parametrize("part", [before, after])
def test_derivatives_by_inputs(part):
    network, _, given = part(block(1, "both", 8))
    given = [x[:2].detach().requires_grad_() for x in given]
    assert gradcheck(network, given, fast_mode=True)
    assert gradgradcheck(network, given, fast_mode=True)


@pytest.mark.parametrize("part", [before, after])
def test_a_tangent_that_is_lost_is_noticed(part, monkeypatch):
    """Second derivatives are wrong then, and nothing else."""
    right = nodes.NodeNetwork.run

    def wrong(self, values, weights, *, tangents=None, **options):
        tangents = None if tangents is None else [tangents[0], torch.zeros_like(tangents[1])]
        return right(self, values, weights, tangents=tangents, **options)

    monkeypatch.setattr(nodes.NodeNetwork, "run", wrong)
    value, first, second = compared(part, block())
    assert value < 1e-12 and first < 1e-12 and second > 1e-3


@pytest.mark.parametrize("part", [before, after])
def test_weights_are_those_of_the_moment(part):
    some = block()
    network, plain, given = part(some)
    network(*given)
    with torch.no_grad():
        for parameter in some.parameters():
            parameter.mul_(1.1)
    assert max(differences([network(*given)], [plain(*given)])) < 1e-12


def test_threads_do_not_change_a_bit():
    some, before_, found = block(dtype=torch.float32), torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            network, _, given = after(some)
            found.append([x for part in trained(network, given, list(some.parameters())) for x in part])
    finally:
        torch.set_num_threads(before_)
    for other in found[1:]:
        assert all(map(torch.equal, found[0], other))


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda block: pickle.loads(pickle.dumps(block))])
def test_copies_use_their_own_weights(copied):
    some = block()
    network, _, given = after(some)
    before_ = network(*given)[0]
    other = copied(some)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(1.1)
    found, plain, _ = after(other)
    assert max(differences([found(*given)], [plain(*given)])) < 1e-12
    assert torch.equal(network(*given)[0], before_) and not torch.equal(found(*given)[0], before_)


def test_threads_may_share_a_block(monkeypatch):
    """One asks for its networks while another is half way through making them."""
    shared, half_way = block(), threading.Barrier(2, timeout=10)

    def slowly(*parts):
        if threading.current_thread() is first:
            half_way.wait()  # until the second may begin
            half_way.wait()  # until it has what it asked for
        return after_attention(*parts)

    monkeypatch.setattr("omnicalc.models.e2former.model.after_attention", slowly)
    first = threading.Thread(target=shared._native, args=(True,))
    first.start()
    half_way.wait()
    try:
        assert len(shared._native(True)) == 2
    finally:
        half_way.wait()
        first.join()


def test_mixed_types_are_refused():
    """Weights of another type would be read as what they are not."""
    some = block(dtype=torch.float32)
    network, _, given = after(some)
    some.ffn.gate.double()
    with pytest.raises(TypeError, match="tensors of one type"):
        network(*given)


def test_no_atoms():
    network, _, given = after(block())
    (out,) = network(*(x[:0] for x in given))
    assert out.shape == (0, 9, 20)


def test_all_are_built():
    assert attention.why_not() is None and set(BUILT) == set(library._supported())
