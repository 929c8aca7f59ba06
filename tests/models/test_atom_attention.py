"""The bias of the published ATOM from directions between tokens."""

import torch

from omnicalc.models.atom.attention import HarmonicBias


def test_equal_tokens_have_no_direction():
    """Copies along time differ by rounding alone before the first block; that must not decide a direction."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        bias, x = HarmonicBias(2).double(), torch.randn(1, 3, 6, dtype=torch.float64)
    tokens = torch.cat([x, x], 1)
    rounded = tokens.clone()
    rounded[:, 3:] += 1e-14 * torch.tensor([1.0, -2.0, 3.0, 0.0, 0.0, 0.0])
    with torch.no_grad():
        assert (bias(rounded) - bias(tokens)).abs().max() < 1e-9
        rounded[:, 3:] += 1e-3
        assert (bias(rounded) - bias(tokens)).abs().max() > 1e-3  # apart, they have one


def test_close_tokens_have_a_direction_in_float64():
    """As released: it depends on no distance, however small, that is more than rounding."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        bias = HarmonicBias(2).double()
    tokens = torch.zeros(1, 2, 6, dtype=torch.float64)
    found = []
    for apart in (1e-8, 1.0):
        tokens[0, 1, 0] = apart
        with torch.no_grad():
            found.append(bias(tokens))
    assert (found[0] - found[1]).abs().max() < 1e-9
