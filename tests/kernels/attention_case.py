"""Inputs of the fused attention, and how far it is from its slow twin in value, first and second derivatives."""

import importlib.util
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from omnicalc.kernels.edge_lists import EdgeLists, FlatEdges
from omnicalc.kernels.fused_attention import Form, fused_attention
from omnicalc.kernels.triton_attention import twin

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
NAMES = ("q", "k", "v", "gate", "factor", "step", "unit")


@dataclass
class Case:
    inputs: list[Tensor]
    index: Tensor
    mask: Tensor
    form: Form
    edges: type[EdgeLists] | type[FlatEdges] = EdgeLists  # those of Triton's kernels, or of the native ones

    def fused(self, *inputs) -> Tensor:
        return fused_attention(*inputs, self.edges.build(self.index, self.mask), self.form)

    def twin(self, *inputs) -> Tensor:
        return twin(*inputs, self.index, self.mask, self.form.kind, self.form.first, self.form.zero)


def random_case(
    form: Form, *, l_max=1, n=3, k=3, heads=3, d=3, multiplicity=2, ties=False, dtype=torch.float64
) -> Case:
    """Ragged neighbours with holes; of several atoms one has no neighbours, and another is nobody's neighbour."""
    generator = torch.Generator().manual_seed(1)

    def normal(*shape):
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    index = torch.randint(max(1, n - 1), (n, k), generator=generator)
    mask = torch.rand(n, k, generator=generator) < 0.8
    inputs = [normal(n, heads, d), normal(n, heads, d), normal(n, (l_max + 1) ** 2, multiplicity * heads)]
    inputs += [normal(n, k, heads), normal(n, k, heads), torch.rand(n, k, dtype=torch.float64, generator=generator)]
    inputs += [torch.nn.functional.normalize(normal(n, k, 3), dim=-1)]
    if n > 1:
        mask[0] = torch.tensor([True] * k)
        mask[1] = False
    if ties:  # two images of one source at one distance: equal scores, other vectors
        inputs[3] = inputs[3].abs() + 1
        for x in (index, mask, inputs[3]):
            x[0, 1:] = x[0, :1]
    inputs = [x.to(DEVICE, dtype).requires_grad_() for x in inputs]
    return Case(inputs, index.to(DEVICE), mask.to(DEVICE), form)


def errors(case: Case) -> list[float]:
    """Largest difference from the twin relative to the largest entry: moments, gradients, second derivatives."""
    fused, slow = _derivatives(case.fused, case.inputs), _derivatives(case.twin, case.inputs)
    return [max(map(_difference, a, b)) for a, b in zip(fused, slow, strict=True)]


def _derivatives(function, inputs) -> tuple[list[Tensor], ...]:
    out = function(*inputs)
    generator = torch.Generator().manual_seed(2)

    def direction(x):
        return torch.randn(x.shape, dtype=torch.float64, generator=generator).to(x.device, x.dtype)

    grad = direction(out).requires_grad_()
    first = _gradients(out, inputs, grad)
    product = sum((g * direction(g)).sum() for g in first)
    second = _gradients(product, [grad, *inputs], None) if product.requires_grad else []
    return [out], first, second


def _gradients(out, inputs, grad) -> list[Tensor]:
    found = torch.autograd.grad(out, inputs, grad, create_graph=True, allow_unused=True)
    return [torch.zeros_like(x) if g is None else g for g, x in zip(found, inputs, strict=True)]


def _difference(a: Tensor, b: Tensor) -> float:
    assert a.shape == b.shape and a.dtype == b.dtype
    if a.numel() == 0:
        return 0.0
    assert a.isfinite().all()
    a, b = a.detach(), b.detach()
    return float((a - b).abs().max() / b.abs().max().clamp(min=1.0))


def changed_copy(module, folder, old: str, new: str):
    """The module with one piece of its text, which must occur exactly once, replaced."""
    text = Path(module.__file__).read_text()
    assert text.count(old) == 1, f"{text.count(old)} times in {module.__name__}: {old}"
    path = folder / "changed.py"
    path.write_text(text.replace(old, new))
    spec = importlib.util.spec_from_file_location("changed", path)
    copy = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(copy)
    return copy
