"""Whitening of vector features: the layer norm of vectors in the release, with gradients that exist everywhere.

    v_c = v - mean over channels,   S = v_c v_c^T / D + 1e-5 diag(1, 2, 3),   W(v) = (S + 1e-5)^(-1/2) v_c * w

in float64 whatever the dtype. diag(1, 2, 3) makes the release's eigenvectors unique; it also breaks rotational
symmetry where S is small or of low rank (planar and linear molecules).
"""

import torch
from torch import Tensor, nn

EPS = 1e-5


class Whitening(nn.Module):
    """(N, 3, D) -> (N, 3, D)."""

    def __init__(self, channels: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))

    def forward(self, v: Tensor) -> Tensor:
        centred = v.double() - v.double().mean(-1, keepdim=True)
        covariance = centred @ centred.transpose(1, 2) / v.shape[-1]
        tie_break = torch.diag(EPS * torch.arange(1.0, 4.0, dtype=torch.float64, device=v.device))
        shift = EPS * torch.eye(3, dtype=torch.float64, device=v.device)
        root = SquareRoot.apply(covariance + tie_break + shift)
        return torch.linalg.solve(root, centred).to(v.dtype) * self.weight


class SquareRoot(torch.autograd.Function):
    """U = A^(1/2) of symmetric positive matrices (N, n, n).

    dU solves U dU + dU U = dA, which is regular for any eigenvalues, equal ones included; the gradients of
    eigenvectors are not. The solution is made of ordinary operations, so it can be differentiated again.
    """

    @staticmethod
    def forward(ctx, a: Tensor) -> Tensor:
        values, vectors = torch.linalg.eigh(a)
        root = vectors @ (values.clamp(min=0).sqrt().unsqueeze(-1) * vectors.transpose(1, 2))
        ctx.save_for_backward(root)
        return root

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        (root,) = ctx.saved_tensors
        return lyapunov(root, 0.5 * (gradient + gradient.transpose(1, 2)))


def lyapunov(u: Tensor, b: Tensor) -> Tensor:
    """X with u X + X u = b, for symmetric positive u (N, n, n)."""
    n = u.shape[-1]
    eye = torch.eye(n, dtype=u.dtype, device=u.device)
    # row-major vec: vec(u X) = (u (x) 1) vec X, vec(X u) = (1 (x) u^T) vec X
    left = torch.einsum("nij,kl->nikjl", u, eye).reshape(-1, n * n, n * n)
    right = torch.einsum("ij,nlk->nikjl", eye, u).reshape(-1, n * n, n * n)
    return torch.linalg.solve(left + right, b.reshape(-1, n * n, 1)).view(-1, n, n)
