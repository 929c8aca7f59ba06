"""Error, time, traffic and share of the memory limit of the fused attention, kernel by kernel. Needs a CUDA device.

    python analysis/kernels/fused_attention.py [--atoms 10000] [--neighbors 40] [--config 24m] [--storage bfloat16]

Errors are those of float32 against the twin in float64 on the same inputs (on --check-atoms of them), relative to the
largest entry. Bytes are counted from the shapes: what the pass must read and write if no gather were served by a cache,
and, below it, what it must move if every tensor were touched once. The share is that of the first in bandwidth times
time; above 100 % of device memory means that the L2 cache serves the gathers. The bandwidth is measured by a copy.
"""

from dataclasses import dataclass

import click
import torch
from torch import Tensor
from turns import time_in_turns

from omnicalc.kernels.edge_lists import EdgeLists
from omnicalc.kernels.fused_attention import Form, Launches, available, fused_attention

CONFIGS = {  # channels, heads, width of queries, l_max, kind of weights
    "small": (32, 8, 4, 2, "softplus"),
    "24m": (256, 128, 8, 2, "softmax"),
}


@dataclass
class Problem:
    inputs: list[Tensor]
    index: Tensor
    mask: Tensor
    form: Form

    @classmethod
    def random(cls, config: str, atoms: int, neighbors: int, storage: torch.dtype | None, device: str) -> "Problem":
        """Neighbours that are near in memory, as when atoms are sorted in space; nine of ten slots are used."""
        channels, heads, width, l_max, kind = CONFIGS[config]
        generator = torch.Generator(device).manual_seed(0)

        def normal(*shape):
            return torch.randn(*shape, device=device, generator=generator)

        near = torch.randint(-500, 500, (atoms, neighbors), device=device, generator=generator)
        index = (torch.arange(atoms, device=device).unsqueeze(1) + near) % atoms
        mask = torch.rand(atoms, neighbors, device=device, generator=generator) < 0.9
        shape = (atoms, neighbors)
        inputs = [normal(atoms, heads, width), normal(atoms, heads, width), normal(atoms, (l_max + 1) ** 2, channels)]
        inputs += [normal(*shape, heads), normal(*shape, heads), torch.rand(shape, device=device, generator=generator)]
        inputs += [torch.nn.functional.normalize(normal(*shape, 3), dim=-1)]
        return cls(inputs, index, mask, Form(kind, storage=storage))

    def traffic(self) -> dict[str, tuple[float, float]]:
        """Bytes per pass: as if no gather hit a cache, and as if every tensor moved once (:mod:`triton_attention`)."""
        q, _, v = self.inputs[:3]
        (n, k), (_, heads, d), (_, rows, channels) = self.mask.shape, q.shape, v.shape
        edges, width, size = int(self.mask.sum()), self.form.width, 4 if self.form.storage is None else 2
        values, keys, moments = size * rows * channels, size * heads * d, 4 * width * rows * channels
        softmax = self.form.kind == "softmax"
        slots = n * k * heads * 4  # one number per slot and head
        target = {"edge": 24 * heads + 40 + softmax * (keys + 24 * heads), "gather": values + keys, "atom": moments}
        passes = {
            "forward": {"edge": 8 * heads + 24, "gather": values + keys, "atom": moments + 4 * heads * d},
            "backward_target": target,
            "backward_source": {"edge": 8 * heads + 28, "gather": moments + 4 * heads * d, "atom": values + keys},
            "backward_target tangent": {
                "edge": 2 * target["edge"] + softmax * (keys + 4 * heads * d + 16 * heads),
                "gather": values + keys + 4 * (rows * channels + heads * d),
                "atom": moments + 12 * heads * d,
            },
            "backward_source tangent": {
                "edge": 16 * heads + 40,
                "gather": moments + 8 * heads * d,
                "atom": 4 * (rows * channels + heads * d),
            },
            "tangent_moments": {
                "edge": 8 * heads + 32,
                "gather": values + 4 * rows * channels,
                "atom": moments,
            },
        }
        cleared = {"backward_target": 2 * slots, "backward_target tangent": 2 * slots}  # gradients set to zero first
        return {
            name: (
                edges * (p["edge"] + p["gather"]) + n * p["atom"] + cleared.get(name, 0),
                edges * p["edge"] + n * (p["gather"] + p["atom"]) + cleared.get(name, 0),
            )
            for name, p in passes.items()
        }

    def launches(self):
        """Each pass alone, as a function without arguments."""
        form, edges = self.form, EdgeLists.build(self.index, self.mask)
        call = Launches(self.inputs, edges, form)
        out, top, total = call.forward()
        grad, direction = torch.randn_like(out), [torch.randn_like(x) for x in self.inputs]
        _, weights = call.backward(grad, top, total, direction)

        def only(name, function):
            """Skips the other launches of a pass; what surrounds them is timed with it."""

            def run():
                launch = call.launch
                call.launch = lambda kernel, *a, **c: launch(kernel, *a, **c) if kernel == name else None
                try:
                    function()
                finally:
                    del call.launch

            return run

        return {
            "forward": call.forward,
            "backward_target": only("backward_target", lambda: call.backward(grad, top, total)),
            "backward_source": only("backward_source", lambda: call.backward(grad, top, total)),
            "backward_target tangent": only("backward_target", lambda: call.backward(grad, top, total, direction)),
            "backward_source tangent": only("backward_source", lambda: call.backward(grad, top, total, direction)),
            "tangent_moments": lambda: call.tangent_moments(direction, *weights),
        }


