"""The blocked sum over neighbours against its slow twin: values, first and second derivatives."""

import pytest
import torch

from omnicalc.models.e2former import aggregate as module
from omnicalc.models.e2former.aggregate import aggregate


def slow(weights, value, index):
    """The formula of the docstring, literally."""
    heads = weights.shape[1]
    head_of_channel = torch.arange(value.shape[2]) % heads
    gathered = value[index]  # (N, K, rows, C)
    return torch.einsum("ncwk,nkrc->nwrc", weights[:, head_of_channel], gathered)


def example(n=5, k=3, heads=2, width=3, rows=4, channels=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    weights = torch.randn(n, heads, width, k, dtype=torch.float64, generator=generator, requires_grad=True)
    value = torch.randn(n, rows, channels, dtype=torch.float64, generator=generator, requires_grad=True)
    return weights, value, torch.randint(n, (n, k), generator=generator)


@pytest.mark.parametrize("bytes_per_block", [1, 600, 1 << 21])
def test_equals_the_slow_twin(monkeypatch, bytes_per_block):
    monkeypatch.setattr(module, "_BLOCK_BYTES", bytes_per_block)
    arguments = example()
    assert torch.allclose(aggregate(*arguments), slow(*arguments), rtol=0, atol=1e-13)


@pytest.mark.parametrize("shape", [{}, {"k": 1}, {"k": 0}, {"n": 1}, {"width": 1}])
def test_first_and_second_derivatives(shape):
    weights, value, index = example(**shape)
    assert torch.autograd.gradcheck(lambda w, v: aggregate(w, v, index), (weights, value))
    assert torch.autograd.gradgradcheck(lambda w, v: aggregate(w, v, index), (weights, value))


def test_a_wrong_derivative_is_noticed(monkeypatch):
    weights, value, index = example()
    monkeypatch.setattr(module, "_lanes", lambda index, heads: index.unsqueeze(1).expand(-1, heads, -1).flatten())
    assert not torch.allclose(aggregate(weights, value, index), slow(weights, value, index))


def test_contiguous_head_map_is_another_function():
    """Channels belong to heads in turn, c mod H; blocks of C / H channels give something else."""
    weights, value, index = example()
    blocks = weights.repeat_interleave(value.shape[2] // weights.shape[1], 1)
    other = torch.einsum("ncwk,nkrc->nwrc", blocks, value[index])
    assert not torch.allclose(aggregate(weights, value, index), other)