def derivatives(function, inputs: list[Tensor]) -> list[list[Tensor]]:
    """Moments, gradients and second derivatives along fixed random directions."""
    generator = torch.Generator().manual_seed(1)

    def direction(x):
        return torch.randn(x.shape, generator=generator).to(x)

    inputs = [x.detach().requires_grad_() for x in inputs]
    out = function(*inputs)
    grad = direction(out).requires_grad_()
    first = torch.autograd.grad(out, inputs, grad, create_graph=True)
    product = sum((g * direction(g)).sum() for g in first)
    second = torch.autograd.grad(product, [grad, *inputs])
    return [[out.detach()], [g.detach() for g in first], list(second)]


def errors(problem: Problem) -> list[float]:
    from omnicalc.kernels.triton_attention import twin

    edges, form = EdgeLists.build(problem.index, problem.mask), problem.form
    found = derivatives(lambda *x: fused_attention(*x, edges, form), problem.inputs)
    exact = [x.double() for x in problem.inputs]
    options = (problem.index, problem.mask, form.kind, form.first, form.zero)
    wanted = derivatives(lambda *x: twin(*x, *options), exact)
    return [max(map(_error, a, b)) for a, b in zip(found, wanted, strict=True)]


def _error(a: Tensor, b: Tensor) -> float:
    return float((a.double() - b).abs().max() / b.abs().max())


def copy_bandwidth() -> float:
    """Bytes per second that a copy of 1 GiB within device memory reads and writes."""
    a = torch.empty(1 << 28, device="cuda")
    b = torch.empty_like(a)
    return 2 * a.numel() * 4 / (1e-3 * time_in_turns({"copy": lambda: b.copy_(a)}, 10)["copy"])


@click.command(help=__doc__.split("\n")[0])
@click.option("--config", default="24m", type=click.Choice(list(CONFIGS)), show_default=True)
@click.option("--atoms", default=10_000, show_default=True)
@click.option("--check-atoms", default=500, show_default=True, help="Atoms of the comparison with the twin.")
@click.option("--neighbors", default=40, show_default=True, help="Slots per atom; nine of ten are used.")
@click.option("--storage", type=click.Choice(["bfloat16"]), help="Of keys and values. [default: float32]")
@click.option("--rounds", default=20, show_default=True)
def main(config: str, atoms: int, check_atoms: int, neighbors: int, storage: str | None, rounds: int) -> None:
    if not torch.cuda.is_available():
        raise click.ClickException("no CUDA device was found. The kernels run on a GPU; their tests run without one.")
    if not available():
        raise click.ClickException("Triton is not installed; type: pip install triton")
    dtype = torch.bfloat16 if storage else None
    values, first, second = errors(Problem.random(config, check_atoms, neighbors, dtype, "cuda"))
    problem, bandwidth = Problem.random(config, atoms, neighbors, dtype, "cuda"), copy_bandwidth()
    times, traffic = time_in_turns(problem.launches(), rounds), problem.traffic()
    click.echo(
        f"{torch.cuda.get_device_name()}, copy {bandwidth / 1e12:.2f} TB/s; {config}, {atoms} atoms, {neighbors} slots"
    )
    click.echo(f"float32 against float64: forward {values:.1e}, backward {first:.1e}, double backward {second:.1e}")
    click.echo("pass                        ms   GB gathered   GB once   share of device memory, gathered   once")
    for name, ms in times.items():
        shares = [moved / (1e-3 * ms * bandwidth) for moved in traffic[name]]
        gathered, once = (moved / 1e9 for moved in traffic[name])
        click.echo(f"{name:<24} {ms:6.3f} {gathered:11.3f} {once:11.3f} {shares[0]:26.0%} {shares[1]:12.0%}")


if __name__ == "__main__":
    main()
